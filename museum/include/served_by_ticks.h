/*
 * PnP, power and request queue of the drivers by one author.
 *
 * A driver gives a table (BF_OPS) and a device extension that begins with BF. Requests for which Io answers BF_QUEUE are held in a cancel-safe
 * queue and given to StartIo one after the other, only while the device is started, not stopped and in D0. StartIo and everything that ends a
 * request that is under way works under Lock; every such request has a limit of Limit ticks of 100 ms, after which Expire has to end it.
 */
#ifndef BFRAME_H
#define BFRAME_H

#include <ddk/wdm.h>

#define BF_QUEUE ((NTSTATUS)0x2FFF0001)
#define BF_TAG 'mrFB'

#define H_START 1u /* no resources yet, or given back */
#define H_STOP 2u  /* query stop, stop */
#define H_POWER 4u /* not in D0 */
#define H_GONE 8u  /* removed */

typedef struct _BF BF, *PBF;

typedef struct _BF_RANGE {
    PHYSICAL_ADDRESS At;
    ULONG Size;
} BF_RANGE;

typedef struct _BF_RES {
    ULONG Windows; /* memory windows, in the order of the resources */
    BF_RANGE Window[6];
    BOOLEAN HasIrq;
    BOOLEAN Latched;
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
} BF_RES, *PBF_RES;

typedef struct _BF_OPS {
    ULONG Size; /* of the extension */
    const GUID *Interface;
    ULONG IoFlags;
    ULONG Limit;                               /* ticks of 100 ms a started request may take */
    NTSTATUS (*Add)(PBF);                      /* once, PASSIVE */
    NTSTATUS (*Start)(PBF, PBF_RES);           /* PASSIVE; if it fails nothing is left */
    VOID (*Stop)(PBF);                         /* PASSIVE, nothing under way, resources are to be given back */
    VOID (*PowerDown)(PBF);                    /* DISPATCH, under Lock, nothing under way */
    VOID (*PowerUp)(PBF);                      /* DISPATCH, under Lock */
    NTSTATUS (*StartIo)(PBF, PIRP);            /* DISPATCH, under Lock; STATUS_PENDING or how it ended */
    NTSTATUS (*Prepare)(PBF, PIRP);            /* instead of StartIo: without Lock; it calls BfBegin itself */
    VOID (*Poll)(PBF);                         /* DISPATCH, with every tick */
    VOID (*Expire)(PBF, PIRP);                 /* DISPATCH, has to call BfDone */
    NTSTATUS (*Create)(PBF, PIO_STACK_LOCATION);
    NTSTATUS (*Io)(PBF, PIRP, PIO_STACK_LOCATION); /* BF_QUEUE, STATUS_PENDING (kept by the driver) or how it ended */
    VOID (*Cleanup)(PBF, PFILE_OBJECT);
    VOID (*Close)(PBF, PFILE_OBJECT);
    VOID (*Gone)(PBF);   /* PASSIVE: end whatever the driver keeps itself; may come twice */
    VOID (*Remove)(PBF); /* PASSIVE, no one else is there any more */
} BF_OPS;

struct _BF {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK Rl;
    UNICODE_STRING Link;
    volatile BOOLEAN Started, Gone, NoPower; /* Gone, NoPower: set under QLock */
    BOOLEAN LinkUp;
    KSPIN_LOCK Lock; /* the following line */
    ULONG Holds, Ticks;
    BOOLEAN Busy, Running, HwUp, Asleep;
    PIRP Active;
    KEVENT Idle;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK QLock;
    LIST_ENTRY Queue;
    IO_CSQ Csq;
};

static const BF_OPS *BfOps;

#define BFU __attribute__((unused))

/* ------------------------------------------------------------ the queue */

static VOID BfEnd(PBF b, PIRP irp, NTSTATUS st)
{
    irp->IoStatus.Status = st;
    IoCompleteRequest(irp, NT_SUCCESS(st) ? IO_DISK_INCREMENT : IO_NO_INCREMENT);
    IoReleaseRemoveLock(&b->Rl, irp);
}

static NTSTATUS NTAPI BfCsqInsert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PBF b = CONTAINING_RECORD(csq, BF, Csq);

    UNREFERENCED_PARAMETER(context);
    if (b->Gone)
        return STATUS_DELETE_PENDING;
    if (b->NoPower)
        return STATUS_DEVICE_POWER_FAILURE;
    InsertTailList(&b->Queue, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI BfCsqRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI BfCsqPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PBF b = CONTAINING_RECORD(csq, BF, Csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : b->Queue.Flink;

    for (; e != &b->Queue; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!context || IoGetCurrentIrpStackLocation(next)->FileObject == context)
            return next;
    }
    return NULL;
}

static VOID NTAPI BfCsqAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, BF, Csq)->QLock, irql);
}

static VOID NTAPI BfCsqRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, BF, Csq)->QLock, irql);
}

static VOID NTAPI BfCsqCanceled(PIO_CSQ csq, PIRP irp)
{
    irp->IoStatus.Information = 0;
    BfEnd(CONTAINING_RECORD(csq, BF, Csq), irp, STATUS_CANCELLED);
}

/*
 * Starts requests while the card is free. One runner at a time; who finds another one leaves it to him: he looks again under Lock before he goes.
 * After the last release of Lock nothing of b is touched: a removal waits for Idle and then takes Lock.
 */
static VOID BfRun(PBF b, BOOLEAN ended)
{
    KIRQL q;
    PIRP irp;
    NTSTATUS st;

    KeAcquireSpinLock(&b->Lock, &q);
    if (ended)
        b->Busy = FALSE;
    if (b->Running) {
        KeReleaseSpinLock(&b->Lock, q);
        return;
    }
    b->Running = TRUE;
    KeClearEvent(&b->Idle);
    for (;;) {
        irp = NULL;
        if (!b->Busy && !b->Holds)
            irp = IoCsqRemoveNextIrp(&b->Csq, NULL);
        if (!irp)
            break;
        b->Busy = TRUE;
        irp->IoStatus.Information = 0;
        if (BfOps->Prepare) {
            KeReleaseSpinLock(&b->Lock, q);
            st = BfOps->Prepare(b, irp);
            KeAcquireSpinLock(&b->Lock, &q);
        } else {
            st = BfOps->StartIo(b, irp);
            if (st == STATUS_PENDING) {
                b->Active = irp;
                b->Ticks = 0;
            }
        }
        if (st != STATUS_PENDING) {
            KeReleaseSpinLock(&b->Lock, q);
            BfEnd(b, irp, st);
            KeAcquireSpinLock(&b->Lock, &q);
            b->Busy = FALSE;
        }
    }
    b->Running = FALSE;
    if (!b->Busy)
        KeSetEvent(&b->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&b->Lock, q);
}

/* For Prepare, under Lock: from here on the request is under way and has its limit. */
BFU static VOID BfBegin(PBF b, PIRP irp)
{
    b->Active = irp;
    b->Ticks = 0;
}

/* Ends the request that was taken from Active (or refused behind Prepare). */
BFU static VOID BfDone(PBF b, PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Information = info;
    BfEnd(b, irp, st);
    BfRun(b, TRUE);
}

static NTSTATUS BfEnqueue(PBF b, PIRP irp)
{
    NTSTATUS st = IoAcquireRemoveLock(&b->Rl, irp);

    IoMarkIrpPending(irp);
    if (!NT_SUCCESS(st)) {
        irp->IoStatus.Status = st;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return STATUS_PENDING;
    }
    st = IoCsqInsertIrpEx(&b->Csq, irp, NULL, NULL);
    if (!NT_SUCCESS(st))
        BfEnd(b, irp, st);
    else
        BfRun(b, FALSE);
    return STATUS_PENDING;
}

static VOID BfFlush(PBF b, PFILE_OBJECT file, NTSTATUS st)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&b->Csq, file)) != NULL) {
        irp->IoStatus.Information = 0;
        BfEnd(b, irp, st);
    }
}

static VOID NTAPI BfTick(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PBF b = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    if (b->Active && ++b->Ticks > BfOps->Limit) {
        irp = b->Active;
        b->Active = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    if (irp)
        BfOps->Expire(b, irp);
    else if (BfOps->Poll)
        BfOps->Poll(b);
}

/* ------------------------------------------------------------ holding */

static VOID BfHoldSet(PBF b, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&b->Lock, &q);
    b->Holds |= why;
    KeReleaseSpinLock(&b->Lock, q);
}

static VOID BfHoldWait(PBF b)
{
    KIRQL q;

    KeWaitForSingleObject(&b->Idle, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&b->Lock, &q); /* the one that set the event has let go */
    KeReleaseSpinLock(&b->Lock, q);
}

static VOID BfUnhold(PBF b, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&b->Lock, &q);
    b->Holds &= ~why;
    KeReleaseSpinLock(&b->Lock, q);
    BfRun(b, FALSE);
}

static VOID BfSetNoPower(PBF b, BOOLEAN noPower)
{
    KIRQL q;

    KeAcquireSpinLock(&b->QLock, &q);
    b->NoPower = noPower;
    KeReleaseSpinLock(&b->QLock, q);
}

/* D0 cannot be had: what waits for it would wait for ever. */
static VOID BfPowerFailed(PBF b)
{
    BOOLEAN asleep;
    KIRQL q;

    KeAcquireSpinLock(&b->Lock, &q);
    asleep = b->Asleep;
    KeReleaseSpinLock(&b->Lock, q);
    if (!asleep)
        return;
    BfSetNoPower(b, TRUE);
    BfFlush(b, NULL, STATUS_DEVICE_POWER_FAILURE);
}

static VOID BfHwDown(PBF b)
{
    KIRQL q;
    BOOLEAN was;

    KeAcquireSpinLock(&b->Lock, &q);
    was = b->HwUp;
    b->HwUp = FALSE;
    KeReleaseSpinLock(&b->Lock, q);
    if (!was)
        return;
    KeCancelTimer(&b->Timer);
    KeFlushQueuedDpcs();
    if (BfOps->Stop)
        BfOps->Stop(b);
}

static VOID BfSetGone(PBF b)
{
    KIRQL q;

    KeAcquireSpinLock(&b->QLock, &q);
    b->Gone = TRUE;
    KeReleaseSpinLock(&b->QLock, q);
    BfHoldSet(b, H_GONE);
    BfFlush(b, NULL, STATUS_DELETE_PENDING);
    BfHoldWait(b);
    if (BfOps->Gone)
        BfOps->Gone(b);
    BfHwDown(b);
    if (b->LinkUp) {
        IoSetDeviceInterfaceState(&b->Link, FALSE);
        b->LinkUp = FALSE;
    }
}

/* ------------------------------------------------------------ resources */

static VOID BfResources(PCM_RESOURCE_LIST list, PBF_RES r)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i, n;

    RtlZeroMemory(r, sizeof(*r));
    if (!list || list->Count == 0)
        return;
    n = *(PULONG)((PUCHAR)list + FIELD_OFFSET(CM_RESOURCE_LIST, List) +
                  FIELD_OFFSET(CM_FULL_RESOURCE_DESCRIPTOR, PartialResourceList.Count));
    d = (PVOID)((PUCHAR)list + FIELD_OFFSET(CM_RESOURCE_LIST, List) +
                FIELD_OFFSET(CM_FULL_RESOURCE_DESCRIPTOR, PartialResourceList.PartialDescriptors));
    for (i = 0; i < n; i++, d++) {
        if (d->Type == CmResourceTypeMemory && r->Windows < 6) {
            r->Window[r->Windows].At = d->u.Memory.Start;
            r->Window[r->Windows].Size = d->u.Memory.Length;
            r->Windows++;
        } else if (d->Type == CmResourceTypeInterrupt && !r->HasIrq) {
            r->HasIrq = TRUE;
            r->Latched = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
            r->Vector = d->u.Interrupt.Vector;
            r->Level = (KIRQL)d->u.Interrupt.Level;
            r->Affinity = d->u.Interrupt.Affinity;
        }
    }
}

BFU static NTSTATUS BfConnect(PBF_RES r, PKSERVICE_ROUTINE isr, PVOID context, PKINTERRUPT *irq)
{
    if (!r->HasIrq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return IoConnectInterrupt(irq, isr, context, NULL, r->Vector, r->Level, r->Level, r->Latched ? Latched : LevelSensitive, TRUE, r->Affinity,
                              FALSE);
}

BFU static ULONG BfIn(PVOID base, ULONG at)
{
    return READ_REGISTER_ULONG((PULONG)((PUCHAR)base + at));
}

BFU static VOID BfOut(PVOID base, ULONG at, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)((PUCHAR)base + at), value);
}

/* ------------------------------------------------------------ PnP */

static NTSTATUS NTAPI BfSignal(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    UNREFERENCED_PARAMETER(dev);
    if (irp->PendingReturned)
        KeSetEvent(context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS BfForward(PBF b, PIRP irp)
{
    KEVENT event;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, BfSignal, &event, TRUE, TRUE, TRUE);
    if (IoCallDriver(b->Lower, irp) == STATUS_PENDING)
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

static NTSTATUS BfStart(PBF b, PCM_RESOURCE_LIST list)
{
    BF_RES res;
    NTSTATUS st = STATUS_SUCCESS;
    LARGE_INTEGER due;
    KIRQL q;

    BfResources(list, &res);
    if (BfOps->Start)
        st = BfOps->Start(b, &res);
    if (!NT_SUCCESS(st))
        return st;
    KeAcquireSpinLock(&b->Lock, &q);
    b->HwUp = TRUE;
    b->Asleep = FALSE;
    KeReleaseSpinLock(&b->Lock, q);
    due.QuadPart = -1000000;
    KeSetTimerEx(&b->Timer, due, 100, &b->TimerDpc);
    b->Started = TRUE;
    if (!b->LinkUp) {
        st = IoSetDeviceInterfaceState(&b->Link, TRUE);
        if (!NT_SUCCESS(st)) {
            b->Started = FALSE;
            BfHwDown(b);
            return st;
        }
        b->LinkUp = TRUE;
    }
    BfSetNoPower(b, FALSE);
    BfUnhold(b, H_START | H_STOP | H_POWER);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI BfPnp(PDEVICE_OBJECT dev, PIRP irp)
{
    PBF b = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&b->Rl, irp);

    if (!NT_SUCCESS(st)) {
        irp->IoStatus.Status = st;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return st;
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = BfForward(b, irp);
        if (NT_SUCCESS(st))
            st = BfStart(b, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        goto complete;
    case IRP_MN_QUERY_STOP_DEVICE:
        BfHoldSet(b, H_STOP);
        BfHoldWait(b);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
        st = BfForward(b, irp);
        BfUnhold(b, H_STOP);
        st = STATUS_SUCCESS;
        goto complete;
    case IRP_MN_STOP_DEVICE:
        BfHoldSet(b, H_STOP | H_START);
        BfHoldWait(b);
        BfHwDown(b);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        BfSetGone(b);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        BfSetGone(b);
        IoReleaseRemoveLockAndWait(&b->Rl, irp);
        KeFlushQueuedDpcs();
        if (BfOps->Remove)
            BfOps->Remove(b);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(b->Lower, irp);
        IoDetachDevice(b->Lower);
        RtlFreeUnicodeString(&b->Link);
        IoDeleteDevice(dev);
        return st;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(b->Lower, irp);
    IoReleaseRemoveLock(&b->Rl, irp);
    return st;

complete:
    irp->IoStatus.Status = st;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&b->Rl, irp);
    return st;
}

/* ------------------------------------------------------------ power (we own the policy) */

static VOID NTAPI BfDevicePowered(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK io)
{
    PIRP irp = context; /* the system power request that waits for the device one */
    PBF b = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    irp->IoStatus.Status = io->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&b->Rl, irp);
}

static NTSTATUS NTAPI BfSystemPassed(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PBF b = context;
    POWER_STATE to;
    NTSTATUS st = irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(st)) {
        to.DeviceState =
            IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        st = PoRequestPowerIrp(b->Pdo, IRP_MN_SET_POWER, to, BfDevicePowered, irp, NULL);
        if (NT_SUCCESS(st))
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = st;
        if (to.DeviceState == PowerDeviceD0)
            BfPowerFailed(b);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&b->Rl, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI BfPoweredUp(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PBF b = context;
    KIRQL q;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        KeAcquireSpinLock(&b->Lock, &q);
        if (b->HwUp && b->Asleep && BfOps->PowerUp)
            BfOps->PowerUp(b);
        b->Asleep = FALSE;
        KeReleaseSpinLock(&b->Lock, q);
        PoSetPowerState(b->Self, DevicePowerState, IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State);
        BfSetNoPower(b, FALSE);
        BfUnhold(b, H_POWER);
    } else {
        BfPowerFailed(b);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&b->Rl, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI BfPower(PDEVICE_OBJECT dev, PIRP irp)
{
    PBF b = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&b->Rl, irp);
    KIRQL q;

    if (!NT_SUCCESS(st)) {
        PoStartNextPowerIrp(irp);
        irp->IoStatus.Status = st;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return st;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState || sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, sp->Parameters.Power.Type == SystemPowerState ? BfSystemPassed : BfPoweredUp, b, TRUE, TRUE, TRUE);
            PoCallDriver(b->Lower, irp);
            return STATUS_PENDING;
        }
        BfHoldSet(b, H_POWER); /* PASSIVE: DO_POWER_PAGABLE; what is under way has its limit */
        BfHoldWait(b);
        KeAcquireSpinLock(&b->Lock, &q);
        if (b->HwUp && !b->Asleep && BfOps->PowerDown)
            BfOps->PowerDown(b);
        b->Asleep = TRUE;
        KeReleaseSpinLock(&b->Lock, q);
        PoSetPowerState(dev, DevicePowerState, sp->Parameters.Power.State);
        irp->IoStatus.Status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(b->Lower, irp);
    IoReleaseRemoveLock(&b->Rl, irp);
    return st;
}

/* ------------------------------------------------------------ the rest */

static NTSTATUS NTAPI BfSystemControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PBF b = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&b->Rl, irp);

    if (!NT_SUCCESS(st)) {
        irp->IoStatus.Status = st;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return st;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(b->Lower, irp);
    IoReleaseRemoveLock(&b->Rl, irp);
    return st;
}

static NTSTATUS NTAPI BfIo(PDEVICE_OBJECT dev, PIRP irp)
{
    PBF b = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&b->Rl, b);
    BOOLEAN held = NT_SUCCESS(st);

    irp->IoStatus.Information = 0;
    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
        if (held && (!b->Started || b->Gone))
            st = STATUS_DEVICE_NOT_READY;
        else if (held && BfOps->Create)
            st = BfOps->Create(b, sp);
        break;
    case IRP_MJ_CLEANUP:
        if (held)
            BfFlush(b, sp->FileObject, STATUS_CANCELLED);
        if (held && BfOps->Cleanup)
            BfOps->Cleanup(b, sp->FileObject);
        st = STATUS_SUCCESS;
        break;
    case IRP_MJ_CLOSE:
        if (BfOps->Close)
            BfOps->Close(b, sp->FileObject);
        st = STATUS_SUCCESS;
        break;
    default:
        if (held && b->Gone)
            st = STATUS_DELETE_PENDING;
        else if (held)
            st = BfOps->Io(b, irp, sp);
        break;
    }
    if (st == BF_QUEUE) {
        st = BfEnqueue(b, irp);
    } else if (st != STATUS_PENDING) {
        irp->IoStatus.Status = st;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
    }
    if (held)
        IoReleaseRemoveLock(&b->Rl, b);
    return st;
}

static NTSTATUS NTAPI BfAddDevice(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    PBF b;
    NTSTATUS st = IoCreateDevice(driver, BfOps->Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(st))
        return st;
    b = dev->DeviceExtension;
    RtlZeroMemory(b, BfOps->Size);
    b->Self = dev;
    b->Pdo = pdo;
    IoInitializeRemoveLock(&b->Rl, BF_TAG, 0, 0);
    KeInitializeSpinLock(&b->Lock);
    KeInitializeSpinLock(&b->QLock);
    InitializeListHead(&b->Queue);
    KeInitializeEvent(&b->Idle, NotificationEvent, TRUE);
    KeInitializeTimer(&b->Timer);
    KeInitializeDpc(&b->TimerDpc, BfTick, b);
    b->Holds = H_START;
    st = IoCsqInitializeEx(&b->Csq, BfCsqInsert, BfCsqRemove, BfCsqPeek, BfCsqAcquire, BfCsqRelease, BfCsqCanceled);
    if (!NT_SUCCESS(st))
        goto fail_device;
    st = IoRegisterDeviceInterface(pdo, BfOps->Interface, NULL, &b->Link);
    if (!NT_SUCCESS(st))
        goto fail_device;
    if (BfOps->Add) {
        st = BfOps->Add(b);
        if (!NT_SUCCESS(st))
            goto fail_link;
    }
    b->Lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (!b->Lower) {
        if (BfOps->Remove)
            BfOps->Remove(b);
        st = STATUS_NO_SUCH_DEVICE;
        goto fail_link;
    }
    dev->Flags |= BfOps->IoFlags | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

fail_link:
    RtlFreeUnicodeString(&b->Link);
fail_device:
    IoDeleteDevice(dev);
    return st;
}

static VOID NTAPI BfUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
}

static NTSTATUS BfEntry(PDRIVER_OBJECT driver, const BF_OPS *ops)
{
    BfOps = ops;
    driver->DriverExtension->AddDevice = BfAddDevice;
    driver->DriverUnload = BfUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = BfIo;
    driver->MajorFunction[IRP_MJ_CLOSE] = BfIo;
    driver->MajorFunction[IRP_MJ_CLEANUP] = BfIo;
    driver->MajorFunction[IRP_MJ_READ] = BfIo;
    driver->MajorFunction[IRP_MJ_WRITE] = BfIo;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BfIo;
    driver->MajorFunction[IRP_MJ_PNP] = BfPnp;
    driver->MajorFunction[IRP_MJ_POWER] = BfPower;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = BfSystemControl;
    return STATUS_SUCCESS;
}

#endif
