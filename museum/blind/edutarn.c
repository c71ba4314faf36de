/*
 * EDUTARN: a coprocessor board used as a small vault and as a calculator.
 * ReadFile and WriteFile copy between the caller and the 4096 bytes on the
 * board by DMA at the given file offset; IOCTL_TARN_FACTORIAL computes n!
 * for n up to 12. Copying and computing run side by side, each with its own
 * queue.
 *
 * The bug: the interrupt routine overwrites the causes it has noted for the
 * deferred routine instead of adding to them; when the copy and the
 * computation finish before the deferred routine runs, the first of both is
 * forgotten and its request is never completed in time.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out
 * Needs: ioctl, schedule, device
 */
#include "../include/wharf_edu.h"

DEFINE_GUID(GUID_EDUTARN, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x01);

#define IOCTL_TARN_FACTORIAL \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TARN_COUNTS \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define FACT 0
#define COPY 1
#define TICK_MS 100
#define LIMIT   20              /* ticks */

typedef struct _ENGINE {
    WHARF_QUEUE Queue;
    PIRP Current;               /* Spin */
    ULONG Ticks;                /* Spin */
    ULONG Done;                 /* Spin */
} ENGINE;

typedef struct _CARD {
    WHARF W;
    ENGINE Engine[2];
    KEVENT Idle;                /* set while neither engine has a request */
    BOOLEAN Broken;             /* Spin */
    ULONG Cause;                /* interrupt lock */
    KDPC Dpc, TickDpc;
    KTIMER Tick;
    EDU_RAM Ram;
} CARD;

#define CARD_GUID GUID_EDUTARN
#define CARD_IO   DO_BUFFERED_IO

static BOOLEAN NTAPI TarnIsr(PKINTERRUPT intr, PVOID ctx)
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
#ifdef FIXED
    e->Cause |= st;
#else
    e->Cause = st;
#endif
    KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

/* hands the card a request; Spin is held */
static VOID TarnBegin(CARD *e, ULONG i, PIRP irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    PVOID buf = irp->AssociatedIrp.SystemBuffer;

    if (i == FACT)
        WharfWr(&e->W, EDU_FACT, *(PULONG)buf);
    else if (s->MajorFunction == IRP_MJ_READ)
        EduDmaGo(&e->W, &e->Ram, s->Parameters.Read.ByteOffset.LowPart,
                 s->Parameters.Read.Length, TRUE);
    else {
        RtlCopyMemory(e->Ram.Va, buf, s->Parameters.Write.Length);
        EduDmaGo(&e->W, &e->Ram, s->Parameters.Write.ByteOffset.LowPart,
                 s->Parameters.Write.Length, FALSE);
    }
}

static VOID TarnKick(CARD *e, ULONG i)
{
    ENGINE *g = &e->Engine[i];
    NTSTATUS st;
    PIRP irp;
    KIRQL q;

    for (;;) {
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live && !e->Broken && (g->Current || !e->W.Awake))
            irp = NULL;
        else
            irp = WharfQueueNext(&g->Queue, NULL);
        if (!irp) {
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        if (e->W.Live && !e->Broken) {
            g->Current = irp;
            g->Ticks = LIMIT;
            KeClearEvent(&e->Idle);
            TarnBegin(e, i, irp);
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        st = e->W.Live ? STATUS_IO_DEVICE_ERROR : STATUS_NO_SUCH_DEVICE;
        KeReleaseSpinLock(&e->W.Spin, q);
        WharfDone(&e->W, irp, st, 0);
    }
}

/* takes an engine's request off it; Spin is held */
static PIRP TarnTake(CARD *e, ULONG i)
{
    PIRP irp = e->Engine[i].Current;

    e->Engine[i].Current = NULL;
    if (!e->Engine[FACT].Current && !e->Engine[COPY].Current)
        KeSetEvent(&e->Idle, IO_NO_INCREMENT, FALSE);
    return irp;
}

static VOID TarnFinish(CARD *e, ULONG i)
{
    NTSTATUS st = STATUS_SUCCESS;
    PIO_STACK_LOCATION s;
    ULONG info = 0;
    PIRP irp;
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    irp = e->Engine[i].Current;
    if (!irp) {
        KeReleaseSpinLock(&e->W.Spin, q);
        return;
    }
    s = IoGetCurrentIrpStackLocation(irp);
    if (i == FACT) {
        ULONG v = WharfRd(&e->W, EDU_FACT);
        if (v == EDU_GONE)
            st = STATUS_NO_SUCH_DEVICE;
        else {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = v;
            info = sizeof(ULONG);
        }
    } else if (s->MajorFunction == IRP_MJ_READ) {
        info = s->Parameters.Read.Length;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, e->Ram.Va, info);
    } else
        info = s->Parameters.Write.Length;
    if (NT_SUCCESS(st))
        e->Engine[i].Done++;
    TarnTake(e, i);
    KeReleaseSpinLock(&e->W.Spin, q);
    WharfDone(&e->W, irp, st, info);
    TarnKick(e, i);
}

static VOID NTAPI TarnDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    ULONG cause;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    q = KeAcquireInterruptSpinLock(e->W.Interrupt);
    cause = e->Cause;
    e->Cause = 0;
    KeReleaseInterruptSpinLock(e->W.Interrupt, q);
    if (cause & EDU_INT_FACT)
        TarnFinish(e, FACT);
    if (cause & EDU_INT_DMA)
        TarnFinish(e, COPY);
}

static VOID NTAPI TarnTick(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    PIRP late[2] = { NULL, NULL };
    ULONG i;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    for (i = 0; i < 2; i++)
        if (e->Engine[i].Current && --e->Engine[i].Ticks == 0) {
            late[i] = TarnTake(e, i);
            e->Broken = TRUE;   /* nothing more for a card that hangs */
        }
    KeReleaseSpinLock(&e->W.Spin, q);
    for (i = 0; i < 2; i++)
        if (late[i])
            WharfDone(&e->W, late[i], STATUS_IO_TIMEOUT, 0);
    if (late[0] || late[1]) {
        TarnKick(e, FACT);
        TarnKick(e, COPY);
    }
}

static NTSTATUS CardIo(CARD *e, PIRP irp, PIO_STACK_LOCATION s)
{
    PULONG buf = irp->AssociatedIrp.SystemBuffer;
    ULONG i = COPY, len;
    LONGLONG off;
    KIRQL q;

    if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (s->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_TARN_FACTORIAL:
            if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG))
                return STATUS_INVALID_PARAMETER;
            if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
                return STATUS_BUFFER_TOO_SMALL;
            if (*buf > 12)
                return STATUS_INVALID_PARAMETER;
            i = FACT;
            break;
        case IOCTL_TARN_COUNTS:
            if (s->Parameters.DeviceIoControl.OutputBufferLength <
                2 * sizeof(ULONG))
                return STATUS_BUFFER_TOO_SMALL;
            KeAcquireSpinLock(&e->W.Spin, &q);
            buf[0] = e->Engine[FACT].Done;
            buf[1] = e->Engine[COPY].Done;
            KeReleaseSpinLock(&e->W.Spin, q);
            irp->IoStatus.Information = 2 * sizeof(ULONG);
            return STATUS_SUCCESS;
        default:
            return STATUS_INVALID_DEVICE_REQUEST;
        }
    } else {
        if (s->MajorFunction == IRP_MJ_READ) {
            len = s->Parameters.Read.Length;
            off = s->Parameters.Read.ByteOffset.QuadPart;
        } else {
            len = s->Parameters.Write.Length;
            off = s->Parameters.Write.ByteOffset.QuadPart;
        }
        if (off < 0 || off > EDU_BUFSIZE || len > EDU_BUFSIZE - (ULONG)off)
            return STATUS_INVALID_PARAMETER;
        if (!len)
            return STATUS_SUCCESS;
    }
    WharfQueuePut(&e->Engine[i].Queue, irp);
    TarnKick(e, i);
    return STATUS_PENDING;
}

static VOID CardCleanup(CARD *e, PFILE_OBJECT file)
{
    WharfQueueFail(&e->Engine[FACT].Queue, file, STATUS_CANCELLED);
    WharfQueueFail(&e->Engine[COPY].Queue, file, STATUS_CANCELLED);
}

static VOID CardInit(CARD *e)
{
    WharfQueueInit(&e->Engine[FACT].Queue, &e->W);
    WharfQueueInit(&e->Engine[COPY].Queue, &e->W);
    KeInitializeEvent(&e->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&e->Dpc, TarnDpc, e);
    KeInitializeDpc(&e->TickDpc, TarnTick, e);
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
    e->Cause = 0;
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, TarnIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
        EduRamFree(&e->Ram);
        WharfUnmap(&e->W);
        return st;
    }
    EduIsrOn(&e->W);
    WharfWr(&e->W, EDU_STATUS, EDU_FACTIRQ);
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
    /* what the card has begun ends by its interrupt or by the time limit */
    KeWaitForSingleObject(&e->Idle, Executive, KernelMode, FALSE, NULL);
    EduQuiet(&e->W, touch);
    KeCancelTimer(&e->Tick);
    KeFlushQueuedDpcs();
    WharfDisconnect(&e->W);
    EduRamRelease(&e->W, &e->Ram, touch);
    WharfUnmap(&e->W);
    WharfQueueFail(&e->Engine[FACT].Queue, NULL, STATUS_NO_SUCH_DEVICE);
    WharfQueueFail(&e->Engine[COPY].Queue, NULL, STATUS_NO_SUCH_DEVICE);
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
        WharfWr(&e->W, EDU_STATUS, EDU_FACTIRQ);
        e->W.Awake = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    TarnKick(e, FACT);
    TarnKick(e, COPY);
}

#include "../include/wharf_pnp.h"
