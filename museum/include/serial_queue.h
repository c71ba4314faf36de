/* serial_queue.h: a serial, cancel-safe queue with a gate, in front of hardware that serves one request at a time.
 * Each queued request holds the frame's remove lock (tag: the IRP). */
#ifndef SERQ_H
#define SERQ_H
#include "caller_frame.h"

typedef struct _SERQ {
    IO_CSQ Csq;
    LIST_ENTRY List;
    KSPIN_LOCK Lock;            /* guards all below; also the hardware's state of the current request */
    BOOLEAN Open, Dead, Busy, Again;
    PIRP Current;               /* set by the start routine when the hardware works on it */
    KEVENT Idle;
    PFRAME Frame;
    BOOLEAN (*Start)(PFRAME f, PIRP irp);   /* FALSE: already completed with SerqAnswer */
} SERQ, *PSERQ;

static VOID SerqAnswer(PSERQ q, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    PFRAME f = q->Frame;
    FrameComplete(irp, status, info);
    IoReleaseRemoveLock(&f->Remove, irp);
}

static NTSTATUS NTAPI SerqInsert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PSERQ q = CONTAINING_RECORD(csq, SERQ, Csq);
    UNREFERENCED_PARAMETER(context);
    if (q->Dead)
        return STATUS_DELETE_PENDING;
    InsertTailList(&q->List, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI SerqTake(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI SerqPeek(PIO_CSQ csq, PIRP irp, PVOID file)
{
    PSERQ q = CONTAINING_RECORD(csq, SERQ, Csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (file == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == file)
            return next;
    }
    return NULL;
}

static VOID NTAPI SerqAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, SERQ, Csq)->Lock, irql);
}

static VOID NTAPI SerqRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, SERQ, Csq)->Lock, irql);
}

static VOID NTAPI SerqCanceled(PIO_CSQ csq, PIRP irp)
{
    SerqAnswer(CONTAINING_RECORD(csq, SERQ, Csq), irp, STATUS_CANCELLED, 0);
}

static NTSTATUS SerqInit(PSERQ q, PFRAME f, BOOLEAN (*start)(PFRAME, PIRP))
{
    InitializeListHead(&q->List);
    KeInitializeSpinLock(&q->Lock);
    KeInitializeEvent(&q->Idle, NotificationEvent, TRUE);
    q->Frame = f;
    q->Start = start;
    return IoCsqInitializeEx(&q->Csq, SerqInsert, SerqTake, SerqPeek, SerqAcquire, SerqRelease, SerqCanceled);
}

static VOID SerqPump(PSERQ q)
{
    PIRP irp;
    KIRQL irql;
    BOOLEAN more;

    do {
        KeAcquireSpinLock(&q->Lock, &irql);
        if (!q->Open || q->Busy) {
            q->Again = TRUE;
            KeReleaseSpinLock(&q->Lock, irql);
            return;
        }
        q->Busy = TRUE;
        q->Again = FALSE;
        KeClearEvent(&q->Idle);
        KeReleaseSpinLock(&q->Lock, irql);

        irp = IoCsqRemoveNextIrp(&q->Csq, NULL);
        if (irp != NULL && q->Start(q->Frame, irp))
            return;

        KeAcquireSpinLock(&q->Lock, &irql);
        q->Busy = FALSE;
        KeSetEvent(&q->Idle, IO_NO_INCREMENT, FALSE);
        /* One that is being cancelled stays in the list for a while. */
        more = q->Again || (irp != NULL && !IsListEmpty(&q->List));
        KeReleaseSpinLock(&q->Lock, irql);
    } while (more);
}

/* Takes the current request from the hardware: who gets it completes it, with SerqFinish. Lock held. */
static PIRP SerqClaim(PSERQ q)
{
    PIRP irp = q->Current;
    q->Current = NULL;
    return irp;
}

static VOID SerqFinish(PSERQ q, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    KIRQL irql;
    PFRAME f = q->Frame;

    FrameComplete(irp, status, info);
    KeAcquireSpinLock(&q->Lock, &irql);
    q->Busy = FALSE;
    KeSetEvent(&q->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&q->Lock, irql);
    SerqPump(q);
    IoReleaseRemoveLock(&f->Remove, irp);
}

/* The caller holds the remove lock with the IRP's tag; always pending. */
static NTSTATUS SerqSubmit(PSERQ q, PIRP irp)
{
    PFRAME f = q->Frame;
    NTSTATUS status;

    IoMarkIrpPending(irp);
    status = IoAcquireRemoveLock(&f->Remove, &status);     /* for the pump: the IRP's own may end before */
    if (!NT_SUCCESS(status)) {
        SerqAnswer(q, irp, status, 0);
        return STATUS_PENDING;
    }
    status = IoCsqInsertIrpEx(&q->Csq, irp, NULL, NULL);
    if (!NT_SUCCESS(status))
        SerqAnswer(q, irp, status, 0);
    else
        SerqPump(q);
    IoReleaseRemoveLock(&f->Remove, &status);
    return STATUS_PENDING;
}

static VOID SerqHold(PSERQ q)
{
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    q->Open = FALSE;
    KeReleaseSpinLock(&q->Lock, irql);
    KeWaitForSingleObject(&q->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID SerqOpen(PSERQ q)
{
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    q->Open = !q->Dead;
    KeReleaseSpinLock(&q->Lock, irql);
    SerqPump(q);
}

static VOID SerqPurge(PSERQ q, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&q->Csq, file)) != NULL)
        SerqAnswer(q, irp, status, 0);
}

static VOID SerqKill(PSERQ q)
{
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    q->Dead = TRUE;
    q->Open = FALSE;
    KeReleaseSpinLock(&q->Lock, irql);
    SerqPurge(q, NULL, STATUS_DELETE_PENDING);
    KeWaitForSingleObject(&q->Idle, Executive, KernelMode, FALSE, NULL);
}
#endif
