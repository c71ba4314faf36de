/*
 * eduwedge: the edu card's 4096-byte buffer for applications: FILL moves bytes into it, FETCH out of it, by DMA. Every
 * handle has a common buffer of its own, which the transfers of the handle go through. Requests wait in line; one can
 * be cancelled while it waits and also while the card works on it: it then ends at once, and the transfer runs out by
 * itself. Over sleep and stop the requests are kept.
 *
 * The bug: closing a handle frees its common buffer even if the card is still at a cancelled transfer of the handle:
 * the rest of a FETCH lands in freed memory.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap
 * Needs: ioctl, device, cancel
 */
#include "../include/keel_edu.h"

#define IOCTL_FILL  AJ_IOCTL(0, METHOD_BUFFERED)        /* in: bytes */
#define IOCTL_FETCH AJ_IOCTL(1, METHOD_OUT_DIRECT)      /* out: bytes */

static const GUID EDUWEDGE_GUID = { 0x5b0f2c18, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x08 } };

typedef struct HANDLE_BUF {
    PUCHAR p;
    PHYSICAL_ADDRESS la;
} HANDLE_BUF;

typedef struct WEDGE {
    AJ_FDO f;
    AJ_CARD card;
    PDMA_ADAPTER adapter;   /* from the first start until removal: open handles have buffers of it */
    KSPIN_LOCK lock;        /* the four below */
    ULONG paused;
    HANDLE_BUF *at;         /* the card transfers to or from this one; NULL: it is idle */
    PIRP cur;               /* for this request; NULL: cancelled */
    LIST_ENTRY line;
    KEVENT idle;            /* set while at is NULL */
    volatile LONG seen;
    KDPC dpc;
} WEDGE;

/* a waiting request's words: length, and where the bytes come from or go to */
#define LEN(irp) ((ULONG)aj_word(irp, 0))
#define MEM(irp) ((PVOID)aj_word(irp, 1))

static BOOLEAN is_fetch(PIRP irp)
{
    return IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_FETCH;
}

static BOOLEAN wedge_isr(PKINTERRUPT in, PVOID ctx)
{
    WEDGE *w = ctx;
    ULONG st = aj_rd(&w->card, EDU_ISTAT);

    (void)in;
    if (!st || st == AJ_GONE)
        return FALSE;
    aj_wr(&w->card, EDU_IACK, st);
    InterlockedOr(&w->seen, st);
    KeInsertQueueDpc(&w->dpc, NULL, NULL);
    return TRUE;
}

/* The first in line to the card, if that is idle. The request keeps its cancel routine. */
static void next_locked(WEDGE *w)
{
    HANDLE_BUF *h;
    PIRP irp;

    if (w->paused || w->at || IsListEmpty(&w->line))
        return;
    irp = aj_pop_irp(&w->line);
    InitializeListHead(&irp->Tail.Overlay.ListEntry);
    h = aj_file(irp)->FsContext;
    w->cur = irp;
    w->at = h;
    KeClearEvent(&w->idle);
    if (!is_fetch(irp))
        RtlCopyMemory(h->p, MEM(irp), LEN(irp));
    edu_dma(&w->card, is_fetch(irp), 0, h->la, LEN(irp));
}

static void idle_locked(WEDGE *w)
{
    w->at = NULL;
    KeSetEvent(&w->idle, IO_NO_INCREMENT, FALSE);
}

static VOID wedge_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    WEDGE *w = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&w->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    if (w->cur == irp)
        w->cur = NULL;      /* the card goes on to the end of the transfer */
    KeReleaseSpinLock(&w->lock, q);
    aj_end(&w->f, irp, STATUS_CANCELLED, 0);
}

static VOID wedge_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    WEDGE *w = ctx;
    LONG seen = InterlockedExchange(&w->seen, 0);
    PIRP irp = NULL;
    ULONG got = 0;

    (void)dpc, (void)a1, (void)a2;
    KeAcquireSpinLockAtDpcLevel(&w->lock);
    if ((seen & EDU_I_DMA) && w->at && !w->paused) {
        irp = w->cur;
        w->cur = NULL;
        if (irp && !IoSetCancelRoutine(irp, NULL))
            irp = NULL;     /* its cancel routine waits for our lock and completes it */
        if (irp && is_fetch(irp)) {
            got = LEN(irp);
            RtlCopyMemory(MEM(irp), w->at->p, got);
        }
        idle_locked(w);
        next_locked(w);
    }
    KeReleaseSpinLockFromDpcLevel(&w->lock);
    if (irp)
        aj_end(&w->f, irp, STATUS_SUCCESS, got);
}

static void wedge_pause(WEDGE *w, ULONG why)
{
    ULONG was;
    KIRQL q;

    KeAcquireSpinLock(&w->lock, &q);
    was = w->paused;
    w->paused |= why;
    KeReleaseSpinLock(&w->lock, q);
    if (!was) {     /* else the card is quiet already, and may be asleep */
        edu_settle(&w->card);
        edu_quiet(&w->card);
        KeFlushQueuedDpcs();
    }
    KeAcquireSpinLock(&w->lock, &q);
    if (w->cur)
        InsertHeadList(&w->line, &w->cur->Tail.Overlay.ListEntry);
    w->cur = NULL;
    idle_locked(w);
    KeReleaseSpinLock(&w->lock, q);
}

static void wedge_unpause(WEDGE *w, ULONG why)
{
    KIRQL q;

    KeAcquireSpinLock(&w->lock, &q);
    w->paused &= ~why;
    next_locked(w);
    KeReleaseSpinLock(&w->lock, q);
}

static NTSTATUS wedge_control(PDEVICE_OBJECT dev, PIRP irp)
{
    WEDGE *w = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode, n;
    NTSTATUS st = aj_begin(&w->f, irp);
    BOOLEAN ok;
    PVOID mem;
    KIRQL q;

    if (!NT_SUCCESS(st))
        return st;
    if (code != IOCTL_FILL && code != IOCTL_FETCH)
        return aj_end(&w->f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    n = code == IOCTL_FETCH ? sp->Parameters.DeviceIoControl.OutputBufferLength
                            : sp->Parameters.DeviceIoControl.InputBufferLength;
    if (!n || n > EDU_BUFLEN)
        return aj_end(&w->f, irp, STATUS_INVALID_PARAMETER, 0);
    mem = irp->AssociatedIrp.SystemBuffer;
    if (code == IOCTL_FETCH)
        mem = irp->MdlAddress ? MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority) : NULL;
    if (!mem)
        return aj_end(&w->f, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    aj_set_word(irp, 0, n);
    aj_set_word(irp, 1, (ULONG_PTR)mem);
    KeAcquireSpinLock(&w->lock, &q);
    if (w->paused & P_GONE) {
        KeReleaseSpinLock(&w->lock, q);
        return aj_end(&w->f, irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    ok = aj_pend_locked(&w->line, irp, wedge_cancel);
    next_locked(w);
    KeReleaseSpinLock(&w->lock, q);
    if (!ok)
        aj_end(&w->f, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS wedge_create(PDEVICE_OBJECT dev, PIRP irp)
{
    WEDGE *w = dev->DeviceExtension;
    NTSTATUS st = aj_begin(&w->f, irp);
    HANDLE_BUF *h;

    if (!NT_SUCCESS(st))
        return st;
    st = aj_may_open(&w->f);
    if (!NT_SUCCESS(st))
        return aj_end(&w->f, irp, st, 0);
    h = aj_alloc(sizeof *h);
    if (!h)
        return aj_end(&w->f, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    h->p = edu_common(w->adapter, &h->la);
    if (!h->p) {
        aj_free(h);
        return aj_end(&w->f, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlZeroMemory(h->p, EDU_BUFLEN);
    aj_file(irp)->FsContext = h;
    return aj_end(&w->f, irp, STATUS_SUCCESS, 0);
}

static NTSTATUS wedge_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    WEDGE *w = dev->DeviceExtension;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&w->lock, &q);
    aj_unpend_all_locked(&w->line, aj_file(irp), &done);
    if (w->cur && aj_file(w->cur) == aj_file(irp) && IoSetCancelRoutine(w->cur, NULL)) {
        InsertTailList(&done, &w->cur->Tail.Overlay.ListEntry);
        w->cur = NULL;
    }
    KeReleaseSpinLock(&w->lock, q);
    aj_end_list(&w->f, &done, STATUS_CANCELLED);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

/* no request of the handle is left, but the card may still be at one that was cancelled */
static NTSTATUS wedge_close(PDEVICE_OBJECT dev, PIRP irp)
{
    WEDGE *w = dev->DeviceExtension;
    HANDLE_BUF *h = aj_file(irp)->FsContext;

#ifdef FIXED
    for (;;) {
        BOOLEAN mine;
        KIRQL q;

        KeAcquireSpinLock(&w->lock, &q);
        mine = w->at == h;
        KeReleaseSpinLock(&w->lock, q);
        if (!mine)
            break;
        KeWaitForSingleObject(&w->idle, Executive, KernelMode, FALSE, NULL);
    }
#endif
    edu_common_free(w->adapter, h->la, h->p);
    aj_free(h);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS wedge_init(AJ_FDO *f)
{
    WEDGE *w = (WEDGE *)f;

    KeInitializeSpinLock(&w->lock);
    InitializeListHead(&w->line);
    KeInitializeEvent(&w->idle, NotificationEvent, TRUE);
    KeInitializeDpc(&w->dpc, wedge_dpc, w);
    w->paused = P_STOP;
    return STATUS_SUCCESS;
}

static void wedge_fini(AJ_FDO *f)
{
    WEDGE *w = (WEDGE *)f;

    if (w->adapter)
        edu_adapter_put(w->adapter);
}

static NTSTATUS wedge_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    WEDGE *w = (WEDGE *)f;
    NTSTATUS st = edu_map(&w->card, res);

    if (!NT_SUCCESS(st))
        return st;
    edu_quiet(&w->card);
    w->seen = 0;
    if (!w->adapter)
        w->adapter = edu_adapter(f);
    st = w->adapter ? aj_connect(&w->card, wedge_isr, w) : STATUS_INSUFFICIENT_RESOURCES;
    if (!NT_SUCCESS(st))
        aj_unmap(&w->card);
    return st;
}

static void wedge_stop(AJ_FDO *f)
{
    WEDGE *w = (WEDGE *)f;

    aj_disconnect(&w->card);
    aj_unmap(&w->card);
}

AJ_PAUSES(wedge, WEDGE)

static void wedge_gone(AJ_FDO *f)
{
    WEDGE *w = (WEDGE *)f;
    LIST_ENTRY done;
    KIRQL q;

    wedge_pause(w, P_GONE);
    InitializeListHead(&done);
    KeAcquireSpinLock(&w->lock, &q);
    aj_unpend_all_locked(&w->line, NULL, &done);
    KeReleaseSpinLock(&w->lock, q);
    aj_end_list(f, &done, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS wedge_ops = {
    .ext_size = sizeof(WEDGE),
    .iface = &EDUWEDGE_GUID,
    .init = wedge_init,
    .fini = wedge_fini,
    .start = wedge_start,
    .stop = wedge_stop,
    .hold = wedge_hold,
    .resume = wedge_resume,
    .gone = wedge_gone,
    .sleep = wedge_sleep,
    .wake = wedge_wake,
};

static NTSTATUS wedge_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &wedge_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, wedge_add, wedge_create, wedge_cleanup, wedge_close, wedge_control);
    return STATUS_SUCCESS;
}
