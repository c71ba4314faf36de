/*
 * A virtual fan whose speed is written and read.
 *
 * The bug: the device object is deleted at its removal and never detached from the stack. It shows when the device is removed.
 *
 * Device: Root\VirtualFan
 * Rule: device-not-detached
 * Needs: nothing
 */
#include "../include/function.h"

typedef struct _DEVICE {
    FDO Fdo;
    UCHAR Speed;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a005);
static const HOOKS Hooks = {0};

static NTSTATUS Remove(PFDO Fdo, PIRP Irp)
{
    PDEVICE_OBJECT Lower = Fdo->Lower;
    NTSTATUS Status;

    if (!NT_SUCCESS(IoAcquireRemoveLock(&Fdo->RemoveLock, Irp))) {
        return Complete(Irp, STATUS_DELETE_PENDING, 0);
    }
    FdoStop(Fdo, TRUE);
    IoSetDeviceInterfaceState(&Fdo->Interface, FALSE);
    IoReleaseRemoveLockAndWait(&Fdo->RemoveLock, Irp);
    RtlFreeUnicodeString(&Fdo->Interface);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = FdoPassOn(Fdo, Irp);
#ifdef FIXED
    IoDetachDevice(Lower);
#else
    UNREFERENCED_PARAMETER(Lower);
#endif
    IoDeleteDevice(Fdo->Self);
    return Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_REMOVE_DEVICE) {
        return Remove(Device->DeviceExtension, Irp);
    }
    return FdoPnp(Device, Irp);
}

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp); /* reads and writes have their lengths at the same place */
    PUCHAR Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (Stack->Parameters.Read.Length == 0) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 0);
    }
    if (Stack->MajorFunction == IRP_MJ_READ) {
        *Buffer = Own->Speed;
    } else {
        Own->Speed = *Buffer;
    }
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 1);
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
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    return STATUS_SUCCESS;
}
