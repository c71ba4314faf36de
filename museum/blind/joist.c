/*
 * joist: a software device that computes checksums in the background. SUM takes up to 200 bytes, which are copied into
 * one of 16 blocks the device keeps for that, and waits in line; a timer works through up to four blocks every 10 ms
 * and ends their requests. A request that is cancelled ends at once; its block stays in line until its turn comes.
 *
 * The bug: the mark of a cancelled request stays in the block: the next request that gets this block is taken for
 * cancelled when its turn comes, and never ends.
 *
 * Device: ROOT\JOIST
 * Rule: request-forgotten, request-pending-after-surprise-removal
 * Needs: ioctl, cancel
 */
#include "../include/keel_pnp.h"

#define IOCTL_SUM AJ_IOCTL(0, METHOD_BUFFERED)
#define BLOCKS 16
#define MOST   200
#define BATCH  4
#define TICK   10

static const GUID JOIST_GUID = { 0x5b0f2c13, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x03 } };

typedef struct BLOCK {
    LIST_ENTRY entry;       /* in free or in line */
    PIRP irp;               /* while it is in line and not cancelled */
    BOOLEAN cancelled;      /* its request was ended by a cancel routine or by cleanup */
    ULONG len;
    UCHAR data[MOST];
} BLOCK;

typedef struct JOIST {
    AJ_FDO f;
    KSPIN_LOCK lock;
    BOOLEAN dead, holding;
    LIST_ENTRY free, line;
    KTIMER timer;
    KDPC dpc;
    BLOCK block[BLOCKS];
} JOIST;

/* the block of a waiting request stands in its first word */
static VOID joist_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    JOIST *j = dev->DeviceExtension;
    BLOCK *b;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&j->lock, &q);
    b = (BLOCK *)aj_word(irp, 0);
    b->irp = NULL;
    b->cancelled = TRUE;
    KeReleaseSpinLock(&j->lock, q);
    aj_end(&j->f, irp, STATUS_CANCELLED, 0);
}

/* Adler-32 */
static ULONG checksum(const BLOCK *b)
{
    ULONG x = 1, y = 0, i;

    for (i = 0; i < b->len; i++) {
        x = (x + b->data[i]) % 65521;
        y = (y + x) % 65521;
    }
    return y << 16 | x;
}

static void release_locked(JOIST *j, BLOCK *b)
{
    b->irp = NULL;
    InsertTailList(&j->free, &b->entry);
}

static VOID joist_tick(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    JOIST *j = ctx;
    LIST_ENTRY done;
    ULONG n, sum;
    PIRP irp;

    (void)dpc;
    (void)a1;
    (void)a2;
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&j->lock);
    for (n = 0; n < BATCH && !j->holding && !IsListEmpty(&j->line); n++) {
        BLOCK *b = CONTAINING_RECORD(RemoveHeadList(&j->line), BLOCK, entry);

        if (b->cancelled) {
            release_locked(j, b);
            continue;
        }
        irp = b->irp;
        if (!IoSetCancelRoutine(irp, NULL)) {
            /* its cancel routine waits for our lock and still needs the block: next time */
            InsertHeadList(&j->line, &b->entry);
            break;
        }
        sum = checksum(b);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &sum, sizeof sum);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
        release_locked(j, b);
    }
    KeReleaseSpinLockFromDpcLevel(&j->lock);
    while ((irp = aj_pop_irp(&done)) != NULL)
        aj_end(&j->f, irp, STATUS_SUCCESS, sizeof sum);
}

static NTSTATUS joist_control(PDEVICE_OBJECT dev, PIRP irp)
{
    JOIST *j = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    NTSTATUS st = aj_begin(&j->f, irp);
    BOOLEAN ended = FALSE;
    BLOCK *b;
    KIRQL q;

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_SUM)
        return aj_end(&j->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (!in || in > MOST || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return aj_end(&j->f, irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&j->lock, &q);
    if (j->dead || IsListEmpty(&j->free)) {
        st = j->dead ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_BUSY;
        KeReleaseSpinLock(&j->lock, q);
        return aj_end(&j->f, irp, st, 0);
    }
    b = CONTAINING_RECORD(RemoveHeadList(&j->free), BLOCK, entry);
    b->irp = irp;
#ifdef FIXED
    b->cancelled = FALSE;
#endif
    b->len = in;
    RtlCopyMemory(b->data, irp->AssociatedIrp.SystemBuffer, in);
    aj_set_word(irp, 0, (ULONG_PTR)b);
    IoMarkIrpPending(irp);
    InsertTailList(&j->line, &b->entry);
    (void)IoSetCancelRoutine(irp, joist_cancel);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
        RemoveEntryList(&b->entry);
        release_locked(j, b);
        ended = TRUE;
    }
    KeReleaseSpinLock(&j->lock, q);
    if (ended)
        aj_end(&j->f, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

/* ends the waiting requests of a file object, or all; the blocks stay in line */
static void end_requests(JOIST *j, PFILE_OBJECT fo, BOOLEAN dead, NTSTATUS st)
{
    LIST_ENTRY done;
    ULONG i;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&j->lock, &q);
    if (dead)
        j->dead = TRUE;
    for (i = 0; i < BLOCKS; i++) {
        BLOCK *b = &j->block[i];

        if (!b->irp || (fo && aj_file(b->irp) != fo) || !IoSetCancelRoutine(b->irp, NULL))
            continue;
        InsertTailList(&done, &b->irp->Tail.Overlay.ListEntry);
        b->irp = NULL;
        b->cancelled = TRUE;
    }
    KeReleaseSpinLock(&j->lock, q);
    aj_end_list(&j->f, &done, st);
}

static NTSTATUS joist_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    end_requests(dev->DeviceExtension, aj_file(irp), FALSE, STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS joist_init(AJ_FDO *f)
{
    JOIST *j = (JOIST *)f;
    ULONG i;

    KeInitializeSpinLock(&j->lock);
    InitializeListHead(&j->free);
    InitializeListHead(&j->line);
    for (i = 0; i < BLOCKS; i++)
        InsertTailList(&j->free, &j->block[i].entry);
    KeInitializeTimer(&j->timer);
    KeInitializeDpc(&j->dpc, joist_tick, j);
    return STATUS_SUCCESS;
}

static NTSTATUS joist_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    JOIST *j = (JOIST *)f;
    LARGE_INTEGER due;

    (void)res;
    due.QuadPart = -TICK * 10000LL;
    KeSetTimerEx(&j->timer, due, TICK, &j->dpc);
    return STATUS_SUCCESS;
}

static void joist_stop(AJ_FDO *f)
{
    JOIST *j = (JOIST *)f;

    KeCancelTimer(&j->timer);
    KeFlushQueuedDpcs();
}

static void joist_set_holding(AJ_FDO *f, BOOLEAN on)
{
    JOIST *j = (JOIST *)f;
    KIRQL q;

    KeAcquireSpinLock(&j->lock, &q);
    j->holding = on;
    KeReleaseSpinLock(&j->lock, q);
}

static void joist_hold(AJ_FDO *f)
{
    joist_set_holding(f, TRUE);
}

static void joist_resume(AJ_FDO *f)
{
    joist_set_holding(f, FALSE);
}

static void joist_gone(AJ_FDO *f)
{
    end_requests((JOIST *)f, NULL, TRUE, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS joist_ops = {
    .ext_size = sizeof(JOIST),
    .iface = &JOIST_GUID,
    .init = joist_init,
    .start = joist_start,
    .stop = joist_stop,
    .hold = joist_hold,
    .resume = joist_resume,
    .gone = joist_gone,
};

static NTSTATUS joist_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &joist_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, joist_add, aj_create_plain, joist_cleanup, aj_ok, joist_control);
    return STATUS_SUCCESS;
}
