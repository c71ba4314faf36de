/*
 * abutment: a card that solves one puzzle (a number in, a number out) at a time, in up to 100 ms. SOLVE requests wait
 * in line; the one at the card can be cancelled too: the driver then has the card give up, and the request ends when
 * the card tells. Over sleep and stop the requests are kept. Registers (BAR0): 00 identity (low 16 bits AB07); 04
 * command: 1 begin, 2 give up; 08 puzzle; 0C solution; 10 causes of the interrupt, taken back by writing ones: bit 0
 * solved, bit 1 gave up; 14 the causes that may interrupt; 18 bit 0 at work. Each "give up" is answered by bit 1, even
 * if the puzzle was solved just before it came.
 *
 * The bug: if a puzzle is solved just as it is to be given up, both causes are there when the DPC runs, and it
 * completes the request twice.
 *
 * Device: PCI\VEN_1DA7&DEV_AB07
 * Rule: use-after-free, double-completion
 * Needs: ioctl, device, cancel
 */
#include "../include/keel_card.h"

#define IOCTL_SOLVE AJ_IOCTL(0, METHOD_BUFFERED)    /* in: puzzle; out: solution */

#define R_ID    0x00
#define R_CMD   0x04
#define R_IN    0x08
#define R_OUT   0x0C
#define R_CAUSE 0x10
#define R_MAY   0x14
#define R_STATE 0x18
#define BEGIN   1u
#define GIVEUP  2u
#define SOLVED  1u
#define GAVEUP  2u

static const GUID ABUTMENT_GUID = { 0x5b0f2c1f, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x0f } };

typedef struct ABUT {
    AJ_FDO f;
    AJ_CARD card;
    KSPIN_LOCK lock;        /* the four below, and the card's command */
    ULONG paused;
    BOOLEAN giving;         /* said to give up and has not answered yet */
    PIRP cur;               /* at the card, linked to itself */
    LIST_ENTRY line;
    volatile LONG seen;
    KDPC dpc;
} ABUT;

/* A request's words: the puzzle; and whether it was cancelled at the card (its cancel routine is over then). */
#define PUZZLE(irp) ((ULONG)aj_word(irp, 0))
#define CALLED_OFF(irp) (aj_word(irp, 1) != 0)

static BOOLEAN abut_isr(PKINTERRUPT in, PVOID ctx)
{
    ABUT *a = ctx;
    ULONG v = aj_rd(&a->card, R_CAUSE);

    (void)in;
    if (v == AJ_GONE || !(v & (SOLVED | GAVEUP)))
        return FALSE;
    v &= SOLVED | GAVEUP;
    aj_wr(&a->card, R_CAUSE, v);
    InterlockedOr(&a->seen, v);
    KeInsertQueueDpc(&a->dpc, NULL, NULL);
    return TRUE;
}

/* The first in line to the card, if that is free. The request keeps its cancel routine. */
static void next_locked(ABUT *a)
{
    PIRP irp;

    if (a->paused || a->cur || a->giving || IsListEmpty(&a->line))
        return;
    irp = aj_pop_irp(&a->line);
    InitializeListHead(&irp->Tail.Overlay.ListEntry);
    a->cur = irp;
    aj_wr(&a->card, R_IN, PUZZLE(irp));
    aj_wr(&a->card, R_CMD, BEGIN);
}

static void give_up_locked(ABUT *a)
{
    aj_set_word(a->cur, 1, 1);
    if (!a->paused && !a->giving) {
        a->giving = TRUE;
        aj_wr(&a->card, R_CMD, GIVEUP);
    }
}

static VOID abut_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    ABUT *a = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&a->lock, &q);
    if (a->cur == irp) {
        give_up_locked(a);      /* what takes it from the card completes it */
        KeReleaseSpinLock(&a->lock, q);
        return;
    }
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&a->lock, q);
    aj_end(&a->f, irp, STATUS_CANCELLED, 0);
}

/* The request at the card, for the caller to complete; NULL if there is none or its cancel routine is about to. */
static PIRP take_locked(ABUT *a)
{
    PIRP irp = a->cur;

    a->cur = NULL;
    if (irp && !CALLED_OFF(irp) && !IoSetCancelRoutine(irp, NULL))
        irp = NULL;
    return irp;
}

static VOID abut_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    ABUT *a = ctx;
    LONG seen = InterlockedExchange(&a->seen, 0);
    NTSTATUS st = STATUS_SUCCESS;
    PIRP irp = NULL;
    ULONG r = 0;

    (void)dpc;
    (void)a1;
    (void)a2;
    KeAcquireSpinLockAtDpcLevel(&a->lock);
    if (seen && !a->paused) {
        if (!a->giving)
            seen &= (LONG)~GAVEUP;    /* an answer to nothing */
        if (seen & GAVEUP)
            a->giving = FALSE;
        if (seen & SOLVED) {
            r = aj_rd(&a->card, R_OUT);
            if (r == AJ_GONE && aj_rd(&a->card, R_ID) == AJ_GONE)
                st = STATUS_NO_SUCH_DEVICE;
        }
        if (seen)
            irp = take_locked(a);
        next_locked(a);
    }
    KeReleaseSpinLockFromDpcLevel(&a->lock);
    if (!irp)
        return;
    if (seen & SOLVED) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &r, sizeof r);
        aj_end(&a->f, irp, st, NT_SUCCESS(st) ? sizeof r : 0);
    }
#ifdef FIXED
    else
#endif
    if (seen & GAVEUP) {
        aj_end(&a->f, irp, STATUS_CANCELLED, 0);
    }
}

/* Leaves the card alone from here on; the request it was at goes back to the head of the line. */
static void abut_pause(ABUT *a, ULONG why)
{
    LARGE_INTEGER ms;
    PIRP irp = NULL;
    ULONG was, i, s;
    KIRQL q;

    KeAcquireSpinLock(&a->lock, &q);
    was = a->paused;
    a->paused |= why;
    KeReleaseSpinLock(&a->lock, q);
    if (!was) {     /* else it rests already, and may be asleep */
        ms.QuadPart = -10000;
        for (i = 0; i < 500; i++) {
            s = aj_rd(&a->card, R_STATE);
            if (s == AJ_GONE || !(s & 1))
                break;
            KeDelayExecutionThread(KernelMode, FALSE, &ms);
        }
        aj_wr(&a->card, R_MAY, 0);
        aj_wr(&a->card, R_CAUSE, SOLVED | GAVEUP);
        KeFlushQueuedDpcs();
    }
    KeAcquireSpinLock(&a->lock, &q);
    a->giving = FALSE;
    if (a->cur && CALLED_OFF(a->cur))
        irp = a->cur;
    else if (a->cur)
        InsertHeadList(&a->line, &a->cur->Tail.Overlay.ListEntry);
    a->cur = NULL;
    KeReleaseSpinLock(&a->lock, q);
    if (irp)
        aj_end(&a->f, irp, STATUS_CANCELLED, 0);
}

static void abut_unpause(ABUT *a, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&a->lock, &q);
    a->paused &= ~why;
    if (!a->paused)
        aj_wr(&a->card, R_MAY, SOLVED | GAVEUP);
    next_locked(a);
    KeReleaseSpinLock(&a->lock, q);
}

static NTSTATUS abut_control(PDEVICE_OBJECT dev, PIRP irp)
{
    ABUT *a = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = aj_begin(&a->f, irp);
    BOOLEAN ok;
    ULONG n;
    KIRQL q;

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_SOLVE)
        return aj_end(&a->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof n ||
        sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof n)
        return aj_end(&a->f, irp, STATUS_BUFFER_TOO_SMALL, 0);
    RtlCopyMemory(&n, irp->AssociatedIrp.SystemBuffer, sizeof n);
    aj_set_word(irp, 0, n);
    aj_set_word(irp, 1, 0);
    KeAcquireSpinLock(&a->lock, &q);
    if (a->paused & P_GONE) {
        KeReleaseSpinLock(&a->lock, q);
        return aj_end(&a->f, irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    ok = aj_pend_locked(&a->line, irp, abut_cancel);
    next_locked(a);
    KeReleaseSpinLock(&a->lock, q);
    if (!ok)
        aj_end(&a->f, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS abut_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    ABUT *a = dev->DeviceExtension;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&a->lock, &q);
    aj_unpend_all_locked(&a->line, aj_file(irp), &done);
    if (a->cur && aj_file(a->cur) == aj_file(irp) && IoSetCancelRoutine(a->cur, NULL))
        give_up_locked(a);
    KeReleaseSpinLock(&a->lock, q);
    aj_end_list(&a->f, &done, STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS abut_init(AJ_FDO *f)
{
    ABUT *a = (ABUT *)f;

    KeInitializeSpinLock(&a->lock);
    InitializeListHead(&a->line);
    KeInitializeDpc(&a->dpc, abut_dpc, a);
    a->paused = P_STOP;
    return STATUS_SUCCESS;
}

static NTSTATUS abut_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    ABUT *a = (ABUT *)f;
    NTSTATUS st = aj_map(&a->card, res, 0x1C);

    if (!NT_SUCCESS(st))
        return st;
    aj_wr(&a->card, R_MAY, 0);
    a->seen = 0;
    st = aj_connect(&a->card, abut_isr, a);
    if (!NT_SUCCESS(st))
        aj_unmap(&a->card);
    return st;
}

static void abut_stop(AJ_FDO *f)
{
    ABUT *a = (ABUT *)f;

    aj_disconnect(&a->card);
    aj_unmap(&a->card);
}

AJ_PAUSES(abut, ABUT)

static void abut_gone(AJ_FDO *f)
{
    ABUT *a = (ABUT *)f;
    LIST_ENTRY done;
    KIRQL q;

    abut_pause(a, P_GONE);
    InitializeListHead(&done);
    KeAcquireSpinLock(&a->lock, &q);
    aj_unpend_all_locked(&a->line, NULL, &done);
    KeReleaseSpinLock(&a->lock, q);
    aj_end_list(f, &done, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS abut_ops = {
    .ext_size = sizeof(ABUT),
    .iface = &ABUTMENT_GUID,
    .init = abut_init,
    .start = abut_start,
    .stop = abut_stop,
    .hold = abut_hold,
    .resume = abut_resume,
    .gone = abut_gone,
    .sleep = abut_sleep,
    .wake = abut_wake,
};

static NTSTATUS abut_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &abut_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, abut_add, aj_create_plain, abut_cleanup, aj_ok, abut_control);
    return STATUS_SUCCESS;
}
