/*
 * dowel: a store of up to 1024 records of 32 bytes, found by their key. Beside the records stands an index, sorted by
 * key; both grow together, from room for 16 on, doubling. ADD puts a record in (or over the one with its key), FIND
 * gives one back, DUMP all of them in the order of their keys, CLEAR forgets them all.
 *
 * The bug: growing notes the new size as soon as the records have moved; when the memory for the larger index is then
 * refused, the ADD fails rightly, but later ones write past the end of the old index.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl, failure
 */
#include "../include/keel_base.h"

#define LINK   L"\\DosDevices\\AjDowel"
#define FIRST  16
#define MOST   1024

#define IOCTL_ADD   AJ_IOCTL(0, METHOD_BUFFERED)
#define IOCTL_FIND  AJ_IOCTL(1, METHOD_BUFFERED)    /* in: key; out: the record */
#define IOCTL_DUMP  AJ_IOCTL(2, METHOD_OUT_DIRECT)
#define IOCTL_CLEAR AJ_IOCTL(3, METHOD_BUFFERED)

typedef struct REC {
    ULONG key;
    UCHAR data[28];
} REC;

typedef struct STORE {
    FAST_MUTEX lock;
    ULONG count, cap;
    REC *rec;               /* in the order of their coming */
    USHORT *idx;            /* their numbers in the order of the keys */
} STORE;

static PDEVICE_OBJECT g_dev;

/* the place of a key in the index: of the first that is not smaller */
static ULONG place(STORE *s, ULONG key)
{
    ULONG lo = 0, hi = s->count;

    while (lo < hi) {
        ULONG mid = (lo + hi) / 2;

        if (s->rec[s->idx[mid]].key < key)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static NTSTATUS grow(STORE *s)
{
    ULONG want = s->cap * 2, had = s->count;
    REC *rec;
    USHORT *idx;

    if (want > MOST)
        return STATUS_QUOTA_EXCEEDED;
    rec = aj_alloc(want * sizeof(REC));
    if (!rec)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(rec, s->rec, had * sizeof(REC));
    aj_free(s->rec);
    s->rec = rec;
#ifndef FIXED
    s->cap = want;
#endif
    idx = aj_alloc(want * sizeof(USHORT));
    if (!idx)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(idx, s->idx, had * sizeof(USHORT));
    aj_free(s->idx);
    s->idx = idx;
#ifdef FIXED
    s->cap = want;
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS add_locked(STORE *s, const REC *r)
{
    ULONG at = place(s, r->key), i;
    NTSTATUS st;

    if (at < s->count && s->rec[s->idx[at]].key == r->key) {
        s->rec[s->idx[at]] = *r;
        return STATUS_SUCCESS;
    }
    if (s->count == s->cap) {
        st = grow(s);
        if (!NT_SUCCESS(st))
            return st;
    }
    s->rec[s->count] = *r;
    for (i = s->count; i > at; i--)
        s->idx[i] = s->idx[i - 1];
    s->idx[at] = (USHORT)s->count;
    s->count++;
    return STATUS_SUCCESS;
}

static NTSTATUS dump_locked(STORE *s, PIRP irp, ULONG_PTR *info)
{
    ULONG len = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength, i;
    REC *out;

    if (len < s->count * sizeof(REC))
        return STATUS_BUFFER_TOO_SMALL;
    if (!s->count)
        return STATUS_SUCCESS;
    out = irp->MdlAddress ? MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority) : NULL;
    if (!out)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < s->count; i++)
        RtlCopyMemory(out + i, &s->rec[s->idx[i]], sizeof(REC));
    *info = s->count * sizeof(REC);
    return STATUS_SUCCESS;
}

static NTSTATUS store_control(PDEVICE_OBJECT dev, PIRP irp)
{
    STORE *s = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buf = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS st;
    ULONG at;

    ExAcquireFastMutex(&s->lock);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ADD:
        st = in < sizeof(REC) ? STATUS_INVALID_PARAMETER : add_locked(s, buf);
        break;
    case IOCTL_FIND:
        if (in < sizeof(ULONG) || out < sizeof(REC)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        at = place(s, *(ULONG *)buf);
        if (at < s->count && s->rec[s->idx[at]].key == *(ULONG *)buf) {
            *(REC *)buf = s->rec[s->idx[at]];
            info = sizeof(REC);
            st = STATUS_SUCCESS;
        } else {
            st = STATUS_NOT_FOUND;
        }
        break;
    case IOCTL_DUMP:
        st = dump_locked(s, irp, &info);
        break;
    case IOCTL_CLEAR:
        s->count = 0;
        st = STATUS_SUCCESS;
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&s->lock);
    return aj_done(irp, st, info);
}

static NTSTATUS store_open(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static VOID store_unload(PDRIVER_OBJECT drv)
{
    STORE *s = g_dev->DeviceExtension;

    (void)drv;
    aj_free(s->rec);
    aj_free(s->idx);
    aj_uncontrol(g_dev, LINK);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    NTSTATUS st = aj_control(drv, L"\\Device\\AjDowel", LINK, sizeof(STORE), &g_dev);
    STORE *s;

    (void)reg;
    if (!NT_SUCCESS(st))
        return st;
    s = g_dev->DeviceExtension;
    ExInitializeFastMutex(&s->lock);
    s->cap = FIRST;
    s->rec = aj_alloc(FIRST * sizeof(REC));
    s->idx = aj_alloc(FIRST * sizeof(USHORT));
    if (!s->rec || !s->idx) {
        if (s->rec)
            aj_free(s->rec);
        if (s->idx)
            aj_free(s->idx);
        aj_uncontrol(g_dev, LINK);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    drv->MajorFunction[IRP_MJ_CREATE] = store_open;
    drv->MajorFunction[IRP_MJ_CLOSE] = store_open;
    drv->MajorFunction[IRP_MJ_CLEANUP] = store_open;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = store_control;
    drv->DriverUnload = store_unload;
    return STATUS_SUCCESS;
}
