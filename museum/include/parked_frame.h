/*
 * frame.h: the PnP and power frame of our function drivers.
 *
 * The gate. Reads, writes and device controls pass through a gate into the driver's `request` routine, which does not block. While the device is stopped, is
 * asked whether it may stop, or sleeps, requests are parked before the gate; behind a removal, or before the first start, they are refused. What shuts the
 * gate waits until none is inside. Requests that `request` has made pending are not inside; the driver has them in a wlist or an engine.
 *
 * Life. Every IRP that the driver keeps beyond its dispatch routine, and every work item, holds a reference of the run-down protection `life`;
 * IRP_MN_REMOVE_DEVICE waits for it to run down.
 *
 * Hardware. `start` and `quiet` are called in pairs, `sleep` and `wake` within such a pair. start, quiet and sleep run at PASSIVE_LEVEL, under a mutex;
 * wake runs at DISPATCH_LEVEL, under a spin lock, as a power IRP's completion routine calls it.
 */
#ifndef AD_FRAME_H
#define AD_FRAME_H

#include "parked_wlist.h"
#include "parked_ctl.h"
#include "parked_engine.h"
#include "parked_hw.h"

#define G_NEVER  0x01   /* not started yet, or a start failed */
#define G_GONE   0x02   /* removed */
#define G_FAILED 0x04   /* there was no way to power it up */
#define G_STOP   0x08   /* stopped, or asked whether it can be stopped or removed */
#define G_POWER  0x10   /* sleeps */

enum { GATE_IN, GATE_WAIT, GATE_NO };

struct fdev;

struct fops {
    const GUID *iface;
    ULONG bytes;                                        /* of the driver's own structure, whose first member is a struct fdev */
    ULONG flags;                                        /* DO_BUFFERED_IO or DO_DIRECT_IO */
    NTSTATUS (*add)(struct fdev *f);
    void (*drop)(struct fdev *f);                       /* undoes add */
    NTSTATUS (*start)(struct fdev *f, PCM_RESOURCE_LIST translated); /* leaves nothing behind if it fails */
    void (*quiet)(struct fdev *f, BOOLEAN touch);       /* undoes start; touch: the card is there and has power */
    void (*sleep)(struct fdev *f);
    void (*wake)(struct fdev *f);
    NTSTATUS (*request)(struct fdev *f, PIRP irp, PIO_STACK_LOCATION sp);
    void (*gone)(struct fdev *f);                       /* the device is gone: end all requests (may come twice) */
    NTSTATUS (*open)(struct fdev *f, PFILE_OBJECT file);
    void (*cleanup)(struct fdev *f, PFILE_OBJECT file);
    void (*close)(struct fdev *f, PFILE_OBJECT file);
};

struct fdev {
    const struct fops *ops;
    PDEVICE_OBJECT self, pdo, lower;
    UNICODE_STRING link;
    BOOLEAN link_on;

    KSPIN_LOCK gate;
    ULONG shut;
    LONG inside;
    KEVENT empty;
    struct wlist parked;

    EX_RUNDOWN_REF life;

    KMUTEX hwmutex;
    KSPIN_LOCK hwspin;
    BOOLEAN ready, asleep;      /* hwspin */
    BOOLEAN yanked;             /* hwmutex */

    PIO_WORKITEM unpark_item, hand_item;
    LONG unpark_out;
    PIRP s_irp;
};

static const struct fops *fd_ops;

/* ---- the gate ---- */

static inline int gate_enter(struct fdev *f, BOOLEAN hardware, NTSTATUS *why)
{
    int r = GATE_IN;
    KIRQL q;

    KeAcquireSpinLock(&f->gate, &q);
    *why = (f->shut & G_GONE) ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_NOT_READY;
    if (f->shut & G_GONE)
        r = GATE_NO;
    else if (hardware && (f->shut & (G_NEVER | G_FAILED)))
        r = GATE_NO;
    else if (hardware && f->shut)
        r = GATE_WAIT;
    else if (f->inside++ == 0)
        KeClearEvent(&f->empty);
    KeReleaseSpinLock(&f->gate, q);
    return r;
}

static inline void gate_leave(struct fdev *f)
{
    KIRQL q;

    KeAcquireSpinLock(&f->gate, &q);
    if (--f->inside == 0)
        KeSetEvent(&f->empty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&f->gate, q);
}

static inline void gate_set(struct fdev *f, ULONG on, ULONG off)
{
    KIRQL q;

    KeAcquireSpinLock(&f->gate, &q);
    f->shut = (f->shut & ~off) | on;
    KeReleaseSpinLock(&f->gate, q);
}

/* Shuts the gate and waits until none is inside (PASSIVE_LEVEL). */
static inline void gate_shut(struct fdev *f, ULONG bit)
{
    KIRQL q;

    gate_set(f, bit, 0);
    KeWaitForSingleObject(&f->empty, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&f->gate, &q);      /* the last one out has let the lock go, too */
    KeReleaseSpinLock(&f->gate, q);
}

/* Serves what is parked, if the gate is open, or refuses it, if it will stay shut (PASSIVE_LEVEL). */
static inline void gate_unpark(struct fdev *f)
{
    NTSTATUS why;

    for (;;) {
        int r = gate_enter(f, TRUE, &why);
        PIRP irp;

        if (r == GATE_WAIT)
            return;
        irp = wl_take(&f->parked, NULL);
        if (irp) {
            if (r == GATE_IN) {
                f->ops->request(f, irp, IoGetCurrentIrpStackLocation(irp));
                ExReleaseRundownProtection(&f->life);
            } else {
                wl_end(&f->parked, irp, why, 0);
            }
        }
        if (r == GATE_IN)
            gate_leave(f);
        if (!irp)
            return;
    }
}

static inline VOID NTAPI fd_unpark_work(PDEVICE_OBJECT dev, PVOID ctx)
{
    struct fdev *f = ctx;

    UNREFERENCED_PARAMETER(dev);
    InterlockedExchange(&f->unpark_out, 0);
    gate_unpark(f);
    ExReleaseRundownProtection(&f->life);
}

/* As gate_unpark, from any level up to DISPATCH_LEVEL. The caller holds life. */
static inline void gate_unpark_later(struct fdev *f)
{
    if (InterlockedExchange(&f->unpark_out, 1))
        return;
    if (!ExAcquireRundownProtection(&f->life)) {
        InterlockedExchange(&f->unpark_out, 0);
        return;
    }
    IoQueueWorkItem(f->unpark_item, fd_unpark_work, DelayedWorkQueue, f);
}

static inline NTSTATUS NTAPI fd_request(PDEVICE_OBJECT dev, PIRP irp)
{
    struct fdev *f = dev->DeviceExtension;
    NTSTATUS st;

    switch (gate_enter(f, TRUE, &st)) {
    case GATE_IN:
        st = f->ops->request(f, irp, IoGetCurrentIrpStackLocation(irp));
        gate_leave(f);
        return st;
    case GATE_WAIT:
        if (!ExAcquireRundownProtection(&f->life))
            return irp_end(irp, STATUS_NO_SUCH_DEVICE, 0);
        st = wl_put(&f->parked, irp);
        if (st == STATUS_PENDING)
            gate_unpark(f);                  /* it may have been opened, or shut for good, meanwhile */
        ExReleaseRundownProtection(&f->life);
        return st;
    default:
        return irp_end(irp, st, 0);
    }
}

static inline NTSTATUS NTAPI fd_file(PDEVICE_OBJECT dev, PIRP irp)
{
    struct fdev *f = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = STATUS_SUCCESS;

    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
        if (gate_enter(f, FALSE, &st) != GATE_IN)
            break;
        st = f->ops->open ? f->ops->open(f, sp->FileObject) : STATUS_SUCCESS;
        gate_leave(f);
        break;
    case IRP_MJ_CLEANUP:
        wl_end_all(&f->parked, sp->FileObject, STATUS_CANCELLED);
        if (f->ops->cleanup)
            f->ops->cleanup(f, sp->FileObject);
        break;
    default:
        if (f->ops->close)
            f->ops->close(f, sp->FileObject);
        break;
    }
    return irp_end(irp, st, 0);
}

/* ---- hardware ---- */

static inline void fd_hw_lock(struct fdev *f)
{
    KeWaitForSingleObject(&f->hwmutex, Executive, KernelMode, FALSE, NULL);
}

static inline void fd_hw_unlock(struct fdev *f)
{
    KeReleaseMutex(&f->hwmutex, FALSE);
}

static inline void fd_hw_off(struct fdev *f, BOOLEAN yanked)
{
    BOOLEAN was, slept;
    KIRQL q;

    fd_hw_lock(f);
    if (yanked)
        f->yanked = TRUE;
    KeAcquireSpinLock(&f->hwspin, &q);
    was = f->ready;
    slept = f->asleep;
    f->ready = FALSE;
    KeReleaseSpinLock(&f->hwspin, q);
    if (was)
        f->ops->quiet(f, !f->yanked && !slept);
    fd_hw_unlock(f);
}

static inline NTSTATUS fd_hw_on(struct fdev *f, PCM_RESOURCE_LIST list)
{
    NTSTATUS st;
    KIRQL q;

    gate_set(f, G_STOP, G_NEVER);
    if (!f->link_on) {
        st = IoSetDeviceInterfaceState(&f->link, TRUE);
        if (!NT_SUCCESS(st))
            goto out;
        f->link_on = TRUE;
    }
    fd_hw_lock(f);
    st = f->ops->start(f, list);
    if (NT_SUCCESS(st)) {
        KeAcquireSpinLock(&f->hwspin, &q);
        f->ready = TRUE;
        f->asleep = FALSE;
        KeReleaseSpinLock(&f->hwspin, q);
    }
    fd_hw_unlock(f);
    if (NT_SUCCESS(st)) {
        POWER_STATE on;

        on.DeviceState = PowerDeviceD0;
        PoSetPowerState(f->self, DevicePowerState, on);
        gate_set(f, 0, G_STOP | G_POWER | G_FAILED);
    }
out:
    if (!NT_SUCCESS(st)) {
        gate_set(f, G_NEVER, 0);
        if (f->link_on) {
            f->link_on = FALSE;
            IoSetDeviceInterfaceState(&f->link, FALSE);
        }
        if (f->ops->gone)
            f->ops->gone(f);
    }
    gate_unpark(f);
    return st;
}

/* Down to a state in which the card is not touched. */
static inline void fd_nap(struct fdev *f)
{
    BOOLEAN awake;
    KIRQL q;

    gate_shut(f, G_POWER);
    fd_hw_lock(f);
    KeAcquireSpinLock(&f->hwspin, &q);
    awake = f->ready && !f->asleep;
    KeReleaseSpinLock(&f->hwspin, q);
    if (awake)
        f->ops->sleep(f);
    KeAcquireSpinLock(&f->hwspin, &q);
    f->asleep = TRUE;
    KeReleaseSpinLock(&f->hwspin, q);
    fd_hw_unlock(f);
}

static inline void fd_gone(struct fdev *f, BOOLEAN yanked)
{
    gate_shut(f, G_GONE);
    gate_unpark(f);
    fd_hw_off(f, yanked);
    if (f->ops->gone)
        f->ops->gone(f);
    if (f->link_on) {
        f->link_on = FALSE;
        IoSetDeviceInterfaceState(&f->link, FALSE);
    }
}

/* ---- PnP ---- */

static inline NTSTATUS NTAPI fd_came_back(PDEVICE_OBJECT dev, PIRP irp, PVOID ev)
{
    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent((PKEVENT)ev, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS fd_below_first(struct fdev *f, PIRP irp)
{
    KEVENT ev;
    NTSTATUS st;

    KeInitializeEvent(&ev, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, fd_came_back, &ev, TRUE, TRUE, TRUE);
    st = IoCallDriver(f->lower, irp);
    if (st == STATUS_PENDING) {
        KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
        st = irp->IoStatus.Status;
    }
    return st;
}

static inline NTSTATUS fd_pass(struct fdev *f, PIRP irp)
{
    IoSkipCurrentIrpStackLocation(irp);
    return IoCallDriver(f->lower, irp);
}

static inline NTSTATUS NTAPI fd_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
    struct fdev *f = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st;

    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = fd_below_first(f, irp);
        if (NT_SUCCESS(st))
            st = fd_hw_on(f, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        return irp_end(irp, st, 0);

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        gate_shut(f, G_STOP);
        irp->IoStatus.Status = STATUS_SUCCESS;
        return fd_pass(f, irp);

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        fd_below_first(f, irp);
        gate_set(f, 0, G_STOP);
        gate_unpark(f);
        return irp_end(irp, STATUS_SUCCESS, 0);

    case IRP_MN_STOP_DEVICE:
        gate_shut(f, G_STOP);
        fd_hw_off(f, FALSE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        return fd_pass(f, irp);

    case IRP_MN_SURPRISE_REMOVAL:
        fd_gone(f, TRUE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        return fd_pass(f, irp);

    case IRP_MN_REMOVE_DEVICE:
        fd_gone(f, FALSE);
        ExWaitForRundownProtectionRelease(&f->life);
        irp->IoStatus.Status = STATUS_SUCCESS;
        st = fd_pass(f, irp);
        IoDetachDevice(f->lower);
        if (f->ops->drop)
            f->ops->drop(f);
        RtlFreeUnicodeString(&f->link);
        IoFreeWorkItem(f->unpark_item);
        IoFreeWorkItem(f->hand_item);
        IoDeleteDevice(dev);
        return st;

    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (sp->Parameters.UsageNotification.InPath)
            return irp_end(irp, STATUS_UNSUCCESSFUL, 0);       /* no paging file comes here */
        return fd_pass(f, irp);

    default:
        return fd_pass(f, irp);
    }
}

static inline NTSTATUS NTAPI fd_wmi(PDEVICE_OBJECT dev, PIRP irp)
{
    struct fdev *f = dev->DeviceExtension;
    NTSTATUS st;

    if (!ExAcquireRundownProtection(&f->life))
        return irp_end(irp, STATUS_NO_SUCH_DEVICE, 0);
    st = fd_pass(f, irp);
    ExReleaseRundownProtection(&f->life);
    return st;
}

/* ---- power ---- */

static inline void fd_s_done(struct fdev *f)
{
    PIRP irp = f->s_irp;

    f->s_irp = NULL;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    ExReleaseRundownProtection(&f->life);
}

static inline VOID NTAPI fd_d_done(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK io)
{
    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    UNREFERENCED_PARAMETER(io);
    fd_s_done(ctx);
}

/* There was no memory for a device power IRP: do without. */
static inline VOID NTAPI fd_by_hand(PDEVICE_OBJECT dev, PVOID ctx)
{
    struct fdev *f = ctx;

    UNREFERENCED_PARAMETER(dev);
    if (IoGetCurrentIrpStackLocation(f->s_irp)->Parameters.Power.State.SystemState == PowerSystemWorking) {
        BOOLEAN asleep;
        KIRQL q;

        KeAcquireSpinLock(&f->hwspin, &q);
        asleep = f->asleep;
        KeReleaseSpinLock(&f->hwspin, q);
        if (asleep) {
            gate_set(f, G_FAILED, 0);
            gate_unpark(f);
        }
    } else {
        fd_nap(f);
    }
    fd_s_done(f);
}

static inline NTSTATUS NTAPI fd_s_below(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    struct fdev *f = ctx;
    POWER_STATE want;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(dev);
    if (!NT_SUCCESS(irp->IoStatus.Status)) {
        PoStartNextPowerIrp(irp);
        ExReleaseRundownProtection(&f->life);
        return STATUS_CONTINUE_COMPLETION;
    }
    want.DeviceState = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
    f->s_irp = irp;
    st = PoRequestPowerIrp(f->pdo, IRP_MN_SET_POWER, want, fd_d_done, f, NULL);
    if (!NT_SUCCESS(st))
        IoQueueWorkItem(f->hand_item, fd_by_hand, CriticalWorkQueue, f);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS NTAPI fd_d0_below(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    struct fdev *f = ctx;
    POWER_STATE on;
    KIRQL q;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        KeAcquireSpinLock(&f->hwspin, &q);
        if (f->ready && f->asleep)
            f->ops->wake(f);
        f->asleep = FALSE;
        KeReleaseSpinLock(&f->hwspin, q);
        on.DeviceState = PowerDeviceD0;
        PoSetPowerState(f->self, DevicePowerState, on);
        gate_set(f, 0, G_POWER | G_FAILED);
    } else {
        gate_set(f, G_FAILED, 0);
    }
    gate_unpark_later(f);
    PoStartNextPowerIrp(irp);
    ExReleaseRundownProtection(&f->life);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS NTAPI fd_power(PDEVICE_OBJECT dev, PIRP irp)
{
    struct fdev *f = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st;

    if (!ExAcquireRundownProtection(&f->life)) {
        PoStartNextPowerIrp(irp);
        return irp_end(irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        BOOLEAN system = sp->Parameters.Power.Type == SystemPowerState;

        if (system || sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, system ? fd_s_below : fd_d0_below, f, TRUE, TRUE, TRUE);
            PoCallDriver(f->lower, irp);
            return STATUS_PENDING;
        }
        fd_nap(f);
        PoSetPowerState(f->self, DevicePowerState, sp->Parameters.Power.State);
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(f->lower, irp);
    ExReleaseRundownProtection(&f->life);
    return st;
}

/* ---- the driver ---- */

static inline NTSTATUS NTAPI fd_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    const struct fops *o = fd_ops;
    BOOLEAN added = FALSE;
    PDEVICE_OBJECT dev;
    struct fdev *f;
    NTSTATUS st;

    st = IoCreateDevice(drv, o->bytes, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;
    f = dev->DeviceExtension;
    f->ops = o;
    f->self = dev;
    f->pdo = pdo;
    f->shut = G_NEVER;
    KeInitializeSpinLock(&f->gate);
    KeInitializeEvent(&f->empty, NotificationEvent, TRUE);
    ExInitializeRundownProtection(&f->life);
    KeInitializeMutex(&f->hwmutex, 0);
    KeInitializeSpinLock(&f->hwspin);
    f->unpark_item = IoAllocateWorkItem(dev);
    f->hand_item = IoAllocateWorkItem(dev);
    st = f->unpark_item && f->hand_item ? wl_init(&f->parked, &f->life) : STATUS_INSUFFICIENT_RESOURCES;
    if (NT_SUCCESS(st))
        st = IoRegisterDeviceInterface(pdo, o->iface, NULL, &f->link);
    if (NT_SUCCESS(st) && o->add) {
        st = o->add(f);
        added = NT_SUCCESS(st);
    }
    if (NT_SUCCESS(st)) {
        dev->Flags |= o->flags | DO_POWER_PAGABLE;
        f->lower = IoAttachDeviceToDeviceStack(dev, pdo);
        if (!f->lower)
            st = STATUS_NO_SUCH_DEVICE;
    }
    if (!NT_SUCCESS(st)) {
        if (added && o->drop)
            o->drop(f);
        if (f->link.Buffer)
            RtlFreeUnicodeString(&f->link);
        if (f->unpark_item)
            IoFreeWorkItem(f->unpark_item);
        if (f->hand_item)
            IoFreeWorkItem(f->hand_item);
        IoDeleteDevice(dev);
        return st;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static inline VOID NTAPI fd_unload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

static inline NTSTATUS fd_entry(PDRIVER_OBJECT drv, const struct fops *ops)
{
    fd_ops = ops;
    drv->MajorFunction[IRP_MJ_CREATE] = fd_file;
    drv->MajorFunction[IRP_MJ_CLEANUP] = fd_file;
    drv->MajorFunction[IRP_MJ_CLOSE] = fd_file;
    drv->MajorFunction[IRP_MJ_READ] = fd_request;
    drv->MajorFunction[IRP_MJ_WRITE] = fd_request;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = fd_request;
    drv->MajorFunction[IRP_MJ_PNP] = fd_pnp;
    drv->MajorFunction[IRP_MJ_POWER] = fd_power;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = fd_wmi;
    drv->DriverExtension->AddDevice = fd_add;
    drv->DriverUnload = fd_unload;
    return STATUS_SUCCESS;
}

#endif
