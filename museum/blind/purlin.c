/*
 * purlin: 32 shared flags. RAISE sets flags; WAIT names a mask and a time in milliseconds and ends as soon as one of
 * its flags is raised (which takes these flags down again and reports them), or with STATUS_IO_TIMEOUT when the time
 * is over. A timer looks every 10 ms for waits whose time is over. Waits can be cancelled.
 *
 * The bug: when a wait's time ends just as it is being cancelled, the timer takes it out of the list and leaves it to
 * the cancel routine, which takes it out once more, by links that are no longer true.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl, schedule, cancel
 */
#include "../include/keel_base.h"

#define LINK L"\\DosDevices\\AjPurlin"
#define TICK 10

#define IOCTL_RAISE AJ_IOCTL(0, METHOD_BUFFERED)    /* in: flags */
#define IOCTL_WAIT  AJ_IOCTL(1, METHOD_BUFFERED)    /* in: mask, milliseconds; out: the flags that were up */
#define IOCTL_LOWER AJ_IOCTL(2, METHOD_BUFFERED)    /* in: flags */

typedef struct FLAGS {
    KSPIN_LOCK lock;
    ULONG up;
    LIST_ENTRY waits;
    KTIMER timer;
    KDPC dpc;
} FLAGS;

/* kept in a waiting request */
#define ENDS(irp) aj_word(irp, 0)
#define MASK(irp) ((ULONG)aj_word(irp, 1))

static PDEVICE_OBJECT g_dev;

static VOID flags_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    FLAGS *f = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&f->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&f->lock, q);
    aj_done(irp, STATUS_CANCELLED, 0);
}

static VOID flags_tick(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    FLAGS *f = ctx;
    ULONGLONG now = KeQueryInterruptTime();
    LIST_ENTRY done;
    PLIST_ENTRY e, next;
    PIRP irp;

    (void)dpc;
    (void)a1;
    (void)a2;
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&f->lock);
    for (e = f->waits.Flink; e != &f->waits; e = next) {
        next = e->Flink;
        irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (ENDS(irp) > now)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL)) {
            InsertTailList(&done, e);
        } else {
            /* being cancelled: that routine waits for our lock and completes it */
#ifdef FIXED
            InitializeListHead(e);
#endif
        }
    }
    KeReleaseSpinLockFromDpcLevel(&f->lock);
    while ((irp = aj_pop_irp(&done)) != NULL)
        aj_done(irp, STATUS_IO_TIMEOUT, 0);
}

/* what of the mask is up, taken down again, as the request's answer */
static void answer_locked(FLAGS *f, PIRP irp, ULONG mask)
{
    ULONG hit = f->up & mask;

    f->up &= ~hit;
    *(ULONG *)irp->AssociatedIrp.SystemBuffer = hit;
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = sizeof(ULONG);
}

static NTSTATUS flags_raise(FLAGS *f, PIRP irp, ULONG bits)
{
    LIST_ENTRY done;
    PLIST_ENTRY e, next;
    PIRP w;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&f->lock, &q);
    f->up |= bits;
    for (e = f->waits.Flink; e != &f->waits; e = next) {
        next = e->Flink;
        w = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!(MASK(w) & f->up) || !IoSetCancelRoutine(w, NULL))
            continue;   /* one that is being cancelled stays for its cancel routine */
        RemoveEntryList(e);
        answer_locked(f, w, MASK(w));
        InsertTailList(&done, e);
    }
    KeReleaseSpinLock(&f->lock, q);
    while ((w = aj_pop_irp(&done)) != NULL)
        IoCompleteRequest(w, IO_NO_INCREMENT);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS flags_wait(FLAGS *f, PIRP irp, ULONG mask, ULONG ms)
{
    KIRQL q;
    BOOLEAN ok;

    aj_set_word(irp, 0, KeQueryInterruptTime() + (ULONGLONG)ms * 10000);
    aj_set_word(irp, 1, mask);
    KeAcquireSpinLock(&f->lock, &q);
    if (f->up & mask) {
        answer_locked(f, irp, mask);
        KeReleaseSpinLock(&f->lock, q);
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return STATUS_SUCCESS;
    }
    ok = aj_pend_locked(&f->waits, irp, flags_cancel);
    KeReleaseSpinLock(&f->lock, q);
    if (!ok)
        aj_done(irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS flags_control(PDEVICE_OBJECT dev, PIRP irp)
{
    FLAGS *f = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG *buf = irp->AssociatedIrp.SystemBuffer;
    KIRQL q;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RAISE:
        if (in < sizeof(ULONG))
            return aj_done(irp, STATUS_INVALID_PARAMETER, 0);
        return flags_raise(f, irp, buf[0]);
    case IOCTL_WAIT:
        if (in < 2 * sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG) || !buf[0])
            return aj_done(irp, STATUS_INVALID_PARAMETER, 0);
        return flags_wait(f, irp, buf[0], buf[1]);
    case IOCTL_LOWER:
        if (in < sizeof(ULONG))
            return aj_done(irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&f->lock, &q);
        f->up &= ~buf[0];
        KeReleaseSpinLock(&f->lock, q);
        return aj_done(irp, STATUS_SUCCESS, 0);
    default:
        return aj_done(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS flags_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    FLAGS *f = dev->DeviceExtension;
    LIST_ENTRY done;
    PIRP w;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&f->lock, &q);
    aj_unpend_all_locked(&f->waits, aj_file(irp), &done);
    KeReleaseSpinLock(&f->lock, q);
    while ((w = aj_pop_irp(&done)) != NULL)
        aj_done(w, STATUS_CANCELLED, 0);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS flags_open(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static VOID flags_unload(PDRIVER_OBJECT drv)
{
    FLAGS *f = g_dev->DeviceExtension;

    (void)drv;
    KeCancelTimer(&f->timer);
    KeFlushQueuedDpcs();
    aj_uncontrol(g_dev, LINK);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    NTSTATUS st = aj_control(drv, L"\\Device\\AjPurlin", LINK, sizeof(FLAGS), &g_dev);
    LARGE_INTEGER due;
    FLAGS *f;

    (void)reg;
    if (!NT_SUCCESS(st))
        return st;
    f = g_dev->DeviceExtension;
    KeInitializeSpinLock(&f->lock);
    InitializeListHead(&f->waits);
    KeInitializeTimer(&f->timer);
    KeInitializeDpc(&f->dpc, flags_tick, f);
    drv->MajorFunction[IRP_MJ_CREATE] = flags_open;
    drv->MajorFunction[IRP_MJ_CLOSE] = flags_open;
    drv->MajorFunction[IRP_MJ_CLEANUP] = flags_cleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = flags_control;
    drv->DriverUnload = flags_unload;
    due.QuadPart = -TICK * 10000LL;
    KeSetTimerEx(&f->timer, due, TICK, &f->dpc);
    return STATUS_SUCCESS;
}
