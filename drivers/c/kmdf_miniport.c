/*
 * kmdf_miniport.sys: a miniport driver that uses KMDF, of the version KMDF_MINOR, and plays its port driver too: requests come to routines of its own, for a
 * device that it has made without the framework, \\.\KmdfMiniport. IOCTL_MINIPORT_COUNT counts, in the context of a framework object and under a
 * framework lock; both belong to the driver's object, which WdfDriverMiniportUnload deletes. With FORGETS it is unloaded without that, which is wrong:
 * they go when it is unbound.
 *
 * It has no device of WdfDeviceMiniportCreate.
 *
 * Pages: Creating KMDF Miniport Drivers, WdfDriverMiniportUnload, MiniportOnlyWdmDevice rule (kmdf).
 */
#include <ddk/wdm.h>

#include "control.h"
#include "framework/client.h"

/* Output: a ULONG, how often it was asked. */
#define IOCTL_MINIPORT_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _COUNT {
    ULONG Value;
} COUNT;

CONTEXT_TYPE(COUNT, CountOf)

static WDFOBJECT Counter;
static WDFSPINLOCK Lock;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_MINIPORT_COUNT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    CALL(WdfSpinLockAcquire, Lock);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = ++CountOf(Counter)->Value;
    CALL(WdfSpinLockRelease, Lock);
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID OnCleanup(WDFOBJECT Object)
{
    DbgPrint("miniport: counted to %u\n", CountOf(Object)->Value);
}

static VOID OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DbgPrint("miniport: EvtDriverUnload\n");
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ControlUnload(Driver);
#ifndef FORGETS
    CALL(WdfDriverMiniportUnload, WdfDriverGlobals->Driver);
#endif
    DbgPrint("miniport: unloaded\n");
}

static NTSTATUS CreateObjects(VOID)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    NTSTATUS Status;

    InitializeAttributes(&Attributes, &TypeOfCOUNT, NULL);
    Attributes.EvtCleanupCallback = OnCleanup;
    Status = CALL(WdfObjectCreate, &Attributes, &Counter);
    return NT_SUCCESS(Status) ? CALL(WdfSpinLockCreate, NULL, &Lock) : Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\KmdfMiniport");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\KmdfMiniport");
    WDF_DRIVER_CONFIG Config;
    NTSTATUS Status;

    INITIALIZE(WDF_DRIVER_CONFIG, &Config);
    Config.DriverInitFlags = WdfDriverInitNoDispatchOverride;
    Config.EvtDriverUnload = OnUnload;
    Status = CALL(WdfDriverCreate, Driver, RegistryPath, NULL, &Config, NULL);
    if (NT_SUCCESS(Status)) {
        Status = CreateObjects();
    }
    if (NT_SUCCESS(Status)) {
        Status = ControlStart(Driver, &Name, &Link, DispatchControl);
    }
    if (NT_SUCCESS(Status)) {
        Driver->DriverUnload = Unload;
    }
    return Status;
}
