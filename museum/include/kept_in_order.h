/*
 * the frame shared by the drivers by one author.
 *
 * Part 1, the waiting queue (CKQ): cancellable IRPs behind one spin lock. CkqPutLocked and CkqTakeLocked are called with
 * q->Lock held, so that a driver can decide "there is nothing yet" and "wait" in one step.
 *
 * Part 2 (not with CK_QUEUE_ONLY), PnP and power for a function driver. Requests go one at a time from the queue k->Q to HwBegin,
 * when no hold bit is set; every request holds the remove lock from its arrival to its completion. The driver defines
 *   HwStart   PASSIVE, takes its resources; undoes its own work when it fails
 *   HwStop    PASSIVE, no request is in HwBegin's hands; gives the resources back; touch: the hardware may be touched
 *   HwCheck   in the dispatch routine: STATUS_PENDING sends the request to the queue, anything else completes it
 *   HwBegin   up to DISPATCH_LEVEL: STATUS_PENDING: CkDone will be called; CK_KEPT: the IRP went to a waiting queue of the driver
 *             (with Rl = &k->Rl); anything else completes it
 * and, as it says so with CK_HAS_...,
 *   CK_HAS_POWER  HwSleep (PASSIVE, before D3) and HwWake (after D0, k->Q.Lock is held)
 *   CK_HAS_TIMER  HwExpired (DISPATCH: the time limit set with CkArmLocked has passed; the IRP is the callee's, who calls CkDone)
 *   CK_HAS_FLUSH  HwFlush (fails the IRPs in the driver's own queues; close: for good)
 *   CK_HAS_FILES  HwOpen, HwClosed
 *   CK_HAS_UNDO   HwUndo (PASSIVE, at removal: frees what AddDevice made)
 */
#ifndef CKIT_H
#define CKIT_H
#include <ddk/wdm.h>

#define CKF static __attribute__((unused))

CKF NTSTATUS CkComplete(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* ------------------------------------------------------------ the waiting queue */

typedef struct _CKQ {
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    NTSTATUS Closed;                /* not 0: nothing may come in any more */
    PIO_REMOVE_LOCK Rl;             /* released (tag: the IRP) when the queue completes an IRP; may be NULL */
} CKQ, *PCKQ;

CKF VOID CkqInit(PCKQ q, PIO_REMOVE_LOCK rl)
{
    KeInitializeSpinLock(&q->Lock);
    InitializeListHead(&q->List);
    q->Closed = STATUS_SUCCESS;
    q->Rl = rl;
}

CKF VOID CkqFinish(PCKQ q, PIRP irp, NTSTATUS status)
{
    PIO_REMOVE_LOCK rl = q->Rl;

    CkComplete(irp, status, 0);
    if (rl)
        IoReleaseRemoveLock(rl, irp);
}

CKF VOID NTAPI CkqCancel(PDEVICE_OBJECT dev, PIRP irp)
{
    PCKQ q = irp->Tail.Overlay.DriverContext[0];
    KIRQL irql;

    UNREFERENCED_PARAMETER(dev);
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&q->Lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&q->Lock, irql);
    CkqFinish(q, irp, STATUS_CANCELLED);
}

/* STATUS_PENDING: it is in the queue (the caller has marked it pending); otherwise the caller still owns it. */
CKF NTSTATUS CkqPutLocked(PCKQ q, PIRP irp)
{
    if (q->Closed != STATUS_SUCCESS)
        return q->Closed;
    irp->Tail.Overlay.DriverContext[0] = q;
    IoSetCancelRoutine(irp, CkqCancel);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL)
        return STATUS_CANCELLED;
    InsertTailList(&q->List, &irp->Tail.Overlay.ListEntry);     /* a cancel routine that runs already waits for the lock */
    return STATUS_PENDING;
}

CKF PIRP CkqTakeLocked(PCKQ q, PFILE_OBJECT file)
{
    PLIST_ENTRY e;

    for (e = q->List.Flink; e != &q->List; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (file != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
            continue;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;                                           /* its cancel routine takes it out */
        RemoveEntryList(e);
        return irp;
    }
    return NULL;
}

CKF VOID CkqFlush(PCKQ q, PFILE_OBJECT file, NTSTATUS status)
{
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&q->Lock, &irql);
        irp = CkqTakeLocked(q, file);
        KeReleaseSpinLock(&q->Lock, irql);
        if (irp == NULL)
            return;
        CkqFinish(q, irp, status);
    }
}

CKF VOID CkqClose(PCKQ q, NTSTATUS status)
{
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    q->Closed = status;
    KeReleaseSpinLock(&q->Lock, irql);
    CkqFlush(q, NULL, status);
}

#ifndef CK_QUEUE_ONLY
/* ------------------------------------------------------------ the function driver's frame */

#define CK_KEPT ((NTSTATUS)0xE0C40001L)

#define CK_HOLD_START 1u
#define CK_HOLD_STOP  2u
#define CK_HOLD_POWER 4u

typedef struct _CK {
    PDEVICE_OBJECT Fdo, Pdo, Lower;
    IO_REMOVE_LOCK Rl;
    UNICODE_STRING Link;
    KEVENT Serial;                  /* one of start, stop, sleep at a time */
    BOOLEAN Started;                /* by Serial */
    CKQ Q;                          /* its lock guards all that follows */
    ULONG Hold;
    NTSTATUS Refuse;
    BOOLEAN Busy, Touch, Stale;
    volatile BOOLEAN Absent;
    DEVICE_POWER_STATE Power;
    KEVENT Idle;
    PIRP Cur;                       /* the request that waits for the hardware */
    ULONG Limit;
    KTIMER Timer;
    KDPC TimerDpc;
} CK, *PCK;

#define CK_OF(dev) ((PCK)(dev)->DeviceExtension)

typedef struct _CK_RES {
    ULONG Mems, Ports;
    struct { PHYSICAL_ADDRESS Base; ULONG Len; } Mem[6];
    struct { ULONG_PTR Base; ULONG Len; } Port[6];
    BOOLEAN Int, Latched, Shared;
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
} CK_RES, *PCK_RES;

static NTSTATUS HwStart(PCK k, PCK_RES r);
static VOID HwStop(PCK k, BOOLEAN touch);
static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info);
static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info);
#ifdef CK_HAS_POWER
static VOID HwSleep(PCK k);
static VOID HwWake(PCK k);
#endif
#ifdef CK_HAS_TIMER
static VOID HwExpired(PCK k, PIRP irp);
#endif
#ifdef CK_HAS_FLUSH
static VOID HwFlush(PCK k, PFILE_OBJECT file, NTSTATUS status, BOOLEAN close);
#endif
#ifdef CK_HAS_FILES
static NTSTATUS HwOpen(PCK k, PFILE_OBJECT file);
static VOID HwClosed(PCK k, PFILE_OBJECT file);
#endif
#ifdef CK_HAS_UNDO
static VOID HwUndo(PCK k);
#endif

/* ---- requests, one at a time */

/* The caller holds the remove lock by something else than the requests in the queue. */
CKF VOID CkKick(PCK k)
{
    KIRQL irql;
    PIRP irp;
    NTSTATUS status;
    ULONG_PTR info;

    for (;;) {
        KeAcquireSpinLock(&k->Q.Lock, &irql);
        irp = k->Busy || k->Hold ? NULL : CkqTakeLocked(&k->Q, NULL);
        if (irp == NULL) {
            KeReleaseSpinLock(&k->Q.Lock, irql);
            return;
        }
        k->Busy = TRUE;
        KeClearEvent(&k->Idle);
        KeReleaseSpinLock(&k->Q.Lock, irql);

        info = 0;
        status = HwBegin(k, irp, &info);
        if (status == STATUS_PENDING)
            return;
        if (status != CK_KEPT) {
            CkComplete(irp, status, info);
            IoReleaseRemoveLock(&k->Rl, irp);
        }
        KeAcquireSpinLock(&k->Q.Lock, &irql);
        k->Busy = FALSE;
        KeSetEvent(&k->Idle, IO_NO_INCREMENT, FALSE);
        KeReleaseSpinLock(&k->Q.Lock, irql);
    }
}

/* The request that HwBegin left pending has ended. */
CKF VOID CkDone(PCK k, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    KIRQL irql;

    CkComplete(irp, status, info);
    KeAcquireSpinLock(&k->Q.Lock, &irql);
    k->Busy = FALSE;
    KeSetEvent(&k->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&k->Q.Lock, irql);
    CkKick(k);
    IoReleaseRemoveLock(&k->Rl, irp);
}

/* The hardware has begun to work for this request (k->Q.Lock held). */
CKF VOID CkArmLocked(PCK k, PIRP irp, ULONG ms)
{
    LARGE_INTEGER due;

    k->Cur = irp;
    k->Limit = ms;
    due.QuadPart = -(LONGLONG)ms * 10000;
    KeSetTimer(&k->Timer, due, &k->TimerDpc);
}

/* Who gets it (not NULL) ends it. */
CKF PIRP CkClaimLocked(PCK k)
{
    PIRP irp = k->Cur;

    k->Cur = NULL;
    if (irp != NULL && !KeCancelTimer(&k->Timer))
        k->Stale = TRUE;            /* it has run off, its DPC is still to come */
    return irp;
}

CKF VOID NTAPI CkTimerDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PCK k = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&k->Q.Lock);
    if (k->Stale) {
        k->Stale = FALSE;
        if (k->Cur != NULL)
            CkArmLocked(k, k->Cur, k->Limit);
    } else {
        irp = k->Cur;
        k->Cur = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&k->Q.Lock);
#ifdef CK_HAS_TIMER
    if (irp != NULL)
        HwExpired(k, irp);
#else
    if (irp != NULL)
        CkDone(k, irp, STATUS_IO_TIMEOUT, 0);
#endif
}

CKF VOID CkHoldAndWait(PCK k, ULONG bit)
{
    KIRQL irql;

    KeAcquireSpinLock(&k->Q.Lock, &irql);
    k->Hold |= bit;
    KeReleaseSpinLock(&k->Q.Lock, irql);
    KeWaitForSingleObject(&k->Idle, Executive, KernelMode, FALSE, NULL);    /* every request has its own time limit */
}

CKF VOID CkLetGo(PCK k, ULONG bits)
{
    KIRQL irql;

    KeAcquireSpinLock(&k->Q.Lock, &irql);
    k->Hold &= ~bits;
    KeReleaseSpinLock(&k->Q.Lock, irql);
    CkKick(k);
}

CKF NTSTATUS NTAPI CkRequest(PDEVICE_OBJECT dev, PIRP irp)
{
    PCK k = CK_OF(dev);
    ULONG_PTR info = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&k->Rl, irp);
    if (!NT_SUCCESS(status))
        return CkComplete(irp, status, 0);
    status = HwCheck(k, irp, IoGetCurrentIrpStackLocation(irp), &info);
    if (status == STATUS_PENDING && !NT_SUCCESS(IoAcquireRemoveLock(&k->Rl, k)))    /* for this thread */
        status = STATUS_DELETE_PENDING;
    if (status != STATUS_PENDING) {
        CkComplete(irp, status, info);
        IoReleaseRemoveLock(&k->Rl, irp);
        return status;
    }
    IoMarkIrpPending(irp);
    KeAcquireSpinLock(&k->Q.Lock, &irql);
    status = k->Refuse != STATUS_SUCCESS ? k->Refuse : CkqPutLocked(&k->Q, irp);
    KeReleaseSpinLock(&k->Q.Lock, irql);
    if (status == STATUS_PENDING) {
        CkKick(k);
    } else {
        CkComplete(irp, status, 0);
        IoReleaseRemoveLock(&k->Rl, irp);
    }
    IoReleaseRemoveLock(&k->Rl, k);
    return STATUS_PENDING;
}

CKF VOID CkFlush(PCK k, PFILE_OBJECT file, NTSTATUS status, BOOLEAN close)
{
    if (close)
        CkqClose(&k->Q, status);
    else
        CkqFlush(&k->Q, file, status);
#ifdef CK_HAS_FLUSH
    HwFlush(k, file, status, close);
#endif
}

CKF NTSTATUS NTAPI CkCreate(PDEVICE_OBJECT dev, PIRP irp)
{
    PCK k = CK_OF(dev);
    NTSTATUS status = IoAcquireRemoveLock(&k->Rl, irp);

    if (!NT_SUCCESS(status))
        return CkComplete(irp, status, 0);
    status = k->Absent ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS;
#ifdef CK_HAS_FILES
    if (NT_SUCCESS(status))
        status = HwOpen(k, IoGetCurrentIrpStackLocation(irp)->FileObject);
#endif
    CkComplete(irp, status, 0);
    IoReleaseRemoveLock(&k->Rl, irp);
    return status;
}

CKF NTSTATUS NTAPI CkCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    PCK k = CK_OF(dev);

    if (NT_SUCCESS(IoAcquireRemoveLock(&k->Rl, irp))) {
        CkFlush(k, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED, FALSE);
        IoReleaseRemoveLock(&k->Rl, irp);
    }
    return CkComplete(irp, STATUS_SUCCESS, 0);
}

CKF NTSTATUS NTAPI CkClose(PDEVICE_OBJECT dev, PIRP irp)
{
#ifdef CK_HAS_FILES
    HwClosed(CK_OF(dev), IoGetCurrentIrpStackLocation(irp)->FileObject);
#else
    UNREFERENCED_PARAMETER(dev);
#endif
    return CkComplete(irp, STATUS_SUCCESS, 0);
}

/* ---- power */

CKF VOID CkAwake(PCK k)
{
    KIRQL irql;

    KeAcquireSpinLock(&k->Q.Lock, &irql);
    if (k->Power != PowerDeviceD0) {
        k->Power = PowerDeviceD0;
#ifdef CK_HAS_POWER
        if (k->Touch)
            HwWake(k);
#endif
    }
    k->Refuse = STATUS_SUCCESS;
    k->Hold &= ~CK_HOLD_POWER;
    KeReleaseSpinLock(&k->Q.Lock, irql);
    CkKick(k);
}

CKF NTSTATUS NTAPI CkDevicePowerSet(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PCK k = context;
    POWER_STATE to = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State;
    BOOLEAN done = NT_SUCCESS(irp->IoStatus.Status);
    KIRQL irql;

    UNREFERENCED_PARAMETER(dev);
    if (to.DeviceState == PowerDeviceD0 && !done) {     /* it does not wake: nothing can be served until it does */
        KeAcquireSpinLock(&k->Q.Lock, &irql);
        k->Refuse = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&k->Q.Lock, irql);
        CkFlush(k, NULL, STATUS_DEVICE_NOT_READY, FALSE);
    } else if (to.DeviceState == PowerDeviceD0 || !done) {
        PoSetPowerState(k->Fdo, DevicePowerState, (POWER_STATE){ .DeviceState = PowerDeviceD0 });
        CkAwake(k);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&k->Rl, irp);
    return STATUS_SUCCESS;
}

CKF VOID NTAPI CkDeviceFollowed(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK result)
{
    PIRP irp = context;                                 /* the system IRP */
    PCK k = CK_OF(IoGetCurrentIrpStackLocation(irp)->DeviceObject);

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    irp->IoStatus.Status = result->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&k->Rl, irp);
}

CKF NTSTATUS NTAPI CkSystemPowerSet(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PCK k = context;
    POWER_STATE to = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State;
    NTSTATUS status = irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(status)) {
        to.DeviceState = to.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(k->Pdo, IRP_MN_SET_POWER, to, CkDeviceFollowed, irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = NT_SUCCESS(status) ? STATUS_UNSUCCESSFUL : status;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&k->Rl, irp);
    return STATUS_SUCCESS;
}

CKF NTSTATUS NTAPI CkPower(PDEVICE_OBJECT dev, PIRP irp)
{
    PCK k = CK_OF(dev);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&k->Rl, irp);
    POWER_STATE to;
    KIRQL irql;

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        return CkComplete(irp, status, 0);
    }
    if (s->MinorFunction != IRP_MN_SET_POWER) {
        PoStartNextPowerIrp(irp);
        IoSkipCurrentIrpStackLocation(irp);
        status = PoCallDriver(k->Lower, irp);
        IoReleaseRemoveLock(&k->Rl, irp);
        return status;
    }
    to = s->Parameters.Power.State;
    if (s->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, CkSystemPowerSet, k, TRUE, TRUE, TRUE);
        PoCallDriver(k->Lower, irp);
        return STATUS_PENDING;
    }
    if (to.DeviceState != PowerDeviceD0) {
        KeWaitForSingleObject(&k->Serial, Executive, KernelMode, FALSE, NULL);
        CkHoldAndWait(k, CK_HOLD_POWER);
#ifdef CK_HAS_POWER
        if (k->Started && k->Power == PowerDeviceD0 && !k->Absent)
            HwSleep(k);
#endif
        KeAcquireSpinLock(&k->Q.Lock, &irql);
        k->Power = to.DeviceState;
        KeReleaseSpinLock(&k->Q.Lock, irql);
        KeSetEvent(&k->Serial, IO_NO_INCREMENT, FALSE);
        PoSetPowerState(k->Fdo, DevicePowerState, to);
    }
    IoMarkIrpPending(irp);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, CkDevicePowerSet, k, TRUE, TRUE, TRUE);
    PoCallDriver(k->Lower, irp);
    return STATUS_PENDING;
}

/* ---- PnP */

CKF NTSTATUS NTAPI CkSignal(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent((PKEVENT)context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

CKF NTSTATUS CkBelow(PCK k, PIRP irp)
{
    KEVENT done;

    KeInitializeEvent(&done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, CkSignal, &done, TRUE, TRUE, TRUE);
    IoCallDriver(k->Lower, irp);
    KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

CKF VOID CkResources(PCM_RESOURCE_LIST list, PCK_RES r)
{
    PCM_PARTIAL_RESOURCE_LIST p;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG n;

    RtlZeroMemory(r, sizeof *r);
    if (list == NULL || list->Count == 0)
        return;
    p = (PCM_PARTIAL_RESOURCE_LIST)((PUCHAR)list + FIELD_OFFSET(CM_RESOURCE_LIST, List) +
                                    FIELD_OFFSET(CM_FULL_RESOURCE_DESCRIPTOR, PartialResourceList));
    d = (PCM_PARTIAL_RESOURCE_DESCRIPTOR)((PUCHAR)p + FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
    for (n = p->Count; n != 0; n--, d++) {
        if (d->Type == CmResourceTypeMemory && r->Mems < 6) {
            r->Mem[r->Mems].Base = d->u.Memory.Start;
            r->Mem[r->Mems++].Len = d->u.Memory.Length;
        } else if (d->Type == CmResourceTypePort && r->Ports < 6) {
            r->Port[r->Ports].Base = (ULONG_PTR)d->u.Port.Start.QuadPart;
            r->Port[r->Ports++].Len = d->u.Port.Length;
        } else if (d->Type == CmResourceTypeInterrupt && !r->Int) {
            r->Int = TRUE;
            r->Vector = d->u.Interrupt.Vector;
            r->Level = (KIRQL)d->u.Interrupt.Level;
            r->Affinity = d->u.Interrupt.Affinity;
            r->Latched = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
            r->Shared = d->ShareDisposition == CmResourceShareShared;
        }
    }
}

CKF PUCHAR CkMap(PCK_RES r, ULONG i, ULONG least)
{
    if (i >= r->Mems || r->Mem[i].Len < least)
        return NULL;
    return MmMapIoSpace(r->Mem[i].Base, r->Mem[i].Len, MmNonCached);
}

CKF NTSTATUS CkConnect(PCK_RES r, PKINTERRUPT *interrupt, PKSERVICE_ROUTINE isr, PVOID context)
{
    if (!r->Int)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return IoConnectInterrupt(interrupt, isr, context, NULL, r->Vector, r->Level, r->Level,
                              r->Latched ? Latched : LevelSensitive, r->Shared, r->Affinity, FALSE);
}

/* Whether the ISR may touch the card (not in D3): changed in step with it. Up to DISPATCH_LEVEL. */
typedef struct _CK_LISTEN {
    volatile BOOLEAN *Flag;
    BOOLEAN Value;
} CK_LISTEN;

CKF BOOLEAN NTAPI CkListenRoutine(PVOID context)
{
    CK_LISTEN *l = context;

    *l->Flag = l->Value;
    return TRUE;
}

CKF VOID CkListen(PKINTERRUPT interrupt, volatile BOOLEAN *flag, BOOLEAN value)
{
    CK_LISTEN l;

    l.Flag = flag;
    l.Value = value;
    KeSynchronizeExecution(interrupt, CkListenRoutine, &l);
}

/* The bus driver's interface, with which a card that does not stop is cut off from memory. Bus->Size is 0 where there is none. */
CKF VOID CkGetBus(PCK k, PBUS_INTERFACE_STANDARD bus)
{
    static const GUID id = { 0x496b8280, 0x6f25, 0x11d0, { 0xbe, 0xaf, 0x08, 0x00, 0x2b, 0xe2, 0x09, 0x2f } };
    KEVENT done;
    IO_STATUS_BLOCK ios;
    PIO_STACK_LOCATION s;
    PIRP irp;
    NTSTATUS status;

    RtlZeroMemory(bus, sizeof *bus);
    KeInitializeEvent(&done, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, k->Lower, NULL, 0, NULL, &done, &ios);
    if (irp == NULL)
        return;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    irp->IoStatus.Information = 0;
    s = IoGetNextIrpStackLocation(irp);
    s->MinorFunction = IRP_MN_QUERY_INTERFACE;
    s->Parameters.QueryInterface.InterfaceType = &id;
    s->Parameters.QueryInterface.Size = sizeof *bus;
    s->Parameters.QueryInterface.Version = 1;
    s->Parameters.QueryInterface.Interface = (PINTERFACE)bus;
    s->Parameters.QueryInterface.InterfaceSpecificData = NULL;
    status = IoCallDriver(k->Lower, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
        status = ios.Status;
    }
    if (!NT_SUCCESS(status) || bus->GetBusData == NULL || bus->SetBusData == NULL) {
        if (NT_SUCCESS(status) && bus->InterfaceDereference != NULL)
            bus->InterfaceDereference(bus->Context);
        RtlZeroMemory(bus, sizeof *bus);
    }
}

CKF VOID CkPutBus(PBUS_INTERFACE_STANDARD bus)
{
    if (bus->SetBusData != NULL && bus->InterfaceDereference != NULL)
        bus->InterfaceDereference(bus->Context);
    RtlZeroMemory(bus, sizeof *bus);
}

CKF VOID CkMaster(PBUS_INTERFACE_STANDARD bus, BOOLEAN on)
{
    USHORT command = 0xffff;

    if (bus->SetBusData == NULL)
        return;
    if (bus->GetBusData(bus->Context, 0, &command, 4, sizeof command) != sizeof command || command == 0xffff)
        return;
    command = (USHORT)(on ? command | 4 : command & ~4);
    bus->SetBusData(bus->Context, 0, &command, 4, sizeof command);
}

/* No request is begun behind this, and the hardware is given back. */
CKF VOID CkHalt(PCK k)
{
    BOOLEAN touch;
    KIRQL irql;

    KeWaitForSingleObject(&k->Serial, Executive, KernelMode, FALSE, NULL);
    CkHoldAndWait(k, CK_HOLD_START);
    KeCancelTimer(&k->Timer);
    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&k->Q.Lock, &irql);
    k->Stale = FALSE;
    k->Touch = FALSE;
    touch = !k->Absent && k->Power == PowerDeviceD0;
    KeReleaseSpinLock(&k->Q.Lock, irql);
    if (k->Started) {
        k->Started = FALSE;
        HwStop(k, touch);
    }
    KeSetEvent(&k->Serial, IO_NO_INCREMENT, FALSE);
}

CKF NTSTATUS CkStart(PCK k, PIRP irp)
{
    CK_RES r;
    NTSTATUS status;
    KIRQL irql;

    CkResources(IoGetCurrentIrpStackLocation(irp)->Parameters.StartDevice.AllocatedResourcesTranslated, &r);
    KeWaitForSingleObject(&k->Serial, Executive, KernelMode, FALSE, NULL);
    status = STATUS_SUCCESS;
    if (!k->Started) {
        KeAcquireSpinLock(&k->Q.Lock, &irql);
        k->Power = PowerDeviceD0;
        k->Refuse = STATUS_SUCCESS;
        k->Hold = (k->Hold & ~CK_HOLD_POWER) | CK_HOLD_START;
        KeReleaseSpinLock(&k->Q.Lock, irql);
        status = HwStart(k, &r);
        if (NT_SUCCESS(status)) {
            k->Started = TRUE;
            KeAcquireSpinLock(&k->Q.Lock, &irql);
            k->Touch = TRUE;
            KeReleaseSpinLock(&k->Q.Lock, irql);
        }
    }
    KeSetEvent(&k->Serial, IO_NO_INCREMENT, FALSE);
    if (NT_SUCCESS(status)) {
        status = IoSetDeviceInterfaceState(&k->Link, TRUE);
        if (NT_SUCCESS(status)) {
            CkLetGo(k, CK_HOLD_START | CK_HOLD_STOP);
            return STATUS_SUCCESS;
        }
        CkHalt(k);
    }
    return status;
}

CKF NTSTATUS NTAPI CkPnp(PDEVICE_OBJECT dev, PIRP irp)
{
    PCK k = CK_OF(dev);
    UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
    NTSTATUS status = IoAcquireRemoveLock(&k->Rl, irp);
    PDEVICE_OBJECT lower;

    if (!NT_SUCCESS(status))
        return CkComplete(irp, status, 0);
    switch (minor) {
    case IRP_MN_START_DEVICE:
        status = CkBelow(k, irp);
        if (NT_SUCCESS(status))
            status = CkStart(k, irp);
        CkComplete(irp, status, 0);
        IoReleaseRemoveLock(&k->Rl, irp);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
        CkHoldAndWait(k, CK_HOLD_STOP);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
        CkBelow(k, irp);
        CkLetGo(k, CK_HOLD_STOP);
        CkComplete(irp, STATUS_SUCCESS, 0);
        IoReleaseRemoveLock(&k->Rl, irp);
        return STATUS_SUCCESS;
    case IRP_MN_STOP_DEVICE:
        CkHalt(k);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        k->Absent = TRUE;
        IoSetDeviceInterfaceState(&k->Link, FALSE);
        CkFlush(k, NULL, STATUS_DELETE_PENDING, TRUE);
        CkHalt(k);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&k->Link, FALSE);
        CkFlush(k, NULL, STATUS_DELETE_PENDING, TRUE);
        CkHalt(k);
        IoReleaseRemoveLockAndWait(&k->Rl, irp);
        lower = k->Lower;
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(lower, irp);
#ifdef CK_HAS_UNDO
        HwUndo(k);
#endif
        RtlFreeUnicodeString(&k->Link);
        IoDetachDevice(lower);
        IoDeleteDevice(dev);
        return status;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(k->Lower, irp);
    IoReleaseRemoveLock(&k->Rl, irp);
    return status;
}

CKF NTSTATUS NTAPI CkPass(PDEVICE_OBJECT dev, PIRP irp)
{
    PCK k = CK_OF(dev);
    NTSTATUS status = IoAcquireRemoveLock(&k->Rl, irp);

    if (!NT_SUCCESS(status))
        return CkComplete(irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(k->Lower, irp);
    IoReleaseRemoveLock(&k->Rl, irp);
    return status;
}

/* io: DO_BUFFERED_IO or DO_DIRECT_IO. The extension is zeroed and begins with a CK; init (may be NULL) makes the rest. */
CKF NTSTATUS CkAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo, ULONG size, const GUID *guid, ULONG io, NTSTATUS (*init)(PCK k))
{
    PDEVICE_OBJECT fdo;
    NTSTATUS status;
    PCK k;

    status = IoCreateDevice(drv, size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;
    k = CK_OF(fdo);
    RtlZeroMemory(k, size);
    k->Fdo = fdo;
    k->Pdo = pdo;
    IoInitializeRemoveLock(&k->Rl, 'tikC', 0, 0);
    KeInitializeEvent(&k->Serial, SynchronizationEvent, TRUE);
    KeInitializeEvent(&k->Idle, NotificationEvent, TRUE);
    CkqInit(&k->Q, &k->Rl);
    KeInitializeTimer(&k->Timer);
    KeInitializeDpc(&k->TimerDpc, CkTimerDpc, k);
    k->Hold = CK_HOLD_START;
    k->Power = PowerDeviceD3;
    status = IoRegisterDeviceInterface(pdo, guid, NULL, &k->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    status = init != NULL ? init(k) : STATUS_SUCCESS;
    if (NT_SUCCESS(status)) {
        k->Lower = IoAttachDeviceToDeviceStack(fdo, pdo);
        if (k->Lower != NULL) {
            fdo->Flags |= io | DO_POWER_PAGABLE;
            fdo->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        status = STATUS_NO_SUCH_DEVICE;
#ifdef CK_HAS_UNDO
        HwUndo(k);
#endif
    }
    RtlFreeUnicodeString(&k->Link);
    IoDeleteDevice(fdo);
    return status;
}

CKF VOID NTAPI CkUnload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

CKF VOID CkEntry(PDRIVER_OBJECT drv, PDRIVER_ADD_DEVICE add)
{
    drv->DriverExtension->AddDevice = add;
    drv->DriverUnload = CkUnload;
    drv->MajorFunction[IRP_MJ_CREATE] = CkCreate;
    drv->MajorFunction[IRP_MJ_CLEANUP] = CkCleanup;
    drv->MajorFunction[IRP_MJ_CLOSE] = CkClose;
    drv->MajorFunction[IRP_MJ_READ] = CkRequest;
    drv->MajorFunction[IRP_MJ_WRITE] = CkRequest;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CkRequest;
    drv->MajorFunction[IRP_MJ_PNP] = CkPnp;
    drv->MajorFunction[IRP_MJ_POWER] = CkPower;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CkPass;
}

#endif
#endif
