/*
 * quay_queue.h: a cancel-safe queue of requests, and the "one request on the card at a time" engine on top of it.
 * A queued request holds the remove lock (not the gate); AiFinish gives it back.
 */
#ifndef AI_QUEUE_H
#define AI_QUEUE_H
#include "quay_pnp.h"

typedef struct _AI_QUEUE {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    PAI_FDO Fdo;
} AI_QUEUE;

static inline VOID NTAPI AiQInsert(PIO_CSQ csq, PIRP irp)
{
    AI_QUEUE *q = CONTAINING_RECORD(csq, AI_QUEUE, Csq);

    InsertTailList(&q->List, &irp->Tail.Overlay.ListEntry);
}

static inline VOID NTAPI AiQRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

/* context: the file object whose requests are wanted, or NULL for any */
static inline PIRP NTAPI AiQPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    AI_QUEUE *q = CONTAINING_RECORD(csq, AI_QUEUE, Csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!context || IoGetCurrentIrpStackLocation(i)->FileObject == (PFILE_OBJECT)context)
            return i;
    }
    return NULL;
}

static inline VOID NTAPI AiQLock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, AI_QUEUE, Csq)->Lock, irql);
}

static inline VOID NTAPI AiQUnlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, AI_QUEUE, Csq)->Lock, irql);
}

static inline VOID NTAPI AiQCanceled(PIO_CSQ csq, PIRP irp)
{
    AiFinish(CONTAINING_RECORD(csq, AI_QUEUE, Csq)->Fdo, irp, STATUS_CANCELLED, 0);
}

static inline VOID AiQueueInit(AI_QUEUE *q, PAI_FDO f)
{
    KeInitializeSpinLock(&q->Lock);
    InitializeListHead(&q->List);
    q->Fdo = f;
    IoCsqInitialize(&q->Csq, AiQInsert, AiQRemove, AiQPeek, AiQLock, AiQUnlock, AiQCanceled);
}

/* marks the request pending; it may be gone when this returns */
static inline VOID AiQueuePut(AI_QUEUE *q, PIRP irp)
{
    IoCsqInsertIrp(&q->Csq, irp, NULL);
}

static inline PIRP AiQueueGet(AI_QUEUE *q, PFILE_OBJECT file)
{
    return IoCsqRemoveNextIrp(&q->Csq, file);
}

static inline VOID AiQueueFlush(AI_QUEUE *q, PFILE_OBJECT file, NTSTATUS s)
{
    PIRP irp;

    while ((irp = AiQueueGet(q, file)) != NULL)
        AiFinish(q->Fdo, irp, s, 0);
}

/* ---- the engine ---- */

typedef struct _AI_ENGINE {
    AI_QUEUE Q;
    KSPIN_LOCK Lock;        /* Current, Open */
    PIRP Current;           /* the request on the card: not cancelable */
    BOOLEAN Open;
    KEVENT Idle;            /* no Current */
    /* Lock held: brings the request onto the card. STATUS_PENDING: it is there; anything else ends the request at once. */
    NTSTATUS (*Begin)(PAI_FDO, PIRP);
} AI_ENGINE;

typedef VOID (*AI_COLLECT)(PAI_FDO, PIRP);      /* Lock held: puts the outcome into Irp->IoStatus */

static inline VOID AiEngineInit(AI_ENGINE *e, PAI_FDO f, NTSTATUS (*begin)(PAI_FDO, PIRP))
{
    AiQueueInit(&e->Q, f);
    KeInitializeSpinLock(&e->Lock);
    KeInitializeEvent(&e->Idle, NotificationEvent, TRUE);
    e->Begin = begin;
}

static inline VOID AiEngineKick(AI_ENGINE *e)
{
    for (;;) {
        NTSTATUS s = STATUS_PENDING;
        PIRP irp = NULL;
        KIRQL q;

        KeAcquireSpinLock(&e->Lock, &q);
        if (e->Open && !e->Current)
            irp = AiQueueGet(&e->Q, NULL);
        if (irp) {
            e->Current = irp;
            KeClearEvent(&e->Idle);
            s = e->Begin(e->Q.Fdo, irp);
            if (s != STATUS_PENDING) {
                e->Current = NULL;
                KeSetEvent(&e->Idle, IO_NO_INCREMENT, FALSE);
            }
        }
        KeReleaseSpinLock(&e->Lock, q);
        if (s == STATUS_PENDING)
            return;
        AiFinish(e->Q.Fdo, irp, s, 0);
    }
}

/* takes the request from the card, NULL when there is none (any more) */
static inline PIRP AiEngineTake(AI_ENGINE *e, AI_COLLECT collect)
{
    PIRP irp;
    KIRQL q;

    KeAcquireSpinLock(&e->Lock, &q);
    irp = e->Current;
    if (irp) {
        if (collect)
            collect(e->Q.Fdo, irp);
        e->Current = NULL;
        KeSetEvent(&e->Idle, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLock(&e->Lock, q);
    return irp;
}

static inline VOID AiEngineOpen(AI_ENGINE *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->Lock, &q);
    e->Open = TRUE;
    KeReleaseSpinLock(&e->Lock, q);
    AiEngineKick(e);
}

/* PASSIVE: no further begin; gives the card a second to end what is on it; returns the request it did not end */
static inline PIRP AiEngineClose(AI_ENGINE *e)
{
    LARGE_INTEGER second;
    KIRQL q;

    KeAcquireSpinLock(&e->Lock, &q);
    e->Open = FALSE;
    KeReleaseSpinLock(&e->Lock, q);
    second.QuadPart = -10000000LL;
    KeWaitForSingleObject(&e->Idle, Executive, KernelMode, FALSE, &second);
    return AiEngineTake(e, NULL);
}
#endif
