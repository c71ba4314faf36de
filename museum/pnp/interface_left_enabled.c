/*
 * A virtual compass.
 *
 * The bug: its interface stays enabled when the device has gone without notice, and its string is freed: applications find a device that is not there. It shows with a
 * surprise removal.
 *
 * Device: Root\VirtualCompass
 * Rule: interface-still-enabled
 * Needs: removal
 */
#include "../include/function.h"

typedef struct _DEVICE {
    FDO Fdo;
    LONG Heading;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a017);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PFDO Fdo = Device->DeviceExtension;
    PDEVICE_OBJECT Lower = Fdo->Lower;
    NTSTATUS Status;

    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_SURPRISE_REMOVAL:
        FdoStop(Fdo, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return FdoPassOn(Fdo, Irp);
    case IRP_MN_REMOVE_DEVICE:
        if (!NT_SUCCESS(IoAcquireRemoveLock(&Fdo->RemoveLock, Irp))) {
            return Complete(Irp, STATUS_DELETE_PENDING, 0);
        }
        FdoStop(Fdo, TRUE);
        IoReleaseRemoveLockAndWait(&Fdo->RemoveLock, Irp);
        RtlFreeUnicodeString(&Fdo->Interface);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = FdoPassOn(Fdo, Irp);
        IoDetachDevice(Lower);
        IoDeleteDevice(Device);
        return Status;
    }
#endif
    return FdoPnp(Device, Irp);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(LONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Own->Heading;
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
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    return STATUS_SUCCESS;
}
