/*
 * A virtual bell push.
 *
 * The bug: at its removal the device is detached and deleted before the request is passed down: its stack location names a device that is gone. It shows when the
 * device is removed.
 *
 * Device: Root\VirtualBellPush
 * Rule: irp-to-no-device, use-after-free, device-not-attached, deleted-before-passed-down
 * Needs: nothing
 */
#include "../include/function.h"

typedef struct _DEVICE {
    FDO Fdo;
    LONG Rings;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a015);
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
    IoSkipCurrentIrpStackLocation(Irp);
#ifdef FIXED
    Status = IoCallDriver(Lower, Irp);
    IoDetachDevice(Lower);
    IoDeleteDevice(Fdo->Self);
#else
    IoDetachDevice(Lower);
    IoDeleteDevice(Fdo->Self);
    Status = IoCallDriver(Lower, Irp);
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

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    InterlockedIncrement(&Own->Rings);
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length);
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
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    return STATUS_SUCCESS;
}
