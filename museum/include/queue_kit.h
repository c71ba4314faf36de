/*
 * ykit.h: what the drivers of this folder share. Without YK_LEGACY it is the frame of a PnP function driver: AddDevice, PnP, power, the remove lock, a
 * cancel-safe queue whose requests are started one at a time while the device is started and in D0.
 *
 * - Request(d, Irp) is called for read, write and device control at PASSIVE_LEVEL. It ends the request with YkFinish, or hands it to YkQueue.
 * - StartIo(d, Irp) is called at DISPATCH_LEVEL for one request at a time; it or a DPC of it ends the request with YkDone within a limited time.
 * - Enable/Disable are called at DISPATCH_LEVEL under HwLock when the registers become usable/are about to become unusable; d->Live tells so under HwLock.
 * - Start/Stop take and give back resources at PASSIVE_LEVEL; Stop has to bear a Start that failed half way. Settled is called when the lower driver has
 *   learnt of the stop or removal: the card reaches no memory any more.
 * - Gone is called (perhaps twice) when the device is lost or removed: it ends the requests that wait elsewhere.
 */
#ifndef YKIT_H
#define YKIT_H

#ifdef __clang__
#define YKFN static inline __attribute__((unused))
#else
#define YKFN static inline
#endif

#define YK_TAG 'tikY'

/* Ends a request of a legacy driver. */
YKFN NTSTATUS YkReply(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

#ifndef YK_LEGACY

#define YK_HOLD_START 1 /* not started */
#define YK_HOLD_STOP 2  /* is to be stopped */
#define YK_HOLD_POWER 4 /* not in D0 */

typedef struct _YK YK, *PYK;

typedef struct _YK_QUEUE {
    IO_CSQ Csq;
    LIST_ENTRY List;
    KSPIN_LOCK Lock;
    PYK Owner;
    volatile BOOLEAN Shut;
    BOOLEAN (*Match)(PYK d, PIRP Irp);
} YK_QUEUE, *PYK_QUEUE;

typedef struct _YK_OPS {
    ULONG ExtensionSize;
    const GUID *Interface;
    ULONG Flags;
    NTSTATUS (*Init)(PYK d);
    VOID (*Uninit)(PYK d);
    NTSTATUS (*Start)(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR Resources, ULONG Count);
    VOID (*Stop)(PYK d);
    VOID (*Settled)(PYK d);
    VOID (*Enable)(PYK d);
    VOID (*Disable)(PYK d);
    NTSTATUS (*Request)(PYK d, PIRP Irp);
    VOID (*StartIo)(PYK d, PIRP Irp);
    NTSTATUS (*Create)(PYK d, PFILE_OBJECT File);
    VOID (*Cleanup)(PYK d, PFILE_OBJECT File);
    VOID (*Close)(PYK d, PFILE_OBJECT File);
    VOID (*Gone)(PYK d);
} YK_OPS;

struct _YK {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    const YK_OPS *Ops;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    BOOLEAN LinkUp;
    volatile BOOLEAN Gone;
    volatile BOOLEAN RemovePending;

    KSPIN_LOCK Lock; /* of the five below; taken before the queue's lock */
    ULONG Holds;
    BOOLEAN Pumping;
    PIRP Current;
    KEVENT Idle;
    YK_QUEUE Queue;

    KSPIN_LOCK HwLock; /* of the two below and of what the driver likes */
    BOOLEAN HwReady;
    BOOLEAN Live;
};

static const YK_OPS *YkTheOps;

/* Ends a request that is not the current one. */
YKFN NTSTATUS YkFinish(PYK d, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
    return Status;
}

/* ---- cancel-safe queues ---- */

YKFN VOID NTAPI YkqInsert(PIO_CSQ Csq, PIRP Irp)
{
    PYK_QUEUE q = CONTAINING_RECORD(Csq, YK_QUEUE, Csq);

    InsertTailList(&q->List, &Irp->Tail.Overlay.ListEntry);
}

YKFN VOID NTAPI YkqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* Context: NULL for any request, the queue itself for one that Match likes, else the file object. */
YKFN PIRP NTAPI YkqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PYK_QUEUE q = CONTAINING_RECORD(Csq, YK_QUEUE, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (Context == NULL)
            return i;
        if (Context == (PVOID)q) {
            if (q->Match(q->Owner, i))
                return i;
        } else if ((PVOID)IoGetCurrentIrpStackLocation(i)->FileObject == Context) {
            return i;
        }
    }
    return NULL;
}

YKFN VOID NTAPI YkqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    PYK_QUEUE q = CONTAINING_RECORD(Csq, YK_QUEUE, Csq);

    KeAcquireSpinLock(&q->Lock, Irql);
}

YKFN VOID NTAPI YkqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    PYK_QUEUE q = CONTAINING_RECORD(Csq, YK_QUEUE, Csq);

    KeReleaseSpinLock(&q->Lock, Irql);
}

YKFN VOID NTAPI YkqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PYK_QUEUE q = CONTAINING_RECORD(Csq, YK_QUEUE, Csq);

    YkFinish(q->Owner, Irp, STATUS_CANCELLED, 0);
}

YKFN NTSTATUS YkqInit(PYK d, PYK_QUEUE q)
{
    InitializeListHead(&q->List);
    KeInitializeSpinLock(&q->Lock);
    q->Owner = d;
    q->Shut = FALSE;
    return IoCsqInitialize(&q->Csq, YkqInsert, YkqRemove, YkqPeek, YkqAcquire, YkqRelease, YkqCancelled);
}

YKFN VOID YkqDrain(PYK_QUEUE q, PVOID Which, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&q->Csq, Which)) != NULL)
        YkFinish(q->Owner, Irp, Status, 0);
}

/* Lets a request wait; if the queue is shut meanwhile, the request is ended here or by YkqShut. */
YKFN NTSTATUS YkqWait(PYK_QUEUE q, PIRP Irp)
{
    IoCsqInsertIrp(&q->Csq, Irp, NULL);
    if (q->Shut)
        YkqDrain(q, NULL, STATUS_DELETE_PENDING);
    return STATUS_PENDING;
}

YKFN VOID YkqShut(PYK_QUEUE q)
{
    q->Shut = TRUE;
    YkqDrain(q, NULL, STATUS_DELETE_PENDING);
}

/* ---- the pump ---- */

YKFN VOID YkPump(PYK d)
{
    KIRQL Irql;
    PIRP Irp;

    if (d->Ops->StartIo == NULL)
        return;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    if (!d->Pumping) {
        d->Pumping = TRUE;
        for (;;) {
            if (!d->Gone && (d->Holds != 0 || d->Current != NULL))
                break;
            Irp = IoCsqRemoveNextIrp(&d->Queue.Csq, NULL);
            if (Irp == NULL)
                break;
            if (d->Gone) {
                KeReleaseSpinLockFromDpcLevel(&d->Lock);
                YkFinish(d, Irp, STATUS_DELETE_PENDING, 0);
            } else {
                d->Current = Irp;
                KeClearEvent(&d->Idle);
                KeReleaseSpinLockFromDpcLevel(&d->Lock);
                d->Ops->StartIo(d, Irp);
            }
            KeAcquireSpinLockAtDpcLevel(&d->Lock);
        }
        d->Pumping = FALSE;
    }
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    KeLowerIrql(Irql);
}

YKFN NTSTATUS YkQueue(PYK d, PIRP Irp)
{
    IoCsqInsertIrp(&d->Queue.Csq, Irp, NULL);
    YkPump(d);
    return STATUS_PENDING;
}

/* Ends the current request. Not under HwLock. */
YKFN VOID YkDone(PYK d, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KIRQL Irql;

    KeAcquireSpinLock(&d->Lock, &Irql);
    d->Current = NULL;
    KeSetEvent(&d->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&d->Lock, Irql);
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    YkPump(d);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
}

/* No further request is started; the current one is awaited. */
YKFN VOID YkHold(PYK d, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&d->Lock, &Irql);
    d->Holds |= Why;
    KeReleaseSpinLock(&d->Lock, Irql);
    KeWaitForSingleObject(&d->Idle, Executive, KernelMode, FALSE, NULL);
}

YKFN VOID YkRelease(PYK d, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&d->Lock, &Irql);
    d->Holds &= ~Why;
    KeReleaseSpinLock(&d->Lock, Irql);
    YkPump(d);
}

/* ---- time limits (under HwLock) ---- */

typedef struct _YK_LIMIT {
    KTIMER Timer;
    KDPC Dpc;
    ULONGLONG Deadline;
} YK_LIMIT, *PYK_LIMIT;

YKFN VOID YkLimitInit(PYK_LIMIT l, PKDEFERRED_ROUTINE Routine, PVOID Context)
{
    KeInitializeTimer(&l->Timer);
    KeInitializeDpc(&l->Dpc, Routine, Context);
}

YKFN VOID YkLimitSet(PYK_LIMIT l, ULONG Milliseconds)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -(LONGLONG)Milliseconds * 10000;
    l->Deadline = KeQueryInterruptTime() - Due.QuadPart;
    KeSetTimer(&l->Timer, Due, &l->Dpc);
}

/* In the DPC: is it really over, or is this the DPC of a limit that was cancelled too late? */
YKFN BOOLEAN YkLimitOver(PYK_LIMIT l)
{
    LARGE_INTEGER Due;
    ULONGLONG Now = KeQueryInterruptTime();

    if (Now >= l->Deadline)
        return TRUE;
    Due.QuadPart = -(LONGLONG)(l->Deadline - Now);
    KeSetTimer(&l->Timer, Due, &l->Dpc);
    return FALSE;
}

/* ---- PnP ---- */

YKFN NTSTATUS NTAPI YkForwarded(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

YKFN NTSTATUS YkForward(PYK d, PIRP Irp)
{
    KEVENT Event;
    NTSTATUS Status;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, YkForwarded, &Event, TRUE, TRUE, TRUE);
    Status = IoCallDriver(d->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Irp->IoStatus.Status;
    }
    return Status;
}

/* The registers are left; then the resources are given back. No request is current. */
YKFN VOID YkQuiet(PYK d)
{
    BOOLEAN Was;
    KIRQL Irql;

    KeAcquireSpinLock(&d->HwLock, &Irql);
    Was = d->HwReady;
    if (Was && d->Live && d->Ops->Disable != NULL)
        d->Ops->Disable(d);
    d->Live = FALSE;
    d->HwReady = FALSE;
    KeReleaseSpinLock(&d->HwLock, Irql);
    if (Was) {
        if (d->Ops->Stop != NULL)
            d->Ops->Stop(d);
        KeFlushQueuedDpcs();
    }
}

YKFN NTSTATUS YkStart(PYK d, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR r = NULL;
    PCM_FULL_RESOURCE_DESCRIPTOR f;
    POWER_STATE State;
    ULONG n = 0;
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (List != NULL && List->Count != 0) {
        f = (PCM_FULL_RESOURCE_DESCRIPTOR)((PUCHAR)List + FIELD_OFFSET(CM_RESOURCE_LIST, List));
        n = f->PartialResourceList.Count;
        r = (PCM_PARTIAL_RESOURCE_DESCRIPTOR)((PUCHAR)f + FIELD_OFFSET(CM_FULL_RESOURCE_DESCRIPTOR, PartialResourceList) +
                                              FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
    }
    if (d->Ops->Start != NULL)
        Status = d->Ops->Start(d, r, n);
    if (!NT_SUCCESS(Status)) {
        if (d->Ops->Stop != NULL)
            d->Ops->Stop(d);
        KeFlushQueuedDpcs();
        if (d->Ops->Settled != NULL)
            d->Ops->Settled(d);
        return Status;
    }
    State.DeviceState = PowerDeviceD0;
    PoSetPowerState(d->Self, DevicePowerState, State);
    KeAcquireSpinLock(&d->HwLock, &Irql);
    d->HwReady = TRUE;
    d->Live = TRUE;
    if (d->Ops->Enable != NULL)
        d->Ops->Enable(d);
    KeReleaseSpinLock(&d->HwLock, Irql);
    Status = IoSetDeviceInterfaceState(&d->Link, TRUE);
    if (!NT_SUCCESS(Status)) {
        YkQuiet(d);
        if (d->Ops->Settled != NULL)
            d->Ops->Settled(d);
        return Status;
    }
    d->LinkUp = TRUE;
    YkRelease(d, YK_HOLD_START | YK_HOLD_STOP | YK_HOLD_POWER);
    return STATUS_SUCCESS;
}

/* The device is lost or being removed: nothing waits any more and nothing is in progress. */
YKFN VOID YkGone(PYK d)
{
    KIRQL Irql;

    if (d->LinkUp) {
        d->LinkUp = FALSE;
        IoSetDeviceInterfaceState(&d->Link, FALSE);
    }
    KeAcquireSpinLock(&d->Lock, &Irql);
    d->Gone = TRUE;
    KeReleaseSpinLock(&d->Lock, Irql);
    if (d->Ops->Gone != NULL)
        d->Ops->Gone(d);
    YkPump(d);
    KeWaitForSingleObject(&d->Idle, Executive, KernelMode, FALSE, NULL);
}

YKFN NTSTATUS NTAPI YkPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PYK d = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&d->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return YkReply(Irp, Status, 0);

    switch (s->MinorFunction) {
    case IRP_MN_START_DEVICE:
        YkHold(d, YK_HOLD_START);
        YkQuiet(d);
        Status = YkForward(d, Irp);
        if (d->Ops->Settled != NULL)
            d->Ops->Settled(d);
        if (NT_SUCCESS(Status))
            Status = YkStart(d, s->Parameters.StartDevice.AllocatedResourcesTranslated);
        return YkFinish(d, Irp, Status, Irp->IoStatus.Information);

    case IRP_MN_QUERY_STOP_DEVICE:
        YkHold(d, YK_HOLD_STOP);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = YkForward(d, Irp);
        YkRelease(d, YK_HOLD_STOP);
        return YkFinish(d, Irp, Status, Irp->IoStatus.Information);

    case IRP_MN_STOP_DEVICE:
        YkHold(d, YK_HOLD_START);
        YkQuiet(d);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = YkForward(d, Irp);
        if (d->Ops->Settled != NULL)
            d->Ops->Settled(d);
        return YkFinish(d, Irp, Status, Irp->IoStatus.Information);

    case IRP_MN_QUERY_REMOVE_DEVICE:
        d->RemovePending = TRUE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = YkForward(d, Irp);
        d->RemovePending = FALSE;
        return YkFinish(d, Irp, Status, Irp->IoStatus.Information);

    case IRP_MN_SURPRISE_REMOVAL:
        YkGone(d);
        YkQuiet(d);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = YkForward(d, Irp);
        if (d->Ops->Settled != NULL)
            d->Ops->Settled(d);
        return YkFinish(d, Irp, Status, Irp->IoStatus.Information);

    case IRP_MN_REMOVE_DEVICE:
        YkGone(d);
        IoReleaseRemoveLockAndWait(&d->RemoveLock, Irp);
        YkQuiet(d);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(d->Lower, Irp);
        if (d->Ops->Settled != NULL)
            d->Ops->Settled(d);
        IoDetachDevice(d->Lower);
        KeFlushQueuedDpcs();
        if (d->Ops->Uninit != NULL)
            d->Ops->Uninit(d);
        RtlFreeUnicodeString(&d->Link);
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
    return Status;
}

/* ---- power ---- */

YKFN VOID NTAPI YkDeviceFollowed(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    PIRP Irp = Context;
    PYK d = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(IoStatus);
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
}

YKFN NTSTATUS NTAPI YkSystemPassed(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PYK d = Context;
    POWER_STATE State;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        State.DeviceState =
            IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        if (NT_SUCCESS(PoRequestPowerIrp(d->Self, IRP_MN_SET_POWER, State, YkDeviceFollowed, Irp, NULL)))
            return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
    return STATUS_SUCCESS;
}

YKFN NTSTATUS NTAPI YkPoweredUp(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PYK d = Context;
    POWER_STATE State;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        State.DeviceState = PowerDeviceD0;
        PoSetPowerState(d->Self, DevicePowerState, State);
        KeAcquireSpinLock(&d->HwLock, &Irql);
        if (d->HwReady && !d->Live) {
            d->Live = TRUE;
            if (d->Ops->Enable != NULL)
                d->Ops->Enable(d);
        }
        KeReleaseSpinLock(&d->HwLock, Irql);
        YkRelease(d, YK_HOLD_POWER);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
    return STATUS_SUCCESS;
}

YKFN NTSTATUS NTAPI YkPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PYK d = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE State = s->Parameters.Power.State;
    NTSTATUS Status;
    KIRQL Irql;

    Status = IoAcquireRemoveLock(&d->RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return YkReply(Irp, Status, 0);
    }
    if (s->MinorFunction == IRP_MN_SET_POWER) {
        if (s->Parameters.Power.Type == SystemPowerState || State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, s->Parameters.Power.Type == SystemPowerState ? YkSystemPassed : YkPoweredUp, d, TRUE, TRUE, TRUE);
            PoCallDriver(d->Lower, Irp);
            return STATUS_PENDING;
        }
        YkHold(d, YK_HOLD_POWER);
        KeAcquireSpinLock(&d->HwLock, &Irql);
        if (d->Live && d->Ops->Disable != NULL)
            d->Ops->Disable(d);
        d->Live = FALSE;
        KeReleaseSpinLock(&d->HwLock, Irql);
        PoSetPowerState(d->Self, DevicePowerState, State);
    }
    if (s->MinorFunction == IRP_MN_SET_POWER || s->MinorFunction == IRP_MN_QUERY_POWER)
        Irp->IoStatus.Status = STATUS_SUCCESS;
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
    return Status;
}

/* ---- the other requests ---- */

YKFN NTSTATUS NTAPI YkSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PYK d = DeviceObject->DeviceExtension;
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&d->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return YkReply(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->RemoveLock, Irp);
    return Status;
}

YKFN NTSTATUS NTAPI YkFile(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PYK d = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&d->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return YkReply(Irp, Status, 0);
    switch (s->MajorFunction) {
    case IRP_MJ_CREATE:
        if (d->Gone || d->RemovePending)
            Status = STATUS_DELETE_PENDING;
        else if (d->Ops->Create != NULL)
            Status = d->Ops->Create(d, s->FileObject);
        break;
    case IRP_MJ_CLEANUP:
        YkqDrain(&d->Queue, s->FileObject, STATUS_CANCELLED);
        if (d->Ops->Cleanup != NULL)
            d->Ops->Cleanup(d, s->FileObject);
        break;
    default:
        if (d->Ops->Close != NULL)
            d->Ops->Close(d, s->FileObject);
        break;
    }
    return YkFinish(d, Irp, Status, 0);
}

YKFN NTSTATUS NTAPI YkRequest(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PYK d = DeviceObject->DeviceExtension;
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&d->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return YkReply(Irp, Status, 0);
    Status = IoAcquireRemoveLock(&d->RemoveLock, d); /* the request may be ended before this routine has */
    if (!NT_SUCCESS(Status))
        return YkFinish(d, Irp, Status, 0);
    Status = d->Ops->Request(d, Irp);
    IoReleaseRemoveLock(&d->RemoveLock, d);
    return Status;
}

YKFN NTSTATUS NTAPI YkAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT DeviceObject;
    NTSTATUS Status;
    PYK d;

    Status = IoCreateDevice(DriverObject, YkTheOps->ExtensionSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &DeviceObject);
    if (!NT_SUCCESS(Status))
        return Status;
    d = DeviceObject->DeviceExtension;
    RtlZeroMemory(d, YkTheOps->ExtensionSize);
    d->Self = DeviceObject;
    d->Pdo = Pdo;
    d->Ops = YkTheOps;
    d->Holds = YK_HOLD_START;
    IoInitializeRemoveLock(&d->RemoveLock, YK_TAG, 0, 0);
    KeInitializeSpinLock(&d->Lock);
    KeInitializeSpinLock(&d->HwLock);
    KeInitializeEvent(&d->Idle, NotificationEvent, TRUE);
    Status = YkqInit(d, &d->Queue);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, d->Ops->Interface, NULL, &d->Link);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    if (d->Ops->Init != NULL) {
        Status = d->Ops->Init(d);
        if (!NT_SUCCESS(Status)) {
            RtlFreeUnicodeString(&d->Link);
            IoDeleteDevice(DeviceObject);
            return Status;
        }
    }
    d->Lower = IoAttachDeviceToDeviceStack(DeviceObject, Pdo);
    if (d->Lower == NULL) {
        if (d->Ops->Uninit != NULL)
            d->Ops->Uninit(d);
        RtlFreeUnicodeString(&d->Link);
        IoDeleteDevice(DeviceObject);
        return STATUS_NO_SUCH_DEVICE;
    }
    DeviceObject->Flags |= d->Ops->Flags | DO_POWER_PAGABLE;
    DeviceObject->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

YKFN VOID NTAPI YkUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

YKFN NTSTATUS YkEntry(PDRIVER_OBJECT DriverObject, const YK_OPS *Ops)
{
    YkTheOps = Ops;
    DriverObject->DriverExtension->AddDevice = YkAddDevice;
    DriverObject->DriverUnload = YkUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = YkFile;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = YkFile;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = YkFile;
    DriverObject->MajorFunction[IRP_MJ_READ] = YkRequest;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = YkRequest;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = YkRequest;
    DriverObject->MajorFunction[IRP_MJ_PNP] = YkPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = YkPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = YkSystemControl;
    return STATUS_SUCCESS;
}

/* ---- resources ---- */

YKFN NTSTATUS YkConnect(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, PKSERVICE_ROUTINE Routine, PKINTERRUPT *Interrupt)
{
    NTSTATUS Status;

    Status = IoConnectInterrupt(Interrupt, Routine, d, NULL, r->u.Interrupt.Vector, (KIRQL)r->u.Interrupt.Level, (KIRQL)r->u.Interrupt.Level,
                                (r->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0 ? Latched : LevelSensitive,
                                r->ShareDisposition == CmResourceShareShared, r->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(Status))
        *Interrupt = NULL;
    return Status;
}

#endif /* YK_LEGACY */

#endif
