/*
 * A waiting room of eight seats: IOCTL_ROOM_WAIT waits for IOCTL_ROOM_CALL, in a cancel-safe queue whose insert routine refuses the ninth.
 *
 * The bug: the dispatch routine returns STATUS_PENDING whatever IoCsqInsertIrpEx says: a request that the queue refuses is neither marked nor queued, and
 * never ends.
 *
 * Device: none
 * Rule: pending-not-marked, irp-never-completed, stuck
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\WaitingRoom"
#define LINK_NAME L"\\DosDevices\\WaitingRoom"
#include "../include/irp_queue.h"
#include "../include/legacy.h"

#define IOCTL_ROOM_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROOM_CALL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define SEATS 8

typedef struct _ROOM {
    IRP_QUEUE Queue;
    ULONG Taken; /* under the queue's lock */
} ROOM, *PROOM;

static NTSTATUS NTAPI RoomInsertIrp(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PROOM Room = CONTAINING_RECORD(Csq, ROOM, Queue.Csq);

    UNREFERENCED_PARAMETER(Context);
    if (Room->Taken == SEATS) {
        return STATUS_DEVICE_BUSY;
    }
    Room->Taken++;
    QueueInsertIrp(Csq, Irp);
    return STATUS_SUCCESS;
}

static VOID NTAPI RoomRemoveIrp(PIO_CSQ Csq, PIRP Irp)
{
    CONTAINING_RECORD(Csq, ROOM, Queue.Csq)->Taken--;
    QueueRemoveIrp(Csq, Irp);
}

static VOID RoomEnded(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Queue);
    Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PROOM Room = Device->DeviceExtension;
    NTSTATUS Status;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_ROOM_WAIT:
        Status = IoCsqInsertIrpEx(&Room->Queue.Csq, Irp, NULL, NULL);
#ifdef FIXED
        if (!NT_SUCCESS(Status)) {
            return Complete(Irp, Status, 0);
        }
#else
        UNREFERENCED_PARAMETER(Status);
#endif
        return STATUS_PENDING;
    case IOCTL_ROOM_CALL:
        QueueFlush(&Room->Queue, NULL, STATUS_SUCCESS);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    QueueFlush(&((PROOM)Device->DeviceExtension)->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(ROOM), DO_BUFFERED_IO, &Device);
    PROOM Room;

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Room = Device->DeviceExtension;
    QueueInitialize(&Room->Queue, RoomEnded);
    IoCsqInitializeEx(&Room->Queue.Csq, RoomInsertIrp, RoomRemoveIrp, QueuePeekNextIrp, QueueAcquireLock, QueueReleaseLock,
                      QueueCompleteCanceled);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
