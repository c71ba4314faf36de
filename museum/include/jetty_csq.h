/* jetty_csq.h: a cancel-safe queue of pending requests. */
#ifndef JETTY_CSQ_H
#define JETTY_CSQ_H

#include "jetty_base.h"

/* What a caller of IoCsqRemoveNextIrp looks for; a NULL match takes anything. */
typedef struct _JETTY_MATCH {
    PFILE_OBJECT File;      /* requests of this handle only, or NULL */
    PVOID Key;              /* the driver's own criterion, or NULL */
} JETTY_MATCH, *PJETTY_MATCH;

typedef struct _JETTY_QUEUE {
    IO_CSQ Csq;             /* first: the callbacks cast it back */
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    PVOID Owner;
    VOID (*Finish)(PVOID Owner, PIRP Irp, NTSTATUS Status);
} JETTY_QUEUE, *PJETTY_QUEUE;

static inline VOID NTAPI JettyCsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&((PJETTY_QUEUE)Csq)->List, &Irp->Tail.Overlay.ListEntry);
}

static inline VOID NTAPI JettyCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static inline PIRP NTAPI JettyCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PJETTY_QUEUE q = (PJETTY_QUEUE)Csq;
    PJETTY_MATCH match = Context;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!match || !match->File ||
            IoGetCurrentIrpStackLocation(next)->FileObject == match->File)
            return next;
    }
    return NULL;
}

static inline VOID NTAPI JettyCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&((PJETTY_QUEUE)Csq)->Lock, Irql);
}

static inline VOID NTAPI JettyCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&((PJETTY_QUEUE)Csq)->Lock, Irql);
}

static inline VOID NTAPI JettyCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PJETTY_QUEUE q = (PJETTY_QUEUE)Csq;

    q->Finish(q->Owner, Irp, STATUS_CANCELLED);
}

static inline VOID JettyQueueInit(PJETTY_QUEUE q, PVOID Owner,
                                  VOID (*Finish)(PVOID, PIRP, NTSTATUS),
                                  PIO_CSQ_PEEK_NEXT_IRP Peek)
{
    q->Owner = Owner;
    q->Finish = Finish;
    InitializeListHead(&q->List);
    KeInitializeSpinLock(&q->Lock);
    /* cannot fail: it only fills in the structure */
    (VOID)IoCsqInitialize(&q->Csq, JettyCsqInsert, JettyCsqRemove, Peek,
                          JettyCsqAcquire, JettyCsqRelease, JettyCsqCancelled);
}

/* Completes every queued request that matches. */
static inline VOID JettyDrain(PJETTY_QUEUE q, PFILE_OBJECT File, NTSTATUS Status)
{
    JETTY_MATCH match = { File, NULL };
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&q->Csq, File ? &match : NULL)) != NULL)
        q->Finish(q->Owner, irp, Status);
}

/*
 * Queues a request; Kick (may be NULL) is called afterwards.  The file object
 * is held meanwhile: as soon as the request is in the queue it may be
 * completed, and with the last handle gone the device could go as well.
 */
static inline NTSTATUS JettyPark(PJETTY_QUEUE q, PIRP Irp, VOID (*Kick)(PVOID Owner))
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    if (file)
        ObReferenceObject(file);
    IoCsqInsertIrp(&q->Csq, Irp, NULL);
    if (Kick)
        Kick(q->Owner);
    if (file) {
        /* the handle was closed while this request was on its way */
        if (*(PVOID volatile *)&file->FsContext2 != NULL)
            JettyDrain(q, file, STATUS_CANCELLED);
        ObDereferenceObject(file);
    }
    return STATUS_PENDING;
}

/* IRP_MJ_CLEANUP: nothing of this handle stays in the queue. */
static inline VOID JettyHandleClosed(PJETTY_QUEUE q, PFILE_OBJECT File)
{
    InterlockedExchangePointer(&File->FsContext2, (PVOID)1);
    JettyDrain(q, File, STATUS_CANCELLED);
}

#endif
