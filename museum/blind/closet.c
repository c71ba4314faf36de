/*
 * closet: a root-enumerated key/value store. Programs put small blobs under a number, read them back and list the numbers; many
 * readers work at the same time, writers one at a time.
 *
 * The bug: the reader/writer lock (an ERESOURCE in the device extension) is never taken out of the system's resource list when the
 * device goes: the list then runs through freed pool.
 *
 * Device: ROOT\CLOSET
 * Rule: freed-while-in-use
 * Needs: nothing
 */
#include <ddk/wdm.h>

static const GUID ClosetGuid = { 0x5d0a2c11, 0x7e43, 0x4b0e, { 0x9a, 0x61, 0x10, 0x42, 0x77, 0x3c, 0xd5, 0x01 } };

#define GG_GUID ClosetGuid
#define GG_IO DO_BUFFERED_IO
#define GG_SOFT
#include "../include/with_waits.h"

#define IOCTL_CLOSET_PUT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CLOSET_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CLOSET_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CLOSET_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x904, METHOD_BUFFERED, FILE_READ_ACCESS)

#define MAX_BLOB  1024
#define MAX_BLOBS 256

/* PUT's input: a number, then the blob. GET's and DROP's input: a number. LIST's output: the numbers. */
typedef struct _BLOB {
    LIST_ENTRY Entry;
    ULONG Key, Length;
    UCHAR Data[1];
} BLOB, *PBLOB;

typedef struct _CLOSET {
    GG Gg;
    ERESOURCE Guard;                        /* guards the next two */
    LIST_ENTRY Blobs;
    ULONG Count;
} CLOSET, *PCLOSET;

static ULONG HwSize(VOID)
{
    return sizeof(CLOSET);
}

static NTSTATUS HwInit(PGG g)
{
    PCLOSET c = CONTAINING_RECORD(g, CLOSET, Gg);

    InitializeListHead(&c->Blobs);
    return ExInitializeResourceLite(&c->Guard);
}

static VOID HwFree(PGG g)
{
    PCLOSET c = CONTAINING_RECORD(g, CLOSET, Gg);

    while (!IsListEmpty(&c->Blobs))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&c->Blobs), BLOB, Entry), GG_TAG);
#ifdef FIXED
    ExDeleteResourceLite(&c->Guard);
#endif
}

static VOID ClosetShared(PCLOSET c)
{
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&c->Guard, TRUE);
}

static VOID ClosetExclusive(PCLOSET c)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&c->Guard, TRUE);
}

static VOID ClosetLeave(PCLOSET c)
{
    ExReleaseResourceLite(&c->Guard);
    KeLeaveCriticalRegion();
}

static PBLOB ClosetFind(PCLOSET c, ULONG key)
{
    PLIST_ENTRY e;

    for (e = c->Blobs.Flink; e != &c->Blobs; e = e->Flink) {
        PBLOB b = CONTAINING_RECORD(e, BLOB, Entry);

        if (b->Key == key)
            return b;
    }
    return NULL;
}

static NTSTATUS ClosetPut(PCLOSET c, const UCHAR *in, ULONG length)
{
    PBLOB b, old;

    if (length < sizeof(ULONG) || length - sizeof(ULONG) > MAX_BLOB)
        return STATUS_INVALID_PARAMETER;
    length -= sizeof(ULONG);
    b = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(BLOB, Data) + MAX_BLOB, GG_TAG);
    if (b == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(&b->Key, in, sizeof(ULONG));
    b->Length = length;
    RtlCopyMemory(b->Data, in + sizeof(ULONG), length);

    ClosetExclusive(c);
    old = ClosetFind(c, b->Key);
    if (old) {
        RemoveEntryList(&old->Entry);
    } else if (c->Count >= MAX_BLOBS) {
        ClosetLeave(c);
        ExFreePoolWithTag(b, GG_TAG);
        return STATUS_QUOTA_EXCEEDED;
    } else {
        c->Count++;
    }
    InsertTailList(&c->Blobs, &b->Entry);
    ClosetLeave(c);
    if (old)
        ExFreePoolWithTag(old, GG_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS ClosetGet(PCLOSET c, PUCHAR buffer, ULONG in, ULONG out, PULONG_PTR info)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG key;
    PBLOB b;

    if (in != sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(&key, buffer, sizeof key);
    ClosetShared(c);
    b = ClosetFind(c, key);
    if (b == NULL) {
        status = STATUS_NOT_FOUND;
    } else if (b->Length > out) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        RtlCopyMemory(buffer, b->Data, b->Length);
        *info = b->Length;
    }
    ClosetLeave(c);
    return status;
}

static NTSTATUS ClosetDrop(PCLOSET c, const UCHAR *buffer, ULONG in)
{
    ULONG key;
    PBLOB b;

    if (in != sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(&key, buffer, sizeof key);
    ClosetExclusive(c);
    b = ClosetFind(c, key);
    if (b) {
        RemoveEntryList(&b->Entry);
        c->Count--;
    }
    ClosetLeave(c);
    if (b == NULL)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(b, GG_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS ClosetList(PCLOSET c, PUCHAR buffer, ULONG out, PULONG_PTR info)
{
    PLIST_ENTRY e;
    ULONG at = 0;
    NTSTATUS status = STATUS_SUCCESS;

    ClosetShared(c);
    for (e = c->Blobs.Flink; e != &c->Blobs; e = e->Flink) {
        if (out - at < sizeof(ULONG)) {
            status = STATUS_BUFFER_OVERFLOW;            /* a warning: what fits is returned */
            break;
        }
        RtlCopyMemory(buffer + at, &CONTAINING_RECORD(e, BLOB, Entry)->Key, sizeof(ULONG));
        at += sizeof(ULONG);
    }
    ClosetLeave(c);
    *info = at;
    return status;
}

static NTSTATUS HwIo(PGG g, PIRP irp, PIO_STACK_LOCATION sp)
{
    PCLOSET c = CONTAINING_RECORD(g, CLOSET, Gg);
    PUCHAR buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG in, out;
    ULONG_PTR info = 0;
    NTSTATUS status;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CLOSET_PUT:
        status = ClosetPut(c, buffer, in);
        break;
    case IOCTL_CLOSET_GET:
        status = ClosetGet(c, buffer, in, out, &info);
        break;
    case IOCTL_CLOSET_DROP:
        status = ClosetDrop(c, buffer, in);
        break;
    case IOCTL_CLOSET_LIST:
        status = ClosetList(c, buffer, out, &info);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return GgEnd(irp, status, info);
}
