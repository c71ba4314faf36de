/*
 * PAGERBOX: calls between the programs of a hospital's paging system. A program waits for a call on a channel by an IOCTL that stays
 * pending; another calls the channel, and the one that waits longest gets the call's text. Written when there were no cancel-safe
 * queues yet: a node per request, a lock, and a cancel routine of its own.
 *
 * The bug: the cancel routine finds the request's node in DriverContext, which is set only after the cancel routine is, when the lock
 * is released already: a request that is cancelled at once has none.
 *
 * Device: Root\PAGERBOX
 * Rule: bad-pointer, wild-read, wild-pointer, use-after-free, write-after-free, data-race, irp-in-use
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/stead.h"

#define IOCTL_PAGER_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9D1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PAGER_CALL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9D2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PAGER_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9D3, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID PagerFace = { 0x5b1d3c19, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x0A } };

typedef struct CALL {
    ULONG channel;
    CHAR text[60];
} CALL;

typedef struct NODE {
    LIST_ENTRY link;
    PIRP irp;
    PFILE_OBJECT file;
    ULONG channel;
} NODE;

typedef struct PAGER {
    KSPIN_LOCK lock;
    LIST_ENTRY nodes;
    ULONG waiting;
    BOOLEAN closed;
} PAGER;

static VOID NTAPI PagerCancel(PDEVICE_OBJECT device, PIRP irp)
{
    STEAD *s = device->DeviceExtension;
    PAGER *d = OWN(s, PAGER);
    NODE *node;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&d->lock, &irql);
    node = irp->Tail.Overlay.DriverContext[0];
    RemoveEntryList(&node->link);
    d->waiting--;
    KeReleaseSpinLock(&d->lock, irql);
    ExFreePoolWithTag(node, TAG_AC);
    IrpEnd(&s->guard, irp, STATUS_CANCELLED, 0);
}

/*
 * The first request that waits on the channel, or of the file, if there is one; whose cancel routine has begun is left to that.
 * The request is the caller's.
 */
static PIRP PagerPick(PAGER *d, BOOLEAN byChannel, ULONG channel, PFILE_OBJECT file)
{
    PLIST_ENTRY at;
    NODE *found = NULL;
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&d->lock, &irql);
    for (at = d->nodes.Flink; at != &d->nodes; at = at->Flink) {
        NODE *node = CONTAINING_RECORD(at, NODE, link);

        if ((byChannel && node->channel != channel) || (file != NULL && node->file != file))
            continue;
        if (IoSetCancelRoutine(node->irp, NULL) == NULL)
            continue;
        found = node;
        irp = node->irp;
        RemoveEntryList(&node->link);
        d->waiting--;
        break;
    }
    KeReleaseSpinLock(&d->lock, irql);
    if (found != NULL)
        ExFreePoolWithTag(found, TAG_AC);
    return irp;
}

static NTSTATUS PagerAwait(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    PAGER *d = OWN(s, PAGER);
    NTSTATUS status = STATUS_PENDING;
    NODE *node;
    KIRQL irql;

    node = ExAllocatePoolWithTag(NonPagedPool, sizeof(NODE), TAG_AC);
    if (node == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    node->irp = irp;
    node->file = sp->FileObject;
    node->channel = *(PULONG)irp->AssociatedIrp.SystemBuffer;
    IoMarkIrpPending(irp);
#ifdef FIXED
    irp->Tail.Overlay.DriverContext[0] = node;
#endif
    KeAcquireSpinLock(&d->lock, &irql);
    if (d->closed) {
        status = STATUS_NO_SUCH_DEVICE;
    } else if (FileHasLeft(node->file)) {
        status = STATUS_FILE_CLOSED;
    } else {
        InsertTailList(&d->nodes, &node->link);
        d->waiting++;
        IoSetCancelRoutine(irp, PagerCancel);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
            RemoveEntryList(&node->link);
            d->waiting--;
            status = STATUS_CANCELLED;
        }
    }
    KeReleaseSpinLock(&d->lock, irql);
    if (status != STATUS_PENDING) {
        ExFreePoolWithTag(node, TAG_AC);
        IrpEnd(&s->guard, irp, status, 0);
        return STATUS_PENDING;
    }
#ifndef FIXED
    irp->Tail.Overlay.DriverContext[0] = node;
#endif
    return STATUS_PENDING;
}

static NTSTATUS PagerCall(STEAD *s, CALL *call, ULONG length)
{
    PAGER *d = OWN(s, PAGER);
    PIRP irp;

    if (length < sizeof(CALL))
        return STATUS_BUFFER_TOO_SMALL;
    irp = PagerPick(d, TRUE, call->channel, NULL);
    if (irp == NULL)
        return STATUS_NOT_FOUND;
    *(CALL *)irp->AssociatedIrp.SystemBuffer = *call;
    IrpEnd(&s->guard, irp, STATUS_SUCCESS, sizeof(CALL));
    return STATUS_SUCCESS;
}

static NTSTATUS PagerServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    PAGER *d = OWN(s, PAGER);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PAGER_AWAIT:
        if (in < sizeof(ULONG) || out < sizeof(CALL))
            return STATUS_BUFFER_TOO_SMALL;
        return PagerAwait(s, irp, sp);
    case IOCTL_PAGER_CALL:
        return PagerCall(s, irp->AssociatedIrp.SystemBuffer, in);
    case IOCTL_PAGER_COUNT:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&d->lock, &irql);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = d->waiting;
        KeReleaseSpinLock(&d->lock, irql);
        *info = sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS PagerSettle(STEAD *s)
{
    PAGER *d = OWN(s, PAGER);

    KeInitializeSpinLock(&d->lock);
    InitializeListHead(&d->nodes);
    return STATUS_SUCCESS;
}

static VOID PagerForsake(STEAD *s)
{
    PAGER *d = OWN(s, PAGER);
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&d->lock, &irql);
    d->closed = TRUE;
    KeReleaseSpinLock(&d->lock, irql);
    while ((irp = PagerPick(d, FALSE, 0, NULL)) != NULL)
        IrpEnd(&s->guard, irp, STATUS_NO_SUCH_DEVICE, 0);
}

static VOID PagerLeave(STEAD *s, PFILE_OBJECT file)
{
    PIRP irp;

    while ((irp = PagerPick(OWN(s, PAGER), FALSE, 0, file)) != NULL)
        IrpEnd(&s->guard, irp, STATUS_CANCELLED, 0);
}

static const CRAFT PagerCraft = {
    .own = sizeof(PAGER),
    .flags = DO_BUFFERED_IO,
    .face = &PagerFace,
    .settle = PagerSettle,
    .forsake = PagerForsake,
    .leave = PagerLeave,
    .serve = PagerServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &PagerCraft);
}
