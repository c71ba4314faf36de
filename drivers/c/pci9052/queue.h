/*
 * A cancel-safe queue of requests, first come first served: the routines of IoCsqInitializeEx. Page: Cancel-Safe IRP Queues. A request that
 * is cancelled leaves by itself, and releases the remove lock that is held for it.
 */
#ifndef PCI9052_QUEUE_H
#define PCI9052_QUEUE_H

#include <ddk/csq.h>

typedef struct _QUEUE {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    ULONG Length, Most;
} QUEUE, *PQUEUE;

/* Where a request is put: IoCsqInsertIrpEx's context. */
#define AT_THE_END NULL
#define AT_THE_FRONT ((PVOID)1)

static VOID CompleteCancelled(PIRP Irp);

static NTSTATUS NTAPI QueueInsert(PIO_CSQ Csq, PIRP Irp, PVOID Where)
{
    PQUEUE Queue = CONTAINING_RECORD(Csq, QUEUE, Csq);

    if (Queue->Length >= Queue->Most) {
        return STATUS_DEVICE_BUSY;
    }
    Queue->Length++;
    if (Where == AT_THE_FRONT) {
        InsertHeadList(&Queue->List, &Irp->Tail.Overlay.ListEntry);
    } else {
        InsertTailList(&Queue->List, &Irp->Tail.Overlay.ListEntry);
    }
    return STATUS_SUCCESS;
}

static VOID NTAPI QueueRemove(PIO_CSQ Csq, PIRP Irp)
{
    CONTAINING_RECORD(Csq, QUEUE, Csq)->Length--;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* The first request behind Irp, or at all, of this file, or of any. */
static PIRP NTAPI QueuePeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PQUEUE Queue = CONTAINING_RECORD(Csq, QUEUE, Csq);
    PLIST_ENTRY Entry = Irp == NULL ? Queue->List.Flink : Irp->Tail.Overlay.ListEntry.Flink;

    for (; Entry != &Queue->List; Entry = Entry->Flink) {
        PIRP Next = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);

        if (File == NULL || IoGetCurrentIrpStackLocation(Next)->FileObject == File) {
            return Next;
        }
    }
    return NULL;
}

static VOID NTAPI QueueAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, QUEUE, Csq)->Lock, Irql);
}

static VOID NTAPI QueueRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, QUEUE, Csq)->Lock, Irql);
}

static VOID NTAPI QueueCancelled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    CompleteCancelled(Irp);
}

static VOID QueueInitialize(PQUEUE Queue, ULONG Most)
{
    KeInitializeSpinLock(&Queue->Lock);
    InitializeListHead(&Queue->List);
    Queue->Length = 0;
    Queue->Most = Most;
    IoCsqInitializeEx(&Queue->Csq, QueueInsert, QueueRemove, QueuePeek, QueueAcquire, QueueRelease, QueueCancelled);
}

/* Puts a request into a queue, marked pending; STATUS_DEVICE_BUSY if that is full. */
static NTSTATUS Park(PQUEUE Queue, PIRP Irp, PVOID Where)
{
    return IoCsqInsertIrpEx(&Queue->Csq, Irp, NULL, Where);
}

/* The longest waiting request of a file, or of any; it can no longer be cancelled. */
static PIRP Pop(PQUEUE Queue, PFILE_OBJECT File)
{
    return IoCsqRemoveNextIrp(&Queue->Csq, File);
}

#endif
