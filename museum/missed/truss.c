/*
 * truss: a software device that keeps a history of values. POST notes a value; every 20 ms a timer looks whether at
 * least 4 values were noted, and if so has a work item condense them (least, greatest, mean of what is there, at most
 * 32) into one line of the history. HISTORY gives the lines back, the oldest first. While one condensing runs, the
 * next may be ordered already.
 *
 * The bug: what stops the device waits for an event that each condensing sets as it ends, even if the next one was
 * ordered in the meantime: that one then works in the history that was freed.
 *
 * Device: ROOT\TRUSS
 * Rule: use after free by a work item that the removal did not wait for (two in flight, one awaited)
 * Needs: ioctl, schedule, removal
 */
#include "../include/keel_pnp.h"

#define IOCTL_POST    AJ_IOCTL(0, METHOD_BUFFERED)      /* in: a value */
#define IOCTL_HISTORY AJ_IOCTL(1, METHOD_BUFFERED)      /* out: lines */
#define NOTES 64
#define FEW   4
#define CHUNK 32
#define LINES 128
#define TICK  20

static const GUID TRUSS_GUID = { 0x5b0f2c14, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x04 } };

typedef struct LINE { ULONG least, greatest, mean, count; } LINE;

typedef struct HISTORY {
    ULONG lines;            /* ever written */
    LINE line[LINES];
} HISTORY;

typedef struct TRUSS {
    AJ_FDO f;
    KSPIN_LOCK lock;        /* all below */
    ULONG head, count;
    ULONG note[NOTES];
    HISTORY *hist;
    PIO_WORKITEM item;
    BOOLEAN stopped;        /* order no more */
    BOOLEAN ordered;        /* the item is queued and has not begun */
    ULONG flight;           /* orders that have not ended */
    KEVENT idle;            /* set while flight is zero */
    KTIMER timer;
    KDPC dpc;
} TRUSS;

static VOID truss_work(PDEVICE_OBJECT dev, PVOID ctx)
{
    TRUSS *t = ctx;
    ULONG n, i;
    ULONGLONG sum = 0;
    LINE *l;
    KIRQL q;

    (void)dev;
    KeAcquireSpinLock(&t->lock, &q);
    t->ordered = FALSE;     /* from here on the item may be queued again */
    KeReleaseSpinLock(&t->lock, q);

    KeAcquireSpinLock(&t->lock, &q);
    n = t->count < CHUNK ? t->count : CHUNK;
    if (n) {
        l = &t->hist->line[t->hist->lines++ % LINES];
        l->least = MAXULONG;
        l->greatest = 0;
        l->count = n;
        for (i = 0; i < n; i++) {
            ULONG v = t->note[(t->head + i) % NOTES];

            sum += v;
            if (v < l->least)
                l->least = v;
            if (v > l->greatest)
                l->greatest = v;
        }
        l->mean = (ULONG)(sum / n);
        t->head = (t->head + n) % NOTES;
        t->count -= n;
    }
    KeReleaseSpinLock(&t->lock, q);

    KeAcquireSpinLock(&t->lock, &q);
    t->flight--;
#ifdef FIXED
    if (!t->flight)
#endif
        KeSetEvent(&t->idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&t->lock, q);
}

static VOID truss_tick(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    TRUSS *t = ctx;

    (void)dpc;
    (void)a1;
    (void)a2;
    KeAcquireSpinLockAtDpcLevel(&t->lock);
    if (!t->stopped && !t->ordered && t->count >= FEW) {
        t->ordered = TRUE;
        t->flight++;
        KeClearEvent(&t->idle);
        IoQueueWorkItem(t->item, truss_work, DelayedWorkQueue, t);
    }
    KeReleaseSpinLockFromDpcLevel(&t->lock);
}

static NTSTATUS truss_post(TRUSS *t, PIRP irp)
{
    NTSTATUS st = STATUS_SUCCESS;
    ULONG v;
    KIRQL q;

    if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength < sizeof v)
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(&v, irp->AssociatedIrp.SystemBuffer, sizeof v);
    KeAcquireSpinLock(&t->lock, &q);
    if (t->count < NOTES) {
        t->note[(t->head + t->count) % NOTES] = v;
        t->count++;
    } else {
        st = STATUS_DEVICE_BUSY;
    }
    KeReleaseSpinLock(&t->lock, q);
    return st;
}

static NTSTATUS truss_history(TRUSS *t, PIRP irp, ULONG_PTR *info)
{
    ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength / sizeof(LINE);
    LINE *out = irp->AssociatedIrp.SystemBuffer;
    ULONG n, i;
    KIRQL q;

    KeAcquireSpinLock(&t->lock, &q);
    n = t->hist->lines < LINES ? t->hist->lines : LINES;
    if (n > room)
        n = room;
    for (i = 0; i < n; i++)
        out[i] = t->hist->line[(t->hist->lines - n + i) % LINES];
    KeReleaseSpinLock(&t->lock, q);
    *info = n * sizeof(LINE);
    return STATUS_SUCCESS;
}

static NTSTATUS truss_control(PDEVICE_OBJECT dev, PIRP irp)
{
    TRUSS *t = dev->DeviceExtension;
    NTSTATUS st = aj_begin(&t->f, irp);
    ULONG_PTR info = 0;

    if (!NT_SUCCESS(st))
        return st;
    st = aj_gate_enter(&t->f.gate);
    if (NT_SUCCESS(st)) {
        switch (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_POST:
            st = truss_post(t, irp);
            break;
        case IOCTL_HISTORY:
            st = truss_history(t, irp, &info);
            break;
        default:
            st = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
        aj_gate_leave(&t->f.gate);
    }
    return aj_end(&t->f, irp, st, info);
}

static NTSTATUS truss_init(AJ_FDO *f)
{
    TRUSS *t = (TRUSS *)f;

    KeInitializeSpinLock(&t->lock);
    KeInitializeEvent(&t->idle, NotificationEvent, TRUE);
    KeInitializeTimer(&t->timer);
    KeInitializeDpc(&t->dpc, truss_tick, t);
    t->stopped = TRUE;
    t->hist = aj_alloc(sizeof(HISTORY));
    if (!t->hist)
        return STATUS_INSUFFICIENT_RESOURCES;
    t->item = IoAllocateWorkItem(f->self);
    if (!t->item) {
        aj_free(t->hist);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static void truss_fini(AJ_FDO *f)
{
    TRUSS *t = (TRUSS *)f;

    IoFreeWorkItem(t->item);
    aj_free(t->hist);
}

static NTSTATUS truss_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    TRUSS *t = (TRUSS *)f;
    LARGE_INTEGER due;
    KIRQL q;

    (void)res;
    KeAcquireSpinLock(&t->lock, &q);
    t->stopped = FALSE;
    KeReleaseSpinLock(&t->lock, q);
    due.QuadPart = -TICK * 10000LL;
    KeSetTimerEx(&t->timer, due, TICK, &t->dpc);
    return STATUS_SUCCESS;
}

/* no more orders, and the ones there are have ended */
static void truss_stop(AJ_FDO *f)
{
    TRUSS *t = (TRUSS *)f;
    KIRQL q;

    KeAcquireSpinLock(&t->lock, &q);
    t->stopped = TRUE;
    KeReleaseSpinLock(&t->lock, q);
    KeCancelTimer(&t->timer);
    KeFlushQueuedDpcs();
    KeWaitForSingleObject(&t->idle, Executive, KernelMode, FALSE, NULL);
}

static const AJ_OPS truss_ops = {
    .ext_size = sizeof(TRUSS),
    .iface = &TRUSS_GUID,
    .init = truss_init,
    .fini = truss_fini,
    .start = truss_start,
    .stop = truss_stop,
};

static NTSTATUS truss_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &truss_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, truss_add, aj_create_plain, aj_ok, aj_ok, truss_control);
    return STATUS_SUCCESS;
}
