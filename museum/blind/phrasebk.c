/*
 * phrasebk: a phrase book in the kernel: puts a phrase and its translation, finds the translation of a phrase,
 * forgets one. Kept in a hash of lists under an ERESOURCE.
 *
 * The bug: the two lengths in a request's header are checked against the whole input buffer, not against what follows
 * the header.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_PHRASE_PUT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PHRASE_FIND   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PHRASE_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define PB_TAG     'rhPB'
#define PB_BUCKETS 64
#define PB_MOST    4096
#define PB_LONGEST 1024         /* of a request */

typedef struct _PB_REQUEST {
    USHORT PhraseLength;
    USHORT MeaningLength;       /* 0 unless put */
    UCHAR Data[];               /* the phrase, then the meaning */
} PB_REQUEST;

typedef struct _PB_ENTRY {
    LIST_ENTRY Link;
    USHORT PhraseLength;
    USHORT MeaningLength;
    UCHAR Data[];
} PB_ENTRY;

typedef struct _PB_BOOK {
    ERESOURCE Lock;
    ULONG Count;
    LIST_ENTRY Buckets[PB_BUCKETS];
} PB_BOOK;

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\PhraseBk");

static PLIST_ENTRY Bucket(PB_BOOK *Book, const UCHAR *Phrase, ULONG Length)
{
    ULONG hash = 5381;

    while (Length--)
        hash = hash * 33 + *Phrase++;
    return &Book->Buckets[hash % PB_BUCKETS];
}

/* With the lock held. */
static PB_ENTRY *Find(PB_BOOK *Book, const PB_REQUEST *Request)
{
    PLIST_ENTRY head = Bucket(Book, Request->Data, Request->PhraseLength), e;

    for (e = head->Flink; e != head; e = e->Flink) {
        PB_ENTRY *entry = CONTAINING_RECORD(e, PB_ENTRY, Link);

        if (entry->PhraseLength == Request->PhraseLength &&
            RtlCompareMemory(entry->Data, Request->Data, entry->PhraseLength) == entry->PhraseLength)
            return entry;
    }
    return NULL;
}

static VOID Lock(PB_BOOK *Book, BOOLEAN Exclusive)
{
    KeEnterCriticalRegion();
    if (Exclusive)
        ExAcquireResourceExclusiveLite(&Book->Lock, TRUE);
    else
        ExAcquireResourceSharedLite(&Book->Lock, TRUE);
}

static VOID Unlock(PB_BOOK *Book)
{
    ExReleaseResourceLite(&Book->Lock);
    KeLeaveCriticalRegion();
}

static NTSTATUS Put(PB_BOOK *Book, const PB_REQUEST *Request)
{
    ULONG length = (ULONG)Request->PhraseLength + Request->MeaningLength;
    NTSTATUS status = STATUS_SUCCESS;
    PB_ENTRY *entry, *old;

    entry = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(PB_ENTRY, Data) + length, PB_TAG);
    if (!entry)
        return STATUS_INSUFFICIENT_RESOURCES;
    entry->PhraseLength = Request->PhraseLength;
    entry->MeaningLength = Request->MeaningLength;
    RtlCopyMemory(entry->Data, Request->Data, length);
    Lock(Book, TRUE);
    old = Find(Book, Request);
    if (old) {
        RemoveEntryList(&old->Link);
        InsertHeadList(Bucket(Book, entry->Data, entry->PhraseLength), &entry->Link);
    } else if (Book->Count < PB_MOST) {
        Book->Count++;
        InsertHeadList(Bucket(Book, entry->Data, entry->PhraseLength), &entry->Link);
    } else {
        old = entry;
        status = STATUS_QUOTA_EXCEEDED;
    }
    Unlock(Book);
    if (old)
        ExFreePoolWithTag(old, PB_TAG);
    return status;
}

static NTSTATUS Translate(PB_BOOK *Book, PB_REQUEST *Request, ULONG Out, PULONG_PTR Info)
{
    NTSTATUS status = STATUS_NOT_FOUND;
    PB_ENTRY *entry;

    Lock(Book, FALSE);
    entry = Find(Book, Request);
    if (entry) {
        status = STATUS_BUFFER_TOO_SMALL;
        if (Out >= entry->MeaningLength) {
            RtlCopyMemory(Request, entry->Data + entry->PhraseLength, entry->MeaningLength);
            *Info = entry->MeaningLength;
            status = STATUS_SUCCESS;
        }
    }
    Unlock(Book);
    return status;
}

static NTSTATUS Forget(PB_BOOK *Book, const PB_REQUEST *Request)
{
    PB_ENTRY *entry;

    Lock(Book, TRUE);
    entry = Find(Book, Request);
    if (entry) {
        RemoveEntryList(&entry->Link);
        Book->Count--;
    }
    Unlock(Book);
    if (!entry)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(entry, PB_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI PhraseControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG code = stack->Parameters.DeviceIoControl.IoControlCode;
    PB_REQUEST *request = Irp->AssociatedIrp.SystemBuffer;
    PB_BOOK *book = Device->DeviceExtension;
    NTSTATUS status = STATUS_INVALID_PARAMETER;
    ULONG_PTR info = 0;

    if (code != IOCTL_PHRASE_PUT && code != IOCTL_PHRASE_FIND && code != IOCTL_PHRASE_FORGET) {
        status = STATUS_INVALID_DEVICE_REQUEST;
        goto done;
    }
    if (in < FIELD_OFFSET(PB_REQUEST, Data) || in > PB_LONGEST || request->PhraseLength == 0)
        goto done;
#ifdef FIXED
    if ((ULONG)request->PhraseLength + request->MeaningLength > in - FIELD_OFFSET(PB_REQUEST, Data))
#else
    if ((ULONG)request->PhraseLength + request->MeaningLength > in)
#endif
        goto done;
    if (code == IOCTL_PHRASE_PUT)
        status = Put(book, request);
    else if (code == IOCTL_PHRASE_FIND)
        status = Translate(book, request, stack->Parameters.DeviceIoControl.OutputBufferLength, &info);
    else
        status = Forget(book, request);
done:
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI PhraseOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI PhraseUnload(PDRIVER_OBJECT Driver)
{
    PB_BOOK *book = Driver->DeviceObject->DeviceExtension;
    ULONG i;

    IoDeleteSymbolicLink(&LinkName);
    for (i = 0; i < PB_BUCKETS; i++) {
        while (!IsListEmpty(&book->Buckets[i]))
            ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&book->Buckets[i]), PB_ENTRY, Link), PB_TAG);
    }
    ExDeleteResourceLite(&book->Lock);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\PhraseBk");
    PDEVICE_OBJECT device;
    PB_BOOK *book;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = PhraseOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = PhraseOpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PhraseControl;
    Driver->DriverUnload = PhraseUnload;
    status = IoCreateDevice(Driver, sizeof(PB_BOOK), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    book = device->DeviceExtension;
    book->Count = 0;
    for (i = 0; i < PB_BUCKETS; i++)
        InitializeListHead(&book->Buckets[i]);
    status = ExInitializeResourceLite(&book->Lock);
    if (NT_SUCCESS(status)) {
        status = IoCreateSymbolicLink(&LinkName, &name);
        if (!NT_SUCCESS(status))
            ExDeleteResourceLite(&book->Lock);
    }
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
