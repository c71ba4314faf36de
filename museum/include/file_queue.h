/*
 * A queue of requests that can be cancelled while they are in it. Who takes one out owns it. Of the request's DriverContext
 * the last entry is ours. Retire ends a request that was cancelled, or that was in the queue when it was shut; it is called
 * without locks, at or below DISPATCH_LEVEL.
 */
typedef struct _IRPQ IRPQ, *PIRPQ;
typedef BOOLEAN (*IRPQ_WANT)(PIRP Irp, PVOID Context);      /* called under the queue's lock */

struct _IRPQ {
    KSPIN_LOCK Lock;
    LIST_ENTRY Head;
    NTSTATUS Shut;              /* STATUS_SUCCESS while the queue takes requests */
    VOID (*Retire)(PIRPQ Queue, PIRP Irp, NTSTATUS Status);
    PVOID Owner;
};

ANY VOID IrpqBuild(PIRPQ Queue, VOID (*Retire)(PIRPQ, PIRP, NTSTATUS), PVOID Owner)
{
    KeInitializeSpinLock(&Queue->Lock);
    InitializeListHead(&Queue->Head);
    Queue->Shut = STATUS_SUCCESS;
    Queue->Retire = Retire;
    Queue->Owner = Owner;
}

ANY VOID NTAPI IrpqCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIRPQ queue = Irp->Tail.Overlay.DriverContext[3];
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&queue->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&queue->Lock, irql);
    queue->Retire(queue, Irp, STATUS_CANCELLED);
}

/* Puts a request that is pending already into a queue, or into another one. The answer is that of IrpqPut. */
ANY NTSTATUS IrpqAgain(PIRPQ Queue, PIRP Irp)
{
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Queue->Lock, &irql);
    status = Queue->Shut;
    if (status == STATUS_SUCCESS) {
        status = STATUS_PENDING;
        Irp->Tail.Overlay.DriverContext[3] = Queue;
        InsertTailList(&Queue->Head, &Irp->Tail.Overlay.ListEntry);
        (VOID)IoSetCancelRoutine(Irp, IrpqCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
            status = STATUS_CANCELLED;
        }
    }
    KeReleaseSpinLock(&Queue->Lock, irql);
    return status;
}

/*
 * For a dispatch routine. STATUS_PENDING: the queue has it, it must not be touched any more. Anything else: it is still the
 * caller's, who has to end it with this status. It is marked as pending in both cases, so the routine returns STATUS_PENDING.
 */
ANY NTSTATUS IrpqPut(PIRPQ Queue, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    return IrpqAgain(Queue, Irp);
}

/* The first that is wanted; those whose cancel routine is about to run are left to it. */
ANY PIRP IrpqPick(PIRPQ Queue, IRPQ_WANT Want, PVOID Context)
{
    PLIST_ENTRY e;
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&Queue->Lock, &irql);
    for (e = Queue->Head.Flink; e != &Queue->Head; e = e->Flink) {
        irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (Want != NULL && !Want(irp, Context))
            continue;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;
        RemoveEntryList(e);
        KeReleaseSpinLock(&Queue->Lock, irql);
        return irp;
    }
    KeReleaseSpinLock(&Queue->Lock, irql);
    return NULL;
}

ANY PIRP IrpqTake(PIRPQ Queue)
{
    return IrpqPick(Queue, NULL, NULL);
}

ANY BOOLEAN IrpqOfFile(PIRP Irp, PVOID File)
{
    return IoGetCurrentIrpStackLocation(Irp)->FileObject == File;
}

/* For IRP_MJ_CLEANUP. */
ANY VOID IrpqFlushFile(PIRPQ Queue, PFILE_OBJECT File)
{
    PIRP irp;

    while ((irp = IrpqPick(Queue, IrpqOfFile, File)) != NULL)
        Queue->Retire(Queue, irp, STATUS_CANCELLED);
}

ANY VOID IrpqShut(PIRPQ Queue, NTSTATUS Status)
{
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&Queue->Lock, &irql);
    Queue->Shut = Status;
    KeReleaseSpinLock(&Queue->Lock, irql);
    while ((irp = IrpqTake(Queue)) != NULL)
        Queue->Retire(Queue, irp, Status);
}
