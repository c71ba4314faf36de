/*
 * lane.h: a cancel-safe lane of requests. A request waits in the list until it is taken, or lifted to `Card`: the place of the one that
 * the hardware works on. It keeps its cancel routine in both places, so it may leave either at any time; who wants to end it has to
 * claim it (under the lock, by taking the cancel routine back). A lane with `Hold` releases that remove lock for each request that ends.
 */
#ifndef UU_LANE_H
#define UU_LANE_H

typedef struct _LANE {
	KSPIN_LOCK Lock;
	LIST_ENTRY Waiting;
	PIRP Card;
	PIO_REMOVE_LOCK Hold;
	BOOLEAN Shut;
} LANE, *PLANE;

typedef VOID (*LANE_LOAD)(PVOID Context, PIRP Irp);

UU_SHARED VOID LaneInit(PLANE Lane, PIO_REMOVE_LOCK Hold)
{
	KeInitializeSpinLock(&Lane->Lock);
	InitializeListHead(&Lane->Waiting);
	Lane->Card = NULL;
	Lane->Hold = Hold;
	Lane->Shut = FALSE;
}

/* Ends a request that the caller has claimed. */
UU_SHARED VOID LaneFinish(PLANE Lane, PIRP Irp, NTSTATUS Status, ULONG_PTR Bytes)
{
	PIO_REMOVE_LOCK hold = Lane->Hold;

	Finish(Irp, Status, Bytes);
	if (hold != NULL)
		IoReleaseRemoveLock(hold, Irp);
}

UU_SHARED VOID NTAPI LaneCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
	PLANE lane = Irp->Tail.Overlay.DriverContext[3];
	KIRQL irql;

	(void)Device;
	IoReleaseCancelSpinLock(Irp->CancelIrql);
	KeAcquireSpinLock(&lane->Lock, &irql);
	if (lane->Card == Irp)
		lane->Card = NULL;
	RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
	KeReleaseSpinLock(&lane->Lock, irql);
	LaneFinish(lane, Irp, STATUS_CANCELLED, 0);
}

/* STATUS_PENDING: the request belongs to the lane. Any other status: the lane is shut, and the request still the caller's. */
UU_SHARED NTSTATUS LanePut(PLANE Lane, PIRP Irp)
{
	BOOLEAN dead = FALSE;
	KIRQL irql;

	KeAcquireSpinLock(&Lane->Lock, &irql);
	if (Lane->Shut) {
		KeReleaseSpinLock(&Lane->Lock, irql);
		return STATUS_DELETE_PENDING;
	}
	IoMarkIrpPending(Irp);
	Irp->Tail.Overlay.DriverContext[3] = Lane;
	InsertTailList(&Lane->Waiting, &Irp->Tail.Overlay.ListEntry);
	IoSetCancelRoutine(Irp, LaneCancel);
	if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
		RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
		dead = TRUE;
	}
	KeReleaseSpinLock(&Lane->Lock, irql);
	if (dead)
		LaneFinish(Lane, Irp, STATUS_CANCELLED, 0);
	return STATUS_PENDING;
}

/* Claims the first waiting request (of that file, if one is named). */
UU_SHARED PIRP LaneTake(PLANE Lane, PFILE_OBJECT File)
{
	PIRP found = NULL;
	PLIST_ENTRY entry;
	KIRQL irql;

	KeAcquireSpinLock(&Lane->Lock, &irql);
	for (entry = Lane->Waiting.Flink; entry != &Lane->Waiting; entry = entry->Flink) {
		PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

		if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
			continue;
		if (IoSetCancelRoutine(irp, NULL) == NULL)
			continue;               /* its cancel routine waits for the lock, and takes it out */
		RemoveEntryList(entry);
		found = irp;
		break;
	}
	KeReleaseSpinLock(&Lane->Lock, irql);
	return found;
}

/* Lifts the first waiting request to `Card`, if that place is free. `Load` copies what the hardware gets, while the
 * request cannot go away. */
UU_SHARED BOOLEAN LaneLift(PLANE Lane, LANE_LOAD Load, PVOID Context)
{
	BOOLEAN lifted = FALSE;
	KIRQL irql;

	KeAcquireSpinLock(&Lane->Lock, &irql);
	if (Lane->Card == NULL && !IsListEmpty(&Lane->Waiting)) {
		PLIST_ENTRY entry = RemoveHeadList(&Lane->Waiting);
		PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

		InitializeListHead(entry);
		Lane->Card = irp;
		Load(Context, irp);
		lifted = TRUE;
	}
	KeReleaseSpinLock(&Lane->Lock, irql);
	return lifted;
}

/* Claims the request that the hardware has worked on. NULL: it was cancelled meanwhile. The place is free in any case. */
UU_SHARED PIRP LaneLand(PLANE Lane)
{
	PIRP irp;
	KIRQL irql;

	KeAcquireSpinLock(&Lane->Lock, &irql);
	irp = Lane->Card;
	Lane->Card = NULL;
	if (irp != NULL && IoSetCancelRoutine(irp, NULL) == NULL)
		irp = NULL;                     /* the cancel routine ends it */
	KeReleaseSpinLock(&Lane->Lock, irql);
	return irp;
}

UU_SHARED BOOLEAN LaneHasCard(PLANE Lane)
{
	BOOLEAN has;
	KIRQL irql;

	KeAcquireSpinLock(&Lane->Lock, &irql);
	has = Lane->Card != NULL;
	KeReleaseSpinLock(&Lane->Lock, irql);
	return has;
}

/* Ends all requests (of that file, if one is named), that on `Card` as well. */
UU_SHARED VOID LaneSweep(PLANE Lane, PFILE_OBJECT File, NTSTATUS Status)
{
	PIRP irp;
	KIRQL irql;

	while ((irp = LaneTake(Lane, File)) != NULL)
		LaneFinish(Lane, irp, Status, 0);
	KeAcquireSpinLock(&Lane->Lock, &irql);
	irp = Lane->Card;
	if (irp != NULL && File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
		irp = NULL;
	if (irp != NULL) {
		Lane->Card = NULL;
		if (IoSetCancelRoutine(irp, NULL) == NULL)
			irp = NULL;
	}
	KeReleaseSpinLock(&Lane->Lock, irql);
	if (irp != NULL)
		LaneFinish(Lane, irp, Status, 0);
	/* one may have been lifted between the two: it is on `Card` only if it waited behind those that were taken */
}

UU_SHARED VOID LaneSetShut(PLANE Lane, BOOLEAN Shut)
{
	KIRQL irql;

	KeAcquireSpinLock(&Lane->Lock, &irql);
	Lane->Shut = Shut;
	KeReleaseSpinLock(&Lane->Lock, irql);
}

#endif
