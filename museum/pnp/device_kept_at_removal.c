/*
 * A virtual barometer.
 *
 * The bug: at its removal the device is detached, and its device object is never deleted. It shows when the device is removed.
 *
 * Device: Root\VirtualBarometer
 * Rule: device-not-deleted, device-leak
 * Needs: nothing
 */
#include "../include/function.h"

typedef struct _DEVICE {
    FDO Fdo;
    LONG Pressure;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a016);
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
    IoDetachDevice(Lower);
#ifdef FIXED
    IoDeleteDevice(Fdo->Self);
#endif
    return Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_REMOVE_DEVICE) {
        return Remove(Device->DeviceExtension, Irp);
    }
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
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Own->Pressure;
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
