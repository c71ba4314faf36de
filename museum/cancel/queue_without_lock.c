/*
 * A queue of tickets (IoCsq): IOCTL_TICKET_WAIT waits in it, IOCTL_TICKET_NEXT ends the first one.
 *
 * The bug: the queue's routines for its lock do nothing: two requests at a time, or a cancellation, corrupt the list. It shows with a schedule.
 *
 * Device: none
 * Rule: list-corrupt, use-after-free, irp-never-completed, double-completion, stuck, wild-write, fast-fail, bad-pointer
 * Needs: ioctl, cancel, schedule
 */
#define DEVICE_NAME L"\\Device\\Tickets"
#define LINK_NAME L"\\DosDevices\\Tickets"
#include "../include/irp_queue.h"
#include "../include/legacy.h"

#define IOCTL_TICKET_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D8, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TICKET_NEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D9, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    IRP_QUEUE Tickets;
} DEVICE, *PDEVICE;

#ifdef FIXED
#define ACQUIRE QueueAcquireLock
#define RELEASE QueueReleaseLock
#else
static VOID NTAPI NoLock(PIO_CSQ Csq, PKIRQL Irql)
{
    UNREFERENCED_PARAMETER(Csq);
    *Irql = KeGetCurrentIrql();
}

static VOID NTAPI NoUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Irql);
}

#define ACQUIRE NoLock
#define RELEASE NoUnlock
#endif

static VOID Ended(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Queue);
    Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIRP First;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_TICKET_WAIT:
        IoCsqInsertIrp(&Own->Tickets.Csq, Irp, NULL);
        return STATUS_PENDING;
    case IOCTL_TICKET_NEXT:
        First = QueueTake(&Own->Tickets);
        if (First != NULL) {
            Complete(First, STATUS_SUCCESS, 0);
        }
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    QueueFlush(&Own->Tickets, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PIRP_QUEUE Queue;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Queue = &((PDEVICE)Device->DeviceExtension)->Tickets;
    QueueInitialize(Queue, Ended);
    IoCsqInitialize(&Queue->Csq, QueueInsertIrp, QueueRemoveIrp, QueuePeekNextIrp, ACQUIRE, RELEASE, QueueCompleteCanceled);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
