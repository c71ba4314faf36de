/* keel_queue.h: a cancel-safe queue of requests that hold the remove lock; a shut queue refuses. */
#ifndef AJ_QUEUE_H
#define AJ_QUEUE_H
#include "keel_pnp.h"

typedef struct AJ_QUEUE {
    IO_CSQ csq;
    KSPIN_LOCK lock;
    LIST_ENTRY list;
    BOOLEAN shut;
    AJ_FDO *f;
} AJ_QUEUE;

static inline NTSTATUS aj_q_insert(PIO_CSQ csq, PIRP irp, PVOID front)
{
    AJ_QUEUE *q = CONTAINING_RECORD(csq, AJ_QUEUE, csq);

    if (q->shut)
        return STATUS_NO_SUCH_DEVICE;
    if (front)
        InsertHeadList(&q->list, &irp->Tail.Overlay.ListEntry);
    else
        InsertTailList(&q->list, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static inline VOID aj_q_remove(PIO_CSQ csq, PIRP irp)
{
    (void)csq;
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static inline PIRP aj_q_peek(PIO_CSQ csq, PIRP irp, PVOID fo)
{
    AJ_QUEUE *q = CONTAINING_RECORD(csq, AJ_QUEUE, csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : q->list.Flink;

    for (; e != &q->list; e = e->Flink) {
        PIRP p = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!fo || aj_file(p) == fo)
            return p;
    }
    return NULL;
}

static inline VOID aj_q_lock(PIO_CSQ csq, PKIRQL irql)
{
    AJ_QUEUE *q = CONTAINING_RECORD(csq, AJ_QUEUE, csq);

    KeAcquireSpinLock(&q->lock, irql);
}

static inline VOID aj_q_unlock(PIO_CSQ csq, KIRQL irql)
{
    AJ_QUEUE *q = CONTAINING_RECORD(csq, AJ_QUEUE, csq);

    KeReleaseSpinLock(&q->lock, irql);
}

static inline VOID aj_q_cancelled(PIO_CSQ csq, PIRP irp)
{
    AJ_QUEUE *q = CONTAINING_RECORD(csq, AJ_QUEUE, csq);

    aj_end(q->f, irp, STATUS_CANCELLED, 0);
}

static inline void aj_q_init(AJ_QUEUE *q, AJ_FDO *f)
{
    q->f = f;
    q->shut = FALSE;
    InitializeListHead(&q->list);
    KeInitializeSpinLock(&q->lock);
    IoCsqInitializeEx(&q->csq, aj_q_insert, aj_q_remove, aj_q_peek, aj_q_lock, aj_q_unlock, aj_q_cancelled);
}

/* Not with a spin lock held: it may complete the request. The caller returns STATUS_PENDING. */
static inline void aj_q_put(AJ_QUEUE *q, PIRP irp, BOOLEAN front)
{
    NTSTATUS st;

    IoMarkIrpPending(irp);
    st = IoCsqInsertIrpEx(&q->csq, irp, NULL, front ? (PVOID)q : NULL);
    if (!NT_SUCCESS(st))
        aj_end(q->f, irp, st, 0);
}

static inline PIRP aj_q_take(AJ_QUEUE *q, PFILE_OBJECT fo)
{
    return IoCsqRemoveNextIrp(&q->csq, fo);
}

static inline void aj_q_flush(AJ_QUEUE *q, PFILE_OBJECT fo, NTSTATUS st)
{
    PIRP irp;

    while ((irp = aj_q_take(q, fo)) != NULL)
        aj_end(q->f, irp, st, 0);
}

static inline void aj_q_shut(AJ_QUEUE *q)
{
    KIRQL irql;

    KeAcquireSpinLock(&q->lock, &irql);
    q->shut = TRUE;
    KeReleaseSpinLock(&q->lock, irql);
    aj_q_flush(q, NULL, STATUS_NO_SUCH_DEVICE);
}
#endif
