/*
 * rack.h: requests that wait. A rack has no lock of its own: its driver names the spin lock that guards it, mostly the one
 * that guards the state which says whether a request must wait. Functions that end in Locked want that lock held.
 */
typedef struct _RACK RACK;
typedef VOID RACK_DROP(RACK *Rack, PIRP Irp, NTSTATUS Status);

struct _RACK {
    PKSPIN_LOCK Lock;
    RACK_DROP *Drop;            /* completes a request that leaves the rack unserved; called without the lock */
    PVOID Owner;
    LIST_ENTRY Waiting;
};

static inline VOID RackInit(RACK *Rack, PKSPIN_LOCK Lock, RACK_DROP *Drop, PVOID Owner)
{
    Rack->Lock = Lock;
    Rack->Drop = Drop;
    Rack->Owner = Owner;
    InitializeListHead(&Rack->Waiting);
}

static inline VOID NTAPI RackCancelled(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    RACK *rack = Irp->Tail.Overlay.DriverContext[3];
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(rack->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(rack->Lock, irql);
    rack->Drop(rack, Irp, STATUS_CANCELLED);
}

/*
 * Marks the request pending and puts it into the rack. FALSE: it has been cancelled already, and is not in the rack; the
 * caller completes it with STATUS_CANCELLED when it has released the lock (and still returns STATUS_PENDING for it).
 */
static inline BOOLEAN RackAddLocked(RACK *Rack, PIRP Irp, BOOLEAN First)
{
    IoMarkIrpPending(Irp);
    Irp->Tail.Overlay.DriverContext[3] = Rack;
    if (First)
        InsertHeadList(&Rack->Waiting, &Irp->Tail.Overlay.ListEntry);
    else
        InsertTailList(&Rack->Waiting, &Irp->Tail.Overlay.ListEntry);
    (VOID)IoSetCancelRoutine(Irp, RackCancelled);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        return FALSE;
    }
    return TRUE;
}

/* The first request (of File, if there is one) that no one is cancelling; it cannot be cancelled any more. */
static inline PIRP RackTakeLocked(RACK *Rack, PFILE_OBJECT File)
{
    PLIST_ENTRY link = Rack->Waiting.Flink;

    while (link != &Rack->Waiting) {
        PIRP irp = CONTAINING_RECORD(link, IRP, Tail.Overlay.ListEntry);
        link = link->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(irp, NULL) != NULL)
            return irp;
        /* RackCancelled waits for the lock, and will unlink it from itself */
        InitializeListHead(&irp->Tail.Overlay.ListEntry);
    }
    return NULL;
}

static inline NTSTATUS RackAdd(RACK *Rack, PIRP Irp)
{
    BOOLEAN stands;
    KIRQL irql;

    KeAcquireSpinLock(Rack->Lock, &irql);
    stands = RackAddLocked(Rack, Irp, FALSE);
    KeReleaseSpinLock(Rack->Lock, irql);
    if (!stands)
        Rack->Drop(Rack, Irp, STATUS_CANCELLED);
    return STATUS_PENDING;
}

static inline PIRP RackTake(RACK *Rack)
{
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(Rack->Lock, &irql);
    irp = RackTakeLocked(Rack, NULL);
    KeReleaseSpinLock(Rack->Lock, irql);
    return irp;
}

/* Drops all requests (of File, if there is one). */
static inline VOID RackClear(RACK *Rack, PFILE_OBJECT File, NTSTATUS Status)
{
    for (;;) {
        PIRP irp;
        KIRQL irql;

        KeAcquireSpinLock(Rack->Lock, &irql);
        irp = RackTakeLocked(Rack, File);
        KeReleaseSpinLock(Rack->Lock, irql);
        if (irp == NULL)
            return;
        Rack->Drop(Rack, irp, Status);
    }
}
