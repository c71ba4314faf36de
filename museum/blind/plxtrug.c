/*
 * PLXTRUG: a data logger whose converter fills a FIFO of 512 samples behind a
 * PLX 9052. Local space 0 (BAR2): +0 level (number of samples, 0 to 512), +4
 * data (takes one sample of 16 bits out), both read as 32 bits; LINTi1 is
 * active while the FIFO is half full. ReadFile waits for samples and returns
 * as many as there are and fit; IOCTL_TRUG_STATS answers how many were taken
 * and how many lost because no one read.
 *
 * The bug: the level is masked with the width of its field, not held against
 * the depth of the FIFO; a card that has been pulled answers all ones, 1023
 * samples are taken into a buffer for 512, and the pool behind it is
 * overwritten.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun
 * Needs: removal, device
 */
#include "../include/wharf_plx.h"

DEFINE_GUID(GUID_PLXTRUG, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x08);

#define IOCTL_TRUG_STATS \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _TRUG_STATS {
    ULONG Taken;
    ULONG Lost;
} TRUG_STATS;

#define FIFO_LEVEL 0
#define FIFO_DATA  4
#define LEVEL_BITS 0x3FF
#define DEPTH      512
#define RING       8192         /* samples, a power of two */
#define TICK_MS    50
#define TRUG_ON    (PLX_PCI | PLX_HIGH1 | PLX_EN1)

typedef struct _CARD {
    WHARF W;
    WHARF_QUEUE Queue;
    PUCHAR Fifo;
    USHORT *Stage;              /* Spin: DEPTH samples, fresh from the FIFO */
    USHORT *Ring;               /* Spin */
    ULONG Head, Tail;           /* Spin: count up, taken modulo RING */
    TRUG_STATS Stats;           /* Spin */
    KDPC Dpc, TickDpc;
    KTIMER Tick;
} CARD;

#define CARD_GUID GUID_PLXTRUG
#define CARD_IO   DO_BUFFERED_IO

static BOOLEAN NTAPI TrugIsr(PKINTERRUPT intr, PVOID ctx)
{
    CARD *e = ctx;
    ULONG v;

    (void)intr;
    if (!e->W.IsrOn)
        return FALSE;
    v = WharfRd(&e->W, PLX_INTCSR);
    if (v == PLX_GONE ||
        (v & (PLX_EN1 | PLX_ST1)) != (PLX_EN1 | PLX_ST1))
        return FALSE;
    WharfWr(&e->W, PLX_INTCSR, v & ~PLX_EN1);   /* until it is drained */
    KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

/* takes what the FIFO has into the ring; Spin is held, the card is awake */
static VOID TrugDrain(CARD *e)
{
    ULONG i, v, n, got = 0;

    n = READ_REGISTER_ULONG((PULONG)(e->Fifo + FIFO_LEVEL)) & LEVEL_BITS;
#ifdef FIXED
    if (n > DEPTH)
        return;                 /* no such level: the card is gone */
#endif
    for (i = 0; i < n; i++) {
        v = READ_REGISTER_ULONG((PULONG)(e->Fifo + FIFO_DATA));
        e->Stage[got++] = (USHORT)v;
    }
    if (READ_REGISTER_ULONG((PULONG)(e->Fifo + FIFO_LEVEL)) == PLX_GONE)
        return;                 /* pulled meanwhile: these are no samples */
    e->Stats.Taken += got;
    for (i = 0; i < got; i++) {
        if (e->Head - e->Tail == RING) {
            e->Tail++;          /* the oldest is lost */
            e->Stats.Lost++;
        }
        e->Ring[e->Head++ % RING] = e->Stage[i];
    }
}

/* serves the readers from the ring */
static VOID TrugServe(CARD *e)
{
    PIO_STACK_LOCATION s;
    USHORT *to;
    ULONG n, i;
    PIRP irp;
    KIRQL q;

    for (;;) {
        KeAcquireSpinLock(&e->W.Spin, &q);
        irp = NULL;
        if (!e->W.Live || e->Head != e->Tail)
            irp = WharfQueueNext(&e->Queue, NULL);
        if (!irp) {
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        if (!e->W.Live) {
            KeReleaseSpinLock(&e->W.Spin, q);
            WharfDone(&e->W, irp, STATUS_NO_SUCH_DEVICE, 0);
            continue;
        }
        s = IoGetCurrentIrpStackLocation(irp);
        to = irp->AssociatedIrp.SystemBuffer;
        n = s->Parameters.Read.Length / sizeof(USHORT);
        if (n > e->Head - e->Tail)
            n = e->Head - e->Tail;
        for (i = 0; i < n; i++)
            to[i] = e->Ring[e->Tail++ % RING];
        KeReleaseSpinLock(&e->W.Spin, q);
        WharfDone(&e->W, irp, STATUS_SUCCESS, n * sizeof(USHORT));
    }
}

/* the FIFO is half full */
static VOID NTAPI TrugDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    ULONG v;
    KIRQL q, qi;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live && e->W.Awake) {
        TrugDrain(e);
        qi = KeAcquireInterruptSpinLock(e->W.Interrupt);
        v = WharfRd(&e->W, PLX_INTCSR);
        if (v != PLX_GONE)
            WharfWr(&e->W, PLX_INTCSR, v | PLX_EN1);
        KeReleaseInterruptSpinLock(e->W.Interrupt, qi);
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    TrugServe(e);
}

/* nor shall few samples wait for long */
static VOID NTAPI TrugTick(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live && e->W.Awake)
        TrugDrain(e);
    KeReleaseSpinLock(&e->W.Spin, q);
    TrugServe(e);
}

static NTSTATUS CardIo(CARD *e, PIRP irp, PIO_STACK_LOCATION s)
{
    KIRQL q;

    switch (s->MajorFunction) {
    case IRP_MJ_READ:
        if (!s->Parameters.Read.Length)
            return STATUS_SUCCESS;
        if (s->Parameters.Read.Length < sizeof(USHORT))
            return STATUS_BUFFER_TOO_SMALL;
        WharfQueuePut(&e->Queue, irp);
        TrugServe(e);
        return STATUS_PENDING;
    case IRP_MJ_DEVICE_CONTROL:
        if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_TRUG_STATS)
            break;
        if (s->Parameters.DeviceIoControl.OutputBufferLength <
            sizeof(TRUG_STATS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&e->W.Spin, &q);
        *(TRUG_STATS *)irp->AssociatedIrp.SystemBuffer = e->Stats;
        KeReleaseSpinLock(&e->W.Spin, q);
        irp->IoStatus.Information = sizeof(TRUG_STATS);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID CardCleanup(CARD *e, PFILE_OBJECT file)
{
    WharfQueueFail(&e->Queue, file, STATUS_CANCELLED);
}

static VOID CardInit(CARD *e)
{
    WharfQueueInit(&e->Queue, &e->W);
    KeInitializeDpc(&e->Dpc, TrugDpc, e);
    KeInitializeDpc(&e->TickDpc, TrugTick, e);
    KeInitializeTimer(&e->Tick);
}

/* gives back what CardStart has got, except the interrupt */
static VOID TrugFree(CARD *e)
{
    if (e->Stage)
        ExFreePoolWithTag(e->Stage, 'rtAW');
    if (e->Ring)
        ExFreePoolWithTag(e->Ring, 'rtAW');
    if (e->Fifo)
        MmUnmapIoSpace(e->Fifo, 8);
    e->Stage = NULL;
    e->Ring = NULL;
    e->Fifo = NULL;
    WharfUnmap(&e->W);
}

static NTSTATUS CardStart(CARD *e, PCM_RESOURCE_LIST list)
{
    LARGE_INTEGER due;
    WHARF_RES r;
    KIRQL q;
    NTSTATUS st = WharfResources(list, &r);

    if (!NT_SUCCESS(st))
        return st;
    if (r.MemCount < 2 || r.Len[1] < 8)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    st = PlxMap(&e->W, &r);
    if (!NT_SUCCESS(st))
        return st;
    e->Fifo = MmMapIoSpace(r.Mem[1], 8, MmNonCached);
    e->Stage = ExAllocatePoolWithTag(NonPagedPool, DEPTH * sizeof(USHORT),
                                     'rtAW');
    e->Ring = ExAllocatePoolWithTag(NonPagedPool, RING * sizeof(USHORT),
                                    'rtAW');
    if (!e->Fifo || !e->Stage || !e->Ring) {
        TrugFree(e);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    e->Head = e->Tail = 0;
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, TrugIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
        TrugFree(e);
        return st;
    }
    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Live = TRUE;
    e->W.Awake = TRUE;
    PlxLoud(&e->W, TRUG_ON);
    KeReleaseSpinLock(&e->W.Spin, q);
    due.QuadPart = -TICK_MS * 10000;
    KeSetTimerEx(&e->Tick, due, TICK_MS, &e->TickDpc);
    return STATUS_SUCCESS;
}

static VOID CardStop(CARD *e, BOOLEAN present)
{
    BOOLEAN touch;
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Live = FALSE;
    touch = present && e->W.Awake;
    e->W.Awake = FALSE;
    KeReleaseSpinLock(&e->W.Spin, q);
    PlxQuiet(&e->W, touch);
    KeCancelTimer(&e->Tick);
    KeFlushQueuedDpcs();
    WharfDisconnect(&e->W);
    TrugFree(e);
    WharfQueueFail(&e->Queue, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID CardSleep(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Awake = FALSE;
    if (e->W.Live)
        PlxQuiet(&e->W, TRUE);
    KeReleaseSpinLock(&e->W.Spin, q);
}

static VOID CardWake(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live) {
        PlxLoud(&e->W, TRUG_ON);
        e->W.Awake = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
}

#include "../include/wharf_pnp.h"
