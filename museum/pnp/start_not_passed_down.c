/*
 * A virtual dial: IOCTL_DIAL_TURN turns it, IOCTL_DIAL_READ answers where it stands.
 *
 * The bug: the driver has nothing to do when its device is started, completes IRP_MN_START_DEVICE itself, and never passes it down. It shows when the
 * device is started.
 *
 * Device: Root\VirtualDial
 * Rule: pnp-request-not-passed-down
 * Needs: nothing
 */
#include "../include/function.h"

#define IOCTL_DIAL_TURN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DIAL_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    LONG Angle;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a001);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PFDO Fdo = Device->DeviceExtension;

    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_START_DEVICE) {
        Fdo->Started = TRUE;
        Fdo->Powered = TRUE;
        ExReInitializeRundownProtection(&Fdo->Gate);
        IoSetDeviceInterfaceState(&Fdo->Interface, TRUE);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
#endif
    return FdoPnp(Device, Irp);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PLONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    switch (CodeOf(Stack)) {
    case IOCTL_DIAL_TURN:
        if (InputOf(Stack) < sizeof(LONG)) {
            return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
        }
        InterlockedExchangeAdd(&Own->Angle, *Buffer);
        return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 0);
    case IOCTL_DIAL_READ:
        if (OutputOf(Stack) < sizeof(LONG)) {
            return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *Buffer = Own->Angle;
        return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(LONG));
    }
    return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
