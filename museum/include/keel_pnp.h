/*
 * keel_pnp.h: the PnP and power frame of a function driver. The driver's extension begins with an AJ_FDO; what is its
 * own stands in an AJ_OPS. All routines are called at PASSIVE_LEVEL and one at a time, but wake: it is called at
 * DISPATCH_LEVEL with a spin lock of the frame held, so it completes no request; it is never called beside stop.
 */
#ifndef AJ_PNP_H
#define AJ_PNP_H
#include "keel_base.h"

typedef struct AJ_FDO AJ_FDO;

typedef struct AJ_OPS {
    ULONG ext_size;
    const GUID *iface;
    NTSTATUS (*init)(AJ_FDO *f);   /* before the device can be opened; a failing init leaves nothing behind */
    void (*fini)(AJ_FDO *f);       /* undoes init; no request is left and none will come */
    NTSTATUS (*start)(AJ_FDO *f, PCM_RESOURCE_LIST res);   /* translated; a failing start leaves nothing behind */
    void (*stop)(AJ_FDO *f);       /* gives the hardware back; nothing uses it any more */
    void (*hold)(AJ_FDO *f);       /* a stop may follow: leave the hardware alone, keep the requests */
    void (*resume)(AJ_FDO *f);     /* started, or the stop was called off: go on */
    void (*gone)(AJ_FDO *f);       /* refuse all further requests and end the ones that wait */
    void (*sleep)(AJ_FDO *f);      /* leaves D0: leave the hardware alone, keep the requests */
    void (*wake)(AJ_FDO *f);       /* back in D0: set the hardware up again, go on */
} AJ_OPS;

/* The gate: requests that touch the hardware in their caller's thread go through it. */
#define AJ_SHUT_STOP  1
#define AJ_SHUT_SLEEP 2
#define AJ_SHUT_GONE  4
typedef struct AJ_GATE {
    KSPIN_LOCK lock;
    LONG inside;
    ULONG shut;
    KEVENT open;    /* set: not shut, or gone */
    KEVENT empty;   /* set: no one inside */
} AJ_GATE;

struct AJ_FDO {
    PDEVICE_OBJECT self, lower, pdo;
    const AJ_OPS *ops;
    IO_REMOVE_LOCK rlock;
    UNICODE_STRING link;
    AJ_GATE gate;
    BOOLEAN started;        /* start has succeeded, stop has not been called since */
    BOOLEAN ever;           /* was started once */
    BOOLEAN stopping, removing, gone;
    DEVICE_POWER_STATE power;
    KSPIN_LOCK plock;       /* started and power */
    KEVENT pm;              /* a lock that leaves the level alone: one PnP or power routine at a time */
    PIRP sirp;              /* the system power request that waits for ours */
};

static inline void aj_gate_shut(AJ_GATE *g, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&g->lock, &q);
    g->shut |= why;
    if (g->shut & AJ_SHUT_GONE)
        KeSetEvent(&g->open, IO_NO_INCREMENT, FALSE);
    else
        KeClearEvent(&g->open);
    KeReleaseSpinLock(&g->lock, q);
}

static inline void aj_gate_drain(AJ_GATE *g)
{
    KeWaitForSingleObject(&g->empty, Executive, KernelMode, FALSE, NULL);
}

static inline void aj_gate_open(AJ_GATE *g, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&g->lock, &q);
    g->shut &= ~why;
    if (!g->shut)
        KeSetEvent(&g->open, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&g->lock, q);
}

/* PASSIVE_LEVEL, in a request's thread. After success the caller leaves the gate again, in bounded time. */
static inline NTSTATUS aj_gate_enter(AJ_GATE *g)
{
    for (;;) {
        KIRQL q;
        ULONG shut;

        KeAcquireSpinLock(&g->lock, &q);
        shut = g->shut;
        if (!shut && g->inside++ == 0)
            KeClearEvent(&g->empty);
        KeReleaseSpinLock(&g->lock, q);
        if (!shut)
            return STATUS_SUCCESS;
        if (shut & AJ_SHUT_GONE)
            return STATUS_NO_SUCH_DEVICE;
        if (KeWaitForSingleObject(&g->open, UserRequest, UserMode, FALSE, NULL) != STATUS_SUCCESS)
            return STATUS_CANCELLED;    /* the thread is ending */
    }
}

static inline void aj_gate_leave(AJ_GATE *g)
{
    KIRQL q;

    KeAcquireSpinLock(&g->lock, &q);
    if (--g->inside == 0)
        KeSetEvent(&g->empty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&g->lock, q);
}

/* A request's beginning and end. After a failing aj_begin the request is completed. */
static inline NTSTATUS aj_begin(AJ_FDO *f, PIRP irp)
{
    NTSTATUS st = IoAcquireRemoveLock(&f->rlock, irp);

    if (!NT_SUCCESS(st))
        aj_done(irp, st, 0);
    return st;
}

static inline NTSTATUS aj_end(AJ_FDO *f, PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    aj_done(irp, st, info);
    IoReleaseRemoveLock(&f->rlock, irp);
    return st;
}

/* For a thread that goes on using the device after it let go of its request: a hold of its own. */
static inline NTSTATUS aj_enter(AJ_FDO *f)
{
    return IoAcquireRemoveLock(&f->rlock, f);
}

static inline void aj_leave(AJ_FDO *f)
{
    IoReleaseRemoveLock(&f->rlock, f);
}

/* completes a list of requests, all in the same way */
static inline void aj_end_list(AJ_FDO *f, PLIST_ENTRY l, NTSTATUS st)
{
    PIRP irp;

    while ((irp = aj_pop_irp(l)) != NULL)
        aj_end(f, irp, st, 0);
}

static inline NTSTATUS aj_may_open(AJ_FDO *f)
{
    if (f->gone || !f->ever)
        return STATUS_NO_SUCH_DEVICE;
    return f->removing ? STATUS_DELETE_PENDING : STATUS_SUCCESS;
}

/* IRP_MJ_CREATE, CLEANUP and CLOSE for drivers that keep nothing by handle */
static inline NTSTATUS aj_create_plain(PDEVICE_OBJECT dev, PIRP irp)
{
    AJ_FDO *f = dev->DeviceExtension;
    NTSTATUS st = aj_begin(f, irp);

    if (!NT_SUCCESS(st))
        return st;
    return aj_end(f, irp, aj_may_open(f), 0);
}

static inline NTSTATUS aj_ok(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static inline NTSTATUS aj_pass(AJ_FDO *f, PIRP irp)
{
    NTSTATUS st;

    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(f->lower, irp);
    IoReleaseRemoveLock(&f->rlock, irp);
    return st;
}

static inline NTSTATUS aj_sync_done(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    (void)dev;
    (void)irp;
    KeSetEvent((PKEVENT)ctx, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS aj_down_and_wait(AJ_FDO *f, PIRP irp)
{
    KEVENT ev;

    KeInitializeEvent(&ev, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, aj_sync_done, &ev, TRUE, TRUE, TRUE);
    (void)IoCallDriver(f->lower, irp);
    KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

static inline void aj_call(AJ_FDO *f, void (*fn)(AJ_FDO *))
{
    if (fn)
        fn(f);
}

static inline void aj_pm_lock(AJ_FDO *f)
{
    KeWaitForSingleObject(&f->pm, Executive, KernelMode, FALSE, NULL);
}

static inline void aj_pm_unlock(AJ_FDO *f)
{
    KeSetEvent(&f->pm, IO_NO_INCREMENT, FALSE);
}

/* The device is in D0. A start wakes in any case: it may have been stopped asleep. */
static inline void aj_awake(AJ_FDO *f, BOOLEAN start)
{
    KIRQL q;

    KeAcquireSpinLock(&f->plock, &q);
    if (start)
        f->started = TRUE;
    if (f->started && (start || f->power != PowerDeviceD0))
        aj_call(f, f->ops->wake);
    f->power = PowerDeviceD0;
    KeReleaseSpinLock(&f->plock, q);
}

static inline void aj_stop(AJ_FDO *f)
{
    KIRQL q;
    BOOLEAN was;

    KeAcquireSpinLock(&f->plock, &q);
    was = f->started;
    f->started = FALSE;
    KeReleaseSpinLock(&f->plock, q);
    if (was)
        aj_call(f, f->ops->stop);
}

static inline void aj_hold(AJ_FDO *f)
{
    aj_gate_shut(&f->gate, AJ_SHUT_STOP);
    aj_gate_drain(&f->gate);
    aj_call(f, f->ops->hold);
}

static inline void aj_going(AJ_FDO *f)
{
    aj_gate_shut(&f->gate, AJ_SHUT_GONE);
    aj_pm_lock(f);
    if (!f->gone) {
        f->gone = TRUE;
        aj_gate_drain(&f->gate);
        aj_call(f, f->ops->gone);
        if (f->ever)
            IoSetDeviceInterfaceState(&f->link, FALSE);
    }
    aj_stop(f);
    aj_pm_unlock(f);
}

static inline NTSTATUS aj_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
    AJ_FDO *f = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = aj_begin(f, irp);

    if (!NT_SUCCESS(st))
        return st;
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = aj_down_and_wait(f, irp);
        aj_pm_lock(f);
        if (NT_SUCCESS(st))
            st = f->ops->start(f, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(st)) {
            POWER_STATE ps;

            f->stopping = FALSE;
            aj_awake(f, TRUE);
            ps.DeviceState = PowerDeviceD0;
            PoSetPowerState(f->self, DevicePowerState, ps);
            aj_call(f, f->ops->resume);
            aj_gate_open(&f->gate, AJ_SHUT_STOP | AJ_SHUT_SLEEP);
            if (!f->ever) {
                f->ever = TRUE;
                IoSetDeviceInterfaceState(&f->link, TRUE);
            }
        }
        aj_pm_unlock(f);
        return aj_end(f, irp, st, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
        aj_pm_lock(f);
        if (f->started) {
            f->stopping = TRUE;
            aj_hold(f);
        }
        aj_pm_unlock(f);
        irp->IoStatus.Status = STATUS_SUCCESS;
        return aj_pass(f, irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
        aj_down_and_wait(f, irp);
        aj_pm_lock(f);
        if (f->stopping) {
            f->stopping = FALSE;
            aj_call(f, f->ops->resume);
            aj_gate_open(&f->gate, AJ_SHUT_STOP);
        }
        aj_pm_unlock(f);
        return aj_end(f, irp, STATUS_SUCCESS, 0);
    case IRP_MN_STOP_DEVICE:
        aj_pm_lock(f);
        if (f->started && !f->stopping)
            aj_hold(f);
        f->stopping = FALSE;
        aj_stop(f);
        aj_pm_unlock(f);
        irp->IoStatus.Status = STATUS_SUCCESS;
        return aj_pass(f, irp);
    case IRP_MN_QUERY_REMOVE_DEVICE:
        f->removing = TRUE;
        irp->IoStatus.Status = STATUS_SUCCESS;
        return aj_pass(f, irp);
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        aj_down_and_wait(f, irp);
        f->removing = FALSE;
        return aj_end(f, irp, STATUS_SUCCESS, 0);
    case IRP_MN_SURPRISE_REMOVAL:
        aj_going(f);
        irp->IoStatus.Status = STATUS_SUCCESS;
        return aj_pass(f, irp);
    case IRP_MN_REMOVE_DEVICE:
        aj_going(f);
        IoReleaseRemoveLockAndWait(&f->rlock, irp);
        aj_call(f, f->ops->fini);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(f->lower, irp);
        IoDetachDevice(f->lower);
        RtlFreeUnicodeString(&f->link);
        IoDeleteDevice(f->self);
        return st;
    default:
        return aj_pass(f, irp);
    }
}

static inline void aj_device_power_done(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE ps, PVOID ctx, PIO_STATUS_BLOCK io)
{
    AJ_FDO *f = ctx;
    PIRP irp = f->sirp;

    (void)dev;
    (void)minor;
    (void)ps;
    f->sirp = NULL;
    irp->IoStatus.Status = io->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->rlock, irp);
}

/* the drivers below are done with a system power request: now the device's own */
static inline NTSTATUS aj_system_done(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    AJ_FDO *f = ctx;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE ps;
    NTSTATUS st = irp->IoStatus.Status;

    (void)dev;
    if (NT_SUCCESS(st)) {
        ps.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        f->sirp = irp;
        st = PoRequestPowerIrp(f->pdo, IRP_MN_SET_POWER, ps, aj_device_power_done, f, NULL);
        if (st == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        f->sirp = NULL;
        irp->IoStatus.Status = st;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&f->rlock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS aj_d0_done(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    AJ_FDO *f = ctx;
    POWER_STATE ps;

    (void)dev;
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        aj_awake(f, FALSE);
        ps.DeviceState = PowerDeviceD0;
        PoSetPowerState(f->self, DevicePowerState, ps);
        aj_gate_open(&f->gate, AJ_SHUT_SLEEP);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&f->rlock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS aj_power(PDEVICE_OBJECT dev, PIRP irp)
{
    AJ_FDO *f = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&f->rlock, irp);
    POWER_STATE ps = sp->Parameters.Power.State;

    if (!NT_SUCCESS(st)) {
        PoStartNextPowerIrp(irp);
        return aj_done(irp, st, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, aj_system_done, f, TRUE, TRUE, TRUE);
        PoCallDriver(f->lower, irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && ps.DeviceState == PowerDeviceD0) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, aj_d0_done, f, TRUE, TRUE, TRUE);
        PoCallDriver(f->lower, irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        KIRQL q;

        aj_pm_lock(f);
        if (f->power == PowerDeviceD0) {
            aj_gate_shut(&f->gate, AJ_SHUT_SLEEP);
            aj_gate_drain(&f->gate);
            if (f->started)
                aj_call(f, f->ops->sleep);
        }
        KeAcquireSpinLock(&f->plock, &q);
        f->power = ps.DeviceState;
        KeReleaseSpinLock(&f->plock, q);
        aj_pm_unlock(f);
        PoSetPowerState(f->self, DevicePowerState, ps);
        irp->IoStatus.Status = STATUS_SUCCESS;
    }
    if (sp->MinorFunction == IRP_MN_QUERY_POWER)
        irp->IoStatus.Status = STATUS_SUCCESS;
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(f->lower, irp);
    IoReleaseRemoveLock(&f->rlock, irp);
    return st;
}

static inline NTSTATUS aj_wmi(PDEVICE_OBJECT dev, PIRP irp)
{
    AJ_FDO *f = dev->DeviceExtension;
    NTSTATUS st = aj_begin(f, irp);

    return NT_SUCCESS(st) ? aj_pass(f, irp) : st;
}

static inline NTSTATUS aj_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo, const AJ_OPS *ops)
{
    PDEVICE_OBJECT dev;
    AJ_FDO *f;
    NTSTATUS st = IoCreateDevice(drv, ops->ext_size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(st))
        return st;
    f = dev->DeviceExtension;
    RtlZeroMemory(f, ops->ext_size);
    f->self = dev;
    f->pdo = pdo;
    f->ops = ops;
    f->power = PowerDeviceD0;
    IoInitializeRemoveLock(&f->rlock, AJ_TAG, 0, 0);
    KeInitializeSpinLock(&f->plock);
    KeInitializeEvent(&f->pm, SynchronizationEvent, TRUE);
    KeInitializeSpinLock(&f->gate.lock);
    KeInitializeEvent(&f->gate.open, NotificationEvent, FALSE);
    KeInitializeEvent(&f->gate.empty, NotificationEvent, TRUE);
    f->gate.shut = AJ_SHUT_STOP;
    f->lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (!f->lower) {
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    st = IoRegisterDeviceInterface(pdo, ops->iface, NULL, &f->link);
    if (NT_SUCCESS(st)) {
        st = ops->init ? ops->init(f) : STATUS_SUCCESS;
        if (!NT_SUCCESS(st))
            RtlFreeUnicodeString(&f->link);
    }
    if (!NT_SUCCESS(st)) {
        IoDetachDevice(f->lower);
        IoDeleteDevice(dev);
        return st;
    }
    dev->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static inline void aj_no_unload(PDRIVER_OBJECT drv)
{
    (void)drv;
}

static inline void aj_driver(PDRIVER_OBJECT drv, PDRIVER_ADD_DEVICE add, PDRIVER_DISPATCH create,
                             PDRIVER_DISPATCH cleanup, PDRIVER_DISPATCH close, PDRIVER_DISPATCH control)
{
    drv->DriverExtension->AddDevice = add;
    drv->DriverUnload = aj_no_unload;
    drv->MajorFunction[IRP_MJ_CREATE] = create;
    drv->MajorFunction[IRP_MJ_CLEANUP] = cleanup;
    drv->MajorFunction[IRP_MJ_CLOSE] = close;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = control;
    drv->MajorFunction[IRP_MJ_PNP] = aj_pnp;
    drv->MajorFunction[IRP_MJ_POWER] = aj_power;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = aj_wmi;
}
#endif
