/*
 * PLXGORSE: a stopwatch made of the two local interrupt inputs of a PLX 9052:
 * a pulse on LINTi1 starts it, a pulse on LINTi2 stops it. The watch runs
 * while a request waits; IOCTL_GORSE_MEASURE waits for the next interval to
 * be reported and answers its length and the counter's frequency (it can be
 * cancelled), IOCTL_GORSE_EDGES chooses which level of each input is active.
 *
 * The bug: IOCTL_GORSE_EDGES reads, changes and writes INTCSR under the
 * driver's spin lock, but not under that of the interrupt; when the start
 * pulse comes between read and write, what the interrupt routine has switched
 * (LINTi1 off, LINTi2 on) is undone, and the stop pulse is never seen.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race
 * Needs: ioctl, schedule, device
 */
#include "../include/wharf_plx.h"

DEFINE_GUID(GUID_PLXGORSE, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x05);

#define IOCTL_GORSE_MEASURE \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GORSE_EDGES \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _GORSE_INTERVAL {
    LONGLONG Ticks;
    LONGLONG PerSecond;
} GORSE_INTERVAL;

typedef struct _GORSE_EDGES {
    ULONG StartHigh;            /* 0 or 1 */
    ULONG StopHigh;
} GORSE_EDGES;

typedef enum { GorseOff, GorseToStart, GorseToStop, GorseDone } GORSE_PHASE;

typedef struct _CARD {
    WHARF W;
    WHARF_QUEUE Queue;
    ULONG High;                 /* Spin: the polarity bits */
    GORSE_PHASE Phase;          /* interrupt lock */
    LARGE_INTEGER T0, T1;       /* interrupt lock */
    KDPC Dpc;
} CARD;

#define CARD_GUID GUID_PLXGORSE
#define CARD_IO   DO_BUFFERED_IO

static BOOLEAN NTAPI GorseIsr(PKINTERRUPT intr, PVOID ctx)
{
    CARD *e = ctx;
    ULONG v;

    (void)intr;
    if (!e->W.IsrOn)
        return FALSE;
    v = WharfRd(&e->W, PLX_INTCSR);
    if (v == PLX_GONE)
        return FALSE;
    if (e->Phase == GorseToStart &&
        (v & (PLX_EN1 | PLX_ST1)) == (PLX_EN1 | PLX_ST1)) {
        e->T0 = KeQueryPerformanceCounter(NULL);
        e->Phase = GorseToStop;
        WharfWr(&e->W, PLX_INTCSR, (v & ~PLX_EN1) | PLX_EN2);
        return TRUE;
    }
    if (e->Phase == GorseToStop &&
        (v & (PLX_EN2 | PLX_ST2)) == (PLX_EN2 | PLX_ST2)) {
        e->T1 = KeQueryPerformanceCounter(NULL);
        e->Phase = GorseDone;
        WharfWr(&e->W, PLX_INTCSR, v & ~PLX_EN2);
        KeInsertQueueDpc(&e->Dpc, NULL, NULL);
        return TRUE;
    }
    return FALSE;
}

/* waits for the start pulse, unless the watch is in use already */
static VOID GorseArm(CARD *e)
{
    ULONG v;
    KIRQL q, qi;

    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live && e->W.Awake) {
        qi = KeAcquireInterruptSpinLock(e->W.Interrupt);
        v = WharfRd(&e->W, PLX_INTCSR);
        if (e->Phase == GorseOff && v != PLX_GONE) {
            e->Phase = GorseToStart;
            WharfWr(&e->W, PLX_INTCSR, v | PLX_EN1);
        }
        KeReleaseInterruptSpinLock(e->W.Interrupt, qi);
    }
    KeReleaseSpinLock(&e->W.Spin, q);
}

static VOID NTAPI GorseDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    GORSE_INTERVAL *r;
    LARGE_INTEGER per;
    LONGLONG ticks = 0;
    BOOLEAN done;
    PIRP irp;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    q = KeAcquireInterruptSpinLock(e->W.Interrupt);
    done = e->Phase == GorseDone;
    if (done) {
        ticks = e->T1.QuadPart - e->T0.QuadPart;
        e->Phase = GorseOff;
    }
    KeReleaseInterruptSpinLock(e->W.Interrupt, q);
    if (!done)
        return;
    irp = WharfQueueNext(&e->Queue, NULL);
    if (irp) {
        KeQueryPerformanceCounter(&per);
        r = irp->AssociatedIrp.SystemBuffer;
        r->Ticks = ticks;
        r->PerSecond = per.QuadPart;
        WharfDone(&e->W, irp, STATUS_SUCCESS, sizeof(*r));
    }
    if (!WharfQueueEmpty(&e->Queue))
        GorseArm(e);
}

static NTSTATUS GorseEdges(CARD *e, GORSE_EDGES *g)
{
    NTSTATUS st = STATUS_SUCCESS;
    ULONG v;
    KIRQL q;
#ifdef FIXED
    KIRQL qi;
#endif

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->High = (g->StartHigh ? PLX_HIGH1 : 0) | (g->StopHigh ? PLX_HIGH2 : 0);
    if (e->W.Live && e->W.Awake) {
#ifdef FIXED
        qi = KeAcquireInterruptSpinLock(e->W.Interrupt);
#endif
        v = WharfRd(&e->W, PLX_INTCSR);
        if (v == PLX_GONE)
            st = STATUS_NO_SUCH_DEVICE;
        else
            WharfWr(&e->W, PLX_INTCSR,
                    (v & ~(PLX_HIGH1 | PLX_HIGH2)) | e->High);
#ifdef FIXED
        KeReleaseInterruptSpinLock(e->W.Interrupt, qi);
#endif
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    return st;
}

/* a request that comes after CardStop has emptied the queue */
static VOID GorseSweep(CARD *e)
{
    BOOLEAN live;
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    live = e->W.Live;
    KeReleaseSpinLock(&e->W.Spin, q);
    if (!live)
        WharfQueueFail(&e->Queue, NULL, STATUS_NO_SUCH_DEVICE);
}

static NTSTATUS CardIo(CARD *e, PIRP irp, PIO_STACK_LOCATION s)
{
    GORSE_EDGES *g = irp->AssociatedIrp.SystemBuffer;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GORSE_MEASURE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength <
            sizeof(GORSE_INTERVAL))
            return STATUS_BUFFER_TOO_SMALL;
        WharfQueuePut(&e->Queue, irp);
        GorseArm(e);
        GorseSweep(e);
        return STATUS_PENDING;
    case IOCTL_GORSE_EDGES:
        if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof(*g) ||
            g->StartHigh > 1 || g->StopHigh > 1)
            return STATUS_INVALID_PARAMETER;
        return GorseEdges(e, g);
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
    KeInitializeDpc(&e->Dpc, GorseDpc, e);
    e->High = PLX_HIGH1 | PLX_HIGH2;
}

static NTSTATUS CardStart(CARD *e, PCM_RESOURCE_LIST list)
{
    WHARF_RES r;
    KIRQL q;
    NTSTATUS st = WharfResources(list, &r);

    if (!NT_SUCCESS(st))
        return st;
    st = PlxMap(&e->W, &r);
    if (!NT_SUCCESS(st))
        return st;
    e->Phase = GorseOff;
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, GorseIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
        WharfUnmap(&e->W);
        return st;
    }
    KeAcquireSpinLock(&e->W.Spin, &q);
    PlxLoud(&e->W, e->High | PLX_PCI);
    e->W.Live = TRUE;
    e->W.Awake = TRUE;
    KeReleaseSpinLock(&e->W.Spin, q);
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
    KeFlushQueuedDpcs();
    WharfDisconnect(&e->W);
    WharfUnmap(&e->W);
    WharfQueueFail(&e->Queue, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID CardSleep(CARD *e)
{
    KIRQL q, qi;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Awake = FALSE;
    if (e->W.Live) {
        PlxQuiet(&e->W, TRUE);
        qi = KeAcquireInterruptSpinLock(e->W.Interrupt);
        if (e->Phase != GorseDone)
            e->Phase = GorseOff;        /* begun anew after the sleep */
        KeReleaseInterruptSpinLock(e->W.Interrupt, qi);
    }
    KeReleaseSpinLock(&e->W.Spin, q);
}

static VOID CardWake(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live) {
        PlxLoud(&e->W, e->High | PLX_PCI);
        e->W.Awake = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    if (!WharfQueueEmpty(&e->Queue))
        GorseArm(e);
}

#include "../include/wharf_pnp.h"
