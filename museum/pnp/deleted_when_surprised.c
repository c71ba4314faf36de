/*
 * A virtual thermometer with an own history of 8 values.
 *
 * The bug: when the device has gone without notice, the driver detaches and deletes its device object at once, and does not wait for
 * IRP_MN_REMOVE_DEVICE. It shows with a surprise removal.
 *
 * Device: Root\VirtualThermometer
 * Rule: deleted-in-surprise-removal, detached-in-surprise-removal, use-after-free
 * Needs: removal
 */
#include "../include/function.h"

#define IOCTL_THERMOMETER_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    ULONG Count;
    LONG History[8];
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a004);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PFDO Fdo = Device->DeviceExtension;

    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_SURPRISE_REMOVAL) {
        if (NT_SUCCESS(IoAcquireRemoveLock(&Fdo->RemoveLock, Irp))) {
            return FdoRemove(Fdo, Irp);
        }
    }
#endif
    return FdoPnp(Device, Irp);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_THERMOMETER_READ) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(LONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Own->History[Own->Count % 8];
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(LONG));
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
