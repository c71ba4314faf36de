/*
 * edugable: both engines of the edu card for applications. FACT computes a factorial (modulo 2^32); FILL and FETCH
 * move up to 4096 bytes into the card's buffer and out of it, by DMA through a common buffer. Each engine has a queue
 * of its own, so that a factorial and a transfer may run at the same time; the card's one interrupt tells which is
 * done. Waiting requests can be cancelled; one at the card ends soon by itself. Over sleep and stop they are kept.
 *
 * The bug: the ISR notes the interrupt's cause over the one noted before: when the second engine is done before the
 * DPC of the first one's interrupt has run, that one's request never ends.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed, request-forgotten
 * Needs: ioctl, device, schedule
 */
#include "../include/keel_edu.h"
#include "../include/keel_queue.h"

#define IOCTL_FACT  AJ_IOCTL(0, METHOD_BUFFERED)    /* in: n; out: n! */
#define IOCTL_FILL  AJ_IOCTL(1, METHOD_BUFFERED)    /* in: bytes */
#define IOCTL_FETCH AJ_IOCTL(2, METHOD_BUFFERED)    /* out: bytes */
#define MOST 10000

static const GUID EDUGABLE_GUID = { 0x5b0f2c16, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x06 } };

typedef struct ENGINE {
    AJ_QUEUE queue;
    PIRP cur;               /* at the card */
} ENGINE;

typedef struct GABLE {
    AJ_FDO f;
    AJ_CARD card;
    KSPIN_LOCK lock;        /* paused, both cur, and starting an engine */
    ULONG paused;
    ENGINE fact, dma;
    PDMA_ADAPTER adapter;
    PUCHAR common;
    PHYSICAL_ADDRESS la;
    volatile LONG seen;     /* causes for the DPC */
    KDPC dpc;
} GABLE;

static BOOLEAN gable_isr(PKINTERRUPT in, PVOID ctx)
{
    GABLE *g = ctx;
    ULONG st = aj_rd(&g->card, EDU_ISTAT);

    (void)in;
    if (!st || st == AJ_GONE)
        return FALSE;
    aj_wr(&g->card, EDU_IACK, st);
#ifdef FIXED
    InterlockedOr(&g->seen, st);
#else
    InterlockedExchange(&g->seen, st);
#endif
    KeInsertQueueDpc(&g->dpc, NULL, NULL);
    return TRUE;
}

static ULONG code_of(PIRP irp)
{
    return IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode;
}

/* starts what can be started */
static void gable_kick(GABLE *g)
{
    PIRP irp;
    KIRQL q;

    KeAcquireSpinLock(&g->lock, &q);
    if (!g->paused && !g->fact.cur && (irp = aj_q_take(&g->fact.queue, NULL)) != NULL) {
        g->fact.cur = irp;
        aj_wr(&g->card, EDU_STATUS, EDU_IRQFACT);
        aj_wr(&g->card, EDU_FACT, (ULONG)aj_word(irp, 0));
    }
    if (!g->paused && !g->dma.cur && (irp = aj_q_take(&g->dma.queue, NULL)) != NULL) {
        g->dma.cur = irp;
        if (code_of(irp) == IOCTL_FILL)
            RtlCopyMemory(g->common, irp->AssociatedIrp.SystemBuffer, aj_word(irp, 0));
        edu_dma(&g->card, code_of(irp) == IOCTL_FETCH, 0, g->la, (ULONG)aj_word(irp, 0));
    }
    KeReleaseSpinLock(&g->lock, q);
}

static VOID gable_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    GABLE *g = ctx;
    LONG seen = InterlockedExchange(&g->seen, 0);
    PIRP fact = NULL, dma = NULL;
    ULONG r = 0;

    (void)dpc;
    (void)a1;
    (void)a2;
    KeAcquireSpinLockAtDpcLevel(&g->lock);
    if ((seen & EDU_I_FACT) && g->fact.cur) {
        fact = g->fact.cur;
        g->fact.cur = NULL;
        r = aj_rd(&g->card, EDU_FACT);
    }
    if ((seen & EDU_I_DMA) && g->dma.cur) {
        dma = g->dma.cur;
        g->dma.cur = NULL;
        if (code_of(dma) == IOCTL_FETCH)
            RtlCopyMemory(dma->AssociatedIrp.SystemBuffer, g->common, aj_word(dma, 0));
    }
    KeReleaseSpinLockFromDpcLevel(&g->lock);
    if (fact) {
        RtlCopyMemory(fact->AssociatedIrp.SystemBuffer, &r, sizeof r);
        if (r == AJ_GONE)       /* no factorial: the card was pulled */
            aj_end(&g->f, fact, STATUS_NO_SUCH_DEVICE, 0);
        else
            aj_end(&g->f, fact, STATUS_SUCCESS, sizeof r);
    }
    if (dma)
        aj_end(&g->f, dma, STATUS_SUCCESS, code_of(dma) == IOCTL_FETCH ? aj_word(dma, 0) : 0);
    gable_kick(g);
}

/* Leaves the card alone from here on; what it was at goes back to the queues, to be done once more. */
static void gable_pause(GABLE *g, ULONG why)
{
    PIRP fact, dma;
    ULONG was;
    KIRQL q;

    KeAcquireSpinLock(&g->lock, &q);
    was = g->paused;
    g->paused |= why;
    KeReleaseSpinLock(&g->lock, q);
    if (!was) {     /* else the card is quiet already, and may be asleep */
        edu_settle(&g->card);
        edu_quiet(&g->card);
        KeFlushQueuedDpcs();
    }
    KeAcquireSpinLock(&g->lock, &q);
    fact = g->fact.cur;
    dma = g->dma.cur;
    g->fact.cur = g->dma.cur = NULL;
    KeReleaseSpinLock(&g->lock, q);
    if (fact)
        aj_q_put(&g->fact.queue, fact, TRUE);
    if (dma)
        aj_q_put(&g->dma.queue, dma, TRUE);
}

static void gable_unpause(GABLE *g, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&g->lock, &q);
    g->paused &= ~why;
    KeReleaseSpinLock(&g->lock, q);
    gable_kick(g);
}

static NTSTATUS gable_control(PDEVICE_OBJECT dev, PIRP irp)
{
    GABLE *g = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ENGINE *e = &g->dma;
    NTSTATUS st = aj_begin(&g->f, irp);
    ULONG n = 0;

    if (!NT_SUCCESS(st))
        return st;
    switch (code_of(irp)) {
    case IOCTL_FACT:
        if (in < sizeof n || out < sizeof n)
            return aj_end(&g->f, irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlCopyMemory(&n, irp->AssociatedIrp.SystemBuffer, sizeof n);
        if (n > MOST)
            return aj_end(&g->f, irp, STATUS_INVALID_PARAMETER, 0);
        e = &g->fact;
        break;
    case IOCTL_FILL:
        n = in;
        break;
    case IOCTL_FETCH:
        n = out;
        break;
    default:
        return aj_end(&g->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (e == &g->dma && (!n || n > EDU_BUFLEN))
        return aj_end(&g->f, irp, STATUS_INVALID_PARAMETER, 0);
    aj_set_word(irp, 0, n);
    st = aj_enter(&g->f);
    if (!NT_SUCCESS(st))
        return aj_end(&g->f, irp, st, 0);
    aj_q_put(&e->queue, irp, FALSE);
    gable_kick(g);
    aj_leave(&g->f);
    return STATUS_PENDING;
}

static NTSTATUS gable_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    GABLE *g = dev->DeviceExtension;

    aj_q_flush(&g->fact.queue, aj_file(irp), STATUS_CANCELLED);
    aj_q_flush(&g->dma.queue, aj_file(irp), STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS gable_init(AJ_FDO *f)
{
    GABLE *g = (GABLE *)f;

    KeInitializeSpinLock(&g->lock);
    aj_q_init(&g->fact.queue, f);
    aj_q_init(&g->dma.queue, f);
    KeInitializeDpc(&g->dpc, gable_dpc, g);
    g->paused = P_STOP;
    return STATUS_SUCCESS;
}

static void gable_release(GABLE *g)
{
    if (g->common)
        edu_common_free(g->adapter, g->la, g->common);
    if (g->adapter)
        edu_adapter_put(g->adapter);
    g->common = NULL;
    g->adapter = NULL;
    aj_unmap(&g->card);
}

static NTSTATUS gable_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    GABLE *g = (GABLE *)f;
    NTSTATUS st = edu_map(&g->card, res);

    if (!NT_SUCCESS(st))
        return st;
    edu_quiet(&g->card);
    g->seen = 0;
    g->adapter = edu_adapter(f);
    if (g->adapter)
        g->common = edu_common(g->adapter, &g->la);
    st = g->common ? aj_connect(&g->card, gable_isr, g) : STATUS_INSUFFICIENT_RESOURCES;
    if (!NT_SUCCESS(st))
        gable_release(g);
    return st;
}

static void gable_stop(AJ_FDO *f)
{
    GABLE *g = (GABLE *)f;

    aj_disconnect(&g->card);
    gable_release(g);
}

AJ_PAUSES(gable, GABLE)

static void gable_gone(AJ_FDO *f)
{
    GABLE *g = (GABLE *)f;

    gable_pause(g, P_GONE);
    aj_q_shut(&g->fact.queue);
    aj_q_shut(&g->dma.queue);
}

static const AJ_OPS gable_ops = {
    .ext_size = sizeof(GABLE),
    .iface = &EDUGABLE_GUID,
    .init = gable_init,
    .start = gable_start,
    .stop = gable_stop,
    .hold = gable_hold,
    .resume = gable_resume,
    .gone = gable_gone,
    .sleep = gable_sleep,
    .wake = gable_wake,
};

static NTSTATUS gable_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &gable_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, gable_add, aj_create_plain, gable_cleanup, aj_ok, gable_control);
    return STATUS_SUCCESS;
}
