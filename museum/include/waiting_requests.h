/* waiting_requests.h: a queue of waiting requests, safe against cancellation (IO_CSQ). */
#ifndef WAITQ_H
#define WAITQ_H

typedef struct WAITQ {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    volatile LONG Closed;
    PIO_REMOVE_LOCK Remove;             /* a reference per request, or NULL */
} WAITQ;

#define CSQ_WAITQ(c) CONTAINING_RECORD(c, WAITQ, Csq)

static VOID NTAPI WaitqInsert(PIO_CSQ csq, PIRP irp)
{
    InsertTailList(&CSQ_WAITQ(csq)->List, &irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI WaitqRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

/* The next request behind irp (NULL: the first) of the file object given (NULL: of any). */
static PIRP NTAPI WaitqPeek(PIO_CSQ csq, PIRP irp, PVOID file)
{
    PLIST_ENTRY head = &CSQ_WAITQ(csq)->List;
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : head->Flink;
    for (; e != head; e = e->Flink) {
        PIRP found = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!file || IoGetCurrentIrpStackLocation(found)->FileObject == (PFILE_OBJECT)file)
            return found;
    }
    return NULL;
}

static VOID NTAPI WaitqLock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CSQ_WAITQ(csq)->Lock, irql);
}

static VOID NTAPI WaitqUnlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CSQ_WAITQ(csq)->Lock, irql);
}

/* Completes a request that was taken out of the queue. */
static VOID WaitqFinish(WAITQ *q, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    PIO_REMOVE_LOCK remove = q->Remove;

    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    if (remove)
        IoReleaseRemoveLock(remove, q);
}

static VOID NTAPI WaitqCancelled(PIO_CSQ csq, PIRP irp)
{
    WaitqFinish(CSQ_WAITQ(csq), irp, STATUS_CANCELLED, 0);
}

static VOID WaitqInit(WAITQ *q, PIO_REMOVE_LOCK remove)
{
    KeInitializeSpinLock(&q->Lock);
    InitializeListHead(&q->List);
    q->Closed = 0;
    q->Remove = remove;
    IoCsqInitialize(&q->Csq, WaitqInsert, WaitqRemove, WaitqPeek, WaitqLock, WaitqUnlock, WaitqCancelled);
}

static inline PIRP WaitqTake(WAITQ *q, PFILE_OBJECT file)
{
    return IoCsqRemoveNextIrp(&q->Csq, file);
}

static VOID WaitqDrain(WAITQ *q, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;
    while ((irp = IoCsqRemoveNextIrp(&q->Csq, file)) != NULL)
        WaitqFinish(q, irp, status, 0);
}

/* Queues a request: STATUS_PENDING, or a status with which the caller completes it.
   The caller must hold the queue's owner (by a remove lock of its own, or because it is in a dispatch routine). */
static NTSTATUS WaitqPut(WAITQ *q, PIRP irp)
{
    if (q->Remove) {
        NTSTATUS status = IoAcquireRemoveLock(q->Remove, q);
        if (!NT_SUCCESS(status))
            return status;
    }
    IoCsqInsertIrp(&q->Csq, irp, NULL);     /* marks it pending; from here on it is not ours */
    if (InterlockedCompareExchange(&q->Closed, 0, 0))
        WaitqDrain(q, NULL, STATUS_DELETE_PENDING);
    return STATUS_PENDING;
}

static inline VOID WaitqClose(WAITQ *q, NTSTATUS status)
{
    InterlockedExchange(&q->Closed, 1);
    WaitqDrain(q, NULL, status);
}

#endif
