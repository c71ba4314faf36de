/*
 * A virtual heater on no bus.
 *
 * The bug: the dispatch routine for power takes the remove lock for each request and does not release it for those that it passes on without a completion
 * routine. It shows when the device is removed after a change of state.
 *
 * Device: Root\VirtualHeater
 * Rule: stuck, deadlock
 * Needs: power
 */
#include "../include/function.h"

typedef struct _DEVICE {
    FDO Fdo;
    LONG Degrees;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a014);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO Fdo = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Fdo->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, Status, 0);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Fdo->Lower, Irp);
#ifdef FIXED
    IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
#endif
    return Status;
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (Length != 0) {
        Own->Degrees = *(PUCHAR)Irp->AssociatedIrp.SystemBuffer;
    }
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    return STATUS_SUCCESS;
}
