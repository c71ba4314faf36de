/*
 * plxsill: counts pulses on the first local interrupt line (LINTi1, rising edges) of a card with a PLX PCI 9052. COUNT
 * gives the number so far, WAIT ends after so many more pulses (1 to 100000) and gives the number then. Waiting
 * requests can be cancelled; over sleep and stop they are kept, pulses are not counted then.
 *
 * The bug: stopping the device disconnects the interrupt but keeps the pointer to it: when the next start fails to map
 * the registers, cleaning up after it disconnects the same interrupt once more.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-not-connected
 * Needs: device, failure, removal
 */
#include "../include/keel_plx.h"

#define IOCTL_COUNT AJ_IOCTL(0, METHOD_BUFFERED)    /* out: pulses */
#define IOCTL_WAIT  AJ_IOCTL(1, METHOD_BUFFERED)    /* in: how many more; out: pulses */
#define MOST 100000

static const GUID PLXSILL_GUID = { 0x5b0f2c1a, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x0a } };

typedef struct SILL {
    AJ_FDO f;
    AJ_CARD card;
    KSPIN_LOCK lock;
    ULONG paused;
    LIST_ENTRY waits;       /* each one's number to reach in its first word */
    volatile LONG count;
    KDPC dpc;
} SILL;

static BOOLEAN sill_isr(PKINTERRUPT in, PVOID ctx)
{
    SILL *s = ctx;
    ULONG v = aj_rd(&s->card, PLX_INTCSR);

    (void)in;
    if (v == AJ_GONE || !(v & PLX_L1_ENABLE) || !(v & PLX_L1_STATUS))
        return FALSE;
    aj_wr(&s->card, PLX_INTCSR, v | PLX_L1_CLEAR);
    InterlockedIncrement(&s->count);
    KeInsertQueueDpc(&s->dpc, NULL, NULL);
    return TRUE;
}

static VOID sill_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    SILL *s = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&s->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&s->lock, q);
    aj_end(&s->f, irp, STATUS_CANCELLED, 0);
}

/* ends the waits whose number is reached */
static VOID sill_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    SILL *s = ctx;
    PLIST_ENTRY e, next;
    LIST_ENTRY done;
    ULONG now;
    PIRP irp;

    (void)dpc;
    (void)a1;
    (void)a2;
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&s->lock);
    now = (ULONG)s->count;
    for (e = s->waits.Flink; e != &s->waits; e = next) {
        next = e->Flink;
        irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if ((LONG)(now - (ULONG)aj_word(irp, 0)) < 0 || !IoSetCancelRoutine(irp, NULL))
            continue;
        RemoveEntryList(e);
        InsertTailList(&done, e);
    }
    KeReleaseSpinLockFromDpcLevel(&s->lock);
    while ((irp = aj_pop_irp(&done)) != NULL) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &now, sizeof now);
        aj_end(&s->f, irp, STATUS_SUCCESS, sizeof now);
    }
}

static void sill_pause(SILL *s, ULONG why)
{
    ULONG was;
    KIRQL q;

    KeAcquireSpinLock(&s->lock, &q);
    was = s->paused;
    s->paused |= why;
    if (!was)
        plx_change(&s->card, PLX_PCI_ENABLE | PLX_L1_ENABLE, 0);
    KeReleaseSpinLock(&s->lock, q);
    if (!was)
        KeFlushQueuedDpcs();
}

static void sill_unpause(SILL *s, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&s->lock, &q);
    s->paused &= ~why;
    if (!s->paused)
        plx_change(&s->card, 0, PLX_PCI_ENABLE | PLX_L1_ENABLE | PLX_L1_HIGH | PLX_L1_EDGE | PLX_L1_CLEAR);
    KeReleaseSpinLock(&s->lock, q);
}

static NTSTATUS sill_control(PDEVICE_OBJECT dev, PIRP irp)
{
    SILL *s = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode, n;
    NTSTATUS st = aj_begin(&s->f, irp);
    BOOLEAN ok;
    KIRQL q;

    if (!NT_SUCCESS(st))
        return st;
    if (code != IOCTL_COUNT && code != IOCTL_WAIT)
        return aj_end(&s->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof n)
        return aj_end(&s->f, irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (code == IOCTL_COUNT) {
        n = (ULONG)s->count;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &n, sizeof n);
        return aj_end(&s->f, irp, STATUS_SUCCESS, sizeof n);
    }
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof n)
        return aj_end(&s->f, irp, STATUS_INVALID_PARAMETER, 0);
    RtlCopyMemory(&n, irp->AssociatedIrp.SystemBuffer, sizeof n);
    if (!n || n > MOST)
        return aj_end(&s->f, irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&s->lock, &q);
    if (s->paused & P_GONE) {
        KeReleaseSpinLock(&s->lock, q);
        return aj_end(&s->f, irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    /* a pulse from here on queues the DPC, which waits for the lock and finds the request */
    aj_set_word(irp, 0, (ULONG)s->count + n);
    ok = aj_pend_locked(&s->waits, irp, sill_cancel);
    KeReleaseSpinLock(&s->lock, q);
    if (!ok)
        aj_end(&s->f, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS sill_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    SILL *s = dev->DeviceExtension;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&s->lock, &q);
    aj_unpend_all_locked(&s->waits, aj_file(irp), &done);
    KeReleaseSpinLock(&s->lock, q);
    aj_end_list(&s->f, &done, STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS sill_init(AJ_FDO *f)
{
    SILL *s = (SILL *)f;

    KeInitializeSpinLock(&s->lock);
    InitializeListHead(&s->waits);
    KeInitializeDpc(&s->dpc, sill_dpc, s);
    s->paused = P_STOP;
    return STATUS_SUCCESS;
}

/* gives back what there is of the hardware, after a stop or a start that failed half-way; the chip is silent */
static void sill_down(SILL *s)
{
    if (s->card.intr) {
        IoDisconnectInterrupt(s->card.intr);
#ifdef FIXED
        s->card.intr = NULL;
#endif
    }
    KeFlushQueuedDpcs();
    aj_unmap(&s->card);
}

static NTSTATUS sill_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    SILL *s = (SILL *)f;
    NTSTATUS st = aj_map(&s->card, res, 0x54);

    if (NT_SUCCESS(st)) {
        plx_silence(&s->card);
        st = aj_connect(&s->card, sill_isr, s);
    }
    if (!NT_SUCCESS(st))
        sill_down(s);
    return st;
}

static void sill_stop(AJ_FDO *f)
{
    sill_down((SILL *)f);
}

AJ_PAUSES(sill, SILL)

static void sill_gone(AJ_FDO *f)
{
    SILL *s = (SILL *)f;
    LIST_ENTRY done;
    KIRQL q;

    sill_pause(s, P_GONE);
    InitializeListHead(&done);
    KeAcquireSpinLock(&s->lock, &q);
    aj_unpend_all_locked(&s->waits, NULL, &done);
    KeReleaseSpinLock(&s->lock, q);
    aj_end_list(f, &done, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS sill_ops = {
    .ext_size = sizeof(SILL),
    .iface = &PLXSILL_GUID,
    .init = sill_init,
    .start = sill_start,
    .stop = sill_stop,
    .hold = sill_hold,
    .resume = sill_resume,
    .gone = sill_gone,
    .sleep = sill_sleep,
    .wake = sill_wake,
};

static NTSTATUS sill_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &sill_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, sill_add, aj_create_plain, sill_cleanup, aj_ok, sill_control);
    return STATUS_SUCCESS;
}
