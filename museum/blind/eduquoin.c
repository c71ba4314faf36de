/*
 * EDUQUOIN: the board's 4096 bytes hold calibration tables. WriteFile stores
 * a part of them, IOCTL_QUOIN_FETCH fetches one by DMA and lets the caller
 * say how many milliseconds it is willing to wait for the board, and
 * IOCTL_QUOIN_COUNTS tells how many transfers ended well and how many late.
 *
 * The bug: when a transfer runs out of its time limit the engine is taken to
 * be free although the board goes on copying; the next transfer is handed to
 * a busy board, which ignores it, and is completed by the late interrupt of
 * its predecessor, with the predecessor's bytes.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored, interrupt-storm
 * Needs: ioctl, schedule, device
 */
#include "../include/wharf_edu.h"

DEFINE_GUID(GUID_EDUQUOIN, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x02);

#define IOCTL_QUOIN_FETCH \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUOIN_COUNTS \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _QUOIN_FETCH {
    ULONG Offset;
    ULONG Length;
    ULONG LimitMs;              /* 1 to 2000 */
} QUOIN_FETCH;

typedef struct _QUOIN_COUNTS {
    ULONG Good;
    ULONG Late;
} QUOIN_COUNTS;

#define TICK_MS 10
#define GRACE   200             /* ticks: after that the board is given up */

typedef struct _CARD {
    WHARF W;
    WHARF_QUEUE Queue;
    PIRP Current;               /* Spin: who gets the result, if there is one */
    BOOLEAN Busy;               /* Spin: the engine is taken */
    ULONG Ticks;                /* Spin */
    BOOLEAN Broken;             /* Spin */
    QUOIN_COUNTS Counts;        /* Spin */
    KEVENT Idle;                /* set while !Busy */
    KDPC Dpc, TickDpc;
    KTIMER Tick;
    EDU_RAM Ram;
} CARD;

#define CARD_GUID GUID_EDUQUOIN
#define CARD_IO   DO_BUFFERED_IO

static BOOLEAN NTAPI QuoinIsr(PKINTERRUPT intr, PVOID ctx)
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
    if (st & EDU_INT_DMA)
        KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

/* Spin is held */
static VOID QuoinBegin(CARD *e, PIRP irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);

    if (s->MajorFunction == IRP_MJ_WRITE) {
        e->Ticks = GRACE;
        RtlCopyMemory(e->Ram.Va, irp->AssociatedIrp.SystemBuffer,
                      s->Parameters.Write.Length);
        EduDmaGo(&e->W, &e->Ram, s->Parameters.Write.ByteOffset.LowPart,
                 s->Parameters.Write.Length, FALSE);
    } else {
        QUOIN_FETCH *f = irp->AssociatedIrp.SystemBuffer;
        e->Ticks = (f->LimitMs + TICK_MS - 1) / TICK_MS + 1;
        EduDmaGo(&e->W, &e->Ram, f->Offset, f->Length, TRUE);
    }
}

static VOID QuoinKick(CARD *e)
{
    NTSTATUS st;
    PIRP irp;
    KIRQL q;

    for (;;) {
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live && !e->Broken && (e->Busy || !e->W.Awake))
            irp = NULL;
        else
            irp = WharfQueueNext(&e->Queue, NULL);
        if (!irp) {
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        if (e->W.Live && !e->Broken) {
            e->Busy = TRUE;
            e->Current = irp;
            KeClearEvent(&e->Idle);
            QuoinBegin(e, irp);
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        st = e->W.Live ? STATUS_IO_DEVICE_ERROR : STATUS_NO_SUCH_DEVICE;
        KeReleaseSpinLock(&e->W.Spin, q);
        WharfDone(&e->W, irp, st, 0);
    }
}

/* the engine is free again; Spin is held */
static VOID QuoinFree(CARD *e)
{
    e->Busy = FALSE;
    KeSetEvent(&e->Idle, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI QuoinDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    PIO_STACK_LOCATION s;
    ULONG info = 0;
    PIRP irp;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (!e->Busy) {
        KeReleaseSpinLock(&e->W.Spin, q);
        return;
    }
    irp = e->Current;
    e->Current = NULL;
    if (irp) {
        s = IoGetCurrentIrpStackLocation(irp);
        if (s->MajorFunction == IRP_MJ_WRITE)
            info = s->Parameters.Write.Length;
        else {
            info = ((QUOIN_FETCH *)irp->AssociatedIrp.SystemBuffer)->Length;
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, e->Ram.Va, info);
        }
        e->Counts.Good++;
    }
    QuoinFree(e);
    KeReleaseSpinLock(&e->W.Spin, q);
    if (irp)
        WharfDone(&e->W, irp, STATUS_SUCCESS, info);
    QuoinKick(e);
}

static VOID NTAPI QuoinTick(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    PIRP irp = NULL;
    BOOLEAN out;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    out = e->Busy && --e->Ticks == 0;
    if (out) {
        irp = e->Current;
        e->Current = NULL;
        if (irp) {
            e->Counts.Late++;
#ifdef FIXED
            e->Ticks = GRACE;   /* the board has not finished yet */
#else
            QuoinFree(e);
#endif
        } else {
            e->Broken = TRUE;
            QuoinFree(e);
        }
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    if (irp)
        WharfDone(&e->W, irp, STATUS_IO_TIMEOUT, 0);
    if (out)
        QuoinKick(e);
}

static NTSTATUS CardIo(CARD *e, PIRP irp, PIO_STACK_LOCATION s)
{
    ULONG len, in, out;
    LONGLONG off;
    KIRQL q;

    if (s->MajorFunction == IRP_MJ_WRITE) {
        len = s->Parameters.Write.Length;
        off = s->Parameters.Write.ByteOffset.QuadPart;
        if (!len && off >= 0 && off <= EDU_BUFSIZE)
            return STATUS_SUCCESS;
    } else if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        in = s->Parameters.DeviceIoControl.InputBufferLength;
        out = s->Parameters.DeviceIoControl.OutputBufferLength;
        switch (s->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_QUOIN_FETCH: {
            QUOIN_FETCH *f = irp->AssociatedIrp.SystemBuffer;
            if (in != sizeof(*f) || !f->LimitMs || f->LimitMs > 2000)
                return STATUS_INVALID_PARAMETER;
            if (out < f->Length)
                return STATUS_BUFFER_TOO_SMALL;
            off = f->Offset;
            len = f->Length;
            break;
        }
        case IOCTL_QUOIN_COUNTS:
            if (out < sizeof(QUOIN_COUNTS))
                return STATUS_BUFFER_TOO_SMALL;
            KeAcquireSpinLock(&e->W.Spin, &q);
            *(QUOIN_COUNTS *)irp->AssociatedIrp.SystemBuffer = e->Counts;
            KeReleaseSpinLock(&e->W.Spin, q);
            irp->IoStatus.Information = sizeof(QUOIN_COUNTS);
            return STATUS_SUCCESS;
        default:
            return STATUS_INVALID_DEVICE_REQUEST;
        }
    } else
        return STATUS_INVALID_DEVICE_REQUEST;
    if (off < 0 || off >= EDU_BUFSIZE || !len ||
        len > EDU_BUFSIZE - (ULONG)off)
        return STATUS_INVALID_PARAMETER;
    WharfQueuePut(&e->Queue, irp);
    QuoinKick(e);
    return STATUS_PENDING;
}

static VOID CardCleanup(CARD *e, PFILE_OBJECT file)
{
    WharfQueueFail(&e->Queue, file, STATUS_CANCELLED);
}

static VOID CardInit(CARD *e)
{
    WharfQueueInit(&e->Queue, &e->W);
    KeInitializeEvent(&e->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&e->Dpc, QuoinDpc, e);
    KeInitializeDpc(&e->TickDpc, QuoinTick, e);
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
    st = EduRamAllocate(&e->W, &e->Ram);
    if (!NT_SUCCESS(st)) {
        WharfUnmap(&e->W);
        return st;
    }
    e->Broken = FALSE;
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, QuoinIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
        EduRamFree(&e->Ram);
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
    /* what the board has begun ends by its interrupt or by the time limit */
    KeWaitForSingleObject(&e->Idle, Executive, KernelMode, FALSE, NULL);
    EduQuiet(&e->W, touch);
    KeCancelTimer(&e->Tick);
    KeFlushQueuedDpcs();
    WharfDisconnect(&e->W);
    EduRamRelease(&e->W, &e->Ram, touch);
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
        e->W.Awake = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    QuoinKick(e);
}

#include "../include/wharf_pnp.h"
