/*
 * A virtual equaliser with 10 bands, set by IOCTL_BAND_SET.
 *
 * The bug: a request with a band that does not exist is completed without releasing the remove lock: the removal waits for it for ever. It shows with such
 * a request, when the device is removed.
 *
 * Device: Root\VirtualEqualiser
 * Rule: stuck, deadlock
 * Needs: ioctl
 */
#include "../include/function.h"

#define BANDS 10
#define IOCTL_BAND_SET CTL_CODE(FILE_DEVICE_SOUND, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _BAND {
    ULONG Index;
    LONG Level;
} BAND, *PBAND;

typedef struct _DEVICE {
    FDO Fdo;
    LONG Levels[BANDS];
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a006);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PBAND Band = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = IoAcquireRemoveLock(&Own->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    if (CodeOf(Stack) != IOCTL_BAND_SET || InputOf(Stack) < sizeof(BAND)) {
        Status = Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        IoReleaseRemoveLock(&Own->Fdo.RemoveLock, Irp);
        return Status;
    }
    if (Band->Index >= BANDS) {
        Status = Complete(Irp, STATUS_INVALID_PARAMETER, 0);
#ifdef FIXED
        IoReleaseRemoveLock(&Own->Fdo.RemoveLock, Irp);
#endif
        return Status;
    }
    Own->Levels[Band->Index] = Band->Level;
    Status = Complete(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&Own->Fdo.RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
