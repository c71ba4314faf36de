/*
 * live_queue.h - a queue of requests that can be cancelled, for drivers of live_frame.h whose EXT has a Queue.
 */

SHARED VOID NTAPI QueuedCancelled(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	KIRQL irql;

	IoReleaseCancelSpinLock(Irp->CancelIrql);
	KeAcquireSpinLock(&ext->Lock, &irql);
	RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
	KeReleaseSpinLock(&ext->Lock, irql);
	Done(ext, Irp, STATUS_CANCELLED, 0);
}

/* The lock is held. */
SHARED PIRP Dequeue(EXT *ext)
{
	while (!IsListEmpty(&ext->Queue)) {
		PIRP irp = CONTAINING_RECORD(RemoveHeadList(&ext->Queue), IRP, Tail.Overlay.ListEntry);

		if (IoSetCancelRoutine(irp, NULL) != NULL)
			return irp;
		InitializeListHead(&irp->Tail.Overlay.ListEntry);	/* its cancel routine waits for the lock */
	}
	return NULL;
}

SHARED VOID CompleteList(EXT *ext, PLIST_ENTRY List, NTSTATUS Status)
{
	while (!IsListEmpty(List))
		Done(ext, CONTAINING_RECORD(RemoveHeadList(List), IRP, Tail.Overlay.ListEntry), Status, 0);
}

SHARED VOID FailAll(EXT *ext, NTSTATUS Status)
{
	LIST_ENTRY list;
	PIRP irp;
	KIRQL irql;

	InitializeListHead(&list);
	KeAcquireSpinLock(&ext->Lock, &irql);
	while ((irp = Dequeue(ext)) != NULL)
		InsertTailList(&list, &irp->Tail.Overlay.ListEntry);
	KeReleaseSpinLock(&ext->Lock, irql);
	CompleteList(ext, &list, Status);
}

SHARED NTSTATUS NTAPI OnCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
	EXT *ext = Device->DeviceExtension;
	PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
	PLIST_ENTRY entry, next;
	LIST_ENTRY list;
	KIRQL irql;

	InitializeListHead(&list);
	KeAcquireSpinLock(&ext->Lock, &irql);
	for (entry = ext->Queue.Flink; entry != &ext->Queue; entry = next) {
		PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

		next = entry->Flink;
		if (IoGetCurrentIrpStackLocation(irp)->FileObject != file || IoSetCancelRoutine(irp, NULL) == NULL)
			continue;
		RemoveEntryList(entry);
		InsertTailList(&list, entry);
	}
	KeReleaseSpinLock(&ext->Lock, irql);
	CompleteList(ext, &list, STATUS_CANCELLED);
	return Finish(Irp, STATUS_SUCCESS, 0);
}
