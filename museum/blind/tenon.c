/*
 * tenon: a queue of 16-byte messages between applications. POST puts one to eight messages into it (or none, when
 * there is no room for all of them), TAKE takes the oldest one and waits while there is none, COUNT tells how many
 * there are. Several TAKEs may wait at once; each message goes to one of them.
 *
 * The bug: POST wakes one waiting TAKE only, and only if the queue was empty: after a POST of several messages the
 * other TAKEs wait on while messages lie in the queue, and later POSTs do not wake them either.
 *
 * Device: none
 * Rule: request-forgotten
 * Needs: ioctl
 */
#include "../include/keel_base.h"

#define LINK    L"\\DosDevices\\AjTenon"
#define MAXMSG  64
#define MAXPOST 8

#define IOCTL_POST  AJ_IOCTL(0, METHOD_IN_DIRECT)   /* the messages in the direct buffer */
#define IOCTL_TAKE  AJ_IOCTL(1, METHOD_BUFFERED)
#define IOCTL_COUNT AJ_IOCTL(2, METHOD_BUFFERED)

typedef struct MSG { UCHAR b[16]; } MSG;

typedef struct BOX {
    KSPIN_LOCK lock;
    ULONG head, count;
    LIST_ENTRY takers;
    MSG msg[MAXMSG];
} BOX;

static PDEVICE_OBJECT g_dev;

static VOID box_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    BOX *b = dev->DeviceExtension;
    KIRQL q;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&b->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&b->lock, q);
    aj_done(irp, STATUS_CANCELLED, 0);
}

/* the oldest message into a TAKE's buffer */
static void give_locked(BOX *b, PIRP irp)
{
    *(MSG *)irp->AssociatedIrp.SystemBuffer = b->msg[b->head];
    b->head = (b->head + 1) % MAXMSG;
    b->count--;
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = sizeof(MSG);
}

static NTSTATUS box_post(BOX *b, PIRP irp)
{
    ULONG len = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG n = len / sizeof(MSG), i, was;
    LIST_ENTRY done;
    MSG in[MAXPOST];
    PVOID src;
    PIRP t;
    KIRQL q;

    if (!n || n > MAXPOST || len % sizeof(MSG) || !irp->MdlAddress)
        return aj_done(irp, STATUS_INVALID_PARAMETER, 0);
    src = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
    if (!src)
        return aj_done(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlCopyMemory(in, src, n * sizeof(MSG));

    InitializeListHead(&done);
    KeAcquireSpinLock(&b->lock, &q);
    was = b->count;
    if (was + n > MAXMSG) {
        KeReleaseSpinLock(&b->lock, q);
        return aj_done(irp, STATUS_DEVICE_BUSY, 0);
    }
    for (i = 0; i < n; i++)
        b->msg[(b->head + was + i) % MAXMSG] = in[i];
    b->count += n;
#ifdef FIXED
    while (b->count && (t = aj_unpend_locked(&b->takers, NULL)) != NULL) {
#else
    if (!was && (t = aj_unpend_locked(&b->takers, NULL)) != NULL) {
#endif
        give_locked(b, t);
        InsertTailList(&done, &t->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&b->lock, q);
    while ((t = aj_pop_irp(&done)) != NULL)
        IoCompleteRequest(t, IO_NO_INCREMENT);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS box_take(BOX *b, PIRP irp)
{
    KIRQL q;
    BOOLEAN ok;

    if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength < sizeof(MSG))
        return aj_done(irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&b->lock, &q);
    if (b->count) {
        give_locked(b, irp);
        KeReleaseSpinLock(&b->lock, q);
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return STATUS_SUCCESS;
    }
    ok = aj_pend_locked(&b->takers, irp, box_cancel);
    KeReleaseSpinLock(&b->lock, q);
    if (!ok)
        aj_done(irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS box_control(PDEVICE_OBJECT dev, PIRP irp)
{
    BOX *b = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    KIRQL q;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_POST:
        return box_post(b, irp);
    case IOCTL_TAKE:
        return box_take(b, irp);
    case IOCTL_COUNT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return aj_done(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&b->lock, &q);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = b->count;
        KeReleaseSpinLock(&b->lock, q);
        return aj_done(irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return aj_done(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS box_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    BOX *b = dev->DeviceExtension;
    LIST_ENTRY done;
    PIRP t;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&b->lock, &q);
    aj_unpend_all_locked(&b->takers, aj_file(irp), &done);
    KeReleaseSpinLock(&b->lock, q);
    while ((t = aj_pop_irp(&done)) != NULL)
        aj_done(t, STATUS_CANCELLED, 0);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS box_open(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static VOID box_unload(PDRIVER_OBJECT drv)
{
    (void)drv;
    aj_uncontrol(g_dev, LINK);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    NTSTATUS st = aj_control(drv, L"\\Device\\AjTenon", LINK, sizeof(BOX), &g_dev);
    BOX *b;

    (void)reg;
    if (!NT_SUCCESS(st))
        return st;
    b = g_dev->DeviceExtension;
    KeInitializeSpinLock(&b->lock);
    InitializeListHead(&b->takers);
    drv->MajorFunction[IRP_MJ_CREATE] = box_open;
    drv->MajorFunction[IRP_MJ_CLOSE] = box_open;
    drv->MajorFunction[IRP_MJ_CLEANUP] = box_cleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = box_control;
    drv->DriverUnload = box_unload;
    return STATUS_SUCCESS;
}
