/* Requests that wait, in a queue that is safe against cancellation (IoCsq). Whose they are, Ended says: it completes one that was cancelled. */
#ifndef IRP_QUEUE_H
#define IRP_QUEUE_H

#include "driver.h"

typedef struct _IRP_QUEUE {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    VOID (*Ended)(struct _IRP_QUEUE *Queue, PIRP Irp, NTSTATUS Status);
} IRP_QUEUE, *PIRP_QUEUE;

static VOID NTAPI QueueInsertIrp(PIO_CSQ Csq, PIRP Irp)
{
    PIRP_QUEUE Queue = CONTAINING_RECORD(Csq, IRP_QUEUE, Csq);

    InsertTailList(&Queue->List, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI QueueRemoveIrp(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* The next one of a file, or of all if it is NULL. */
static PIRP NTAPI QueuePeekNextIrp(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PIRP_QUEUE Queue = CONTAINING_RECORD(Csq, IRP_QUEUE, Csq);
    PLIST_ENTRY Entry = Irp == NULL ? Queue->List.Flink : Irp->Tail.Overlay.ListEntry.Flink;

    for (; Entry != &Queue->List; Entry = Entry->Flink) {
        PIRP Next = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);

        if (File == NULL || IoGetCurrentIrpStackLocation(Next)->FileObject == File) {
            return Next;
        }
    }
    return NULL;
}

static VOID NTAPI QueueAcquireLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, IRP_QUEUE, Csq)->Lock, Irql);
}

static VOID NTAPI QueueReleaseLock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, IRP_QUEUE, Csq)->Lock, Irql);
}

static VOID NTAPI QueueCompleteCanceled(PIO_CSQ Csq, PIRP Irp)
{
    PIRP_QUEUE Queue = CONTAINING_RECORD(Csq, IRP_QUEUE, Csq);

    Queue->Ended(Queue, Irp, STATUS_CANCELLED);
}

SHARED VOID QueueInitialize(PIRP_QUEUE Queue, VOID (*Ended)(PIRP_QUEUE, PIRP, NTSTATUS))
{
    KeInitializeSpinLock(&Queue->Lock);
    InitializeListHead(&Queue->List);
    Queue->Ended = Ended;
    IoCsqInitialize(&Queue->Csq, QueueInsertIrp, QueueRemoveIrp, QueuePeekNextIrp, QueueAcquireLock, QueueReleaseLock,
                    QueueCompleteCanceled);
}

SHARED PIRP QueueTake(PIRP_QUEUE Queue)
{
    return IoCsqRemoveNextIrp(&Queue->Csq, NULL);
}

/* Ends those of a file, or all if it is NULL. */
SHARED VOID QueueFlush(PIRP_QUEUE Queue, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&Queue->Csq, File)) != NULL) {
        Queue->Ended(Queue, Irp, Status);
    }
}

#endif
