/*
 * A virtual barrier: IOCTL_BARRIER_WAIT waits until IOCTL_BARRIER_OPEN opens it.
 *
 * The bug: requests that wait stay in the queue when the device has gone, where nothing will ever open the barrier: an application that waits for
 * one keeps its handle, and the device is never removed. It shows with a request that waits while the device goes without notice.
 *
 * Device: Root\VirtualBarrier
 * Rule: request-pending-after-remove, irp-never-completed, stuck, request-pending-after-surprise-removal
 * Needs: removal
 */
#include "../include/function.h"
#include "../include/irp_queue.h"

#define IOCTL_BARRIER_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BARRIER_OPEN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    IRP_QUEUE Waiters;
} DEVICE, *PDEVICE;

static VOID Ended(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    FdoEndPended(&CONTAINING_RECORD(Queue, DEVICE, Waiters)->Fdo, Irp, Status, 0);
}

static NTSTATUS Add(PFDO Fdo)
{
    QueueInitialize(&((PDEVICE)Fdo)->Waiters, Ended);
    return STATUS_SUCCESS;
}

static VOID Flush(PFDO Fdo)
{
#ifdef FIXED
    QueueFlush(&((PDEVICE)Fdo)->Waiters, NULL, STATUS_DEVICE_NOT_READY);
#else
    UNREFERENCED_PARAMETER(Fdo);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3a00a);
static const HOOKS Hooks = {.Add = Add, .Flush = Flush};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_BARRIER_WAIT:
        IoCsqInsertIrp(&Own->Waiters.Csq, Irp, NULL);
        return FdoPend(&Own->Fdo);
    case IOCTL_BARRIER_OPEN:
        QueueFlush(&Own->Waiters, NULL, STATUS_SUCCESS);
        return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 0);
    }
    return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    QueueFlush(&Own->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
