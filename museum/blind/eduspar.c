/*
 * eduspar: factorials (modulo 2^32) computed by the edu card. Requests wait in a queue and go to the card one after
 * another; the card's interrupt ends each. When the device leaves D0 or a stop is asked for, the request at the card
 * goes back to the head of the queue and is done again later. Waiting requests can be cancelled; the one at the card
 * cannot, it only takes a moment.
 *
 * The bug: a request at the card that was cancelled when the device goes to sleep is ended rightly, but the card
 * stays marked busy: after waking up no request is ever started again.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: ioctl, device, power, cancel
 */
#include "../include/keel_edu.h"
#include "../include/keel_queue.h"

#define IOCTL_FACT AJ_IOCTL(0, METHOD_BUFFERED)     /* in: n; out: n! */
#define MOST 10000

static const GUID EDUSPAR_GUID = { 0x5b0f2c15, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x05 } };

typedef struct SPAR {
    AJ_FDO f;
    AJ_CARD card;
    AJ_QUEUE queue;
    KSPIN_LOCK lock;        /* the three below */
    ULONG paused;
    BOOLEAN busy;           /* the card computes for us */
    PIRP cur;               /* the request it computes for */
    volatile LONG seen;     /* interrupt bits for the DPC */
    KDPC dpc;
} SPAR;

static BOOLEAN spar_isr(PKINTERRUPT in, PVOID ctx)
{
    SPAR *s = ctx;
    ULONG st = aj_rd(&s->card, EDU_ISTAT);

    (void)in;
    if (!st || st == AJ_GONE)
        return FALSE;
    aj_wr(&s->card, EDU_IACK, st);
    InterlockedOr(&s->seen, st);
    KeInsertQueueDpc(&s->dpc, NULL, NULL);
    return TRUE;
}

/* the next request to the card, if it is free */
static void spar_kick(SPAR *s)
{
    KIRQL q;
    PIRP irp;

    KeAcquireSpinLock(&s->lock, &q);
    if (!s->paused && !s->busy && (irp = aj_q_take(&s->queue, NULL)) != NULL) {
        s->busy = TRUE;
        s->cur = irp;
        aj_wr(&s->card, EDU_STATUS, EDU_IRQFACT);
        aj_wr(&s->card, EDU_FACT, (ULONG)aj_word(irp, 0));
    }
    KeReleaseSpinLock(&s->lock, q);
}

static VOID spar_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    SPAR *s = ctx;
    LONG seen = InterlockedExchange(&s->seen, 0);
    PIRP irp = NULL;
    ULONG r = 0;

    (void)dpc;
    (void)a1;
    (void)a2;
    KeAcquireSpinLockAtDpcLevel(&s->lock);
    if ((seen & EDU_I_FACT) && s->cur) {
        irp = s->cur;
        s->cur = NULL;
        s->busy = FALSE;
        r = aj_rd(&s->card, EDU_FACT);
    }
    KeReleaseSpinLockFromDpcLevel(&s->lock);
    if (irp) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &r, sizeof r);
        if (r == AJ_GONE)       /* no factorial: the card was pulled */
            aj_end(&s->f, irp, STATUS_NO_SUCH_DEVICE, 0);
        else
            aj_end(&s->f, irp, STATUS_SUCCESS, sizeof r);
        spar_kick(s);
    }
}

/* Leaves the card alone from here on; what it was at goes back to the queue. */
static void spar_pause(SPAR *s, ULONG why)
{
    KIRQL q;
    PIRP irp;
    ULONG was;

    KeAcquireSpinLock(&s->lock, &q);
    was = s->paused;
    s->paused |= why;
    irp = s->cur;
    s->cur = NULL;
    if (irp && irp->Cancel) {
        /* no one wants it any more */
#ifdef FIXED
        s->busy = FALSE;
#endif
        KeReleaseSpinLock(&s->lock, q);
        aj_end(&s->f, irp, STATUS_CANCELLED, 0);
    } else {
        s->busy = FALSE;
        KeReleaseSpinLock(&s->lock, q);
        if (irp)
            aj_q_put(&s->queue, irp, TRUE);
    }
    if (!was) {     /* else the card is quiet already, and may be asleep */
        edu_settle(&s->card);
        edu_quiet(&s->card);
        KeFlushQueuedDpcs();
    }
}

static void spar_unpause(SPAR *s, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&s->lock, &q);
    s->paused &= ~why;
    KeReleaseSpinLock(&s->lock, q);
    spar_kick(s);
}

static NTSTATUS spar_control(PDEVICE_OBJECT dev, PIRP irp)
{
    SPAR *s = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = aj_begin(&s->f, irp);
    ULONG n;

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACT)
        return aj_end(&s->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof n ||
        sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof n)
        return aj_end(&s->f, irp, STATUS_BUFFER_TOO_SMALL, 0);
    RtlCopyMemory(&n, irp->AssociatedIrp.SystemBuffer, sizeof n);
    if (n > MOST)
        return aj_end(&s->f, irp, STATUS_INVALID_PARAMETER, 0);
    aj_set_word(irp, 0, n);
    st = aj_enter(&s->f);
    if (!NT_SUCCESS(st))
        return aj_end(&s->f, irp, st, 0);
    aj_q_put(&s->queue, irp, FALSE);
    spar_kick(s);
    aj_leave(&s->f);
    return STATUS_PENDING;
}

static NTSTATUS spar_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    SPAR *s = dev->DeviceExtension;

    aj_q_flush(&s->queue, aj_file(irp), STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS spar_init(AJ_FDO *f)
{
    SPAR *s = (SPAR *)f;

    KeInitializeSpinLock(&s->lock);
    aj_q_init(&s->queue, f);
    KeInitializeDpc(&s->dpc, spar_dpc, s);
    s->paused = P_STOP;
    return STATUS_SUCCESS;
}

static NTSTATUS spar_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    SPAR *s = (SPAR *)f;
    NTSTATUS st = edu_map(&s->card, res);

    if (!NT_SUCCESS(st))
        return st;
    edu_quiet(&s->card);
    s->seen = 0;
    st = aj_connect(&s->card, spar_isr, s);
    if (!NT_SUCCESS(st))
        aj_unmap(&s->card);
    return st;
}

static void spar_stop(AJ_FDO *f)
{
    SPAR *s = (SPAR *)f;

    aj_disconnect(&s->card);
    aj_unmap(&s->card);
}

AJ_PAUSES(spar, SPAR)

static void spar_gone(AJ_FDO *f)
{
    SPAR *s = (SPAR *)f;

    spar_pause(s, P_GONE);
    aj_q_shut(&s->queue);
}

static const AJ_OPS spar_ops = {
    .ext_size = sizeof(SPAR),
    .iface = &EDUSPAR_GUID,
    .init = spar_init,
    .start = spar_start,
    .stop = spar_stop,
    .hold = spar_hold,
    .resume = spar_resume,
    .gone = spar_gone,
    .sleep = spar_sleep,
    .wake = spar_wake,
};

static NTSTATUS spar_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &spar_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, spar_add, aj_create_plain, spar_cleanup, aj_ok, spar_control);
    return STATUS_SUCCESS;
}
