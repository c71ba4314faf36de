/*
 * plxeave: watches a switch on a card with a PLX PCI 9052: its contact pulls LINTi1 (rising edge) whenever it moves,
 * and its position can be read at the USER0 pin (CNTRL, bit 2). As contacts bounce, the pin is read 20 ms after the
 * last edge. STATE gives the position and how often it changed, WAIT ends when it changed since the number named.
 *
 * The bug: before a stop, sleep or removal the timer is called off before the DPC of the last interrupt has run, which
 * may set it once more: it then reads a register that is no longer mapped (or of a card without power).
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: wild-read, freed-active-timer
 * Needs: device, schedule, removal
 */
#include "../include/keel_plx.h"

#define IOCTL_STATE AJ_IOCTL(0, METHOD_BUFFERED)    /* out: position, changes */
#define IOCTL_WAIT  AJ_IOCTL(1, METHOD_BUFFERED)    /* in: changes seen; out: position, changes */
#define BOUNCE_MS 20

static const GUID PLXEAVE_GUID = { 0x5b0f2c1b, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x0b } };

typedef struct STATE { ULONG position, changes; } STATE;

typedef struct EAVE {
    AJ_FDO f;
    AJ_CARD card;
    KSPIN_LOCK lock;        /* the three below */
    ULONG paused;
    STATE state;
    LIST_ENTRY waits;
    KDPC dpc;
    KTIMER timer;
    KDPC tdpc;
} EAVE;

static BOOLEAN eave_isr(PKINTERRUPT in, PVOID ctx)
{
    EAVE *e = ctx;
    ULONG v = aj_rd(&e->card, PLX_INTCSR);

    (void)in;
    if (v == AJ_GONE || !(v & PLX_L1_ENABLE) || !(v & PLX_L1_STATUS))
        return FALSE;
    aj_wr(&e->card, PLX_INTCSR, v | PLX_L1_CLEAR);
    KeInsertQueueDpc(&e->dpc, NULL, NULL);
    return TRUE;
}

/* an edge: look at the pin when the contact is quiet */
static VOID eave_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    EAVE *e = ctx;
    LARGE_INTEGER due;

    (void)dpc;
    (void)a1;
    (void)a2;
    due.QuadPart = -BOUNCE_MS * 10000LL;
    KeSetTimer(&e->timer, due, &e->tdpc);
}

static VOID eave_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    EAVE *e = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&e->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&e->lock, q);
    aj_end(&e->f, irp, STATUS_CANCELLED, 0);
}

static VOID eave_quiet(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    EAVE *e = ctx;
    ULONG v = aj_rd(&e->card, PLX_CNTRL), pos = (v & PLX_USER0_DATA) ? 1 : 0;
    LIST_ENTRY done;
    STATE now;
    PIRP irp;

    (void)dpc;
    (void)a1;
    (void)a2;
    if (v == AJ_GONE)
        return;
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&e->lock);
    if (pos != e->state.position) {
        e->state.position = pos;
        e->state.changes++;
        aj_unpend_all_locked(&e->waits, NULL, &done);
    }
    now = e->state;
    KeReleaseSpinLockFromDpcLevel(&e->lock);
    while ((irp = aj_pop_irp(&done)) != NULL) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &now, sizeof now);
        aj_end(&e->f, irp, STATUS_SUCCESS, sizeof now);
    }
}

/* Afterwards nothing of ours touches the chip until eave_unpause. */
static void eave_pause(EAVE *e, ULONG why)
{
    ULONG was;
    KIRQL q;

    KeAcquireSpinLock(&e->lock, &q);
    was = e->paused;
    e->paused |= why;
    if (!was)
        plx_change(&e->card, PLX_PCI_ENABLE | PLX_L1_ENABLE, 0);
    KeReleaseSpinLock(&e->lock, q);
    if (was)
        return;
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    KeCancelTimer(&e->timer);
    KeFlushQueuedDpcs();
}

static void eave_unpause(EAVE *e, ULONG why)
{
    LARGE_INTEGER due;
    KIRQL q;

    due.QuadPart = -BOUNCE_MS * 10000LL;
    KeAcquireSpinLock(&e->lock, &q);
    e->paused &= ~why;
    if (!e->paused) {
        plx_change(&e->card, 0, PLX_PCI_ENABLE | PLX_L1_ENABLE | PLX_L1_HIGH | PLX_L1_EDGE | PLX_L1_CLEAR);
        KeSetTimer(&e->timer, due, &e->tdpc);       /* it may have moved meanwhile */
    }
    KeReleaseSpinLock(&e->lock, q);
}

static NTSTATUS eave_control(PDEVICE_OBJECT dev, PIRP irp)
{
    EAVE *e = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode, seen = 0;
    NTSTATUS st = aj_begin(&e->f, irp);
    BOOLEAN ok = TRUE, wait = FALSE;
    STATE now;
    KIRQL q;

    if (!NT_SUCCESS(st))
        return st;
    if (code != IOCTL_STATE && code != IOCTL_WAIT)
        return aj_end(&e->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof now)
        return aj_end(&e->f, irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (code == IOCTL_WAIT) {
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof seen)
            return aj_end(&e->f, irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&seen, irp->AssociatedIrp.SystemBuffer, sizeof seen);
    }
    KeAcquireSpinLock(&e->lock, &q);
    now = e->state;
    if (e->paused & P_GONE) {
        st = STATUS_NO_SUCH_DEVICE;
    } else if (code == IOCTL_WAIT && now.changes == seen) {
        wait = TRUE;
        ok = aj_pend_locked(&e->waits, irp, eave_cancel);
    }
    KeReleaseSpinLock(&e->lock, q);
    if (wait) {
        if (!ok)
            aj_end(&e->f, irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    if (!NT_SUCCESS(st))
        return aj_end(&e->f, irp, st, 0);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &now, sizeof now);
    return aj_end(&e->f, irp, STATUS_SUCCESS, sizeof now);
}

static NTSTATUS eave_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    EAVE *e = dev->DeviceExtension;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&e->lock, &q);
    aj_unpend_all_locked(&e->waits, aj_file(irp), &done);
    KeReleaseSpinLock(&e->lock, q);
    aj_end_list(&e->f, &done, STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS eave_init(AJ_FDO *f)
{
    EAVE *e = (EAVE *)f;

    KeInitializeSpinLock(&e->lock);
    InitializeListHead(&e->waits);
    KeInitializeDpc(&e->dpc, eave_dpc, e);
    KeInitializeTimer(&e->timer);
    KeInitializeDpc(&e->tdpc, eave_quiet, e);
    e->paused = P_STOP;
    return STATUS_SUCCESS;
}

static NTSTATUS eave_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    EAVE *e = (EAVE *)f;
    NTSTATUS st = aj_map(&e->card, res, 0x54);

    if (!NT_SUCCESS(st))
        return st;
    plx_silence(&e->card);
    st = aj_connect(&e->card, eave_isr, e);
    if (!NT_SUCCESS(st))
        aj_unmap(&e->card);
    return st;
}

/* paused: the chip is silent */
static void eave_stop(AJ_FDO *f)
{
    EAVE *e = (EAVE *)f;

    aj_disconnect(&e->card);
    aj_unmap(&e->card);
}

AJ_PAUSES(eave, EAVE)

static void eave_gone(AJ_FDO *f)
{
    EAVE *e = (EAVE *)f;
    LIST_ENTRY done;
    KIRQL q;

    eave_pause(e, P_GONE);
    InitializeListHead(&done);
    KeAcquireSpinLock(&e->lock, &q);
    aj_unpend_all_locked(&e->waits, NULL, &done);
    KeReleaseSpinLock(&e->lock, q);
    aj_end_list(f, &done, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS eave_ops = {
    .ext_size = sizeof(EAVE),
    .iface = &PLXEAVE_GUID,
    .init = eave_init,
    .start = eave_start,
    .stop = eave_stop,
    .hold = eave_hold,
    .resume = eave_resume,
    .gone = eave_gone,
    .sleep = eave_sleep,
    .wake = eave_wake,
};

static NTSTATUS eave_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &eave_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, eave_add, aj_create_plain, eave_cleanup, aj_ok, eave_control);
    return STATUS_SUCCESS;
}
