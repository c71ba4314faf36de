/*
 * GLEANER: keeps named counters for applications. IOCTL_ADD adds to a counter (and makes it, up to 64), IOCTL_DROP takes one away,
 * IOCTL_LIST returns a header with the number of counters there are and as many of them as fit the buffer, with
 * STATUS_BUFFER_OVERFLOW when not all did.
 *
 * The bug: with STATUS_BUFFER_OVERFLOW Information tells the bytes that would have been needed; the I/O manager copies that many out of
 * the system buffer, past its end and past the end of the caller's buffer.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#include "../include/quay_base.h"

#define COUNTERS    64
#define NAME_LONG   24

#define IOCTL_ADD       AI_CTL(0, METHOD_BUFFERED)      /* in: SHEAF */
#define IOCTL_DROP      AI_CTL(1, METHOD_BUFFERED)      /* in: CHAR[NAME_LONG] */
#define IOCTL_LIST      AI_CTL(2, METHOD_BUFFERED)      /* out: HEADER, SHEAF[] */

typedef struct _SHEAF {
    CHAR Name[NAME_LONG];           /* zero padded */
    LONG64 Value;
} SHEAF;

typedef struct _HEADER {
    ULONG Total;                    /* counters there are */
    ULONG Given;                    /* counters that follow */
} HEADER;

typedef struct _ENTRY {
    LIST_ENTRY Link;
    SHEAF Sheaf;
} ENTRY;

typedef struct _BARN {
    KSPIN_LOCK Lock;
    LIST_ENTRY Entries;
    ULONG Count;
} BARN;

static PDEVICE_OBJECT Device;

/* Lock held */
static ENTRY *Find(BARN *b, const CHAR *name)
{
    PLIST_ENTRY l;

    for (l = b->Entries.Flink; l != &b->Entries; l = l->Flink) {
        ENTRY *e = CONTAINING_RECORD(l, ENTRY, Link);

        if (RtlCompareMemory(e->Sheaf.Name, name, NAME_LONG) == NAME_LONG)
            return e;
    }
    return NULL;
}

static NTSTATUS Add(BARN *b, SHEAF *in)
{
    ENTRY *fresh, *e;
    NTSTATUS s = STATUS_SUCCESS;
    KIRQL q;

    fresh = ExAllocatePoolWithTag(NonPagedPool, sizeof *fresh, AI_TAG);
    if (!fresh)
        return STATUS_INSUFFICIENT_RESOURCES;
    fresh->Sheaf = *in;

    KeAcquireSpinLock(&b->Lock, &q);
    e = Find(b, in->Name);
    if (e) {
        e->Sheaf.Value += in->Value;
    } else if (b->Count >= COUNTERS) {
        s = STATUS_QUOTA_EXCEEDED;
    } else {
        InsertTailList(&b->Entries, &fresh->Link);
        b->Count++;
        fresh = NULL;
    }
    KeReleaseSpinLock(&b->Lock, q);
    if (fresh)
        ExFreePoolWithTag(fresh, AI_TAG);
    return s;
}

static NTSTATUS Drop(BARN *b, const CHAR *name)
{
    ENTRY *e;
    KIRQL q;

    KeAcquireSpinLock(&b->Lock, &q);
    e = Find(b, name);
    if (e) {
        RemoveEntryList(&e->Link);
        b->Count--;
    }
    KeReleaseSpinLock(&b->Lock, q);
    if (!e)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(e, AI_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS List(BARN *b, PUCHAR out, ULONG length, PULONG_PTR info)
{
    HEADER *h = (HEADER *)out;
    SHEAF *to = (SHEAF *)(h + 1);
    ULONG room, needed;
    PLIST_ENTRY l;
    KIRQL q;

    if (length < sizeof *h)
        return STATUS_BUFFER_TOO_SMALL;
    room = (length - sizeof *h) / sizeof(SHEAF);
    h->Given = 0;
    KeAcquireSpinLock(&b->Lock, &q);
    h->Total = b->Count;
    for (l = b->Entries.Flink; l != &b->Entries && h->Given < room; l = l->Flink)
        to[h->Given++] = CONTAINING_RECORD(l, ENTRY, Link)->Sheaf;
    KeReleaseSpinLock(&b->Lock, q);

    needed = sizeof *h + h->Total * sizeof(SHEAF);
    if (h->Given < h->Total) {
#ifdef FIXED
        *info = sizeof *h + h->Given * sizeof(SHEAF);
#else
        *info = needed;
#endif
        return STATUS_BUFFER_OVERFLOW;
    }
    *info = needed;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI OpenClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    BARN *b = dev->DeviceExtension;
    ULONG_PTR info = 0;
    NTSTATUS s;

    switch (AiCode(irp)) {
    case IOCTL_ADD:
        s = AiInLen(irp) < sizeof(SHEAF) ? STATUS_INVALID_PARAMETER : Add(b, AiBuffer(irp));
        break;
    case IOCTL_DROP:
        s = AiInLen(irp) < NAME_LONG ? STATUS_INVALID_PARAMETER : Drop(b, AiBuffer(irp));
        break;
    case IOCTL_LIST:
        s = List(b, AiBuffer(irp), AiOutLen(irp), &info);
        break;
    default:
        s = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return AiDone(irp, s, info);
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv)
{
    BARN *b = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(drv);
    while (!IsListEmpty(&b->Entries))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&b->Entries), ENTRY, Link), AI_TAG);
    AiDropControl(Device, L"\\DosDevices\\Gleaner");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    BARN *b;
    NTSTATUS s;

    UNREFERENCED_PARAMETER(path);
    drv->MajorFunction[IRP_MJ_CREATE] = OpenClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = OpenClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = OpenClose;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    drv->DriverUnload = Unload;
    s = AiMakeControl(drv, sizeof(BARN), L"\\Device\\Gleaner", L"\\DosDevices\\Gleaner", &Device);
    if (!NT_SUCCESS(s))
        return s;
    b = Device->DeviceExtension;
    KeInitializeSpinLock(&b->Lock);
    InitializeListHead(&b->Entries);
    return STATUS_SUCCESS;
}
