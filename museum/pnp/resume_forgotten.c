/*
 * A virtual plotter whose jobs wait while the device is about to be stopped.
 *
 * The bug: IRP_MN_CANCEL_STOP_DEVICE does not let the plotter go on: jobs that come from then on wait for ever. It shows with a job after a stop that was
 * asked for and taken back.
 *
 * Device: Root\VirtualPlotter
 * Rule: stuck, deadlock, irp-never-completed
 * Needs: removal, ioctl
 */
#include "../include/function.h"

#define IOCTL_PLOTTER_JOB CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA10, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    KEVENT Runs; /* set unless a stop is pending */
    LONG Jobs;
} DEVICE, *PDEVICE;

static NTSTATUS Add(PFDO Fdo)
{
    KeInitializeEvent(&((PDEVICE)Fdo)->Runs, NotificationEvent, TRUE);
    return STATUS_SUCCESS;
}

static const GUID FdoInterface = FDO_GUID(0x10c3a00e);
static const HOOKS Hooks = {.Add = Add};

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_QUERY_STOP_DEVICE:
        KeClearEvent(&Own->Runs);
        break;
    case IRP_MN_STOP_DEVICE: /* those that wait are refused */
    case IRP_MN_SURPRISE_REMOVAL:
    case IRP_MN_REMOVE_DEVICE:
#ifdef FIXED
    case IRP_MN_CANCEL_STOP_DEVICE:
#endif
        KeSetEvent(&Own->Runs, IO_NO_INCREMENT, FALSE);
        break;
    }
    return FdoPnp(Device, Irp);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Own->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_PLOTTER_JOB) {
        Status = STATUS_INVALID_DEVICE_REQUEST;
    } else {
        KeWaitForSingleObject(&Own->Runs, Executive, KernelMode, FALSE, NULL);
        if (ExAcquireRundownProtection(&Own->Fdo.Gate)) {
            InterlockedIncrement(&Own->Jobs);
            ExReleaseRundownProtection(&Own->Fdo.Gate);
        } else {
            Status = STATUS_DEVICE_NOT_READY;
        }
    }
    FdoEndPended(&Own->Fdo, Irp, Status, 0);
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
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
