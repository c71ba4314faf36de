/*
 * EDUSPRIG: a computing board shared by many programs. IOCTL_SPRIG_COMPUTE
 * computes n! for n up to 12 on the board and answers n and n!;
 * IOCTL_SPRIG_STATS tells how many requests were computed, and IOCTL_SPRIG_ID
 * the board's identification.
 *
 * The bug: whether the next computation may be begun is asked of the board's
 * busy bit, which is clear as soon as the result is there; a request that
 * comes before the deferred routine has fetched the result overwrites it, and
 * its predecessor is completed with a wrong number.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: answer-of-another, request-timed-out
 * Needs: ioctl, schedule, device
 */
#include "../include/wharf_edu.h"

DEFINE_GUID(GUID_EDUSPRIG, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x04);

#define IOCTL_SPRIG_COMPUTE \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SPRIG_STATS \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SPRIG_ID \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SPRIG_ANSWER {
    ULONG N;                    /* also the input */
    ULONG Factorial;
} SPRIG_ANSWER;

#define TICK_MS 100
#define LIMIT   20              /* ticks */

typedef struct _CARD {
    WHARF W;
    WHARF_QUEUE Queue;
    LIST_ENTRY Running;         /* Spin: given to the board, oldest first */
    ULONG Ticks;                /* Spin: for the oldest */
    ULONG Computed;             /* Spin */
    BOOLEAN Broken;             /* Spin */
    KEVENT Idle;                /* set while Running is empty */
    KDPC Dpc, TickDpc;
    KTIMER Tick;
} CARD;

#define CARD_GUID GUID_EDUSPRIG
#define CARD_IO   DO_BUFFERED_IO

static BOOLEAN NTAPI SprigIsr(PKINTERRUPT intr, PVOID ctx)
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

/* can the board take a computation? Spin is held, the board is awake */
static BOOLEAN SprigFree(CARD *e)
{
#ifdef FIXED
    return IsListEmpty(&e->Running);
#else
    return !(WharfRd(&e->W, EDU_STATUS) & EDU_COMPUTING);
#endif
}

static VOID SprigKick(CARD *e)
{
    NTSTATUS st;
    PIRP irp;
    KIRQL q;

    for (;;) {
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live && !e->Broken && (!e->W.Awake || !SprigFree(e)))
            irp = NULL;
        else
            irp = WharfQueueNext(&e->Queue, NULL);
        if (!irp) {
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        if (e->W.Live && !e->Broken) {
            InsertTailList(&e->Running, &irp->Tail.Overlay.ListEntry);
            e->Ticks = LIMIT;
            KeClearEvent(&e->Idle);
            WharfWr(&e->W, EDU_FACT,
                    ((SPRIG_ANSWER *)irp->AssociatedIrp.SystemBuffer)->N);
            KeReleaseSpinLock(&e->W.Spin, q);
            return;
        }
        st = e->W.Live ? STATUS_IO_DEVICE_ERROR : STATUS_NO_SUCH_DEVICE;
        KeReleaseSpinLock(&e->W.Spin, q);
        WharfDone(&e->W, irp, st, 0);
    }
}

/* the oldest that the board has, or NULL; Spin is held */
static PIRP SprigTake(CARD *e)
{
    PLIST_ENTRY l;

    if (IsListEmpty(&e->Running))
        return NULL;
    l = RemoveHeadList(&e->Running);
    e->Ticks = LIMIT;
    if (IsListEmpty(&e->Running))
        KeSetEvent(&e->Idle, IO_NO_INCREMENT, FALSE);
    return CONTAINING_RECORD(l, IRP, Tail.Overlay.ListEntry);
}

static VOID NTAPI SprigDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    ULONG v = 0;
    PIRP irp;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    irp = SprigTake(e);
    if (irp) {
        v = WharfRd(&e->W, EDU_FACT);
        if (v != EDU_GONE)
            e->Computed++;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    if (!irp)
        return;
    if (v == EDU_GONE)
        WharfDone(&e->W, irp, STATUS_NO_SUCH_DEVICE, 0);
    else {
        ((SPRIG_ANSWER *)irp->AssociatedIrp.SystemBuffer)->Factorial = v;
        WharfDone(&e->W, irp, STATUS_SUCCESS, sizeof(SPRIG_ANSWER));
    }
    SprigKick(e);
}

static VOID NTAPI SprigTick(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    PIRP irp = NULL;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (!IsListEmpty(&e->Running) && --e->Ticks == 0) {
        irp = SprigTake(e);
        e->Broken = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    if (irp) {
        WharfDone(&e->W, irp, STATUS_IO_TIMEOUT, 0);
        SprigKick(e);
    }
}

static NTSTATUS CardIo(CARD *e, PIRP irp, PIO_STACK_LOCATION s)
{
    PULONG buf = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG in, out;
    KIRQL q;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = s->Parameters.DeviceIoControl.InputBufferLength;
    out = s->Parameters.DeviceIoControl.OutputBufferLength;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SPRIG_COMPUTE:
        if (in != sizeof(ULONG) || *buf > 12)
            return STATUS_INVALID_PARAMETER;
        if (out < sizeof(SPRIG_ANSWER))
            return STATUS_BUFFER_TOO_SMALL;
        WharfQueuePut(&e->Queue, irp);
        SprigKick(e);
        return STATUS_PENDING;
    case IOCTL_SPRIG_STATS:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&e->W.Spin, &q);
        *buf = e->Computed;
        KeReleaseSpinLock(&e->W.Spin, q);
        irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    case IOCTL_SPRIG_ID:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live && e->W.Awake)
            *buf = WharfRd(&e->W, EDU_ID);
        else
            st = STATUS_DEVICE_NOT_READY;
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
    InitializeListHead(&e->Running);
    KeInitializeEvent(&e->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&e->Dpc, SprigDpc, e);
    KeInitializeDpc(&e->TickDpc, SprigTick, e);
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
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, SprigIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
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
    /* what the board has begun ends by its interrupt or by the time limit */
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
        WharfWr(&e->W, EDU_STATUS, EDU_FACTIRQ);
        e->W.Awake = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
    SprigKick(e);
}

#include "../include/wharf_pnp.h"
