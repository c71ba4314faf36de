/*
 * plxridge: tells applications of an edge on LINTi1 of a card with a PLX PCI 9052. WAIT ends with the first rising edge
 * after it began, and gives the number of edges so far. The line interrupts only while someone waits: the first WAIT
 * lets it, and the DPC forbids it again when no one is left. Waiting requests can be cancelled; over sleep and stop
 * they are kept.
 *
 * The bug: the DPC finds that no one waits and forbids the line only after it has let go of the lock and ended the
 * requests: a WAIT that began in between has let the line interrupt, and now waits with the line forbidden.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: ioctl, device, schedule
 */
#include "../include/keel_plx.h"

#define IOCTL_WAIT  AJ_IOCTL(0, METHOD_BUFFERED)    /* out: edges so far */

static const GUID PLXRIDGE_GUID = { 0x5b0f2c1c, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x0c } };

typedef struct RIDGE {
    AJ_FDO f;
    AJ_CARD card;
    KSPIN_LOCK lock;        /* the two below, and letting and forbidding the line */
    ULONG paused;
    LIST_ENTRY waits;       /* each one's number of edges when it began in its first word */
    volatile LONG edges;
    KDPC dpc;
} RIDGE;

static BOOLEAN ridge_isr(PKINTERRUPT in, PVOID ctx)
{
    RIDGE *r = ctx;
    ULONG v = aj_rd(&r->card, PLX_INTCSR);

    (void)in;
    if (v == AJ_GONE || !(v & PLX_L1_ENABLE) || !(v & PLX_L1_STATUS))
        return FALSE;
    aj_wr(&r->card, PLX_INTCSR, v | PLX_L1_CLEAR);
    InterlockedIncrement(&r->edges);
    KeInsertQueueDpc(&r->dpc, NULL, NULL);
    return TRUE;
}

/* edges from before do not count */
static void let_locked(RIDGE *r)
{
    if (!r->paused)
        plx_change(&r->card, 0, PLX_PCI_ENABLE | PLX_L1_ENABLE | PLX_L1_HIGH | PLX_L1_EDGE | PLX_L1_CLEAR);
}

static void forbid_locked(RIDGE *r)
{
    if (!r->paused)
        plx_change(&r->card, PLX_L1_ENABLE, 0);
}

static VOID ridge_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    RIDGE *r = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&r->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&r->lock, q);
    aj_end(&r->f, irp, STATUS_CANCELLED, 0);
}

static VOID ridge_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    RIDGE *r = ctx;
    PLIST_ENTRY e, next;
    LIST_ENTRY done;
    BOOLEAN none_left;
    ULONG now;
    PIRP irp;

    (void)dpc;
    (void)a1;
    (void)a2;
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&r->lock);
    now = (ULONG)r->edges;
    for (e = r->waits.Flink; e != &r->waits; e = next) {
        next = e->Flink;
        irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if ((ULONG)aj_word(irp, 0) == now || !IoSetCancelRoutine(irp, NULL))
            continue;
        RemoveEntryList(e);
        InsertTailList(&done, e);
    }
    none_left = IsListEmpty(&r->waits);
#ifdef FIXED
    if (none_left)
        forbid_locked(r);
#endif
    KeReleaseSpinLockFromDpcLevel(&r->lock);
    while ((irp = aj_pop_irp(&done)) != NULL) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &now, sizeof now);
        aj_end(&r->f, irp, STATUS_SUCCESS, sizeof now);
    }
#ifndef FIXED
    KeAcquireSpinLockAtDpcLevel(&r->lock);
    if (none_left)
        forbid_locked(r);
    KeReleaseSpinLockFromDpcLevel(&r->lock);
#endif
}

static void ridge_pause(RIDGE *r, ULONG why)
{
    ULONG was;
    KIRQL q;

    KeAcquireSpinLock(&r->lock, &q);
    was = r->paused;
    r->paused |= why;
    if (!was)
        plx_change(&r->card, PLX_PCI_ENABLE | PLX_L1_ENABLE, 0);
    KeReleaseSpinLock(&r->lock, q);
    if (!was)
        KeFlushQueuedDpcs();
}

static void ridge_unpause(RIDGE *r, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&r->lock, &q);
    r->paused &= ~why;
    if (!IsListEmpty(&r->waits))
        let_locked(r);
    KeReleaseSpinLock(&r->lock, q);
}

static NTSTATUS ridge_control(PDEVICE_OBJECT dev, PIRP irp)
{
    RIDGE *r = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = aj_begin(&r->f, irp);
    BOOLEAN ok, first;
    KIRQL q;

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_WAIT)
        return aj_end(&r->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return aj_end(&r->f, irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&r->lock, &q);
    if (r->paused & P_GONE) {
        KeReleaseSpinLock(&r->lock, q);
        return aj_end(&r->f, irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    first = IsListEmpty(&r->waits);
    aj_set_word(irp, 0, (ULONG)r->edges);
    ok = aj_pend_locked(&r->waits, irp, ridge_cancel);
    if (ok && first)
        let_locked(r);
    KeReleaseSpinLock(&r->lock, q);
    if (!ok)
        aj_end(&r->f, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS ridge_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    RIDGE *r = dev->DeviceExtension;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&r->lock, &q);
    aj_unpend_all_locked(&r->waits, aj_file(irp), &done);
    KeReleaseSpinLock(&r->lock, q);
    aj_end_list(&r->f, &done, STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS ridge_init(AJ_FDO *f)
{
    RIDGE *r = (RIDGE *)f;

    KeInitializeSpinLock(&r->lock);
    InitializeListHead(&r->waits);
    KeInitializeDpc(&r->dpc, ridge_dpc, r);
    r->paused = P_STOP;
    return STATUS_SUCCESS;
}

static NTSTATUS ridge_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    RIDGE *r = (RIDGE *)f;
    NTSTATUS st = aj_map(&r->card, res, 0x54);

    if (!NT_SUCCESS(st))
        return st;
    plx_silence(&r->card);
    st = aj_connect(&r->card, ridge_isr, r);
    if (!NT_SUCCESS(st))
        aj_unmap(&r->card);
    return st;
}

/* paused: the chip is silent */
static void ridge_stop(AJ_FDO *f)
{
    RIDGE *r = (RIDGE *)f;

    aj_disconnect(&r->card);
    aj_unmap(&r->card);
}

AJ_PAUSES(ridge, RIDGE)

static void ridge_gone(AJ_FDO *f)
{
    RIDGE *r = (RIDGE *)f;
    LIST_ENTRY done;
    KIRQL q;

    ridge_pause(r, P_GONE);
    InitializeListHead(&done);
    KeAcquireSpinLock(&r->lock, &q);
    aj_unpend_all_locked(&r->waits, NULL, &done);
    KeReleaseSpinLock(&r->lock, q);
    aj_end_list(f, &done, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS ridge_ops = {
    .ext_size = sizeof(RIDGE),
    .iface = &PLXRIDGE_GUID,
    .init = ridge_init,
    .start = ridge_start,
    .stop = ridge_stop,
    .hold = ridge_hold,
    .resume = ridge_resume,
    .gone = ridge_gone,
    .sleep = ridge_sleep,
    .wake = ridge_wake,
};

static NTSTATUS ridge_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &ridge_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, ridge_add, aj_create_plain, ridge_cleanup, aj_ok, ridge_control);
    return STATUS_SUCCESS;
}
