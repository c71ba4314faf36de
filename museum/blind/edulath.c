/*
 * edulath: factorials (modulo 2^32) computed by the edu card, for impatient applications: a request can be cancelled
 * while it waits and also while the card computes for it; it then ends at once. The card cannot be stopped: it goes on
 * to its end, tells by interrupt, and only then can it take the next number (it ignores one written while it
 * computes). Over sleep and stop the requests are kept and computed again.
 *
 * The bug: when the request at the card is cancelled, the next one is started at once: the card ignores it, and the
 * interrupt of the cancelled one hands it the factorial of the other's number.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: ioctl, device, cancel
 */
#include "../include/keel_edu.h"

#define IOCTL_FACT AJ_IOCTL(0, METHOD_BUFFERED)     /* in: n; out: n! */
#define MOST 100000

static const GUID EDULATH_GUID = { 0x5b0f2c17, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x07 } };

typedef struct LATH {
    AJ_FDO f;
    AJ_CARD card;
    KSPIN_LOCK lock;        /* the four below */
    ULONG paused;
    BOOLEAN computing;      /* the card is at work, for whom ever */
    PIRP cur;               /* the request it works for; NULL: cancelled */
    LIST_ENTRY line;
    volatile LONG seen;
    KDPC dpc;
} LATH;

static BOOLEAN lath_isr(PKINTERRUPT in, PVOID ctx)
{
    LATH *l = ctx;
    ULONG st = aj_rd(&l->card, EDU_ISTAT);

    (void)in;
    if (!st || st == AJ_GONE)
        return FALSE;
    aj_wr(&l->card, EDU_IACK, st);
    InterlockedOr(&l->seen, st);
    KeInsertQueueDpc(&l->dpc, NULL, NULL);
    return TRUE;
}

/* The first in line to the card, if that is free. The request keeps its cancel routine. */
static void next_locked(LATH *l)
{
    PIRP irp;

    if (l->paused || l->computing || IsListEmpty(&l->line))
        return;
    irp = aj_pop_irp(&l->line);
    InitializeListHead(&irp->Tail.Overlay.ListEntry);
    l->cur = irp;
    l->computing = TRUE;
    aj_wr(&l->card, EDU_STATUS, EDU_IRQFACT);
    aj_wr(&l->card, EDU_FACT, (ULONG)aj_word(irp, 0));
}

/* in line, at the card, or on its way out of there (then linked to itself) */
static VOID lath_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    LATH *l = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&l->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    if (l->cur == irp) {
        l->cur = NULL;
#ifndef FIXED
        l->computing = FALSE;
        next_locked(l);
#endif
    }
    KeReleaseSpinLock(&l->lock, q);
    aj_end(&l->f, irp, STATUS_CANCELLED, 0);
}

static VOID lath_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    LATH *l = ctx;
    LONG seen = InterlockedExchange(&l->seen, 0);
    PIRP irp = NULL;
    ULONG r = 0;

    (void)dpc;
    (void)a1;
    (void)a2;
    KeAcquireSpinLockAtDpcLevel(&l->lock);
    if ((seen & EDU_I_FACT) && l->computing && !l->paused) {
        r = aj_rd(&l->card, EDU_FACT);
        irp = l->cur;
        l->cur = NULL;
        l->computing = FALSE;
        if (irp && !IoSetCancelRoutine(irp, NULL))
            irp = NULL;     /* its cancel routine waits for our lock and completes it */
        next_locked(l);
    }
    KeReleaseSpinLockFromDpcLevel(&l->lock);
    if (!irp)
        return;
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &r, sizeof r);
    if (r == AJ_GONE)           /* no factorial: the card was pulled */
        aj_end(&l->f, irp, STATUS_NO_SUCH_DEVICE, 0);
    else
        aj_end(&l->f, irp, STATUS_SUCCESS, sizeof r);
}

/* Leaves the card alone from here on; the request it was at goes back to the head of the line. */
static void lath_pause(LATH *l, ULONG why)
{
    ULONG was;
    KIRQL q;

    KeAcquireSpinLock(&l->lock, &q);
    was = l->paused;
    l->paused |= why;
    KeReleaseSpinLock(&l->lock, q);
    if (!was) {     /* else the card is quiet already, and may be asleep */
        edu_settle(&l->card);
        edu_quiet(&l->card);
        KeFlushQueuedDpcs();
    }
    KeAcquireSpinLock(&l->lock, &q);
    l->computing = FALSE;
    if (l->cur)
        InsertHeadList(&l->line, &l->cur->Tail.Overlay.ListEntry);
    l->cur = NULL;
    KeReleaseSpinLock(&l->lock, q);
}

static void lath_unpause(LATH *l, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&l->lock, &q);
    l->paused &= ~why;
    next_locked(l);
    KeReleaseSpinLock(&l->lock, q);
}

static NTSTATUS lath_control(PDEVICE_OBJECT dev, PIRP irp)
{
    LATH *l = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = aj_begin(&l->f, irp);
    BOOLEAN ok;
    ULONG n;
    KIRQL q;

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACT)
        return aj_end(&l->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof n ||
        sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof n)
        return aj_end(&l->f, irp, STATUS_BUFFER_TOO_SMALL, 0);
    RtlCopyMemory(&n, irp->AssociatedIrp.SystemBuffer, sizeof n);
    if (n > MOST)
        return aj_end(&l->f, irp, STATUS_INVALID_PARAMETER, 0);
    aj_set_word(irp, 0, n);
    KeAcquireSpinLock(&l->lock, &q);
    if (l->paused & P_GONE) {
        KeReleaseSpinLock(&l->lock, q);
        return aj_end(&l->f, irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    ok = aj_pend_locked(&l->line, irp, lath_cancel);
    next_locked(l);
    KeReleaseSpinLock(&l->lock, q);
    if (!ok)
        aj_end(&l->f, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS lath_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    LATH *l = dev->DeviceExtension;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&l->lock, &q);
    aj_unpend_all_locked(&l->line, aj_file(irp), &done);
    if (l->cur && aj_file(l->cur) == aj_file(irp) && IoSetCancelRoutine(l->cur, NULL)) {
        InsertTailList(&done, &l->cur->Tail.Overlay.ListEntry);
        l->cur = NULL;      /* the card goes on, for no one */
    }
    KeReleaseSpinLock(&l->lock, q);
    aj_end_list(&l->f, &done, STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS lath_init(AJ_FDO *f)
{
    LATH *l = (LATH *)f;

    KeInitializeSpinLock(&l->lock);
    InitializeListHead(&l->line);
    KeInitializeDpc(&l->dpc, lath_dpc, l);
    l->paused = P_STOP;
    return STATUS_SUCCESS;
}

static NTSTATUS lath_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    LATH *l = (LATH *)f;
    NTSTATUS st = edu_map(&l->card, res);

    if (!NT_SUCCESS(st))
        return st;
    edu_quiet(&l->card);
    l->seen = 0;
    st = aj_connect(&l->card, lath_isr, l);
    if (!NT_SUCCESS(st))
        aj_unmap(&l->card);
    return st;
}

static void lath_stop(AJ_FDO *f)
{
    LATH *l = (LATH *)f;

    aj_disconnect(&l->card);
    aj_unmap(&l->card);
}

AJ_PAUSES(lath, LATH)

static void lath_gone(AJ_FDO *f)
{
    LATH *l = (LATH *)f;
    LIST_ENTRY done;
    KIRQL q;

    lath_pause(l, P_GONE);
    InitializeListHead(&done);
    KeAcquireSpinLock(&l->lock, &q);
    aj_unpend_all_locked(&l->line, NULL, &done);
    KeReleaseSpinLock(&l->lock, q);
    aj_end_list(f, &done, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS lath_ops = {
    .ext_size = sizeof(LATH),
    .iface = &EDULATH_GUID,
    .init = lath_init,
    .start = lath_start,
    .stop = lath_stop,
    .hold = lath_hold,
    .resume = lath_resume,
    .gone = lath_gone,
    .sleep = lath_sleep,
    .wake = lath_wake,
};

static NTSTATUS lath_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &lath_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, lath_add, aj_create_plain, lath_cleanup, aj_ok, lath_control);
    return STATUS_SUCCESS;
}
