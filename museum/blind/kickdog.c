/*
 * kickdog - software watchdog for long-running test benches.
 *
 * A bench arms the dog with a number of ticks and kicks it from then on; each
 * time the ticks run out without a kick the dog counts a miss and wakes the
 * supervisors that wait for one.
 *
 *   IOCTL_DOG_ARM     in: DOG_ARM
 *   IOCTL_DOG_KICK
 *   IOCTL_DOG_DISARM
 *   IOCTL_DOG_WAIT    in: ULONG misses seen so far; out: ULONG misses now;
 *                     pends while the two are equal
 *
 * The bug: the DPC sets its timer again by a copy of the flag that it took under the lock before.
 *
 * Device: ROOT\KICKDOG
 * Rule: freed-active-timer, freed-queued-dpc
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_DOG_ARM    CTL_CODE(0x8331, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DOG_KICK   CTL_CODE(0x8331, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DOG_DISARM CTL_CODE(0x8331, 0x803, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DOG_WAIT   CTL_CODE(0x8331, 0x804, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct { ULONG TickMs; ULONG Ticks; } DOG_ARM;

static const GUID DogGuid = { 0x1f9c3aa6, 0x7be2, 0x4c80, { 0x95, 0x4e, 0xb1, 0x0d, 0x63, 0x2a, 0xc8, 0x5f } };

typedef struct dog {
    PDEVICE_OBJECT pdo, lower;
    IO_REMOVE_LOCK rl;
    UNICODE_STRING ifname;

    KTIMER     timer;
    KDPC       dpc;

    KSPIN_LOCK lock;            /* all below */
    BOOLEAN    gone;
    BOOLEAN    running;
    ULONG      tick_ms, ticks;
    ULONG      left;            /* ticks until the next miss */
    ULONG      misses;
    LIST_ENTRY waiters;         /* IOCTL_DOG_WAIT requests; each holds rl */
    IO_CSQ     csq;
} dog_t;

/* ---- the waiting requests ---- */

#define DOG_OF(csq_) CONTAINING_RECORD(csq_, dog_t, csq)

static NTSTATUS NTAPI q_insert(PIO_CSQ csq, PIRP irp, PVOID ctx)
{
    dog_t *d = DOG_OF(csq);
    PFILE_OBJECT fo = IoGetCurrentIrpStackLocation(irp)->FileObject;

    if (d->gone)
        return STATUS_DELETE_PENDING;
    if (fo != NULL && fo->FsContext2 != NULL)       /* cleaned up already */
        return STATUS_CANCELLED;
    if (*(ULONG *)ctx != d->misses)
        return STATUS_REQUEST_ABORTED;              /* nothing to wait for; see dog_wait */
    InsertTailList(&d->waiters, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI q_remove(PIO_CSQ csq, PIRP irp)
{
    (void)csq;
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI q_peek(PIO_CSQ csq, PIRP irp, PVOID ctx)
{
    dog_t *d = DOG_OF(csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : d->waiters.Flink;

    for (; e != &d->waiters; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (ctx == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == ctx)
            return next;
    }
    return NULL;
}

static VOID NTAPI q_lock(PIO_CSQ csq, PKIRQL irql) { KeAcquireSpinLock(&DOG_OF(csq)->lock, irql); }
static VOID NTAPI q_unlock(PIO_CSQ csq, KIRQL irql) { KeReleaseSpinLock(&DOG_OF(csq)->lock, irql); }

static NTSTATUS finish(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

static VOID NTAPI q_cancelled(PIO_CSQ csq, PIRP irp)
{
    dog_t *d = DOG_OF(csq);

    finish(irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&d->rl, irp);
}

static void drain(dog_t *d, PFILE_OBJECT fo, NTSTATUS st)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&d->csq, fo)) != NULL) {
        finish(irp, st, 0);
        IoReleaseRemoveLock(&d->rl, irp);
    }
}

static NTSTATUS dog_wait(dog_t *d, PIRP irp, ULONG in, ULONG out)
{
    ULONG seen;
    NTSTATUS st;
    KIRQL irql;

    if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
        finish(irp, STATUS_INFO_LENGTH_MISMATCH, 0);
        IoReleaseRemoveLock(&d->rl, irp);
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    seen = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
    IoMarkIrpPending(irp);
    st = IoCsqInsertIrpEx(&d->csq, irp, NULL, &seen);
    if (NT_SUCCESS(st))
        return STATUS_PENDING;

    if (st == STATUS_REQUEST_ABORTED) {
        KeAcquireSpinLock(&d->lock, &irql);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = d->misses;
        KeReleaseSpinLock(&d->lock, irql);
        finish(irp, STATUS_SUCCESS, sizeof(ULONG));
    } else {
        finish(irp, st, 0);
    }
    IoReleaseRemoveLock(&d->rl, irp);
    return STATUS_PENDING;
}

/* ---- the clock ---- */

static void set_timer(dog_t *d)
{
    LARGE_INTEGER due;

    due.QuadPart = -(LONGLONG)d->tick_ms * 10000;
    KeSetTimer(&d->timer, due, &d->dpc);
}

static VOID NTAPI dog_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    dog_t *d = ctx;
    BOOLEAN missed = FALSE, again;
    ULONG misses;
    PIRP irp;

    (void)dpc; (void)a1; (void)a2;
    KeAcquireSpinLockAtDpcLevel(&d->lock);
    again = d->running;
    if (again && --d->left == 0) {
        d->left = d->ticks;
        d->misses++;
        missed = TRUE;
    }
    misses = d->misses;
#ifdef FIXED
    if (again)
        set_timer(d);
    KeReleaseSpinLockFromDpcLevel(&d->lock);
#else
    KeReleaseSpinLockFromDpcLevel(&d->lock);
    if (again)
        set_timer(d);
#endif

    while (missed && (irp = IoCsqRemoveNextIrp(&d->csq, NULL)) != NULL) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = misses;
        finish(irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&d->rl, irp);
    }
}

static NTSTATUS dog_arm(dog_t *d, const DOG_ARM *arm)
{
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL irql;

    if (arm->TickMs < 1 || arm->TickMs > 60000 || arm->Ticks < 1 || arm->Ticks > 100000)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&d->lock, &irql);
    if (d->gone) {
        st = STATUS_DELETE_PENDING;
    } else {
        d->tick_ms = arm->TickMs;
        d->ticks = d->left = arm->Ticks;
        d->running = TRUE;
        set_timer(d);
    }
    KeReleaseSpinLock(&d->lock, irql);
    return st;
}

static void dog_disarm(dog_t *d, BOOLEAN for_good)
{
    KIRQL irql;

    KeAcquireSpinLock(&d->lock, &irql);
    d->running = FALSE;
    if (for_good)
        d->gone = TRUE;
    KeCancelTimer(&d->timer);
    KeReleaseSpinLock(&d->lock, irql);
}

/* ---- dispatch ---- */

static NTSTATUS dog_control(PDEVICE_OBJECT dev, PIRP irp)
{
    dog_t *d = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sl->Parameters.DeviceIoControl.InputBufferLength;
    NTSTATUS st = IoAcquireRemoveLock(&d->rl, irp);
    DOG_ARM arm;
    KIRQL irql;

    if (!NT_SUCCESS(st))
        return finish(irp, st, 0);
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DOG_WAIT:
        return dog_wait(d, irp, in, sl->Parameters.DeviceIoControl.OutputBufferLength);
    case IOCTL_DOG_ARM:
        if (in < sizeof(arm)) {
            st = STATUS_INFO_LENGTH_MISMATCH;
            break;
        }
        arm = *(DOG_ARM *)irp->AssociatedIrp.SystemBuffer;
        st = dog_arm(d, &arm);
        break;
    case IOCTL_DOG_KICK:
        KeAcquireSpinLock(&d->lock, &irql);
        d->left = d->ticks;
        KeReleaseSpinLock(&d->lock, irql);
        break;
    case IOCTL_DOG_DISARM:
        dog_disarm(d, FALSE);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    finish(irp, st, 0);
    IoReleaseRemoveLock(&d->rl, irp);
    return st;
}

static NTSTATUS dog_open_close(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS dog_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    dog_t *d = dev->DeviceExtension;
    PFILE_OBJECT fo = IoGetCurrentIrpStackLocation(irp)->FileObject;
    KIRQL irql;

    KeAcquireSpinLock(&d->lock, &irql);
    fo->FsContext2 = d;
    KeReleaseSpinLock(&d->lock, irql);
    drain(d, fo, STATUS_CANCELLED);
    return finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS dog_pass(PDEVICE_OBJECT dev, PIRP irp)
{
    dog_t *d = dev->DeviceExtension;
    BOOLEAN power = IoGetCurrentIrpStackLocation(irp)->MajorFunction == IRP_MJ_POWER;
    NTSTATUS st = IoAcquireRemoveLock(&d->rl, irp);

    if (power)
        PoStartNextPowerIrp(irp);
    if (!NT_SUCCESS(st)) {
        irp->IoStatus.Status = st;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return st;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = power ? PoCallDriver(d->lower, irp) : IoCallDriver(d->lower, irp);
    IoReleaseRemoveLock(&d->rl, irp);
    return st;
}

static NTSTATUS dog_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
    dog_t *d = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->rl, irp);

    if (!NT_SUCCESS(st))
        return finish(irp, st, 0);
    switch (IoGetCurrentIrpStackLocation(irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = IoForwardIrpSynchronously(d->lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(st)) {
            st = IoSetDeviceInterfaceState(&d->ifname, TRUE);
            if (NT_SUCCESS(st))
                st = STATUS_SUCCESS;
        }
        finish(irp, st, 0);
        IoReleaseRemoveLock(&d->rl, irp);
        return st;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&d->ifname, FALSE);
        dog_disarm(d, TRUE);
        drain(d, NULL, STATUS_DELETE_PENDING);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&d->ifname, FALSE);
        dog_disarm(d, TRUE);
        drain(d, NULL, STATUS_DELETE_PENDING);
        IoReleaseRemoveLockAndWait(&d->rl, irp);
        KeFlushQueuedDpcs();
        RtlFreeUnicodeString(&d->ifname);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(d->lower, irp);
        IoDetachDevice(d->lower);
        IoDeleteDevice(dev);
        return st;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(d->lower, irp);
    IoReleaseRemoveLock(&d->rl, irp);
    return st;
}

static NTSTATUS dog_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    dog_t *d;
    NTSTATUS st = IoCreateDevice(drv, sizeof(dog_t), NULL, 0x8331, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(st))
        return st;
    d = dev->DeviceExtension;
    RtlZeroMemory(d, sizeof(*d));
    d->pdo = pdo;
    IoInitializeRemoveLock(&d->rl, 'goDK', 0, 0);
    KeInitializeSpinLock(&d->lock);
    KeInitializeTimer(&d->timer);
    KeInitializeDpc(&d->dpc, dog_dpc, d);
    InitializeListHead(&d->waiters);
    st = IoCsqInitializeEx(&d->csq, q_insert, q_remove, q_peek, q_lock, q_unlock, q_cancelled);
    if (NT_SUCCESS(st))
        st = IoRegisterDeviceInterface(pdo, &DogGuid, NULL, &d->ifname);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    d->lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (d->lower == NULL) {
        RtlFreeUnicodeString(&d->ifname);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID dog_unload(PDRIVER_OBJECT drv) { (void)drv; }

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    drv->DriverExtension->AddDevice = dog_add;
    drv->DriverUnload = dog_unload;
    drv->MajorFunction[IRP_MJ_CREATE] = dog_open_close;
    drv->MajorFunction[IRP_MJ_CLOSE] = dog_open_close;
    drv->MajorFunction[IRP_MJ_CLEANUP] = dog_cleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = dog_control;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = dog_pass;
    drv->MajorFunction[IRP_MJ_POWER] = dog_pass;
    drv->MajorFunction[IRP_MJ_PNP] = dog_pnp;
    return STATUS_SUCCESS;
}
