/*
 * the frame of one author's drivers: completing and queueing requests, control devices of legacy drivers, and (EE_PNP) Plug and Play, power
 * and the passing on of requests one at a time. The driver includes wdm.h before it and defines:
 *   EE_PNP    a PnP driver: _DEV begins with an EE; DrvGone is called (once or more) when the device goes: fail all that waits
 *   EE_START  a software PnP driver that has DrvStart and DrvStop
 *   EE_HW     hardware: DrvStart, DrvStop, DrvSleep, DrvWake; the stack's power policy is ours
 *   EE_QUEUE  requests go one after the other through DrvBegin; DrvLimit is called when the time set with EeArm is over
 *   EE_INT    it has an interrupt: DrvIsr
 *   EE_CLEAN  DrvClean: a handle is being closed, its waiting requests are to be ended
 */
#ifndef EEFRAME_H
#define EEFRAME_H

#define EE_FN static inline
#define EE_TAG 'rfEE'

EE_FN NTSTATUS EeDone(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

EE_FN NTSTATUS NTAPI EeOk(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return EeDone(irp, STATUS_SUCCESS, 0);
}

/* ---- a queue of cancelable requests ---- */

typedef struct _EEQ {
    IO_CSQ Csq;
    LIST_ENTRY List;
    KSPIN_LOCK Lock;
    PIO_REMOVE_LOCK Remove;     /* held (tag: the IRP) by every request in the queue; NULL in legacy drivers */
    NTSTATUS Closed;            /* what new requests are refused with, STATUS_SUCCESS while it is open */
} EEQ;

EE_FN VOID EeqEnd(EEQ *q, PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    PIO_REMOVE_LOCK lock = q->Remove;

    EeDone(irp, st, info);
    if (lock)
        IoReleaseRemoveLock(lock, irp);
}

EE_FN NTSTATUS NTAPI EeqCsqInsert(PIO_CSQ csq, PIRP irp, PVOID ctx)
{
    EEQ *q = CONTAINING_RECORD(csq, EEQ, Csq);

    UNREFERENCED_PARAMETER(ctx);
    if (!NT_SUCCESS(q->Closed))
        return q->Closed;
    InsertTailList(&q->List, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

EE_FN VOID NTAPI EeqCsqRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

EE_FN PIRP NTAPI EeqCsqPeek(PIO_CSQ csq, PIRP irp, PVOID file)
{
    EEQ *q = CONTAINING_RECORD(csq, EEQ, Csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!file || IoGetCurrentIrpStackLocation(i)->FileObject == file)
            return i;
    }
    return NULL;
}

EE_FN VOID NTAPI EeqCsqLock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, EEQ, Csq)->Lock, irql);
}

EE_FN VOID NTAPI EeqCsqUnlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, EEQ, Csq)->Lock, irql);
}

EE_FN VOID NTAPI EeqCsqCanceled(PIO_CSQ csq, PIRP irp)
{
    EeqEnd(CONTAINING_RECORD(csq, EEQ, Csq), irp, STATUS_CANCELLED, 0);
}

EE_FN NTSTATUS EeqInit(EEQ *q, PIO_REMOVE_LOCK lock)
{
    InitializeListHead(&q->List);
    KeInitializeSpinLock(&q->Lock);
    q->Remove = lock;
    q->Closed = STATUS_SUCCESS;
    return IoCsqInitializeEx(&q->Csq, EeqCsqInsert, EeqCsqRemove, EeqCsqPeek, EeqCsqLock, EeqCsqUnlock, EeqCsqCanceled);
}

/* The request is the queue's from here on (or has been failed): always return STATUS_PENDING. */
EE_FN NTSTATUS EeqPut(EEQ *q, PIRP irp)
{
    NTSTATUS st;

    IoMarkIrpPending(irp);
    st = IoCsqInsertIrpEx(&q->Csq, irp, NULL, NULL);
    if (!NT_SUCCESS(st))
        EeqEnd(q, irp, st, 0);
    return STATUS_PENDING;
}

EE_FN VOID EeqFlush(EEQ *q, PFILE_OBJECT file, NTSTATUS st)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&q->Csq, file)) != NULL)
        EeqEnd(q, irp, st, 0);
}

EE_FN VOID EeqClose(EEQ *q, NTSTATUS st)
{
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    if (q->Closed != STATUS_DELETE_PENDING)
        q->Closed = st;
    KeReleaseSpinLock(&q->Lock, irql);
    if (!NT_SUCCESS(st))
        EeqFlush(q, NULL, st);
}

/* ---- legacy drivers ---- */

EE_FN NTSTATUS EeControl(PDRIVER_OBJECT drv, PCWSTR name, PCWSTR link, ULONG ext, ULONG flags, PDEVICE_OBJECT *out)
{
    UNICODE_STRING n, l;
    PDEVICE_OBJECT dev;
    NTSTATUS st;

    RtlInitUnicodeString(&n, name);
    RtlInitUnicodeString(&l, link);
    st = IoCreateDevice(drv, ext, &n, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;
    dev->Flags |= flags;
    st = IoCreateSymbolicLink(&l, &n);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    *out = dev;
    return STATUS_SUCCESS;
}

EE_FN VOID EeControlGone(PDEVICE_OBJECT dev, PCWSTR link)
{
    UNICODE_STRING l;

    RtlInitUnicodeString(&l, link);
    IoDeleteSymbolicLink(&l);
    IoDeleteDevice(dev);
}

#ifdef EE_PNP

/* ---- Plug and Play ---- */

#define EE_HOLD_PNP 1u
#define EE_HOLD_POWER 2u

typedef struct _EE {
    PDEVICE_OBJECT Self, Pdo, Next;
    IO_REMOVE_LOCK Remove;
    UNICODE_STRING Link;
    KEVENT Door;                    /* one transition of state at a time, PASSIVE_LEVEL */
    BOOLEAN LinkOn, Started;
    volatile BOOLEAN Live, Gone;
#ifdef EE_HW
    KSPIN_LOCK Hw;                  /* Started and Power against the waking at DISPATCH_LEVEL */
    DEVICE_POWER_STATE Power;
#endif
#ifdef EE_INT
    PKINTERRUPT Int;
    KSPIN_LOCK IntGuard;
    volatile BOOLEAN IntOn;         /* registers may be touched by the interrupt routine and what runs in step with it */
#endif
#ifdef EE_QUEUE
    EEQ Queue;
    KSPIN_LOCK Gate;
    ULONG Hold;
    BOOLEAN Busy, Pumping;
    KEVENT Idle;
    KSPIN_LOCK LimitLock;
    KTIMER LimitTimer;
    KDPC LimitDpc;
    PIRP Active;
    ULONGLONG Deadline;
#endif
} EE;

static VOID DrvGone(EE *ee);
#if defined(EE_START) || defined(EE_HW)
static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list);   /* PASSIVE_LEVEL; undoes its own work when it fails */
static VOID DrvStop(EE *ee, BOOLEAN touch);                 /* PASSIVE_LEVEL, no request is active; touch: the hardware is there and in D0 */
#endif
#ifdef EE_HW
static VOID DrvSleep(EE *ee);                               /* PASSIVE_LEVEL, no request is active */
static VOID DrvWake(EE *ee);                                /* DISPATCH_LEVEL, under a spin lock */
#endif
#ifdef EE_QUEUE
static VOID DrvBegin(EE *ee, PIRP irp);                     /* DISPATCH_LEVEL */
static VOID DrvLimit(EE *ee, PIRP irp);                     /* DISPATCH_LEVEL; the request has been taken */
#endif
#ifdef EE_CLEAN
static VOID DrvClean(EE *ee, PFILE_OBJECT file);
#endif

#ifdef EE_QUEUE
/* The caller holds the remove lock for the time of the call. */
EE_FN VOID EePump(EE *ee)
{
    KIRQL irql;
    PIRP irp;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    KeAcquireSpinLockAtDpcLevel(&ee->Gate);
    if (!ee->Pumping) {
        ee->Pumping = TRUE;
        while (!ee->Hold && !ee->Busy && (irp = IoCsqRemoveNextIrp(&ee->Queue.Csq, NULL)) != NULL) {
            ee->Busy = TRUE;
            KeClearEvent(&ee->Idle);
            KeReleaseSpinLockFromDpcLevel(&ee->Gate);
            DrvBegin(ee, irp);
            KeAcquireSpinLockAtDpcLevel(&ee->Gate);
        }
        ee->Pumping = FALSE;
    }
    KeReleaseSpinLockFromDpcLevel(&ee->Gate);
    KeLowerIrql(irql);
}

/* A request whose remove lock (tag: the IRP) has been taken goes into the queue. */
EE_FN NTSTATUS EeSubmit(EE *ee, PIRP irp)
{
    NTSTATUS st = IoAcquireRemoveLock(&ee->Remove, ee);

    if (!NT_SUCCESS(st)) {
        EeqEnd(&ee->Queue, irp, st, 0);
        return st;
    }
    EeqPut(&ee->Queue, irp);
    EePump(ee);
    IoReleaseRemoveLock(&ee->Remove, ee);
    return STATUS_PENDING;
}

/* The active request ends; the hardware is not touched by the caller after this. */
EE_FN VOID EeFinish(EE *ee, PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    KIRQL irql;

    KeAcquireSpinLock(&ee->Gate, &irql);
    ee->Busy = FALSE;
    KeSetEvent(&ee->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&ee->Gate, irql);
    EeDone(irp, st, info);
    EePump(ee);
    IoReleaseRemoveLock(&ee->Remove, irp);
}

EE_FN VOID EeHold(EE *ee, ULONG why)
{
    KIRQL irql;

    KeAcquireSpinLock(&ee->Gate, &irql);
    ee->Hold |= why;
    KeReleaseSpinLock(&ee->Gate, irql);
    KeWaitForSingleObject(&ee->Idle, Executive, KernelMode, FALSE, NULL);
}

EE_FN VOID EeRelease(EE *ee, ULONG why)
{
    KIRQL irql;

    KeAcquireSpinLock(&ee->Gate, &irql);
    ee->Hold &= ~why;
    KeReleaseSpinLock(&ee->Gate, irql);
    EePump(ee);
}

/* From now on the request can be taken with EeTake, and is given to DrvLimit when none has done so within the time. */
EE_FN VOID EeArm(EE *ee, PIRP irp, ULONG ms)
{
    LARGE_INTEGER due;
    KIRQL irql;

    due.QuadPart = -(LONGLONG)ms * 10000;
    KeAcquireSpinLock(&ee->LimitLock, &irql);
    ee->Active = irp;
    ee->Deadline = KeQueryInterruptTime() + (ULONGLONG)ms * 10000;
    KeSetTimer(&ee->LimitTimer, due, &ee->LimitDpc);
    KeReleaseSpinLock(&ee->LimitLock, irql);
}

EE_FN PIRP EeTake(EE *ee)
{
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&ee->LimitLock, &irql);
    irp = ee->Active;
    ee->Active = NULL;
    if (irp)
        KeCancelTimer(&ee->LimitTimer);
    KeReleaseSpinLock(&ee->LimitLock, irql);
    return irp;
}

EE_FN VOID NTAPI EeLimitDpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    EE *ee = ctx;
    PIRP irp = NULL;
    LARGE_INTEGER due;
    ULONGLONG now;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&ee->LimitLock);
    now = KeQueryInterruptTime();
    if (ee->Active && now >= ee->Deadline) {
        irp = ee->Active;
        ee->Active = NULL;
    } else if (ee->Active) {                /* the timer of a request that has ended already came late */
        due.QuadPart = -(LONGLONG)(ee->Deadline - now);
        KeSetTimer(&ee->LimitTimer, due, &ee->LimitDpc);
    }
    KeReleaseSpinLockFromDpcLevel(&ee->LimitLock);
    if (irp)
        DrvLimit(ee, irp);
}
#else
#define EeHold(ee, why) ((void)0)
#define EeRelease(ee, why) ((void)0)
#endif

/* ---- resources and the interrupt ---- */

#ifdef EE_HW
typedef struct _EERES {
    ULONG Mems, Ports;
    PHYSICAL_ADDRESS Mem[6], Port[6];
    ULONG MemLen[6], PortLen[6];
    BOOLEAN HaveInt;
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
    KINTERRUPT_MODE Mode;
} EERES;

EE_FN VOID EeResources(PCM_RESOURCE_LIST list, EERES *r)
{
    PCM_PARTIAL_RESOURCE_LIST part;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    RtlZeroMemory(r, sizeof(*r));
    if (!list || !list->Count)
        return;
    part = (PVOID)((PUCHAR)list + FIELD_OFFSET(CM_RESOURCE_LIST, List) + FIELD_OFFSET(CM_FULL_RESOURCE_DESCRIPTOR, PartialResourceList));
    d = (PVOID)((PUCHAR)part + FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
    for (i = 0; i < part->Count; i++, d++) {
        if (d->Type == CmResourceTypeMemory && r->Mems < 6) {
            r->Mem[r->Mems] = d->u.Memory.Start;
            r->MemLen[r->Mems++] = d->u.Memory.Length;
        } else if (d->Type == CmResourceTypePort && r->Ports < 6) {
            r->Port[r->Ports] = d->u.Port.Start;
            r->PortLen[r->Ports++] = d->u.Port.Length;
        } else if (d->Type == CmResourceTypeInterrupt && !r->HaveInt) {
            r->HaveInt = TRUE;
            r->Vector = d->u.Interrupt.Vector;
            r->Level = (KIRQL)d->u.Interrupt.Level;
            r->Affinity = d->u.Interrupt.Affinity;
            r->Mode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
        }
    }
}
#endif

#ifdef EE_INT
static BOOLEAN DrvIsr(EE *ee);

EE_FN BOOLEAN NTAPI EeIsr(PKINTERRUPT i, PVOID ctx)
{
    EE *ee = ctx;

    UNREFERENCED_PARAMETER(i);
    return ee->IntOn ? DrvIsr(ee) : FALSE;
}

/* Runs the routine in step with the interrupt routine (while there is no interrupt connected: alone of its kind). */
EE_FN BOOLEAN EeSync(EE *ee, PKSYNCHRONIZE_ROUTINE routine, PVOID ctx)
{
    BOOLEAN r;
    KIRQL irql;

    KeAcquireSpinLock(&ee->IntGuard, &irql);
    if (ee->Int)
        r = KeSynchronizeExecution(ee->Int, routine, ctx);
    else
        r = routine(ctx);
    KeReleaseSpinLock(&ee->IntGuard, irql);
    return r;
}

EE_FN BOOLEAN NTAPI EeIntSetOn(PVOID ctx)
{
    ((EE *)ctx)->IntOn = TRUE;
    return TRUE;
}

EE_FN BOOLEAN NTAPI EeIntSetOff(PVOID ctx)
{
    ((EE *)ctx)->IntOn = FALSE;
    return TRUE;
}

EE_FN NTSTATUS EeConnect(EE *ee, EERES *r)
{
    NTSTATUS st;

    if (!r->HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    ee->IntOn = TRUE;
    st = IoConnectInterrupt(&ee->Int, EeIsr, ee, NULL, r->Vector, r->Level, r->Level, r->Mode, TRUE, r->Affinity, FALSE);
    if (!NT_SUCCESS(st)) {
        ee->Int = NULL;
        ee->IntOn = FALSE;
    }
    return st;
}

/* The interrupt routine touches nothing any more and all that it has queued has run. */
EE_FN VOID EeQuiet(EE *ee)
{
    EeSync(ee, EeIntSetOff, ee);
    KeFlushQueuedDpcs();
}

EE_FN VOID EeDisconnect(EE *ee)
{
    PKINTERRUPT i;
    KIRQL irql;

    EeSync(ee, EeIntSetOff, ee);
    KeAcquireSpinLock(&ee->IntGuard, &irql);
    i = ee->Int;
    ee->Int = NULL;
    KeReleaseSpinLock(&ee->IntGuard, irql);
    if (i)
        IoDisconnectInterrupt(i);
    KeFlushQueuedDpcs();
}
#endif

/* ---- the dispatch routines ---- */

EE_FN NTSTATUS NTAPI EeForwarded(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent((PKEVENT)ctx, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

EE_FN NTSTATUS EeForward(EE *ee, PIRP irp)
{
    KEVENT done;

    KeInitializeEvent(&done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, EeForwarded, &done, TRUE, TRUE, TRUE);
    IoCallDriver(ee->Next, irp);
    KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

EE_FN VOID EeLink(EE *ee, BOOLEAN on)
{
    if (ee->LinkOn != on && NT_SUCCESS(IoSetDeviceInterfaceState(&ee->Link, on)))
        ee->LinkOn = on;
}

EE_FN VOID EeEnter(EE *ee)
{
    KeWaitForSingleObject(&ee->Door, Executive, KernelMode, FALSE, NULL);
}

EE_FN VOID EeLeave(EE *ee)
{
    KeSetEvent(&ee->Door, IO_NO_INCREMENT, FALSE);
}

/* Started is cleared first: nothing wakes the hardware from then on. The door is held. */
EE_FN VOID EeHalt(EE *ee, BOOLEAN present)
{
    BOOLEAN was = ee->Started, touch = present;

#ifdef EE_HW
    KIRQL irql;

    KeAcquireSpinLock(&ee->Hw, &irql);
    ee->Started = FALSE;
    touch = present && ee->Power == PowerDeviceD0;
    KeReleaseSpinLock(&ee->Hw, irql);
#else
    ee->Started = FALSE;
#endif
#ifdef EE_QUEUE
    KeCancelTimer(&ee->LimitTimer);
    KeFlushQueuedDpcs();
#endif
#if defined(EE_START) || defined(EE_HW)
    if (was)
        DrvStop(ee, touch);
#else
    UNREFERENCED_PARAMETER(was);
    UNREFERENCED_PARAMETER(touch);
#endif
}

EE_FN NTSTATUS EeStart(EE *ee, PCM_RESOURCE_LIST list)
{
    NTSTATUS st = STATUS_SUCCESS;
#ifdef EE_HW
    KIRQL irql;
#endif

    UNREFERENCED_PARAMETER(list);
    EeEnter(ee);
    if (ee->Gone) {
        EeLeave(ee);
        return STATUS_DELETE_PENDING;
    }
#ifdef EE_HW
    if (ee->Power != PowerDeviceD0) {
        EeLeave(ee);
        return STATUS_DEVICE_NOT_READY;
    }
#endif
#if defined(EE_START) || defined(EE_HW)
    if (!ee->Started)
        st = DrvStart(ee, list);
#endif
    if (NT_SUCCESS(st)) {
#ifdef EE_HW
        KeAcquireSpinLock(&ee->Hw, &irql);
        ee->Started = TRUE;
        KeReleaseSpinLock(&ee->Hw, irql);
#else
        ee->Started = TRUE;
#endif
        ee->Live = TRUE;
        EeLink(ee, TRUE);
        if (!ee->LinkOn) {
            ee->Live = FALSE;
            EeHalt(ee, TRUE);
            st = STATUS_UNSUCCESSFUL;
        }
    }
    EeLeave(ee);
    if (NT_SUCCESS(st)) {
#ifdef EE_QUEUE
        EeqClose(&ee->Queue, STATUS_SUCCESS);
#endif
        EeRelease(ee, EE_HOLD_PNP);
    }
    return st;
}

EE_FN VOID EeFail(EE *ee)
{
    ee->Gone = TRUE;
    ee->Live = FALSE;
#ifdef EE_QUEUE
    EeqClose(&ee->Queue, STATUS_DELETE_PENDING);
#endif
    DrvGone(ee);
}

static VOID EeDelete(EE *ee);

EE_FN NTSTATUS NTAPI EePnp(PDEVICE_OBJECT dev, PIRP irp)
{
    EE *ee = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&ee->Remove, irp);
    PDEVICE_OBJECT next = ee->Next;
#ifdef EE_HW
    KIRQL irql;
#endif

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
#ifdef EE_HW
        KeAcquireSpinLock(&ee->Hw, &irql);
        ee->Power = PowerDeviceD0;
        KeReleaseSpinLock(&ee->Hw, irql);
#ifdef EE_QUEUE
        KeAcquireSpinLock(&ee->Gate, &irql);
        ee->Hold = (ee->Hold | EE_HOLD_PNP) & ~EE_HOLD_POWER;
        KeReleaseSpinLock(&ee->Gate, irql);
#endif
#endif
        st = EeForward(ee, irp);
        if (NT_SUCCESS(st))
            st = EeStart(ee, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        EeDone(irp, st, irp->IoStatus.Information);
        IoReleaseRemoveLock(&ee->Remove, irp);
        return st;

    case IRP_MN_CANCEL_STOP_DEVICE:
        EeForward(ee, irp);
        if (ee->Started)
            EeRelease(ee, EE_HOLD_PNP);
        st = EeDone(irp, STATUS_SUCCESS, irp->IoStatus.Information);
        IoReleaseRemoveLock(&ee->Remove, irp);
        return st;

    case IRP_MN_QUERY_STOP_DEVICE:
        EeHold(ee, EE_HOLD_PNP);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_STOP_DEVICE:
        EeEnter(ee);
        EeHold(ee, EE_HOLD_PNP);
        EeHalt(ee, TRUE);
        EeLeave(ee);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        EeFail(ee);
        EeEnter(ee);
        EeHold(ee, EE_HOLD_PNP);
        EeHalt(ee, FALSE);
        EeLeave(ee);
        EeLink(ee, FALSE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        EeFail(ee);
        EeEnter(ee);
        EeHold(ee, EE_HOLD_PNP);
        EeHalt(ee, TRUE);
        EeLeave(ee);
        EeLink(ee, FALSE);
        IoReleaseRemoveLockAndWait(&ee->Remove, irp);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(next, irp);
        IoDetachDevice(next);
        EeDelete(ee);
        return st;

    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(next, irp);
    IoReleaseRemoveLock(&ee->Remove, irp);
    return st;
}

#ifdef EE_HW
EE_FN VOID NTAPI EePowerSet(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK ios)
{
    PIRP irp = ctx;
    EE *ee = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    if (!NT_SUCCESS(ios->Status))
        irp->IoStatus.Status = ios->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&ee->Remove, irp);
}

/* The system's state has come to us from below: now the device's state follows, and the system's request waits for it. */
EE_FN NTSTATUS NTAPI EeSystemDone(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    EE *ee = ctx;
    POWER_STATE want;
    NTSTATUS st = irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(st)) {
        want.DeviceState = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        st = PoRequestPowerIrp(ee->Pdo, IRP_MN_SET_POWER, want, EePowerSet, irp, NULL);
        if (st == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = st;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&ee->Remove, irp);
    return STATUS_CONTINUE_COMPLETION;
}

EE_FN NTSTATUS NTAPI EeD0Done(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    EE *ee = ctx;
    POWER_STATE now;
    KIRQL irql;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        KeAcquireSpinLock(&ee->Hw, &irql);
        if (ee->Started && !ee->Gone && ee->Power != PowerDeviceD0)
            DrvWake(ee);
        ee->Power = PowerDeviceD0;
        KeReleaseSpinLock(&ee->Hw, irql);
        now.DeviceState = PowerDeviceD0;
        PoSetPowerState(ee->Self, DevicePowerState, now);
#ifdef EE_QUEUE
        EeqClose(&ee->Queue, STATUS_SUCCESS);
#endif
        EeRelease(ee, EE_HOLD_POWER);
    } else {
#ifdef EE_QUEUE
        EeqClose(&ee->Queue, STATUS_DEVICE_POWER_FAILURE);
#endif
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&ee->Remove, irp);
    return STATUS_CONTINUE_COMPLETION;
}

EE_FN VOID EePowerDown(EE *ee, POWER_STATE state)
{
    KIRQL irql;

    EeEnter(ee);
    EeHold(ee, EE_HOLD_POWER);
    if (ee->Started && ee->Power == PowerDeviceD0)
        DrvSleep(ee);
    KeAcquireSpinLock(&ee->Hw, &irql);
    ee->Power = state.DeviceState;
    KeReleaseSpinLock(&ee->Hw, irql);
    EeLeave(ee);
    PoSetPowerState(ee->Self, DevicePowerState, state);
}
#endif

/* DO_POWER_PAGABLE is set: called at PASSIVE_LEVEL. */
EE_FN NTSTATUS NTAPI EePower(PDEVICE_OBJECT dev, PIRP irp)
{
    EE *ee = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&ee->Remove, irp);

    if (!NT_SUCCESS(st)) {
        PoStartNextPowerIrp(irp);
        return EeDone(irp, st, 0);
    }
#ifdef EE_HW
    {
        PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);

        if (sp->MinorFunction == IRP_MN_SET_POWER) {
            BOOLEAN system = sp->Parameters.Power.Type == SystemPowerState;

            if (system || sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
                IoMarkIrpPending(irp);
                IoCopyCurrentIrpStackLocationToNext(irp);
                IoSetCompletionRoutine(irp, system ? EeSystemDone : EeD0Done, ee, TRUE, TRUE, TRUE);
                PoCallDriver(ee->Next, irp);
                return STATUS_PENDING;
            }
            if (sp->Parameters.Power.State.DeviceState > PowerDeviceD0)
                EePowerDown(ee, sp->Parameters.Power.State);
        }
    }
#endif
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(ee->Next, irp);
    IoReleaseRemoveLock(&ee->Remove, irp);
    return st;
}

EE_FN NTSTATUS NTAPI EeSystemControl(PDEVICE_OBJECT dev, PIRP irp)
{
    EE *ee = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&ee->Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(ee->Next, irp);
    IoReleaseRemoveLock(&ee->Remove, irp);
    return st;
}

EE_FN NTSTATUS NTAPI EeCreate(PDEVICE_OBJECT dev, PIRP irp)
{
    EE *ee = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&ee->Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    st = EeDone(irp, ee->Live ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY, 0);
    IoReleaseRemoveLock(&ee->Remove, irp);
    return st;
}

/* A device with open handles gets no IRP_MN_REMOVE_DEVICE: no lock is needed here. */
EE_FN NTSTATUS NTAPI EeCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    EE *ee = dev->DeviceExtension;

    UNREFERENCED_PARAMETER(ee);
    UNREFERENCED_PARAMETER(file);
#ifdef EE_QUEUE
    EeqFlush(&ee->Queue, file, STATUS_CANCELLED);
#endif
#ifdef EE_CLEAN
    DrvClean(ee, file);
#endif
    return EeDone(irp, STATUS_SUCCESS, 0);
}

/* Step one of AddDevice: a device object with the frame's part set up; then the driver's own part, then EeAttach. */
EE_FN NTSTATUS EeNew(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo, ULONG ext, EE **out)
{
    PDEVICE_OBJECT dev;
    EE *ee;
    NTSTATUS st = IoCreateDevice(drv, ext, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(st))
        return st;
    ee = dev->DeviceExtension;
    RtlZeroMemory(ee, ext);
    ee->Self = dev;
    ee->Pdo = pdo;
    IoInitializeRemoveLock(&ee->Remove, EE_TAG, 0, 0);
    KeInitializeEvent(&ee->Door, SynchronizationEvent, TRUE);
#ifdef EE_HW
    KeInitializeSpinLock(&ee->Hw);
    ee->Power = PowerDeviceD3;
#endif
#ifdef EE_INT
    KeInitializeSpinLock(&ee->IntGuard);
#endif
#ifdef EE_QUEUE
    KeInitializeSpinLock(&ee->Gate);
    KeInitializeSpinLock(&ee->LimitLock);
    KeInitializeEvent(&ee->Idle, NotificationEvent, TRUE);
    KeInitializeTimer(&ee->LimitTimer);
    KeInitializeDpc(&ee->LimitDpc, EeLimitDpc, ee);
    ee->Hold = EE_HOLD_PNP;
    st = EeqInit(&ee->Queue, &ee->Remove);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
#endif
    *out = ee;
    return STATUS_SUCCESS;
}

EE_FN VOID EeDelete(EE *ee)
{
    KeFlushQueuedDpcs();
    RtlFreeUnicodeString(&ee->Link);
    IoDeleteDevice(ee->Self);
}

/* Step two; on failure the device object is gone. */
EE_FN NTSTATUS EeAttach(EE *ee, const GUID *guid, ULONG flags)
{
    NTSTATUS st = IoRegisterDeviceInterface(ee->Pdo, guid, NULL, &ee->Link);

    if (!NT_SUCCESS(st)) {
        RtlZeroMemory(&ee->Link, sizeof(ee->Link));
        EeDelete(ee);
        return st;
    }
    ee->Next = IoAttachDeviceToDeviceStack(ee->Self, ee->Pdo);
    if (!ee->Next) {
        EeDelete(ee);
        return STATUS_NO_SUCH_DEVICE;
    }
    ee->Self->Flags |= flags | DO_POWER_PAGABLE;
    ee->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

EE_FN VOID NTAPI EeUnload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

EE_FN VOID EeDriver(PDRIVER_OBJECT drv, PDRIVER_ADD_DEVICE add)
{
    drv->DriverExtension->AddDevice = add;
    drv->DriverUnload = EeUnload;
    drv->MajorFunction[IRP_MJ_PNP] = EePnp;
    drv->MajorFunction[IRP_MJ_POWER] = EePower;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = EeSystemControl;
    drv->MajorFunction[IRP_MJ_CREATE] = EeCreate;
    drv->MajorFunction[IRP_MJ_CLEANUP] = EeCleanup;
    drv->MajorFunction[IRP_MJ_CLOSE] = EeOk;
}

#endif /* EE_PNP */
#endif
