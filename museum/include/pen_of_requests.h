/*
 * pen.h: requests that wait, in the order in which they came.
 *
 * Finish is called for each request that does not leave by PenTake: because it was cancelled, because the pen was shut, or because PenDrain was called.
 * It has to complete the request, at IRQL <= DISPATCH_LEVEL and with no lock held.
 */
#ifndef PEN_H
#define PEN_H

typedef VOID PEN_FINISH(PVOID Keeper, PIRP Irp, NTSTATUS Status);

typedef struct PEN {
    IO_CSQ Csq;                 /* first: the callbacks get nothing else */
    KSPIN_LOCK Lock;
    LIST_ENTRY Inside;
    NTSTATUS Shut;              /* STATUS_SUCCESS while requests are let in */
    PEN_FINISH *Finish;
    PVOID Keeper;
} PEN;

static inline NTSTATUS NTAPI PenInsert(PIO_CSQ Csq, PIRP Irp, PVOID Front)
{
    PEN *pen = (PEN *)Csq;

    if (!NT_SUCCESS(pen->Shut))
        return pen->Shut;
    if (Front)
        InsertHeadList(&pen->Inside, &Irp->Tail.Overlay.ListEntry);
    else
        InsertTailList(&pen->Inside, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static inline VOID NTAPI PenRemove(PIO_CSQ Csq, PIRP Irp)
{
    (void)Csq;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static inline PIRP NTAPI PenPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PEN *pen = (PEN *)Csq;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : pen->Inside.Flink;

    for (; e != &pen->Inside; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!File || IoGetCurrentIrpStackLocation(irp)->FileObject == File)
            return irp;
    }
    return NULL;
}

static inline VOID NTAPI PenLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&((PEN *)Csq)->Lock, Irql);
}

static inline VOID NTAPI PenUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&((PEN *)Csq)->Lock, Irql);
}

static inline VOID NTAPI PenCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PEN *pen = (PEN *)Csq;

    pen->Finish(pen->Keeper, Irp, STATUS_CANCELLED);
}

static inline VOID PenMake(PEN *Pen, PEN_FINISH *Finish, PVOID Keeper)
{
    KeInitializeSpinLock(&Pen->Lock);
    InitializeListHead(&Pen->Inside);
    Pen->Shut = STATUS_SUCCESS;
    Pen->Finish = Finish;
    Pen->Keeper = Keeper;
    IoCsqInitializeEx(&Pen->Csq, PenInsert, PenRemove, PenPeek, PenLock, PenUnlock, PenCancelled);
}

/* The request must have been marked pending; it may be gone when this returns. */
static inline VOID PenAdd(PEN *Pen, PIRP Irp)
{
    NTSTATUS status = IoCsqInsertIrpEx(&Pen->Csq, Irp, NULL, NULL);

    if (!NT_SUCCESS(status))
        Pen->Finish(Pen->Keeper, Irp, status);
}

/* The oldest request (of a file, if one is named), or none; it cannot be cancelled any more. */
static inline PIRP PenTake(PEN *Pen, PFILE_OBJECT File)
{
    return IoCsqRemoveNextIrp(&Pen->Csq, File);
}

/* STATUS_SUCCESS lets requests in, anything else is what those get that come from now on. */
static inline VOID PenShut(PEN *Pen, NTSTATUS Status)
{
    KIRQL irql;

    KeAcquireSpinLock(&Pen->Lock, &irql);
    Pen->Shut = Status;
    KeReleaseSpinLock(&Pen->Lock, irql);
}

static inline VOID PenDrain(PEN *Pen, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = PenTake(Pen, File)) != NULL)
        Pen->Finish(Pen->Keeper, irp, Status);
}

#endif
