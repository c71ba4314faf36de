/*
 * lost_local.sys: a thread and a DPC of the second processor increment a variable on the thread's stack, with nothing that keeps them apart and
 * nothing that others see between load and store. An increment between another one's load and its store is lost. One device, \\.\DirqlLostLocal.
 */
#include <ddk/wdm.h>

#include "../control.h"

/* Output: ULONG, how many of two increments were lost. */
#define IOCTL_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlLostLocal");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlLostLocal");
static KDPC Dpc;

static VOID NTAPI AddDpc(PKDPC Own, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    volatile LONG *Count = Context;

    UNREFERENCED_PARAMETER(Own);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    *Count = *Count + 1;
}

static LONG Lost(VOID)
{
    volatile LONG Count = 0;

    KeInitializeDpc(&Dpc, AddDpc, (PVOID)&Count);
    KeSetTargetProcessorDpc(&Dpc, 1);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    Count = Count + 1;
    KeFlushQueuedDpcs();
    return 2 - Count;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_ADD ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Lost();
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchControl);
}
