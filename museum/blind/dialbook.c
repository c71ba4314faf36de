/*
 * dialbook: the directory of a telephone system, shared by its programs: names by number. Programs
 * add entries, drop them, look numbers up and walk through the list; each entry counts how often
 * it was looked up.
 *
 * The bug: a look-up finds the entry with the lock held, but releases it before the entry is copied
 * and its count raised; it may have been dropped, and freed, in between.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, data-race
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#define FR_LEGACY
#include "../include/entered_gate.h"

#define BOOK_NAME L"\\Device\\DialBook"
#define BOOK_LINK L"\\DosDevices\\DialBook"

#define IOCTL_BOOK_ADD    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BOOK_DROP   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BOOK_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BOOK_NEXT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x883, METHOD_BUFFERED, FILE_READ_ACCESS)

#define BOOK_NAME_CHARS  32
#define BOOK_MAX_ENTRIES 512
#define BOOK_TAG         'kbDK'

typedef struct _BOOK_ITEM { /* what programs pass and get */
    ULONG64 Number;
    ULONG LookUps;
    ULONG Reserved;
    CHAR Name[BOOK_NAME_CHARS];
} BOOK_ITEM;

typedef struct _ENTRY {
    LIST_ENTRY Link; /* by number, ascending */
    BOOK_ITEM Item;
} ENTRY, *PENTRY;

typedef struct _BOOK_EXT {
    FAST_MUTEX Lock;
    LIST_ENTRY Entries;
    ULONG Count;
} BOOK_EXT, *PBOOK_EXT;

/* The first entry with a number not below this one; with the lock held */
static PENTRY BookFrom(PBOOK_EXT x, ULONG64 Number)
{
    PLIST_ENTRY l;
    for (l = x->Entries.Flink; l != &x->Entries; l = l->Flink) {
        PENTRY e = CONTAINING_RECORD(l, ENTRY, Link);
        if (e->Item.Number >= Number)
            return e;
    }
    return NULL;
}

static NTSTATUS BookAdd(PBOOK_EXT x, const BOOK_ITEM *Item)
{
    PENTRY fresh = ExAllocatePoolWithTag(PagedPool, sizeof(ENTRY), BOOK_TAG), at;
    NTSTATUS status = STATUS_SUCCESS;

    if (!fresh)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(fresh, sizeof(*fresh));
    fresh->Item.Number = Item->Number;
    RtlCopyMemory(fresh->Item.Name, Item->Name, BOOK_NAME_CHARS);
    fresh->Item.Name[BOOK_NAME_CHARS - 1] = 0;
    ExAcquireFastMutex(&x->Lock);
    at = BookFrom(x, Item->Number);
    if (at && at->Item.Number == Item->Number)
        status = STATUS_OBJECT_NAME_COLLISION;
    else if (x->Count >= BOOK_MAX_ENTRIES)
        status = STATUS_QUOTA_EXCEEDED;
    else {
        InsertTailList(at ? &at->Link : &x->Entries, &fresh->Link);
        x->Count++;
    }
    ExReleaseFastMutex(&x->Lock);
    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(fresh, BOOK_TAG);
    return status;
}

static NTSTATUS BookDrop(PBOOK_EXT x, ULONG64 Number)
{
    PENTRY e;

    ExAcquireFastMutex(&x->Lock);
    e = BookFrom(x, Number);
    if (e && e->Item.Number == Number) {
        RemoveEntryList(&e->Link);
        x->Count--;
    } else
        e = NULL;
    ExReleaseFastMutex(&x->Lock);
    if (!e)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(e, BOOK_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS BookLookUp(PBOOK_EXT x, ULONG64 Number, BOOK_ITEM *Out)
{
    NTSTATUS status = STATUS_NOT_FOUND;
    PENTRY e;

    ExAcquireFastMutex(&x->Lock);
    e = BookFrom(x, Number);
#ifndef FIXED
    ExReleaseFastMutex(&x->Lock);
#endif
    if (e && e->Item.Number == Number) {
        e->Item.LookUps++;
        *Out = e->Item;
        status = STATUS_SUCCESS;
    }
#ifdef FIXED
    ExReleaseFastMutex(&x->Lock);
#endif
    return status;
}

static NTSTATUS BookNext(PBOOK_EXT x, ULONG64 Number, BOOK_ITEM *Out)
{
    NTSTATUS status = STATUS_NO_MORE_ENTRIES;
    PENTRY e;

    ExAcquireFastMutex(&x->Lock);
    e = BookFrom(x, Number);
    if (e) {
        *Out = e->Item;
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&x->Lock);
    return status;
}

static NTSTATUS NTAPI BookControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBOOK_EXT x = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = s->Parameters.DeviceIoControl.IoControlCode;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG64 number;
    NTSTATUS status;

    switch (code) {
    case IOCTL_BOOK_ADD:
        if (inLength < sizeof(BOOK_ITEM))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return FrComplete(Irp, BookAdd(x, buffer), 0);
    case IOCTL_BOOK_DROP:
        if (inLength < sizeof(ULONG64))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return FrComplete(Irp, BookDrop(x, *(ULONG64 *)buffer), 0);
    case IOCTL_BOOK_LOOKUP:
    case IOCTL_BOOK_NEXT:
        if (inLength < sizeof(ULONG64) || outLength < sizeof(BOOK_ITEM))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        number = *(ULONG64 *)buffer;
        status = code == IOCTL_BOOK_LOOKUP ? BookLookUp(x, number, buffer) : BookNext(x, number, buffer);
        return FrComplete(Irp, status, NT_SUCCESS(status) ? sizeof(BOOK_ITEM) : 0);
    default:
        return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI BookCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    FR_UNUSED(Device);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI BookUnload(PDRIVER_OBJECT Driver)
{
    PBOOK_EXT x = Driver->DeviceObject->DeviceExtension;

    while (!IsListEmpty(&x->Entries)) {
        PENTRY e = CONTAINING_RECORD(RemoveHeadList(&x->Entries), ENTRY, Link);
        ExFreePoolWithTag(e, BOOK_TAG);
    }
    FrLegacyDelete(Driver->DeviceObject, BOOK_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PBOOK_EXT x;
    NTSTATUS status;

    FR_UNUSED(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = BookCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BookCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BookControl;
    Driver->DriverUnload = BookUnload;
    status = FrLegacyCreate(Driver, BOOK_NAME, BOOK_LINK, sizeof(BOOK_EXT), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    x = device->DeviceExtension;
    ExInitializeFastMutex(&x->Lock);
    InitializeListHead(&x->Entries);
    return STATUS_SUCCESS;
}
