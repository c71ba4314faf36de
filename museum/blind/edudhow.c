/*
 * EDUDHOW: a computing board. IOCTL_DHOW_COMPUTE computes n! for n up to 12,
 * either promptly (the board interrupts) or quietly (no interrupt, the result
 * is collected within some 10 ms; for callers with thousands of requests).
 * IOCTL_DHOW_LIVE checks the board by its liveness register.
 *
 * The bug: the driver remembers which value the status register has and
 * writes it only when it changes, but does not forget it over D3; after the
 * board has slept a prompt request is begun with its interrupt off and runs
 * into the time limit.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out
 * Needs: ioctl, power, device
 */
#include "../include/wharf_edu.h"

DEFINE_GUID(GUID_EDUDHOW, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x03);

#define IOCTL_DHOW_COMPUTE \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DHOW_LIVE \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DHOW_COMPUTE {
    ULONG N;
    ULONG Quiet;                /* 0 or 1 */
} DHOW_COMPUTE;

#define TICK_MS 10
#define LIMIT   200             /* ticks */

typedef struct _CARD {
    WHARF W;
    WHARF_QUEUE Queue;
    PIRP Current;               /* Spin */
    BOOLEAN Quiet;              /* Spin: Current was begun without interrupt */
    ULONG Ticks;                /* Spin */
    ULONG Mode;                 /* Spin: what the status register holds */
    BOOLEAN Broken;             /* Spin */
    KEVENT Idle;                /* set while there is no Current */
    KDPC Dpc, TickDpc;
    KTIMER Tick;
} CARD;

#define CARD_GUID GUID_EDUDHOW
#define CARD_IO   DO_BUFFERED_IO

static BOOLEAN NTAPI DhowIsr(PKINTERRUPT intr, PVOID ctx)
{
    CARD *e = ctx;
    ULONG st;

    (void)intr;
    if (!e->W.IsrOn)
        return FALSE;
    st = WharfRd(&e->W, EDU_INTSTAT);
    if (st == 0 || st == EDU_GONE)
        return FALSE;
    WharfWr(&e->W, EDU_INTACK, st);
    if (st & EDU_INT_FACT)
        KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

/* a write over the bus costs as much as a small factorial; Spin is held */
static VOID DhowMode(CARD *e, ULONG mode)
{
    if (e->Mode != mode) {
        WharfWr(&e->W, EDU_STATUS, mode);
        e->Mode = mode;
    }
}

static VOID DhowKick(CARD *e)
{
    DHOW_COMPUTE *c;
    NTSTATUS st;
    PIRP irp;
    KIRQL q;

    for (;;) {
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live && !e->Broken && (e->Current || !e->W.Awake))
            irp = NULL;
        else
            irp = WharfQueueNext(&e->Queue, NULL);
        if (!irp) {
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        if (e->W.Live && !e->Broken) {
            c = irp->AssociatedIrp.SystemBuffer;
            e->Current = irp;
            e->Quiet = c->Quiet != 0;
            e->Ticks = LIMIT;
            KeClearEvent(&e->Idle);
            DhowMode(e, c->Quiet ? 0 : EDU_FACTIRQ);
            WharfWr(&e->W, EDU_FACT, c->N);
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        st = e->W.Live ? STATUS_IO_DEVICE_ERROR : STATUS_NO_SUCH_DEVICE;
        KeReleaseSpinLock(&e->W.Spin, q);
        WharfDone(&e->W, irp, st, 0);
    }
}

/* Spin is held */
static PIRP DhowTake(CARD *e)
{
    PIRP irp = e->Current;

    e->Current = NULL;
    KeSetEvent(&e->Idle, IO_NO_INCREMENT, FALSE);
    return irp;
}

/* completes the running request if it is of this kind and has its result */
static BOOLEAN DhowCollect(CARD *e, BOOLEAN quiet)
{
    PIRP irp;
    ULONG v;
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    if (!e->Current || e->Quiet != quiet ||
        (WharfRd(&e->W, EDU_STATUS) & EDU_COMPUTING)) {
        KeReleaseSpinLock(&e->W.Spin, q);
        return FALSE;
    }
    v = WharfRd(&e->W, EDU_FACT);
    irp = DhowTake(e);
    KeReleaseSpinLock(&e->W.Spin, q);
    if (v == EDU_GONE)
        WharfDone(&e->W, irp, STATUS_NO_SUCH_DEVICE, 0);
    else {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = v;
        WharfDone(&e->W, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    DhowKick(e);
    return TRUE;
}

static VOID NTAPI DhowDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    (void)dpc; (void)a; (void)b;
    DhowCollect(ctx, FALSE);
}

static VOID NTAPI DhowTick(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    PIRP irp = NULL;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    if (DhowCollect(e, TRUE))
        return;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->Current && --e->Ticks == 0) {
        irp = DhowTake(e);
        e->Broken = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    if (irp) {
        WharfDone(&e->W, irp, STATUS_IO_TIMEOUT, 0);
        DhowKick(e);
    }
}

static NTSTATUS CardIo(CARD *e, PIRP irp, PIO_STACK_LOCATION s)
{
    ULONG in, out, v, *buf = irp->AssociatedIrp.SystemBuffer;
    DHOW_COMPUTE *c = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_DEVICE_NOT_READY;
    KIRQL q;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = s->Parameters.DeviceIoControl.InputBufferLength;
    out = s->Parameters.DeviceIoControl.OutputBufferLength;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DHOW_COMPUTE:
        if (in != sizeof(*c) || c->N > 12 || c->Quiet > 1)
            return STATUS_INVALID_PARAMETER;
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        WharfQueuePut(&e->Queue, irp);
        DhowKick(e);
        return STATUS_PENDING;
    case IOCTL_DHOW_LIVE:
        if (in != sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live && e->W.Awake) {
            WharfWr(&e->W, EDU_LIVE, *buf);
            v = WharfRd(&e->W, EDU_LIVE);
            st = v == ~*buf ? STATUS_SUCCESS : STATUS_IO_DEVICE_ERROR;
            *buf = v;
        }
        KeReleaseSpinLock(&e->W.Spin, q);
        if (NT_SUCCESS(st))
            irp->IoStatus.Information = sizeof(ULONG);
        return st;
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
    KeInitializeEvent(&e->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&e->Dpc, DhowDpc, e);
    KeInitializeDpc(&e->TickDpc, DhowTick, e);
    KeInitializeTimer(&e->Tick);
}

static NTSTATUS CardStart(CARD *e, PCM_RESOURCE_LIST list)
{
    LARGE_INTEGER due;
    WHARF_RES r;
    KIRQL q;
    NTSTATUS st = WharfResources(list, &r);

    if (!NT_SUCCESS(st))
        return st;
    st = EduMap(&e->W, &r);
    if (!NT_SUCCESS(st))
        return st;
    e->Broken = FALSE;
    e->Mode = 0;                /* EduMap has left it so */
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, DhowIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
        WharfUnmap(&e->W);
        return st;
    }
    EduIsrOn(&e->W);
    due.QuadPart = -TICK_MS * 10000;
    KeSetTimerEx(&e->Tick, due, TICK_MS, &e->TickDpc);
    KeAcquireSpinLock(&e->W.Spin, &q);
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
    /* what the board has begun ends by its result or by the time limit */
    KeWaitForSingleObject(&e->Idle, Executive, KernelMode, FALSE, NULL);
    EduQuiet(&e->W, touch);
    KeCancelTimer(&e->Tick);
    KeFlushQueuedDpcs();
    WharfDisconnect(&e->W);
    WharfUnmap(&e->W);
    WharfQueueFail(&e->Queue, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID CardSleep(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    e->W.Awake = FALSE;
    KeReleaseSpinLock(&e->W.Spin, q);
    KeWaitForSingleObject(&e->Idle, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live)
        EduQuiet(&e->W, TRUE);
    KeReleaseSpinLock(&e->W.Spin, q);
}

static VOID CardWake(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live) {
        EduIsrOn(&e->W);
#ifdef FIXED
        WharfWr(&e->W, EDU_STATUS, 0);
        e->Mode = 0;
#endif
        e->W.Awake = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    DhowKick(e);
}

#include "../include/wharf_pnp.h"
