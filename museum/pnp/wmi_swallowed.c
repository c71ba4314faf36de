/*
 * A virtual amplifier, its gain set by a control code.
 *
 * The bug: IRP_MJ_SYSTEM_CONTROL, which is for the drivers below that have blocks of data, is completed by the driver with STATUS_INVALID_DEVICE_REQUEST. It
 * shows when a WMI request comes through the stack.
 *
 * Device: Root\VirtualAmplifier
 * Rule: wmi-request-not-forwarded
 * Needs: nothing
 */
#include "../include/function.h"

#define IOCTL_AMPLIFIER_GAIN CTL_CODE(FILE_DEVICE_SOUND, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    LONG Gain;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a009);
static const HOOKS Hooks = {0};

#ifndef FIXED
static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}
#endif

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_AMPLIFIER_GAIN) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(LONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Own->Gain = *(PLONG)Irp->AssociatedIrp.SystemBuffer;
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
#ifndef FIXED
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
#endif
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
