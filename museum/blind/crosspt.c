/*
 * CROSSPT: eight mailboxes between the programs of a test bench, each a ring of bytes. Programs put bytes into one, take them out of
 * one, and have the driver move what is in one to another.
 *
 * The bug: a move takes the locks of the two mailboxes in the order in which the program names them; two programs that move between
 * the same two in opposite directions wait for each other forever.
 *
 * Device: Root\CROSSPT
 * Rule: lock-order-inversion, spin-lock-deadlock, deadlock
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/stead.h"

#define IOCTL_CROSS_PUT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9C1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CROSS_TAKE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9C2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CROSS_MOVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9C3, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CROSS_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9C4, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID CrossFace = { 0x5b1d3c18, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x09 } };

#define BOXES 8
#define BOX_BYTES 512

typedef struct MOVE {
    ULONG from;
    ULONG to;
    ULONG most;
} MOVE;

typedef struct BOX {
    KSPIN_LOCK lock;
    ULONG first;
    ULONG used;
    UCHAR bytes[BOX_BYTES];
} BOX;

typedef struct CROSS {
    BOX box[BOXES];
} CROSS;

/* The locks of the boxes are held in these two. */
static VOID BoxIn(BOX *box, const UCHAR *from, ULONG count)
{
    ULONG i, at = (box->first + box->used) % BOX_BYTES;

    for (i = 0; i < count; i++) {
        box->bytes[at] = from[i];
        at = (at + 1) % BOX_BYTES;
    }
    box->used += count;
}

static VOID BoxOut(BOX *box, PUCHAR to, ULONG count)
{
    ULONG i;

    for (i = 0; i < count; i++) {
        to[i] = box->bytes[box->first];
        box->first = (box->first + 1) % BOX_BYTES;
    }
    box->used -= count;
}

static NTSTATUS CrossPut(CROSS *d, const ULONG *in, ULONG length, ULONG_PTR *info)
{
    ULONG count, room;
    KIRQL irql;
    BOX *box;

    if (length < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    if (*in >= BOXES)
        return STATUS_INVALID_PARAMETER;
    box = &d->box[*in];
    count = length - sizeof(ULONG);
    KeAcquireSpinLock(&box->lock, &irql);
    room = BOX_BYTES - box->used;
    if (count <= room)
        BoxIn(box, (const UCHAR *)(in + 1), count);
    KeReleaseSpinLock(&box->lock, irql);
    *info = 0;
    return count <= room ? STATUS_SUCCESS : STATUS_DEVICE_BUSY;
}

static NTSTATUS CrossTake(CROSS *d, PVOID buffer, ULONG in, ULONG out, ULONG_PTR *info)
{
    ULONG count;
    KIRQL irql;
    BOX *box;

    if (in < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    if (*(PULONG)buffer >= BOXES)
        return STATUS_INVALID_PARAMETER;
    box = &d->box[*(PULONG)buffer];
    KeAcquireSpinLock(&box->lock, &irql);
    count = box->used < out ? box->used : out;
    BoxOut(box, buffer, count);
    KeReleaseSpinLock(&box->lock, irql);
    *info = count;
    return STATUS_SUCCESS;
}

static NTSTATUS CrossMove(CROSS *d, PVOID buffer, ULONG in, ULONG out, ULONG_PTR *info)
{
    BOX *from, *to, *one, *two;
    ULONG count, part, moved = 0;
    UCHAR piece[64];
    KIRQL irql;
    MOVE move;

    if (in < sizeof(MOVE) || out < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    move = *(MOVE *)buffer;
    if (move.from >= BOXES || move.to >= BOXES || move.from == move.to)
        return STATUS_INVALID_PARAMETER;
    from = &d->box[move.from];
    to = &d->box[move.to];
#ifndef FIXED
    one = from;
    two = to;
#else
    one = move.from < move.to ? from : to;
    two = move.from < move.to ? to : from;
#endif
    KeAcquireSpinLock(&one->lock, &irql);
    KeAcquireSpinLockAtDpcLevel(&two->lock);
    count = from->used;
    if (count > move.most)
        count = move.most;
    if (count > BOX_BYTES - to->used)
        count = BOX_BYTES - to->used;
    while (moved < count) {
        part = count - moved < sizeof(piece) ? count - moved : sizeof(piece);
        BoxOut(from, piece, part);
        BoxIn(to, piece, part);
        moved += part;
    }
    KeReleaseSpinLockFromDpcLevel(&two->lock);
    KeReleaseSpinLock(&one->lock, irql);
    *(PULONG)buffer = moved;
    *info = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS CrossLevel(CROSS *d, PULONG out, ULONG length, ULONG_PTR *info)
{
    KIRQL irql;
    ULONG i;

    if (length < BOXES * sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    for (i = 0; i < BOXES; i++) {
        KeAcquireSpinLock(&d->box[i].lock, &irql);
        out[i] = d->box[i].used;
        KeReleaseSpinLock(&d->box[i].lock, irql);
    }
    *info = BOXES * sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS CrossSettle(STEAD *s)
{
    CROSS *d = OWN(s, CROSS);
    ULONG i;

    for (i = 0; i < BOXES; i++)
        KeInitializeSpinLock(&d->box[i].lock);
    return STATUS_SUCCESS;
}

static NTSTATUS CrossServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    CROSS *d = OWN(s, CROSS);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CROSS_PUT:
        return CrossPut(d, buffer, in, info);
    case IOCTL_CROSS_TAKE:
        return CrossTake(d, buffer, in, out, info);
    case IOCTL_CROSS_MOVE:
        return CrossMove(d, buffer, in, out, info);
    case IOCTL_CROSS_LEVEL:
        return CrossLevel(d, buffer, out, info);
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT CrossCraft = {
    .own = sizeof(CROSS),
    .flags = DO_BUFFERED_IO,
    .face = &CrossFace,
    .settle = CrossSettle,
    .serve = CrossServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &CrossCraft);
}
