/*
 * lexicon: a dictionary in the kernel that services share: a word of up to 16 bytes has a value of up to 64 KiB, which is put, got and deleted.
 *
 * The bug: a GET looks its entry up under the lock, but copies the value (which may be long) after the lock has been given back and holds no
 * reference on the entry meanwhile: a PUT or DELETE of the same word frees it under the copying.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/framed_by_calls.h"

#define IOCTL_LEX_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LEX_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_LEX_DELETE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define LINK L"\\DosDevices\\Lexicon"
#define WORD_BYTES 16
#define MAX_VALUE 65536u
#define MAX_ENTRIES 1024
#define BUCKETS 32

typedef struct _ENTRY {
    LIST_ENTRY Link;
    LONG Refs;                  /* one of the table, one of each reader */
    UCHAR Word[WORD_BYTES];
    ULONG Length;
    UCHAR Value[1];
} ENTRY;

typedef struct _DEV {
    PDEVICE_OBJECT Self;
    KSPIN_LOCK Lock;
    ULONG Count;
    LIST_ENTRY Bucket[BUCKETS];
} DEV;

static DEV *TheDev;

static VOID EntryDrop(ENTRY *e)
{
    if (InterlockedDecrement(&e->Refs) == 0)
        ExFreePoolWithTag(e, EE_TAG);
}

static PLIST_ENTRY BucketOf(DEV *d, const UCHAR *word)
{
    ULONG h = 2166136261u, i;

    for (i = 0; i < WORD_BYTES; i++)
        h = (h ^ word[i]) * 16777619u;
    return &d->Bucket[h % BUCKETS];
}

/* The lock is held. */
static ENTRY *Find(DEV *d, const UCHAR *word)
{
    PLIST_ENTRY head = BucketOf(d, word), l;

    for (l = head->Flink; l != head; l = l->Flink) {
        ENTRY *e = CONTAINING_RECORD(l, ENTRY, Link);

        if (RtlCompareMemory(e->Word, word, WORD_BYTES) == WORD_BYTES)
            return e;
    }
    return NULL;
}

/* The lock is held; the table's reference becomes the caller's. */
static VOID TakeOut(DEV *d, ENTRY *e)
{
    RemoveEntryList(&e->Link);
    d->Count--;
}

static NTSTATUS Put(DEV *d, PIRP irp, ULONG in)
{
    PUCHAR buf = irp->AssociatedIrp.SystemBuffer;
    ENTRY *e, *old;
    KIRQL irql;
    NTSTATUS st = STATUS_SUCCESS;

    if (in < WORD_BYTES || in - WORD_BYTES > MAX_VALUE)
        return EeDone(irp, STATUS_INVALID_PARAMETER, 0);
    e = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(ENTRY, Value) + (in - WORD_BYTES) + 1, EE_TAG);
    if (!e)
        return EeDone(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    e->Refs = 1;
    e->Length = in - WORD_BYTES;
    RtlCopyMemory(e->Word, buf, WORD_BYTES);
    RtlCopyMemory(e->Value, buf + WORD_BYTES, e->Length);

    KeAcquireSpinLock(&d->Lock, &irql);
    old = Find(d, e->Word);
    if (!old && d->Count >= MAX_ENTRIES) {
        st = STATUS_QUOTA_EXCEEDED;
    } else {
        if (old)
            TakeOut(d, old);
        InsertHeadList(BucketOf(d, e->Word), &e->Link);
        d->Count++;
    }
    KeReleaseSpinLock(&d->Lock, irql);
    if (old)
        EntryDrop(old);
    if (!NT_SUCCESS(st))
        EntryDrop(e);
    return EeDone(irp, st, 0);
}

static NTSTATUS Get(DEV *d, PIRP irp, ULONG in, ULONG out)
{
    PUCHAR buf = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    ENTRY *e;
    KIRQL irql;

    if (in < WORD_BYTES)
        return EeDone(irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&d->Lock, &irql);
    e = Find(d, buf);
#ifdef FIXED
    if (e)
        InterlockedIncrement(&e->Refs);
#endif
    KeReleaseSpinLock(&d->Lock, irql);
    if (!e)
        return EeDone(irp, STATUS_NOT_FOUND, 0);
    if (out < e->Length) {
        st = STATUS_BUFFER_TOO_SMALL;
    } else {
        RtlCopyMemory(buf, e->Value, e->Length);
        info = e->Length;
    }
#ifdef FIXED
    EntryDrop(e);
#endif
    return EeDone(irp, st, info);
}

static NTSTATUS Delete(DEV *d, PIRP irp, ULONG in)
{
    ENTRY *e;
    KIRQL irql;

    if (in < WORD_BYTES)
        return EeDone(irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&d->Lock, &irql);
    e = Find(d, irp->AssociatedIrp.SystemBuffer);
    if (e)
        TakeOut(d, e);
    KeReleaseSpinLock(&d->Lock, irql);
    if (!e)
        return EeDone(irp, STATUS_NOT_FOUND, 0);
    EntryDrop(e);
    return EeDone(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    DEV *d = dev->DeviceExtension;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LEX_PUT:
        return Put(d, irp, in);
    case IOCTL_LEX_GET:
        return Get(d, irp, in, out);
    case IOCTL_LEX_DELETE:
        return Delete(d, irp, in);
    default:
        return EeDone(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv)
{
    DEV *d = TheDev;
    ULONG i;

    UNREFERENCED_PARAMETER(drv);
    for (i = 0; i < BUCKETS; i++) {
        while (!IsListEmpty(&d->Bucket[i]))
            EntryDrop(CONTAINING_RECORD(RemoveHeadList(&d->Bucket[i]), ENTRY, Link));
    }
    EeControlGone(d->Self, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    NTSTATUS st;
    ULONG i;

    UNREFERENCED_PARAMETER(path);
    st = EeControl(drv, L"\\Device\\Lexicon", LINK, sizeof(DEV), 0, &dev);
    if (!NT_SUCCESS(st))
        return st;
    TheDev = dev->DeviceExtension;
    TheDev->Self = dev;
    TheDev->Count = 0;
    KeInitializeSpinLock(&TheDev->Lock);
    for (i = 0; i < BUCKETS; i++)
        InitializeListHead(&TheDev->Bucket[i]);
    drv->DriverUnload = Unload;
    drv->MajorFunction[IRP_MJ_CREATE] = EeOk;
    drv->MajorFunction[IRP_MJ_CLOSE] = EeOk;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
