/*
 * lintel: a software device that adds up: an application sends up to 256 bytes with ADD, and gets their sum a little
 * later (a timer serves one request every 10 ms, in the order of their coming). While a stop of the device is under
 * way, new requests go to a line of their own and are served, before any later ones, once it has started again or the
 * stop was called off. Requests can be cancelled.
 *
 * The bug: when the device is removed after a stop was asked for, only the usual line's requests are ended: those that
 * came in the meantime never are.
 *
 * Device: ROOT\LINTEL
 * Rule: request-pending-after-surprise-removal
 * Needs: ioctl, removal
 */
#include "../include/keel_pnp.h"

#define IOCTL_ADD AJ_IOCTL(0, METHOD_BUFFERED)
#define MOST 256
#define TICK 10

static const GUID LINTEL_GUID = { 0x5b0f2c11, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x01 } };

typedef struct LINTEL {
    AJ_FDO f;
    KSPIN_LOCK lock;
    BOOLEAN holding;        /* a stop is under way */
    BOOLEAN dead;
    LIST_ENTRY line;
    LIST_ENTRY held;        /* came while holding */
    KTIMER timer;
    KDPC dpc;
} LINTEL;

static VOID lintel_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    LINTEL *l = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&l->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&l->lock, q);
    aj_end(&l->f, irp, STATUS_CANCELLED, 0);
}

static VOID lintel_tick(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    LINTEL *l = ctx;
    PIRP irp = NULL;
    ULONG i, n, sum = 0;
    UCHAR *b;

    (void)dpc;
    (void)a1;
    (void)a2;
    KeAcquireSpinLockAtDpcLevel(&l->lock);
    if (!l->holding)
        irp = aj_unpend_locked(&l->line, NULL);
    KeReleaseSpinLockFromDpcLevel(&l->lock);
    if (!irp)
        return;
    n = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength;
    b = irp->AssociatedIrp.SystemBuffer;
    for (i = 0; i < n; i++)
        sum += b[i];
    RtlCopyMemory(b, &sum, sizeof sum);
    aj_end(&l->f, irp, STATUS_SUCCESS, sizeof sum);
}

static NTSTATUS lintel_control(PDEVICE_OBJECT dev, PIRP irp)
{
    LINTEL *l = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    NTSTATUS st = aj_begin(&l->f, irp);
    BOOLEAN ok;
    KIRQL q;

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_ADD)
        return aj_end(&l->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (!in || in > MOST || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return aj_end(&l->f, irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&l->lock, &q);
    if (l->dead) {
        KeReleaseSpinLock(&l->lock, q);
        return aj_end(&l->f, irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    ok = aj_pend_locked(l->holding ? &l->held : &l->line, irp, lintel_cancel);
    KeReleaseSpinLock(&l->lock, q);
    if (!ok)
        aj_end(&l->f, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS lintel_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    LINTEL *l = dev->DeviceExtension;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&l->lock, &q);
    aj_unpend_all_locked(&l->line, aj_file(irp), &done);
    aj_unpend_all_locked(&l->held, aj_file(irp), &done);
    KeReleaseSpinLock(&l->lock, q);
    aj_end_list(&l->f, &done, STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS lintel_init(AJ_FDO *f)
{
    LINTEL *l = (LINTEL *)f;

    KeInitializeSpinLock(&l->lock);
    InitializeListHead(&l->line);
    InitializeListHead(&l->held);
    KeInitializeTimer(&l->timer);
    KeInitializeDpc(&l->dpc, lintel_tick, l);
    return STATUS_SUCCESS;
}

static NTSTATUS lintel_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    LINTEL *l = (LINTEL *)f;
    LARGE_INTEGER due;

    (void)res;
    due.QuadPart = -TICK * 10000LL;
    KeSetTimerEx(&l->timer, due, TICK, &l->dpc);
    return STATUS_SUCCESS;
}

static void lintel_stop(AJ_FDO *f)
{
    LINTEL *l = (LINTEL *)f;

    KeCancelTimer(&l->timer);
    KeFlushQueuedDpcs();
}

static void lintel_hold(AJ_FDO *f)
{
    LINTEL *l = (LINTEL *)f;
    KIRQL q;

    KeAcquireSpinLock(&l->lock, &q);
    l->holding = TRUE;
    KeReleaseSpinLock(&l->lock, q);
}

/* started (again), or not stopped after all: the held requests join the line */
static void lintel_resume(AJ_FDO *f)
{
    LINTEL *l = (LINTEL *)f;
    KIRQL q;

    KeAcquireSpinLock(&l->lock, &q);
    l->holding = FALSE;
    while (!IsListEmpty(&l->held))
        InsertTailList(&l->line, RemoveHeadList(&l->held));
    KeReleaseSpinLock(&l->lock, q);
}

static void lintel_gone(AJ_FDO *f)
{
    LINTEL *l = (LINTEL *)f;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&l->lock, &q);
    l->dead = TRUE;
    aj_unpend_all_locked(&l->line, NULL, &done);
#ifdef FIXED
    aj_unpend_all_locked(&l->held, NULL, &done);
#endif
    KeReleaseSpinLock(&l->lock, q);
    aj_end_list(f, &done, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS lintel_ops = {
    .ext_size = sizeof(LINTEL),
    .iface = &LINTEL_GUID,
    .init = lintel_init,
    .start = lintel_start,
    .stop = lintel_stop,
    .hold = lintel_hold,
    .resume = lintel_resume,
    .gone = lintel_gone,
};

static NTSTATUS lintel_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &lintel_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, lintel_add, aj_create_plain, lintel_cleanup, aj_ok, lintel_control);
    return STATUS_SUCCESS;
}
