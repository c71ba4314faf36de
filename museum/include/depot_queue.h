/* siding.h: requests wait on a siding until a driver takes them off, or their program cancels them. */
#ifndef AB_SIDING_H
#define AB_SIDING_H

typedef struct SIDING SIDING;

struct SIDING {
    IO_CSQ Csq;                              /* first: the routines below cast */
    KSPIN_LOCK Lock;
    LIST_ENTRY Cars;
    PIO_REMOVE_LOCK Tie;                     /* what each request holds, or NULL */
    NTSTATUS (*Admit)(SIDING *, PVOID);      /* asked with the lock held, whether one may come in; or NULL */
    VOID (*Cancelled)(SIDING *, PIRP, PVOID);/* ends a cancelled request itself, without locks; or NULL */
    PVOID Owner;
};

/* What SidingPeek looks for: all, those of a file, those that fit. */
typedef struct PICK {
    PFILE_OBJECT File;
    BOOLEAN (*Fits)(PIRP, PVOID);
    PVOID Argument;
} PICK;

static NTSTATUS NTAPI SidingInsert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    SIDING *s = (SIDING *)csq;
    NTSTATUS st = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(context);
    if (s->Admit != NULL)
        st = s->Admit(s, s->Owner);
    if (NT_SUCCESS(st))
        InsertTailList(&s->Cars, &irp->Tail.Overlay.ListEntry);
    return st;
}

static VOID NTAPI SidingRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI SidingPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    SIDING *s = (SIDING *)csq;
    const PICK *pick = context;
    PLIST_ENTRY e = irp == NULL ? s->Cars.Flink : irp->Tail.Overlay.ListEntry.Flink;

    for (; e != &s->Cars; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (pick->File != NULL && IrpHere(next)->FileObject != pick->File)
            continue;
        if (pick->Fits == NULL || pick->Fits(next, pick->Argument))
            return next;
    }
    return NULL;
}

static VOID NTAPI SidingAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&((SIDING *)csq)->Lock, irql);
}

static VOID NTAPI SidingRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&((SIDING *)csq)->Lock, irql);
}

static inline VOID SidingEnd(SIDING *s, PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    PIO_REMOVE_LOCK tie = s->Tie;

    IrpEnd(irp, st, info);
    if (tie != NULL)
        IoReleaseRemoveLock(tie, irp);
}

static VOID NTAPI SidingCancel(PIO_CSQ csq, PIRP irp)
{
    SIDING *s = (SIDING *)csq;

    if (s->Cancelled != NULL)
        s->Cancelled(s, irp, s->Owner);
    else
        SidingEnd(s, irp, STATUS_CANCELLED, 0);
}

static inline VOID SidingInit(SIDING *s, PIO_REMOVE_LOCK tie, PVOID owner)
{
    KeInitializeSpinLock(&s->Lock);
    InitializeListHead(&s->Cars);
    s->Tie = tie;
    s->Admit = NULL;
    s->Cancelled = NULL;
    s->Owner = owner;
    IoCsqInitializeEx(&s->Csq, SidingInsert, SidingRemove, SidingPeek, SidingAcquire, SidingRelease, SidingCancel);
}

/* Puts a request on the siding, or ends it if it may not come in. Always STATUS_PENDING. */
static inline NTSTATUS SidingPut(SIDING *s, PIRP irp)
{
    NTSTATUS st;

    IoMarkIrpPending(irp);
    st = IoCsqInsertIrpEx(&s->Csq, irp, NULL, NULL);
    if (!NT_SUCCESS(st))
        SidingEnd(s, irp, st, 0);
    return STATUS_PENDING;
}

/* The first request, or the first of FILE; NULL if there is none. */
static inline PIRP SidingTake(SIDING *s, PFILE_OBJECT file)
{
    PICK pick = { file, NULL, NULL };

    return IoCsqRemoveNextIrp(&s->Csq, &pick);
}

/* The first that fits; FITS is called with the siding's lock held. */
static inline PIRP SidingTakeFit(SIDING *s, BOOLEAN (*fits)(PIRP, PVOID), PVOID argument)
{
    PICK pick = { NULL, fits, argument };

    return IoCsqRemoveNextIrp(&s->Csq, &pick);
}

static inline VOID SidingClear(SIDING *s, PFILE_OBJECT file, NTSTATUS st)
{
    PIRP irp;

    while ((irp = SidingTake(s, file)) != NULL)
        SidingEnd(s, irp, st, 0);
}

#endif
