/*
 * A mailbox of one message: reads take it out or wait in a queue, writes put it in and serve a read that waits.
 *
 * The bug: the read that finds a message has been marked pending already when it is completed at once, and the routine returns its final status and
 * not STATUS_PENDING. It shows with a read after a write.
 *
 * Device: none
 * Rule: pending-marked
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Mailbox"
#define LINK_NAME L"\\DosDevices\\Mailbox"
#include "../include/legacy.h"
#include "../include/irp_queue.h"

#define IOCTL_MAILBOX_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MAILBOX_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _DEVICE {
    IRP_QUEUE Readers;
    KSPIN_LOCK Lock;
    BOOLEAN Full;
    ULONG Message;
} DEVICE, *PDEVICE;

static VOID Ended(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Queue);
    Complete(Irp, Status, 0);
}

static VOID Deliver(PIRP Irp, ULONG Message)
{
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Message;
    Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS Put(PDEVICE Box, PIRP Irp)
{
    ULONG Message = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = STATUS_SUCCESS;
    PIRP Reader;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Box->Lock, &OldIrql);
    Reader = QueueTake(&Box->Readers);
    if (Reader == NULL && Box->Full) {
        Status = STATUS_DEVICE_BUSY;
    } else if (Reader == NULL) {
        Box->Full = TRUE;
        Box->Message = Message;
    }
    KeReleaseSpinLock(&Box->Lock, OldIrql);
    if (Reader != NULL) {
        Deliver(Reader, Message);
    }
    return Complete(Irp, Status, 0);
}

static NTSTATUS Take(PDEVICE Box, PIRP Irp)
{
    ULONG Message;
    BOOLEAN Full;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Box->Lock, &OldIrql);
    Full = Box->Full;
    Message = Box->Message;
    Box->Full = FALSE;
    if (!Full) {
        IoCsqInsertIrp(&Box->Readers.Csq, Irp, NULL); /* marks it */
    }
    KeReleaseSpinLock(&Box->Lock, OldIrql);
    if (!Full) {
        return STATUS_PENDING;
    }
#ifdef FIXED
    Deliver(Irp, Message);
    return STATUS_SUCCESS;
#else
    IoMarkIrpPending(Irp);
    Deliver(Irp, Message);
    return STATUS_SUCCESS;
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (CodeOf(Stack)) {
    case IOCTL_MAILBOX_PUT:
        return InputOf(Stack) < sizeof(ULONG) ? Complete(Irp, STATUS_INVALID_PARAMETER, 0) : Put(Device->DeviceExtension, Irp);
    case IOCTL_MAILBOX_TAKE:
        return OutputOf(Stack) < sizeof(ULONG) ? Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0) : Take(Device->DeviceExtension, Irp);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Box = Device->DeviceExtension;

    QueueFlush(&Box->Readers, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Box;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Box = Device->DeviceExtension;
    KeInitializeSpinLock(&Box->Lock);
    QueueInitialize(&Box->Readers, Ended);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
