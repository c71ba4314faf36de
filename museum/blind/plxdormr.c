/*
 * plxdormr: measures how long an interrupt of a card with a PLX PCI 9052 takes. PING has the chip interrupt (software
 * interrupt, INTCSR bit 7) and ends when the DPC has run, with the time that took, in units of 100 ns; TOTAL tells how
 * many were answered. Several PINGs may be under way; they can be cancelled, and are kept over sleep and stop.
 *
 * The bug: the DPC answers one PING only. Two that set the bit before the ISR has run cause one interrupt, and the
 * second of them waits for ever (or for a later one's interrupt).
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: ioctl, device, schedule
 */
#include "../include/keel_plx.h"

#define IOCTL_PING  AJ_IOCTL(0, METHOD_BUFFERED)    /* out: time, 64 bits */
#define IOCTL_TOTAL AJ_IOCTL(1, METHOD_BUFFERED)    /* out: number of answers */

static const GUID PLXDORMR_GUID = { 0x5b0f2c1d, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x0d } };

typedef struct DORMER {
    AJ_FDO f;
    AJ_CARD card;
    KSPIN_LOCK lock;        /* the three below, and ringing */
    ULONG paused;
    ULONG total;
    LIST_ENTRY waits;       /* each one's time of beginning in its first word */
    KDPC dpc;
} DORMER;

static BOOLEAN dormer_isr(PKINTERRUPT in, PVOID ctx)
{
    DORMER *d = ctx;
    ULONG v = aj_rd(&d->card, PLX_INTCSR);

    (void)in;
    if (v == AJ_GONE || !(v & PLX_PCI_ENABLE) || !(v & PLX_SOFT))
        return FALSE;
    aj_wr(&d->card, PLX_INTCSR, v & ~(PLX_SOFT | PLX_L1_CLEAR | PLX_L2_CLEAR));
    KeInsertQueueDpc(&d->dpc, NULL, NULL);
    return TRUE;
}

static VOID dormer_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    DORMER *d = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&d->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&d->lock, q);
    aj_end(&d->f, irp, STATUS_CANCELLED, 0);
}

static VOID dormer_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    DORMER *d = ctx;
    ULONGLONG now = KeQueryInterruptTime(), t;
    LIST_ENTRY done;
    PIRP irp;

    (void)dpc;
    (void)a1;
    (void)a2;
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&d->lock);
#ifdef FIXED
    while ((irp = aj_unpend_locked(&d->waits, NULL)) != NULL) {
#else
    if ((irp = aj_unpend_locked(&d->waits, NULL)) != NULL) {
#endif
        d->total++;
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLockFromDpcLevel(&d->lock);
    while ((irp = aj_pop_irp(&done)) != NULL) {
        t = now > aj_word(irp, 0) ? now - aj_word(irp, 0) : 0;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &t, sizeof t);
        aj_end(&d->f, irp, STATUS_SUCCESS, sizeof t);
    }
}

static void dormer_pause(DORMER *d, ULONG why)
{
    ULONG was;
    KIRQL q;

    KeAcquireSpinLock(&d->lock, &q);
    was = d->paused;
    d->paused |= why;
    if (!was)
        plx_change(&d->card, PLX_PCI_ENABLE | PLX_SOFT, 0);
    KeReleaseSpinLock(&d->lock, q);
    if (!was)
        KeFlushQueuedDpcs();
}

static void dormer_unpause(DORMER *d, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&d->lock, &q);
    d->paused &= ~why;
    if (!d->paused)
        plx_change(&d->card, 0, PLX_PCI_ENABLE | (IsListEmpty(&d->waits) ? 0 : PLX_SOFT));
    KeReleaseSpinLock(&d->lock, q);
}

static NTSTATUS dormer_control(PDEVICE_OBJECT dev, PIRP irp)
{
    DORMER *d = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength, total;
    NTSTATUS st = aj_begin(&d->f, irp);
    BOOLEAN ok;
    KIRQL q;

    if (!NT_SUCCESS(st))
        return st;
    if (code != IOCTL_PING && code != IOCTL_TOTAL)
        return aj_end(&d->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (out < (code == IOCTL_PING ? sizeof(ULONGLONG) : sizeof(ULONG)))
        return aj_end(&d->f, irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&d->lock, &q);
    if (code == IOCTL_TOTAL) {
        total = d->total;
        KeReleaseSpinLock(&d->lock, q);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &total, sizeof total);
        return aj_end(&d->f, irp, STATUS_SUCCESS, sizeof total);
    }
    if (d->paused & P_GONE) {
        KeReleaseSpinLock(&d->lock, q);
        return aj_end(&d->f, irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    aj_set_word(irp, 0, (ULONG_PTR)KeQueryInterruptTime());
    ok = aj_pend_locked(&d->waits, irp, dormer_cancel);
    if (ok && !d->paused)
        plx_change(&d->card, 0, PLX_SOFT);
    KeReleaseSpinLock(&d->lock, q);
    if (!ok)
        aj_end(&d->f, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS dormer_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    DORMER *d = dev->DeviceExtension;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&d->lock, &q);
    aj_unpend_all_locked(&d->waits, aj_file(irp), &done);
    KeReleaseSpinLock(&d->lock, q);
    aj_end_list(&d->f, &done, STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS dormer_init(AJ_FDO *f)
{
    DORMER *d = (DORMER *)f;

    KeInitializeSpinLock(&d->lock);
    InitializeListHead(&d->waits);
    KeInitializeDpc(&d->dpc, dormer_dpc, d);
    d->paused = P_STOP;
    return STATUS_SUCCESS;
}

static NTSTATUS dormer_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    DORMER *d = (DORMER *)f;
    NTSTATUS st = aj_map(&d->card, res, 0x54);

    if (!NT_SUCCESS(st))
        return st;
    plx_silence(&d->card);
    st = aj_connect(&d->card, dormer_isr, d);
    if (!NT_SUCCESS(st))
        aj_unmap(&d->card);
    return st;
}

/* paused: the chip is silent */
static void dormer_stop(AJ_FDO *f)
{
    DORMER *d = (DORMER *)f;

    aj_disconnect(&d->card);
    aj_unmap(&d->card);
}

AJ_PAUSES(dormer, DORMER)

static void dormer_gone(AJ_FDO *f)
{
    DORMER *d = (DORMER *)f;
    LIST_ENTRY done;
    KIRQL q;

    dormer_pause(d, P_GONE);
    InitializeListHead(&done);
    KeAcquireSpinLock(&d->lock, &q);
    aj_unpend_all_locked(&d->waits, NULL, &done);
    KeReleaseSpinLock(&d->lock, q);
    aj_end_list(f, &done, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS dormer_ops = {
    .ext_size = sizeof(DORMER),
    .iface = &PLXDORMR_GUID,
    .init = dormer_init,
    .start = dormer_start,
    .stop = dormer_stop,
    .hold = dormer_hold,
    .resume = dormer_resume,
    .gone = dormer_gone,
    .sleep = dormer_sleep,
    .wake = dormer_wake,
};

static NTSTATUS dormer_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &dormer_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, dormer_add, aj_create_plain, dormer_cleanup, aj_ok, dormer_control);
    return STATUS_SUCCESS;
}
