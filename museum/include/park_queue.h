/* park.h: a place where requests wait. Cancel-safe; the owner says how a request ends. */
typedef VOID PARK_ENDS(PVOID Owner, PIRP Irp, NTSTATUS Status, ULONG_PTR Information);

typedef struct _PARK {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY Irps;
    PARK_ENDS *Ends;
    PVOID Owner;
} PARK;

#define PARK_OF(c) CONTAINING_RECORD((c), PARK, Csq)

/* A file whose last handle is closed has FsContext2 set before its requests are flushed, so none gets in behind that. */
static NTSTATUS NTAPI ParkInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    UNREFERENCED_PARAMETER(Context);
    if (file && InterlockedCompareExchangePointer(&file->FsContext2, NULL, NULL))
        return STATUS_CANCELLED;
    InsertTailList(&PARK_OF(Csq)->Irps, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI ParkRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI ParkPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PLIST_ENTRY head = &PARK_OF(Csq)->Irps, e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : head->Flink;
    for (; e != head; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(next)->FileObject == (PFILE_OBJECT)File)
            return next;
    }
    return NULL;
}

static VOID NTAPI ParkAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&PARK_OF(Csq)->Lock, Irql);
}

static VOID NTAPI ParkRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&PARK_OF(Csq)->Lock, Irql);
}

static VOID NTAPI ParkCanceled(PIO_CSQ Csq, PIRP Irp)
{
    PARK *p = PARK_OF(Csq);
    p->Ends(p->Owner, Irp, STATUS_CANCELLED, 0);
}

YYFN VOID ParkInit(PARK *Park, PARK_ENDS *Ends, PVOID Owner)
{
    KeInitializeSpinLock(&Park->Lock);
    InitializeListHead(&Park->Irps);
    Park->Ends = Ends;
    Park->Owner = Owner;
    IoCsqInitializeEx(&Park->Csq, ParkInsert, ParkRemove, ParkPeek, ParkAcquire, ParkRelease, ParkCanceled);
}

/* Behind this call the request may be gone. */
YYFN NTSTATUS ParkWait(PARK *Park, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    if (!NT_SUCCESS(IoCsqInsertIrpEx(&Park->Csq, Irp, NULL, NULL)))
        Park->Ends(Park->Owner, Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

YYFN PIRP ParkTake(PARK *Park, PFILE_OBJECT File)
{
    return IoCsqRemoveNextIrp(&Park->Csq, File);
}

/* Whether no request waits that can be taken: one that is being cancelled is in the list for a while yet, and cannot. */
YYFN BOOLEAN ParkEmpty(PARK *Park)
{
    BOOLEAN empty = TRUE;
    PLIST_ENTRY e;
    KIRQL irql;
    KeAcquireSpinLock(&Park->Lock, &irql);
    for (e = Park->Irps.Flink; e != &Park->Irps; e = e->Flink)
        empty = empty && !CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry)->CancelRoutine;
    KeReleaseSpinLock(&Park->Lock, irql);
    return empty;
}

YYFN VOID ParkFlush(PARK *Park, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;
    while ((irp = ParkTake(Park, File)) != NULL)
        Park->Ends(Park->Owner, irp, Status, 0);
}
