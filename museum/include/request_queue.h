/* A cancel-safe queue of requests, each of which holds the remove lock of its device until it ends. Needs pnp_frame.h. */
#ifndef CSQIRP_H
#define CSQIRP_H

typedef struct _IRPQ {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY Irps;
    BOOLEAN Gone;
    PFDO Fdo;
} IRPQ, *PIRPQ;

static VOID IrpqEnd(PIRPQ Q, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    PFDO f = Q->Fdo;

    FdoComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&f->RemoveLock, Irp);
}

static NTSTATUS NTAPI IrpqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PIRPQ q = CONTAINING_RECORD(Csq, IRPQ, Csq);

    UNREFERENCED_PARAMETER(Context);
    if (q->Gone)
        return STATUS_DELETE_PENDING;
    InsertTailList(&q->Irps, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI IrpqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI IrpqPeek(PIO_CSQ Csq, PIRP Irp, PVOID PeekContext)
{
    PIRPQ q = CONTAINING_RECORD(Csq, IRPQ, Csq);
    PLIST_ENTRY entry = Irp ? Irp->Tail.Overlay.ListEntry.Flink : q->Irps.Flink;

    for (; entry != &q->Irps; entry = entry->Flink) {
        PIRP next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        if (!PeekContext || IoGetCurrentIrpStackLocation(next)->FileObject == (PFILE_OBJECT)PeekContext)
            return next;
    }
    return NULL;
}

static VOID NTAPI IrpqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, IRPQ, Csq)->Lock, Irql);
}

static VOID NTAPI IrpqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, IRPQ, Csq)->Lock, Irql);
}

static VOID NTAPI IrpqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    IrpqEnd(CONTAINING_RECORD(Csq, IRPQ, Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID IrpqInit(PIRPQ Q, PFDO Fdo)
{
    Q->Fdo = Fdo;
    KeInitializeSpinLock(&Q->Lock);
    InitializeListHead(&Q->Irps);
    IoCsqInitializeEx(&Q->Csq, IrpqInsert, IrpqRemove, IrpqPeek, IrpqAcquire, IrpqRelease, IrpqCancelled);
}

static VOID IrpqClose(PIRPQ Q)
{
    KIRQL irql;

    KeAcquireSpinLock(&Q->Lock, &irql);
    Q->Gone = TRUE;
    KeReleaseSpinLock(&Q->Lock, irql);
}

static VOID IrpqEndAll(PIRPQ Q, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&Q->Csq, File)) != NULL)
        IrpqEnd(Q, irp, Status, 0);
}

#endif
