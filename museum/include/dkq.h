/* dkq.h: a cancel-safe queue of requests, on top of IoCsq. */
#ifndef DKQ_H
#define DKQ_H
#include <ddk/wdm.h>

typedef struct _DKQ {
    IO_CSQ Csq;
    LIST_ENTRY Head;
    KSPIN_LOCK Lock;
    NTSTATUS Closed;            /* an error status once the queue takes no more */
    PIO_REMOVE_LOCK RemoveLock; /* held by every queued request, or NULL */
} DKQ, *PDKQ;

static inline NTSTATUS DkFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static inline NTSTATUS NTAPI DkqInsertCb(PIO_CSQ Csq, PIRP Irp, PVOID Ctx)
{
    PDKQ Q = CONTAINING_RECORD(Csq, DKQ, Csq);
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    UNREFERENCED_PARAMETER(Ctx);
    if (!NT_SUCCESS(Q->Closed))
        return Q->Closed;
    if (File && File->FsContext2)
        return STATUS_CANCELLED; /* its last handle is gone */
    InsertTailList(&Q->Head, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static inline VOID NTAPI DkqRemoveCb(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static inline PIRP NTAPI DkqPeekCb(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PDKQ Q = CONTAINING_RECORD(Csq, DKQ, Csq);
    PLIST_ENTRY E = Irp ? Irp->Tail.Overlay.ListEntry.Flink : Q->Head.Flink;
    for (; E != &Q->Head; E = E->Flink) {
        PIRP Next = CONTAINING_RECORD(E, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(Next)->FileObject == (PFILE_OBJECT)File)
            return Next;
    }
    return NULL;
}

static inline VOID NTAPI DkqLockCb(PIO_CSQ Csq, PKIRQL Irql)
{
    PDKQ Q = CONTAINING_RECORD(Csq, DKQ, Csq);
    KeAcquireSpinLock(&Q->Lock, Irql);
}

static inline VOID NTAPI DkqUnlockCb(PIO_CSQ Csq, KIRQL Irql)
{
    PDKQ Q = CONTAINING_RECORD(Csq, DKQ, Csq);
    KeReleaseSpinLock(&Q->Lock, Irql);
}

static inline VOID NTAPI DkqCancelledCb(PIO_CSQ Csq, PIRP Irp)
{
    PDKQ Q = CONTAINING_RECORD(Csq, DKQ, Csq);
    PIO_REMOVE_LOCK Rl = Q->RemoveLock;
    DkFinish(Irp, STATUS_CANCELLED, 0);
    if (Rl)
        IoReleaseRemoveLock(Rl, Irp);
}

static inline VOID DkqInit(PDKQ Q, PIO_REMOVE_LOCK Rl)
{
    InitializeListHead(&Q->Head);
    KeInitializeSpinLock(&Q->Lock);
    Q->Closed = STATUS_SUCCESS;
    Q->RemoveLock = Rl;
    IoCsqInitializeEx(&Q->Csq, DkqInsertCb, DkqRemoveCb, DkqPeekCb, DkqLockCb, DkqUnlockCb, DkqCancelledCb);
}

static inline VOID DkqSetClosed(PDKQ Q, NTSTATUS Status)
{
    KIRQL Irql;
    KeAcquireSpinLock(&Q->Lock, &Irql);
    Q->Closed = Status;
    KeReleaseSpinLock(&Q->Lock, Irql);
}

/* Completes the queued requests (of one file, or all) with Status. */
static inline VOID DkqFlush(PDKQ Q, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;
    while ((Irp = IoCsqRemoveNextIrp(&Q->Csq, File)) != NULL) {
        PIO_REMOVE_LOCK Rl = Q->RemoveLock;
        DkFinish(Irp, Status, 0);
        if (Rl)
            IoReleaseRemoveLock(Rl, Irp);
    }
}

/* For IRP_MJ_CLEANUP: the file's requests are cancelled and no more of them are queued. */
static inline VOID DkqCleanup(PDKQ Q, PFILE_OBJECT File)
{
    KIRQL Irql;
    KeAcquireSpinLock(&Q->Lock, &Irql);
    File->FsContext2 = (PVOID)1;
    KeReleaseSpinLock(&Q->Lock, Irql);
    DkqFlush(Q, File, STATUS_CANCELLED);
}
#endif
