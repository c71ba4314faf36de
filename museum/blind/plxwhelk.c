/*
 * PLXWHELK: counts parts on a conveyor by a light barrier on LINTi1 of a PLX
 * 9052, which is active for as long as a part is in front of it.
 * IOCTL_WHELK_NEXT waits for the next part and answers its number,
 * IOCTL_WHELK_COUNT answers the number so far, IOCTL_WHELK_RESET sets it to 0.
 *
 * The bug: the interrupt routine looks at the status of LINTi1 but not whether
 * LINTi1 is enabled; while a part is in front of the barrier, and the input
 * therefore switched off, every interrupt of a neighbour on the shared line
 * is claimed, and counted as one more part.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: ioctl, schedule, device
 */
#include "../include/wharf_plx.h"

DEFINE_GUID(GUID_PLXWHELK, 0x6d1c0b11, 0x2f0a, 0x4c55, 0x91, 0x07, 0x33, 0x5e, 0xd0, 0x18, 0x7a, 0x07);

#define IOCTL_WHELK_NEXT \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WHELK_COUNT \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WHELK_RESET \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x863, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TICK_MS 10
#define CLEAR   3               /* ticks without a part until the next counts */
#define WHELK_ON (PLX_PCI | PLX_HIGH1 | PLX_EN1)

typedef struct _CARD {
    WHARF W;
    WHARF_QUEUE Queue;          /* waiting for the next part, all for the same */
    ULONG Clear;                /* Spin: ticks without a part */
    ULONG Count;                /* interrupt lock */
    ULONG Last;                 /* interrupt lock: number of the last part */
    ULONG Fresh;                /* interrupt lock: parts not yet reported */
    KDPC Dpc, TickDpc;
    KTIMER Tick;
} CARD;

#define CARD_GUID GUID_PLXWHELK
#define CARD_IO   DO_BUFFERED_IO

static BOOLEAN NTAPI WhelkIsr(PKINTERRUPT intr, PVOID ctx)
{
    CARD *e = ctx;
    ULONG v;

    (void)intr;
    if (!e->W.IsrOn)
        return FALSE;
    v = WharfRd(&e->W, PLX_INTCSR);
#ifdef FIXED
    if (v == PLX_GONE || !(v & PLX_EN1) || !(v & PLX_ST1))
#else
    if (v == PLX_GONE || !(v & PLX_ST1))
#endif
        return FALSE;
    /* a part stays for a while: off until it has gone */
    WharfWr(&e->W, PLX_INTCSR, v & ~PLX_EN1);
    e->Last = ++e->Count;
    e->Fresh++;
    KeInsertQueueDpc(&e->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI WhelkDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    ULONG last, fresh;
    LIST_ENTRY done;
    PIRP irp;
    KIRQL q;

    (void)dpc; (void)a; (void)b;
    InitializeListHead(&done);
    q = KeAcquireInterruptSpinLock(e->W.Interrupt);
    last = e->Last;
    fresh = e->Fresh;
    e->Fresh = 0;
    KeReleaseInterruptSpinLock(e->W.Interrupt, q);
    if (!fresh)
        return;
    /* first all that have waited, else one that comes back would be ended too */
    while ((irp = WharfQueueNext(&e->Queue, NULL)) != NULL)
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP,
                                Tail.Overlay.ListEntry);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = last;
        WharfDone(&e->W, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

/* listens again once no part has been there for a while */
static VOID NTAPI WhelkTick(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    CARD *e = ctx;
    ULONG v;
    KIRQL q, qi;

    (void)dpc; (void)a; (void)b;
    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live && e->W.Awake) {
        qi = KeAcquireInterruptSpinLock(e->W.Interrupt);
        v = WharfRd(&e->W, PLX_INTCSR);
        if (v == PLX_GONE || (v & (PLX_EN1 | PLX_ST1)))
            e->Clear = 0;
        else if (++e->Clear >= CLEAR) {
            e->Clear = 0;
            WharfWr(&e->W, PLX_INTCSR, v | PLX_EN1);
        }
        KeReleaseInterruptSpinLock(e->W.Interrupt, qi);
    }
    KeReleaseSpinLock(&e->W.Spin, q);
}

/* a request that comes after CardStop has emptied the queue */
static VOID WhelkSweep(CARD *e)
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
    PULONG buf = irp->AssociatedIrp.SystemBuffer;
    ULONG out, code;
    NTSTATUS st;
    KIRQL q, qi;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    out = s->Parameters.DeviceIoControl.OutputBufferLength;
    code = s->Parameters.DeviceIoControl.IoControlCode;
    switch (code) {
    case IOCTL_WHELK_NEXT:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        WharfQueuePut(&e->Queue, irp);
        WhelkSweep(e);
        return STATUS_PENDING;
    case IOCTL_WHELK_COUNT:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        /* fall through */
    case IOCTL_WHELK_RESET:
        st = STATUS_NO_SUCH_DEVICE;
        KeAcquireSpinLock(&e->W.Spin, &q);
        if (e->W.Live) {
            qi = KeAcquireInterruptSpinLock(e->W.Interrupt);
            if (code == IOCTL_WHELK_RESET)
                e->Count = 0;
            else
                *buf = e->Count;
            KeReleaseInterruptSpinLock(e->W.Interrupt, qi);
            st = STATUS_SUCCESS;
        }
        KeReleaseSpinLock(&e->W.Spin, q);
        if (NT_SUCCESS(st) && code == IOCTL_WHELK_COUNT)
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
    KeInitializeDpc(&e->Dpc, WhelkDpc, e);
    KeInitializeDpc(&e->TickDpc, WhelkTick, e);
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
    st = PlxMap(&e->W, &r);
    if (!NT_SUCCESS(st))
        return st;
    e->Clear = 0;
    e->Count = 0;
    e->Fresh = 0;
    e->W.IsrOn = FALSE;
    st = WharfConnect(&e->W, &r, WhelkIsr);
    if (!NT_SUCCESS(st)) {
        e->W.Interrupt = NULL;
        WharfUnmap(&e->W);
        return st;
    }
    KeAcquireSpinLock(&e->W.Spin, &q);
    PlxLoud(&e->W, WHELK_ON);
    e->W.Live = TRUE;
    e->W.Awake = TRUE;
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
    WharfUnmap(&e->W);
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

/* a part that is there on waking may have been counted before: wait for none */
static VOID CardWake(CARD *e)
{
    KIRQL q;

    KeAcquireSpinLock(&e->W.Spin, &q);
    if (e->W.Live) {
        e->Clear = 0;
        PlxLoud(&e->W, WHELK_ON & ~PLX_EN1);
        e->W.Awake = TRUE;
    }
    KeReleaseSpinLock(&e->W.Spin, q);
}

#include "../include/wharf_pnp.h"
