/*
 * the PnP, power and request-queue frame shared by the function drivers of one author.
 *
 * The driver defines, before it includes this file: GG_GUID (its interface) and GG_IO (DO_BUFFERED_IO or
 * DO_DIRECT_IO); and it writes the Hw... routines declared below. Its device extension begins with a GG.
 *
 * Two ways to serve a request: complete it in HwIo with GgEnd, or hand it to GgQueue; queued requests are given to HwRun one
 * after the other, only while the card is started and in D0, and end with GgDone. GgArm/GgTake give the running request a time
 * limit and one single finisher. GG_WAITS holds requests that wait for events.
 */
#ifndef GG2FRAME_H
#define GG2FRAME_H

#define GG_MAYBE __attribute__((unused))
#define GG_TAG 'tmrG'

#define HOLD_PNP   1                        /* not started, or a stop is pending */
#define HOLD_POWER 2                        /* not in D0 */

typedef struct _GG {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK Rm;
    UNICODE_STRING Link;
    BOOLEAN LinkOn, Started, EverStarted, TornDown;
    DEVICE_POWER_STATE Power;
    KEVENT Change;                          /* start, stop, sleep, wake, removal: one at a time */
    PIO_WORKITEM WakeItem;

    KSPIN_LOCK Lock;                        /* guards the next seven */
    ULONG Held;
    BOOLEAN Gone, Broken, Busy, Pumping, Kick;
    KEVENT Idle;

    KSPIN_LOCK QueueLock;
    LIST_ENTRY Queue;
    IO_CSQ Csq;

    KSPIN_LOCK CurrentLock;
    PIRP Current;
    ULONGLONG Deadline;
    KTIMER Timer;
    KDPC TimerDpc;
} GG, *PGG;

typedef struct _GG_RES {
    ULONG Mems, Ports;
    PHYSICAL_ADDRESS Mem[6];
    ULONG MemLen[6];
    ULONG_PTR Port[6];
    ULONG PortLen[6];
    BOOLEAN HaveInt, Latched, Shared;
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
} GG_RES, *PGG_RES;

static ULONG HwSize(VOID);                                  /* bytes of the device extension */
static NTSTATUS HwInit(PGG g);                              /* AddDevice; undoes its own work when it fails */
static VOID HwFree(PGG g);                                  /* the device goes away */
static NTSTATUS HwStart(PGG g, PGG_RES res);                /* undoes its own work when it fails */
static VOID HwStop(PGG g, BOOLEAN present);                 /* nothing runs any more; resources back */
static VOID HwSleep(PGG g);                                 /* PASSIVE_LEVEL, nothing runs */
static NTSTATUS HwWake(PGG g);                              /* PASSIVE_LEVEL */
static NTSTATUS HwIo(PGG g, PIRP irp, PIO_STACK_LOCATION sp);
static VOID HwRun(PGG g, PIRP irp);                         /* up to DISPATCH_LEVEL */
static VOID HwLimit(PGG g, PIRP irp);                       /* DISPATCH_LEVEL: the request took too long; must end it */
static VOID HwCleanup(PGG g, PFILE_OBJECT file);            /* file NULL: the device is gone */

static GG_MAYBE NTSTATUS GgEnd(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* ---- the queue ------------------------------------------------------------------------------------------------------------ */

static VOID NTAPI GgCsqInsert(PIO_CSQ csq, PIRP irp)
{
    InsertTailList(&CONTAINING_RECORD(csq, GG, Csq)->Queue, &irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI GgCsqRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI GgCsqPeek(PIO_CSQ csq, PIRP irp, PVOID file)
{
    PGG g = CONTAINING_RECORD(csq, GG, Csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : g->Queue.Flink;

    for (; e != &g->Queue; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (file == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == (PFILE_OBJECT)file)
            return next;
    }
    return NULL;
}

static VOID NTAPI GgCsqLock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, GG, Csq)->QueueLock, irql);
}

static VOID NTAPI GgCsqUnlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, GG, Csq)->QueueLock, irql);
}

static VOID NTAPI GgCsqCancelled(PIO_CSQ csq, PIRP irp)
{
    PGG g = CONTAINING_RECORD(csq, GG, Csq);

    GgEnd(irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&g->Rm, irp);
}

static VOID GgDrain(PGG g, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&g->Csq, file)) != NULL) {
        GgEnd(irp, status, 0);
        IoReleaseRemoveLock(&g->Rm, irp);
    }
}

static VOID GgPump(PGG g)
{
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&g->Lock, &irql);
    g->Kick = TRUE;
    if (g->Pumping) {
        KeReleaseSpinLock(&g->Lock, irql);
        return;
    }
    g->Pumping = TRUE;
    while (g->Kick) {
        g->Kick = FALSE;
        if (g->Held || g->Busy || g->Gone || g->Broken)
            continue;
        g->Busy = TRUE;
        KeReleaseSpinLock(&g->Lock, irql);
        irp = IoCsqRemoveNextIrp(&g->Csq, NULL);
        if (irp)
            HwRun(g, irp);
        KeAcquireSpinLock(&g->Lock, &irql);
        if (irp == NULL)
            g->Busy = FALSE;
    }
    g->Pumping = FALSE;
    if (!g->Busy)
        KeSetEvent(&g->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&g->Lock, irql);
}

/* Called under the dispatch routine's hold on the remove lock. */
static GG_MAYBE NTSTATUS GgQueue(PGG g, PIRP irp)
{
    NTSTATUS status = IoAcquireRemoveLock(&g->Rm, irp);
    BOOLEAN dead;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return GgEnd(irp, status, 0);
    IoCsqInsertIrp(&g->Csq, irp, NULL);                     /* marks it pending */
    KeAcquireSpinLock(&g->Lock, &irql);
    dead = g->Gone || g->Broken;
    KeReleaseSpinLock(&g->Lock, irql);
    if (dead)
        GgDrain(g, NULL, STATUS_DELETE_PENDING);
    GgPump(g);
    return STATUS_PENDING;
}

static GG_MAYBE VOID GgDone(PGG g, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    KIRQL irql;

    GgEnd(irp, status, info);
    KeAcquireSpinLock(&g->Lock, &irql);
    g->Busy = FALSE;
    KeReleaseSpinLock(&g->Lock, irql);
    GgPump(g);
    IoReleaseRemoveLock(&g->Rm, irp);
}

static VOID GgHold(PGG g, ULONG why)
{
    BOOLEAN wait;
    KIRQL irql;

    KeAcquireSpinLock(&g->Lock, &irql);
    g->Held |= why;
    wait = g->Busy || g->Pumping;
    if (wait)
        KeClearEvent(&g->Idle);
    KeReleaseSpinLock(&g->Lock, irql);
    if (wait)
        KeWaitForSingleObject(&g->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID GgFree(PGG g, ULONG why)
{
    KIRQL irql;

    KeAcquireSpinLock(&g->Lock, &irql);
    g->Held &= ~why;
    KeReleaseSpinLock(&g->Lock, irql);
    GgPump(g);
}

static VOID GgBreak(PGG g)                                  /* the card cannot be used: until it is started again */
{
    KIRQL irql;

    KeAcquireSpinLock(&g->Lock, &irql);
    g->Broken = TRUE;
    KeReleaseSpinLock(&g->Lock, irql);
    GgDrain(g, NULL, STATUS_DEVICE_NOT_READY);
}

/* ---- the running request -------------------------------------------------------------------------------------------------- */

static GG_MAYBE VOID GgArm(PGG g, PIRP irp, ULONG ms)
{
    LARGE_INTEGER due;
    KIRQL irql;

    KeAcquireSpinLock(&g->CurrentLock, &irql);
    g->Current = irp;
    g->Deadline = KeQueryInterruptTime() + (ULONGLONG)ms * 10000;
    due.QuadPart = -(LONGLONG)ms * 10000;
    KeSetTimer(&g->Timer, due, &g->TimerDpc);
    KeReleaseSpinLock(&g->CurrentLock, irql);
}

static GG_MAYBE PIRP GgTake(PGG g)                          /* who gets it, ends it */
{
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&g->CurrentLock, &irql);
    irp = g->Current;
    g->Current = NULL;
    if (irp)
        KeCancelTimer(&g->Timer);
    KeReleaseSpinLock(&g->CurrentLock, irql);
    return irp;
}

static VOID NTAPI GgTimerDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PGG g = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&g->CurrentLock);
    if (g->Current && KeQueryInterruptTime() >= g->Deadline) {          /* else: the timer of an earlier request */
        irp = g->Current;
        g->Current = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&g->CurrentLock);
    if (irp)
        HwLimit(g, irp);
}

/* ---- waiting for events ---------------------------------------------------------------------------------------------------- */

/* Requests that wait for one of the events in their mask; they do not occupy the card. Events that none waits for are kept. */
typedef struct _GG_WAITS {
    PGG Gg;
    KSPIN_LOCK ServeLock;                   /* guards Kept; taken before ListLock */
    ULONG Kept;
    KSPIN_LOCK ListLock;                    /* guards List */
    LIST_ENTRY List;
    IO_CSQ Csq;
} GG_WAITS, *PGG_WAITS;

typedef struct _GG_PEEK {
    PFILE_OBJECT File;                      /* NULL: any */
    ULONG Events;                           /* 0: any */
} GG_PEEK, *PGG_PEEK;

static GG_MAYBE ULONG GgMask(PIRP irp)
{
    return (ULONG)(ULONG_PTR)irp->Tail.Overlay.DriverContext[0];
}

static GG_MAYBE VOID NTAPI GgWaitInsert(PIO_CSQ csq, PIRP irp)
{
    InsertTailList(&CONTAINING_RECORD(csq, GG_WAITS, Csq)->List, &irp->Tail.Overlay.ListEntry);
}

static GG_MAYBE PIRP NTAPI GgWaitPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PGG_WAITS w = CONTAINING_RECORD(csq, GG_WAITS, Csq);
    PGG_PEEK want = context;
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : w->List.Flink;

    for (; e != &w->List; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (want->File && IoGetCurrentIrpStackLocation(next)->FileObject != want->File)
            continue;
        if (want->Events && !(GgMask(next) & want->Events))
            continue;
        return next;
    }
    return NULL;
}

static GG_MAYBE VOID NTAPI GgWaitLock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, GG_WAITS, Csq)->ListLock, irql);
}

static GG_MAYBE VOID NTAPI GgWaitUnlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, GG_WAITS, Csq)->ListLock, irql);
}

static GG_MAYBE VOID NTAPI GgWaitCancelled(PIO_CSQ csq, PIRP irp)
{
    PGG g = CONTAINING_RECORD(csq, GG_WAITS, Csq)->Gg;

    GgEnd(irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&g->Rm, irp);
}

static GG_MAYBE NTSTATUS GgWaitsInit(PGG g, PGG_WAITS w)
{
    w->Gg = g;
    w->Kept = 0;
    KeInitializeSpinLock(&w->ServeLock);
    KeInitializeSpinLock(&w->ListLock);
    InitializeListHead(&w->List);
    return IoCsqInitialize(&w->Csq, GgWaitInsert, GgCsqRemove, GgWaitPeek, GgWaitLock, GgWaitUnlock, GgWaitCancelled);
}

/* Adds events and gives what there is to those who wait for it, the oldest first: a ULONG in the system buffer. */
static GG_MAYBE VOID GgWaitsServe(PGG_WAITS w, ULONG fresh)
{
    GG_PEEK want = { NULL, 0 };
    LIST_ENTRY served;
    PGG g = w->Gg;
    ULONG events;
    KIRQL irql;
    PIRP irp;

    InitializeListHead(&served);
    KeAcquireSpinLock(&w->ServeLock, &irql);
    w->Kept |= fresh;
    while (w->Kept) {
        want.Events = w->Kept;
        irp = IoCsqRemoveNextIrp(&w->Csq, &want);
        if (irp == NULL)
            break;
        events = w->Kept & GgMask(irp);
        w->Kept &= ~events;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &events, sizeof events);
        InsertTailList(&served, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&w->ServeLock, irql);
    while (!IsListEmpty(&served)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&served), IRP, Tail.Overlay.ListEntry);
        GgEnd(irp, STATUS_SUCCESS, sizeof events);
        IoReleaseRemoveLock(&g->Rm, irp);
    }
}

static GG_MAYBE VOID GgWaitsEnd(PGG_WAITS w, PFILE_OBJECT file)         /* file NULL: all, the device is gone */
{
    GG_PEEK want = { file, 0 };
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&w->Csq, &want)) != NULL) {
        GgEnd(irp, file ? STATUS_CANCELLED : STATUS_DELETE_PENDING, 0);
        IoReleaseRemoveLock(&w->Gg->Rm, irp);
    }
}

/* Called under the dispatch routine's hold on the remove lock. */
static GG_MAYBE NTSTATUS GgWaitsAdd(PGG_WAITS w, PIRP irp, ULONG mask)
{
    PGG g = w->Gg;
    NTSTATUS status = IoAcquireRemoveLock(&g->Rm, irp);
    BOOLEAN gone;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return GgEnd(irp, status, 0);
    irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)mask;
    IoCsqInsertIrp(&w->Csq, irp, NULL);
    KeAcquireSpinLock(&g->Lock, &irql);
    gone = g->Gone;
    KeReleaseSpinLock(&g->Lock, irql);
    if (gone)
        GgWaitsEnd(w, NULL);
    else
        GgWaitsServe(w, 0);
    return STATUS_PENDING;
}

/* ---- resources ------------------------------------------------------------------------------------------------------------ */

static VOID GgResources(PCM_RESOURCE_LIST list, PGG_RES r)
{
    PCM_PARTIAL_RESOURCE_LIST partial;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG n;

    RtlZeroMemory(r, sizeof *r);
    if (list == NULL || list->Count == 0)
        return;
    partial = (PVOID)((PUCHAR)list + FIELD_OFFSET(CM_RESOURCE_LIST, List) +
                      FIELD_OFFSET(CM_FULL_RESOURCE_DESCRIPTOR, PartialResourceList));
    d = (PVOID)((PUCHAR)partial + FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
    for (n = partial->Count; n; n--, d++) {
        if (d->Type == CmResourceTypeMemory && r->Mems < 6) {
            r->Mem[r->Mems] = d->u.Memory.Start;
            r->MemLen[r->Mems++] = d->u.Memory.Length;
        } else if (d->Type == CmResourceTypePort && r->Ports < 6) {
            r->Port[r->Ports] = (ULONG_PTR)d->u.Port.Start.QuadPart;
            r->PortLen[r->Ports++] = d->u.Port.Length;
        } else if (d->Type == CmResourceTypeInterrupt && !r->HaveInt) {
            r->HaveInt = TRUE;
            r->Latched = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
            r->Shared = d->ShareDisposition == CmResourceShareShared;
            r->Vector = d->u.Interrupt.Vector;
            r->Level = (KIRQL)d->u.Interrupt.Level;
            r->Affinity = d->u.Interrupt.Affinity;
        }
    }
}

static GG_MAYBE NTSTATUS GgConnect(PGG_RES r, PKINTERRUPT *in, PKSERVICE_ROUTINE isr, PVOID context)
{
    return IoConnectInterrupt(in, isr, context, NULL, r->Vector, r->Level, r->Level,
                              r->Latched ? Latched : LevelSensitive, r->Shared, r->Affinity, FALSE);
}

/* ---- PnP ------------------------------------------------------------------------------------------------------------------ */

static VOID GgLockChange(PGG g)
{
    KeWaitForSingleObject(&g->Change, Executive, KernelMode, FALSE, NULL);
}

static VOID GgUnlockChange(PGG g)
{
    KeSetEvent(&g->Change, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS NTAPI GgSignal(PDEVICE_OBJECT dev, PIRP irp, PVOID event)
{
    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent((PKEVENT)event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS GgForward(PGG g, PIRP irp)
{
    KEVENT event;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, GgSignal, &event, TRUE, TRUE, TRUE);
    if (IoCallDriver(g->Lower, irp) == STATUS_PENDING)
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

static NTSTATUS GgStart(PGG g, PCM_RESOURCE_LIST translated)
{
    GG_RES res;
    NTSTATUS status;
    KIRQL irql;

    GgResources(translated, &res);
    status = HwStart(g, &res);
    if (NT_SUCCESS(status) && !g->LinkOn) {
        status = IoSetDeviceInterfaceState(&g->Link, TRUE);
        if (NT_SUCCESS(status))
            g->LinkOn = TRUE;
        else
            HwStop(g, TRUE);
    }
    if (!NT_SUCCESS(status)) {
        GgBreak(g);
        return status;
    }
    g->Started = g->EverStarted = TRUE;
    g->Power = PowerDeviceD0;
    KeAcquireSpinLock(&g->Lock, &irql);
    g->Broken = FALSE;
    KeReleaseSpinLock(&g->Lock, irql);
    GgFree(g, HOLD_PNP | HOLD_POWER);
    return STATUS_SUCCESS;
}

static VOID GgStop(PGG g, BOOLEAN present)
{
    GgHold(g, HOLD_PNP);
    if (g->Started) {
        HwStop(g, present && g->Power == PowerDeviceD0);
        KeCancelTimer(&g->Timer);
        KeFlushQueuedDpcs();
        g->Started = FALSE;
    }
}

static VOID GgTearDown(PGG g, BOOLEAN present)
{
    KIRQL irql;

    GgLockChange(g);
    if (!g->TornDown) {
        g->TornDown = TRUE;
        KeAcquireSpinLock(&g->Lock, &irql);
        g->Gone = TRUE;
        KeReleaseSpinLock(&g->Lock, irql);
        GgDrain(g, NULL, STATUS_DELETE_PENDING);
        HwCleanup(g, NULL);
        GgStop(g, present);
        if (g->LinkOn) {
            g->LinkOn = FALSE;
            IoSetDeviceInterfaceState(&g->Link, FALSE);
        }
    }
    GgUnlockChange(g);
}

static NTSTATUS NTAPI GgPnp(PDEVICE_OBJECT dev, PIRP irp)
{
    PGG g = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&g->Rm, irp);

    if (!NT_SUCCESS(status))
        return GgEnd(irp, status, 0);
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = GgForward(g, irp);
        GgLockChange(g);
        if (NT_SUCCESS(status))
            status = GgStart(g, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        else
            GgBreak(g);
        GgUnlockChange(g);
        GgEnd(irp, status, irp->IoStatus.Information);
        IoReleaseRemoveLock(&g->Rm, irp);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
        GgLockChange(g);
        GgHold(g, HOLD_PNP);
        GgUnlockChange(g);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        status = GgForward(g, irp);
        GgLockChange(g);
        if (g->Started)
            GgFree(g, HOLD_PNP);
        GgUnlockChange(g);
        GgEnd(irp, status, irp->IoStatus.Information);
        IoReleaseRemoveLock(&g->Rm, irp);
        return status;
    case IRP_MN_STOP_DEVICE:
        GgLockChange(g);
        GgStop(g, TRUE);
        GgUnlockChange(g);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        GgTearDown(g, FALSE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        GgTearDown(g, TRUE);
        IoReleaseRemoveLockAndWait(&g->Rm, irp);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(g->Lower, irp);
        HwFree(g);
        IoDetachDevice(g->Lower);
        RtlFreeUnicodeString(&g->Link);
        IoFreeWorkItem(g->WakeItem);
        IoDeleteDevice(dev);
        return status;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(g->Lower, irp);
    IoReleaseRemoveLock(&g->Rm, irp);
    return status;
}

/* ---- power ---------------------------------------------------------------------------------------------------------------- */

static VOID NTAPI GgDevicePowerDone(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK io)
{
    PIRP irp = context;                                     /* the system power request that waits for us */
    PGG g = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    irp->IoStatus.Status = io->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&g->Rm, irp);
}

static NTSTATUS NTAPI GgSystemPowerDone(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PGG g = context;
    NTSTATUS status = irp->IoStatus.Status;
    POWER_STATE want;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(status)) {
        want.DeviceState = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState == PowerSystemWorking
                               ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(g->Pdo, IRP_MN_SET_POWER, want, GgDevicePowerDone, irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&g->Rm, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static VOID NTAPI GgWakeWork(PDEVICE_OBJECT dev, PVOID context)
{
    PGG g = dev->DeviceExtension;
    PIRP irp = context;
    POWER_STATE now = { .DeviceState = PowerDeviceD0 };
    KIRQL irql;

    GgLockChange(g);
    if (!NT_SUCCESS(irp->IoStatus.Status) || (g->Started && g->Power != PowerDeviceD0 && !NT_SUCCESS(HwWake(g)))) {
        GgBreak(g);
    } else {
        g->Power = PowerDeviceD0;
        PoSetPowerState(dev, DevicePowerState, now);
        if (g->Started) {
            KeAcquireSpinLock(&g->Lock, &irql);
            g->Broken = FALSE;
            KeReleaseSpinLock(&g->Lock, irql);
        }
        GgFree(g, HOLD_POWER);
    }
    GgUnlockChange(g);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&g->Rm, irp);
}

static NTSTATUS NTAPI GgWakeDone(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PGG g = context;

    UNREFERENCED_PARAMETER(dev);
    IoQueueWorkItem(g->WakeItem, GgWakeWork, DelayedWorkQueue, irp);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI GgPower(PDEVICE_OBJECT dev, PIRP irp)
{
    PGG g = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&g->Rm, irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        return GgEnd(irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, GgSystemPowerDone, g, TRUE, TRUE, TRUE);
        PoCallDriver(g->Lower, irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == DevicePowerState) {
        if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, GgWakeDone, g, TRUE, TRUE, TRUE);
            PoCallDriver(g->Lower, irp);
            return STATUS_PENDING;
        }
        GgLockChange(g);
        GgHold(g, HOLD_POWER);
        if (g->Power == PowerDeviceD0 && g->Started)
            HwSleep(g);
        g->Power = sp->Parameters.Power.State.DeviceState;
        GgUnlockChange(g);
        PoSetPowerState(dev, DevicePowerState, sp->Parameters.Power.State);
        irp->IoStatus.Status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(g->Lower, irp);
    IoReleaseRemoveLock(&g->Rm, irp);
    return status;
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------- */

static NTSTATUS NTAPI GgSystemControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PGG g = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&g->Rm, irp);

    if (!NT_SUCCESS(status))
        return GgEnd(irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(g->Lower, irp);
    IoReleaseRemoveLock(&g->Rm, irp);
    return status;
}

static NTSTATUS NTAPI GgDispatch(PDEVICE_OBJECT dev, PIRP irp)
{
    PGG g = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    UCHAR major = sp->MajorFunction;
    NTSTATUS status;
    BOOLEAN gone;
    KIRQL irql;

    if (major == IRP_MJ_CLOSE)
        return GgEnd(irp, STATUS_SUCCESS, 0);
    status = IoAcquireRemoveLock(&g->Rm, g);
    if (!NT_SUCCESS(status))
        return GgEnd(irp, major == IRP_MJ_CLEANUP ? STATUS_SUCCESS : status, 0);
    KeAcquireSpinLock(&g->Lock, &irql);
    gone = g->Gone;
    KeReleaseSpinLock(&g->Lock, irql);
    if (major == IRP_MJ_CLEANUP) {
        GgDrain(g, sp->FileObject, STATUS_CANCELLED);
        HwCleanup(g, sp->FileObject);
        status = GgEnd(irp, STATUS_SUCCESS, 0);
    } else if (gone || !g->EverStarted) {
        status = GgEnd(irp, gone ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY, 0);
    } else if (major == IRP_MJ_CREATE) {
        status = GgEnd(irp, STATUS_SUCCESS, 0);
    } else {
        status = HwIo(g, irp, sp);
    }
    IoReleaseRemoveLock(&g->Rm, g);
    return status;
}

static NTSTATUS NTAPI GgAddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PGG g;

    status = IoCreateDevice(drv, HwSize(), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    g = dev->DeviceExtension;
    RtlZeroMemory(g, HwSize());
    g->Self = dev;
    g->Pdo = pdo;
    g->Power = PowerDeviceD0;
    g->Held = HOLD_PNP;
    IoInitializeRemoveLock(&g->Rm, GG_TAG, 0, 0);
    KeInitializeEvent(&g->Change, SynchronizationEvent, TRUE);
    KeInitializeSpinLock(&g->Lock);
    KeInitializeSpinLock(&g->QueueLock);
    KeInitializeSpinLock(&g->CurrentLock);
    KeInitializeEvent(&g->Idle, NotificationEvent, TRUE);
    InitializeListHead(&g->Queue);
    KeInitializeTimer(&g->Timer);
    KeInitializeDpc(&g->TimerDpc, GgTimerDpc, g);
    status = IoCsqInitialize(&g->Csq, GgCsqInsert, GgCsqRemove, GgCsqPeek, GgCsqLock, GgCsqUnlock, GgCsqCancelled);
    if (!NT_SUCCESS(status))
        goto no_item;
    g->WakeItem = IoAllocateWorkItem(dev);
    if (g->WakeItem == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_item;
    }
    status = HwInit(g);
    if (!NT_SUCCESS(status))
        goto no_hw;
    status = IoRegisterDeviceInterface(pdo, &GG_GUID, NULL, &g->Link);
    if (!NT_SUCCESS(status))
        goto no_link;
    g->Lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (g->Lower == NULL) {
        status = STATUS_NO_SUCH_DEVICE;
        goto no_lower;
    }
    dev->Flags |= GG_IO | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
no_lower:
    RtlFreeUnicodeString(&g->Link);
no_link:
    HwFree(g);
no_hw:
    IoFreeWorkItem(g->WakeItem);
no_item:
    IoDeleteDevice(dev);
    return status;
}

static VOID NTAPI GgUnload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    drv->MajorFunction[IRP_MJ_CREATE] = GgDispatch;
    drv->MajorFunction[IRP_MJ_CLOSE] = GgDispatch;
    drv->MajorFunction[IRP_MJ_CLEANUP] = GgDispatch;
    drv->MajorFunction[IRP_MJ_READ] = GgDispatch;
    drv->MajorFunction[IRP_MJ_WRITE] = GgDispatch;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GgDispatch;
    drv->MajorFunction[IRP_MJ_PNP] = GgPnp;
    drv->MajorFunction[IRP_MJ_POWER] = GgPower;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = GgSystemControl;
    drv->DriverExtension->AddDevice = GgAddDevice;
    drv->DriverUnload = GgUnload;
    return STATUS_SUCCESS;
}

/* For drivers without hardware of their own. */
#ifdef GG_SOFT
static NTSTATUS HwStart(PGG g, PGG_RES res)
{
    UNREFERENCED_PARAMETER(g);
    UNREFERENCED_PARAMETER(res);
    return STATUS_SUCCESS;
}
static VOID HwStop(PGG g, BOOLEAN present) { UNREFERENCED_PARAMETER(g); UNREFERENCED_PARAMETER(present); }
static VOID HwSleep(PGG g) { UNREFERENCED_PARAMETER(g); }
static NTSTATUS HwWake(PGG g) { UNREFERENCED_PARAMETER(g); return STATUS_SUCCESS; }
static VOID HwRun(PGG g, PIRP irp) { GgDone(g, irp, STATUS_INVALID_DEVICE_REQUEST, 0); }
static VOID HwLimit(PGG g, PIRP irp) { GgDone(g, irp, STATUS_IO_TIMEOUT, 0); }
static VOID HwCleanup(PGG g, PFILE_OBJECT file) { UNREFERENCED_PARAMETER(g); UNREFERENCED_PARAMETER(file); }
#endif
#endif
