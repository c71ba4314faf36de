/*
 * A virtual gauge, read by applications.
 *
 * The bug: the driver fails IRP_MN_STOP_DEVICE with STATUS_NOT_SUPPORTED, although it has stopped: a stop must not fail. It shows when the
 * device is stopped.
 *
 * Device: Root\VirtualGauge
 * Rule: pnp-request-failed
 * Needs: removal
 */
#include "../include/function.h"

typedef struct _DEVICE {
    FDO Fdo;
    LONG64 Level;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a012);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PFDO Fdo = Device->DeviceExtension;
    NTSTATUS Status;

    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_STOP_DEVICE) {
        FdoStop(Fdo, TRUE);
        Status = FdoForwardAndWait(Fdo, Irp);
        Status = NT_SUCCESS(Status) ? STATUS_NOT_SUPPORTED : Status;
        return Complete(Irp, Status, 0);
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
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(LONG64)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG64)Irp->AssociatedIrp.SystemBuffer = Own->Level;
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(LONG64));
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
