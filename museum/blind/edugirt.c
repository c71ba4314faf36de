/*
 * edugirt: the edu card's 4096-byte buffer, one application at a time. CLAIM makes the handle the owner of the buffer
 * and waits while it has another; RELEASE (or closing the handle) hands it to the one that waited longest. The owner
 * may WRITE into the buffer and READ from it, at any offset; both are DMA through a common buffer and done when the
 * request ends. Waiting CLAIMs can be cancelled. What the buffer holds is lost when the device sleeps.
 *
 * The bug: handing over takes the next CLAIM from the line first and notes its handle as owner a little later: if that
 * handle is closed in between, the buffer belongs to a closed handle, and all others wait for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: ioctl, schedule
 */
#include "../include/keel_edu.h"

#define IOCTL_CLAIM   AJ_IOCTL(0, METHOD_BUFFERED)
#define IOCTL_RELEASE AJ_IOCTL(1, METHOD_BUFFERED)
#define IOCTL_WRITE   AJ_IOCTL(2, METHOD_IN_DIRECT)     /* in: offset; direct: bytes */
#define IOCTL_READ    AJ_IOCTL(3, METHOD_OUT_DIRECT)    /* in: offset; direct: bytes */

static const GUID EDUGIRT_GUID = { 0x5b0f2c19, 0x9d1c, 0x4e6e, { 0x8a, 0x10, 0x3f, 0x66, 0x21, 0x0c, 0x5a, 0x09 } };

typedef struct USER {
    BOOLEAN closing;
} USER;

typedef struct GIRT {
    AJ_FDO f;
    AJ_CARD card;
    PDMA_ADAPTER adapter;
    PUCHAR common;
    PHYSICAL_ADDRESS la;
    KSPIN_LOCK lock;        /* the three below, and closing of every user */
    BOOLEAN dead;
    USER *owner;
    LIST_ENTRY claims;
    KEVENT turn;            /* one transfer at a time */
    KEVENT done;
    volatile LONG seen;
    KDPC dpc;
} GIRT;

static BOOLEAN girt_isr(PKINTERRUPT in, PVOID ctx)
{
    GIRT *g = ctx;
    ULONG st = aj_rd(&g->card, EDU_ISTAT);

    (void)in;
    if (!st || st == AJ_GONE)
        return FALSE;
    aj_wr(&g->card, EDU_IACK, st);
    InterlockedOr(&g->seen, st);
    KeInsertQueueDpc(&g->dpc, NULL, NULL);
    return TRUE;
}

static VOID girt_dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    GIRT *g = ctx;

    (void)dpc;
    (void)a1;
    (void)a2;
    if (InterlockedExchange(&g->seen, 0) & EDU_I_DMA)
        KeSetEvent(&g->done, IO_NO_INCREMENT, FALSE);
}

static VOID girt_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    GIRT *g = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&g->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&g->lock, q);
    aj_end(&g->f, irp, STATUS_CANCELLED, 0);
}

/* The owner gives the buffer up; FALSE: it was not the owner. */
static BOOLEAN hand_over(GIRT *g, USER *u)
{
    PIRP next;
    KIRQL q;

    KeAcquireSpinLock(&g->lock, &q);
    if (g->owner != u) {
        KeReleaseSpinLock(&g->lock, q);
        return FALSE;
    }
    g->owner = NULL;
    next = aj_unpend_locked(&g->claims, NULL);
#ifndef FIXED
    KeReleaseSpinLock(&g->lock, q);
    KeAcquireSpinLock(&g->lock, &q);
#endif
    if (next)
        g->owner = aj_file(next)->FsContext;
    KeReleaseSpinLock(&g->lock, q);
    if (next)
        aj_end(&g->f, next, STATUS_SUCCESS, 0);
    return TRUE;
}

static NTSTATUS girt_claim(GIRT *g, PIRP irp)
{
    USER *u = aj_file(irp)->FsContext;
    NTSTATUS st = STATUS_SUCCESS;
    BOOLEAN ok = TRUE, wait = FALSE;
    KIRQL q;

    KeAcquireSpinLock(&g->lock, &q);
    if (g->dead) {
        st = STATUS_NO_SUCH_DEVICE;
    } else if (u->closing) {
        st = STATUS_FILE_CLOSED;
    } else if (!g->owner) {
        g->owner = u;
    } else if (g->owner != u) {
        ok = aj_pend_locked(&g->claims, irp, girt_cancel);
        wait = TRUE;
    }
    KeReleaseSpinLock(&g->lock, q);
    if (!wait)
        return aj_end(&g->f, irp, st, 0);
    if (!ok)
        aj_end(&g->f, irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

/* Inside the gate: one transfer through the common buffer. */
static NTSTATUS transfer(GIRT *g, BOOLEAN read, ULONG off, PUCHAR p, ULONG n)
{
    LARGE_INTEGER limit;
    NTSTATUS st;

    KeWaitForSingleObject(&g->turn, Executive, KernelMode, FALSE, NULL);
    if (aj_rd(&g->card, EDU_ID) == AJ_GONE) {
        KeSetEvent(&g->turn, IO_NO_INCREMENT, FALSE);
        return STATUS_NO_SUCH_DEVICE;
    }
    if (!read)
        RtlCopyMemory(g->common, p, n);
    KeClearEvent(&g->done);
    edu_dma(&g->card, read, off, g->la, n);
    limit.QuadPart = -2 * 10000000LL;
    st = KeWaitForSingleObject(&g->done, Executive, KernelMode, FALSE, &limit);
    if (st != STATUS_SUCCESS) {
        edu_settle(&g->card);
        edu_quiet(&g->card);
        KeFlushQueuedDpcs();
        st = STATUS_IO_DEVICE_ERROR;
    } else if (read) {
        RtlCopyMemory(p, g->common, n);
    }
    KeSetEvent(&g->turn, IO_NO_INCREMENT, FALSE);
    return st;
}

static NTSTATUS girt_rw(GIRT *g, PIRP irp, BOOLEAN read, ULONG_PTR *info)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG n = sp->Parameters.DeviceIoControl.OutputBufferLength, off;
    BOOLEAN mine;
    NTSTATUS st;
    PVOID p;
    KIRQL q;

    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof off || !n || n > EDU_BUFLEN)
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(&off, irp->AssociatedIrp.SystemBuffer, sizeof off);
    if (off > EDU_BUFLEN - n)
        return STATUS_INVALID_PARAMETER;
    p = irp->MdlAddress ? MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority) : NULL;
    if (!p)
        return STATUS_INSUFFICIENT_RESOURCES;
    st = aj_gate_enter(&g->f.gate);
    if (!NT_SUCCESS(st))
        return st;
    KeAcquireSpinLock(&g->lock, &q);
    mine = g->owner == sp->FileObject->FsContext;
    KeReleaseSpinLock(&g->lock, q);
    st = mine ? transfer(g, read, off, p, n) : STATUS_ACCESS_DENIED;
    aj_gate_leave(&g->f.gate);
    if (NT_SUCCESS(st))
        *info = n;
    return st;
}

static NTSTATUS girt_control(PDEVICE_OBJECT dev, PIRP irp)
{
    GIRT *g = dev->DeviceExtension;
    NTSTATUS st = aj_begin(&g->f, irp);
    ULONG_PTR info = 0;

    if (!NT_SUCCESS(st))
        return st;
    switch (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CLAIM:
        return girt_claim(g, irp);
    case IOCTL_RELEASE:
        st = hand_over(g, aj_file(irp)->FsContext) ? STATUS_SUCCESS : STATUS_ACCESS_DENIED;
        break;
    case IOCTL_WRITE:
        st = girt_rw(g, irp, FALSE, &info);
        break;
    case IOCTL_READ:
        st = girt_rw(g, irp, TRUE, &info);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return aj_end(&g->f, irp, st, info);
}

static NTSTATUS girt_create(PDEVICE_OBJECT dev, PIRP irp)
{
    GIRT *g = dev->DeviceExtension;
    NTSTATUS st = aj_begin(&g->f, irp);

    if (!NT_SUCCESS(st))
        return st;
    st = aj_may_open(&g->f);
    if (NT_SUCCESS(st)) {
        aj_file(irp)->FsContext = aj_alloc(sizeof(USER));
        if (!aj_file(irp)->FsContext)
            st = STATUS_INSUFFICIENT_RESOURCES;
    }
    return aj_end(&g->f, irp, st, 0);
}

static NTSTATUS girt_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    GIRT *g = dev->DeviceExtension;
    USER *u = aj_file(irp)->FsContext;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&g->lock, &q);
    u->closing = TRUE;
    aj_unpend_all_locked(&g->claims, aj_file(irp), &done);
    KeReleaseSpinLock(&g->lock, q);
    aj_end_list(&g->f, &done, STATUS_CANCELLED);
    hand_over(g, u);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS girt_close(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    aj_free(aj_file(irp)->FsContext);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS girt_init(AJ_FDO *f)
{
    GIRT *g = (GIRT *)f;

    KeInitializeSpinLock(&g->lock);
    InitializeListHead(&g->claims);
    KeInitializeEvent(&g->turn, SynchronizationEvent, TRUE);
    KeInitializeEvent(&g->done, NotificationEvent, FALSE);
    KeInitializeDpc(&g->dpc, girt_dpc, g);
    return STATUS_SUCCESS;
}

static void girt_release(GIRT *g)
{
    if (g->common)
        edu_common_free(g->adapter, g->la, g->common);
    if (g->adapter)
        edu_adapter_put(g->adapter);
    g->common = NULL;
    g->adapter = NULL;
    aj_unmap(&g->card);
}

static NTSTATUS girt_start(AJ_FDO *f, PCM_RESOURCE_LIST res)
{
    GIRT *g = (GIRT *)f;
    NTSTATUS st = edu_map(&g->card, res);

    if (!NT_SUCCESS(st))
        return st;
    edu_quiet(&g->card);
    g->seen = 0;
    g->adapter = edu_adapter(f);
    if (g->adapter)
        g->common = edu_common(g->adapter, &g->la);
    st = g->common ? aj_connect(&g->card, girt_isr, g) : STATUS_INSUFFICIENT_RESOURCES;
    if (!NT_SUCCESS(st))
        girt_release(g);
    return st;
}

/* the gate is shut and empty: no transfer runs */
static void girt_stop(AJ_FDO *f)
{
    GIRT *g = (GIRT *)f;

    aj_disconnect(&g->card);
    girt_release(g);
}

static void girt_gone(AJ_FDO *f)
{
    GIRT *g = (GIRT *)f;
    LIST_ENTRY done;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&g->lock, &q);
    g->dead = TRUE;
    aj_unpend_all_locked(&g->claims, NULL, &done);
    KeReleaseSpinLock(&g->lock, q);
    aj_end_list(f, &done, STATUS_NO_SUCH_DEVICE);
}

static const AJ_OPS girt_ops = {
    .ext_size = sizeof(GIRT),
    .iface = &EDUGIRT_GUID,
    .init = girt_init,
    .start = girt_start,
    .stop = girt_stop,
    .gone = girt_gone,
};

static NTSTATUS girt_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return aj_add(drv, pdo, &girt_ops);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    (void)reg;
    aj_driver(drv, girt_add, girt_create, girt_cleanup, girt_close, girt_control);
    return STATUS_SUCCESS;
}
