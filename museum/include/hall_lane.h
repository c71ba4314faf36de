/*
 * lane.h: finishing requests, and lanes in which requests wait and can be cancelled.
 *
 * Whatever handler gets a request ends it by Finish or gives it to LaneAdd. A request of a PnP device holds its remove lock (the guard) from
 * its dispatch until Finish; a control device has no guard.
 */
#ifndef RR_LANE_H
#define RR_LANE_H

#define PART static __inline __attribute__((unused))

PART NTSTATUS Finish(PIO_REMOVE_LOCK Guard, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    if (Guard)
        IoReleaseRemoveLock(Guard, Irp);
    return Status;
}

typedef struct _LANE LANE;
struct _LANE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting;
    PIO_REMOVE_LOCK Guard;
    NTSTATUS Shut;              /* not success: nothing waits here any more */
    VOID (*Drop)(LANE *);       /* called (without the lock) for each request that the lane itself is about to end; may be NULL */
};

PART VOID LaneInit(LANE *Lane, PIO_REMOVE_LOCK Guard)
{
    KeInitializeSpinLock(&Lane->Lock);
    InitializeListHead(&Lane->Waiting);
    Lane->Guard = Guard;
    Lane->Shut = STATUS_SUCCESS;
    Lane->Drop = NULL;
}

PART NTSTATUS LaneEnd(LANE *Lane, PIRP Irp, NTSTATUS Status)
{
    if (Lane->Drop)
        Lane->Drop(Lane);
    return Finish(Lane->Guard, Irp, Status, 0);
}

PART VOID NTAPI LaneCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    LANE *Lane = Irp->Tail.Overlay.DriverContext[0];
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Lane->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Lane->Lock, Irql);
    LaneEnd(Lane, Irp, STATUS_CANCELLED);
}

/* Takes the request over, whatever happens; what it returns is the dispatch routine's answer. */
PART NTSTATUS LaneAdd(LANE *Lane, PIRP Irp)
{
    KIRQL Irql;
    NTSTATUS Status;

    KeAcquireSpinLock(&Lane->Lock, &Irql);
    Status = Lane->Shut;
    if (!NT_SUCCESS(Status)) {
        KeReleaseSpinLock(&Lane->Lock, Irql);
        return LaneEnd(Lane, Irp, Status);
    }
    IoMarkIrpPending(Irp);
    Irp->Tail.Overlay.DriverContext[0] = Lane;
    InsertTailList(&Lane->Waiting, &Irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(Irp, LaneCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        KeReleaseSpinLock(&Lane->Lock, Irql);
        LaneEnd(Lane, Irp, STATUS_CANCELLED);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&Lane->Lock, Irql);
    return STATUS_PENDING;
}

/* The one that has waited longest (through File, if that is not NULL), now the caller's alone; NULL if there is none. */
PART PIRP LaneTake(LANE *Lane, PFILE_OBJECT File)
{
    PLIST_ENTRY Entry, Next;
    PIRP Found = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&Lane->Lock, &Irql);
    for (Entry = Lane->Waiting.Flink; Entry != &Lane->Waiting; Entry = Next) {
        PIRP Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);

        Next = Entry->Flink;
        if (File && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
            continue;
        if (!IoSetCancelRoutine(Irp, NULL))
            continue;           /* LaneCancel waits for the lock, and takes it out itself */
        RemoveEntryList(Entry);
        Found = Irp;
        break;
    }
    KeReleaseSpinLock(&Lane->Lock, Irql);
    return Found;
}

/* Ends what waits through File (or all). */
PART VOID LaneClear(LANE *Lane, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = LaneTake(Lane, File)) != NULL)
        LaneEnd(Lane, Irp, Status);
}

/* Ends all that waits and all that comes later. */
PART VOID LaneShut(LANE *Lane, NTSTATUS Status)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Lane->Lock, &Irql);
    Lane->Shut = Status;
    KeReleaseSpinLock(&Lane->Lock, Irql);
    LaneClear(Lane, NULL, Status);
}

#endif
