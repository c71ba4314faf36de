/*
 * bulletin: a bulletin board. Readers wait (asynchronously, without limit) for the next bulletin on a topic; a program that posts one ends all of them with
 * its text.
 *
 * The bug: the poster walks the list of waiting readers and lets go of the lock to complete each, going on with the successor it remembered. That
 * one may have been cancelled meanwhile: its request is freed memory by then, and the walk goes through it.
 *
 * Device: ROOT\BULLETIN
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define LONGEST_TEXT 256u

#define IOCTL_BULLETIN_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS) /* in: topic (ULONG); out: text */
#define IOCTL_BULLETIN_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: topic (ULONG), text */
#define IOCTL_BULLETIN_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS) /* out: readers waiting (ULONG) */

DRIVER_INITIALIZE DriverEntry;

/* {5C1B0C62-7A1E-4B0B-9F6E-2E3A1D5C8B01} */
static const GUID BulletinGuid = {0x5c1b0c62, 0x7a1e, 0x4b0b, {0x9f, 0x6e, 0x2e, 0x3a, 0x1d, 0x5c, 0x8b, 0x01}};

typedef struct _BOARD {
    XF X;
    KSPIN_LOCK Lock; /* guards the rest */
    LIST_ENTRY Readers;
    ULONG Count;
    BOOLEAN Closed;
} BOARD, *PBOARD;

/* what a waiting request keeps in itself */
#define TOPIC(Irp) ((Irp)->Tail.Overlay.DriverContext[0])
#define ENTRY_IRP(e) CONTAINING_RECORD((e), IRP, Tail.Overlay.ListEntry)

static VOID NTAPI ReaderCancelled(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBOARD b = Device->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&b->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    b->Count--;
    KeReleaseSpinLock(&b->Lock, Irql);
    XfComplete(Irp, STATUS_CANCELLED, 0);
    XfLeave(&b->X);
}

/* Ends a reader that has been taken off the list. */
static VOID Deliver(PBOARD b, PIRP Irp, const UCHAR *Text, ULONG Length)
{
    ULONG Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength;

    if (Length > Room) {
        XfComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    } else {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Text, Length);
        XfComplete(Irp, STATUS_SUCCESS, Length);
    }
    XfLeave(&b->X);
}

/* Takes a reader off the list, unless it is being cancelled (its cancel routine does it then). The lock is held. */
static BOOLEAN TakeOff(PBOARD b, PIRP Irp)
{
    if (IoSetCancelRoutine(Irp, NULL) == NULL)
        return FALSE;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    b->Count--;
    return TRUE;
}

static NTSTATUS Post(PBOARD b, ULONG Topic, const UCHAR *Text, ULONG Length)
{
    PLIST_ENTRY e, Next;
    PIRP Reader;
    KIRQL Irql;
#ifdef FIXED
    LIST_ENTRY Ready;

    InitializeListHead(&Ready);
#endif
    KeAcquireSpinLock(&b->Lock, &Irql);
    for (e = b->Readers.Flink; e != &b->Readers; e = Next) {
        Next = e->Flink;
        Reader = ENTRY_IRP(e);
        if ((ULONG)(ULONG_PTR)TOPIC(Reader) != Topic || !TakeOff(b, Reader))
            continue;
#ifdef FIXED
        InsertTailList(&Ready, e);
#else
        KeReleaseSpinLock(&b->Lock, Irql);
        Deliver(b, Reader, Text, Length);
        KeAcquireSpinLock(&b->Lock, &Irql);
#endif
    }
    KeReleaseSpinLock(&b->Lock, Irql);
#ifdef FIXED
    while (!IsListEmpty(&Ready))
        Deliver(b, ENTRY_IRP(RemoveHeadList(&Ready)), Text, Length);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS Await(PBOARD b, PIRP Irp, ULONG Topic)
{
    NTSTATUS Status = XfEnter(&b->X);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return Status;
    TOPIC(Irp) = (PVOID)(ULONG_PTR)Topic;
    IoMarkIrpPending(Irp);
    Status = STATUS_PENDING;
    KeAcquireSpinLock(&b->Lock, &Irql);
    if (b->Closed) {
        Status = STATUS_NO_SUCH_DEVICE;
    } else {
        IoSetCancelRoutine(Irp, ReaderCancelled);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        } else {
            InsertTailList(&b->Readers, &Irp->Tail.Overlay.ListEntry);
            b->Count++;
        }
    }
    KeReleaseSpinLock(&b->Lock, Irql);
    if (Status != STATUS_PENDING) {
        XfComplete(Irp, Status, 0);
        XfLeave(&b->X);
    }
    return XF_TAKEN;
}

/* Ends all waiting requests of a file, or all of all. */
static VOID EndReaders(PBOARD b, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY Ready;
    PLIST_ENTRY e, Next;
    PIRP Irp;
    KIRQL Irql;

    InitializeListHead(&Ready);
    KeAcquireSpinLock(&b->Lock, &Irql);
    for (e = b->Readers.Flink; e != &b->Readers; e = Next) {
        Next = e->Flink;
        Irp = ENTRY_IRP(e);
        if ((File == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == File) && TakeOff(b, Irp))
            InsertTailList(&Ready, e);
    }
    KeReleaseSpinLock(&b->Lock, Irql);
    while (!IsListEmpty(&Ready)) {
        XfComplete(ENTRY_IRP(RemoveHeadList(&Ready)), Status, 0);
        XfLeave(&b->X);
    }
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PBOARD b = CONTAINING_RECORD(x, BOARD, X);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = s->Parameters.DeviceIoControl.InputBufferLength;
    PUCHAR Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Value;
    KIRQL Irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BULLETIN_AWAIT:
        if (In < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        RtlCopyMemory(&Value, Buffer, sizeof(ULONG));
        return Await(b, Irp, Value);
    case IOCTL_BULLETIN_POST:
        if (In < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (In - sizeof(ULONG) > LONGEST_TEXT)
            return STATUS_INVALID_BUFFER_SIZE;
        RtlCopyMemory(&Value, Buffer, sizeof(ULONG));
        return Post(b, Value, Buffer + sizeof(ULONG), In - sizeof(ULONG));
    case IOCTL_BULLETIN_COUNT:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&b->Lock, &Irql);
        Value = b->Count;
        KeReleaseSpinLock(&b->Lock, Irql);
        RtlCopyMemory(Buffer, &Value, sizeof(ULONG));
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

/* Nothing goes through the queue. */
static VOID DevIo(PXF x, PIRP Irp)
{
    XfFinish(x, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS DevInit(PXF x)
{
    PBOARD b = CONTAINING_RECORD(x, BOARD, X);

    KeInitializeSpinLock(&b->Lock);
    InitializeListHead(&b->Readers);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

/* There is no hardware: readers may wait and posts be made in any state. */
static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(List);
    return STATUS_SUCCESS;
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Alive);
}

static VOID DevUp(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevDown(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevGone(PXF x)
{
    PBOARD b = CONTAINING_RECORD(x, BOARD, X);
    KIRQL Irql;

    KeAcquireSpinLock(&b->Lock, &Irql);
    b->Closed = TRUE;
    KeReleaseSpinLock(&b->Lock, Irql);
    EndReaders(b, NULL, STATUS_NO_SUCH_DEVICE);
}

static NTSTATUS NTAPI BoardCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBOARD b = Device->DeviceExtension;

    KeEnterCriticalRegion();
    if (NT_SUCCESS(XfEnter(&b->X))) {
        EndReaders(b, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
        XfLeave(&b->X);
    }
    KeLeaveCriticalRegion();
    return XfDispatchCleanup(Device, Irp);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(BOARD), &BulletinGuid, DO_BUFFERED_IO);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BoardCleanup;
    return STATUS_SUCCESS;
}
