/*
 * stanza: the phrase book of a passenger information system. Programs store phrases under numbers
 * and ask for announcements, which the driver composes of phrases in the order that is asked for.
 *
 * The bug: the length of an announcement is added up under the lock, its memory is allocated without it, and the phrases
 * are copied under the lock again without a look at how long they are by then: a phrase that was replaced by a longer one
 * in between is written beyond the block.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl, schedule
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_STANZA_SET        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STANZA_FORGET     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STANZA_COMPOSE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STANZA_COUNT      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PHRASES     16
#define LONGEST     512
#define PARTS       64

#define NAME L"\\Device\\Stanza"
#define LINK L"\\DosDevices\\Stanza"

typedef struct PHRASE {
    ULONG length;
    UCHAR text[1];
} PHRASE;

typedef struct BOOK {
    KSPIN_LOCK lock;
    PHRASE *phrase[PHRASES];
    ULONG composed;
} BOOK;

typedef struct STANZA_SET {
    ULONG number;
    UCHAR text[1];
} STANZA_SET;

typedef struct STANZA_COUNT {
    ULONG phrases;
    ULONG bytes;
    ULONG composed;
} STANZA_COUNT;

static PDEVICE_OBJECT Door;

static void Swap(BOOK *book, ULONG number, PHRASE *fresh)
{
    KIRQL irql;
    PHRASE *old;
    KeAcquireSpinLock(&book->lock, &irql);
    old = book->phrase[number];
    book->phrase[number] = fresh;
    KeReleaseSpinLock(&book->lock, irql);
    if (old)
        ExFreePoolWithTag(old, FR_TAG);
}

static NTSTATUS Set(BOOK *book, STANZA_SET *set, ULONG size)
{
    PHRASE *fresh;
    ULONG length;
    if (size <= FIELD_OFFSET(STANZA_SET, text))
        return STATUS_BUFFER_TOO_SMALL;
    length = size - FIELD_OFFSET(STANZA_SET, text);
    if (set->number >= PHRASES || length > LONGEST)
        return STATUS_INVALID_PARAMETER;
    fresh = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(PHRASE, text) + length, FR_TAG);
    if (!fresh)
        return STATUS_INSUFFICIENT_RESOURCES;
    fresh->length = length;
    RtlCopyMemory(fresh->text, set->text, length);
    Swap(book, set->number, fresh);
    return STATUS_SUCCESS;
}

/* How long the announcement is; called with the lock held. */
static NTSTATUS Measure(BOOK *book, const UCHAR *part, ULONG parts, ULONG *total)
{
    ULONG i;
    *total = 0;
    for (i = 0; i < parts; i++) {
        if (part[i] >= PHRASES)
            return STATUS_INVALID_PARAMETER;
        if (!book->phrase[part[i]])
            return STATUS_NOT_FOUND;
        *total += book->phrase[part[i]]->length;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Compose(BOOK *book, PVOID buffer, ULONG parts, ULONG room, PULONG_PTR info)
{
    UCHAR part[PARTS];
    PUCHAR out = NULL;
    ULONG total, again, used, i;
    NTSTATUS status;
    KIRQL irql;

    if (parts < 1 || parts > PARTS)
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(part, buffer, parts);

    for (;;) {
        KeAcquireSpinLock(&book->lock, &irql);
        status = Measure(book, part, parts, &total);
        KeReleaseSpinLock(&book->lock, irql);
        if (!NT_SUCCESS(status))
            return status;
        if (total > room)
            return STATUS_BUFFER_TOO_SMALL;

        /* What comes out replaces what came in, in the same buffer: it is put together elsewhere. */
        out = ExAllocatePoolWithTag(NonPagedPoolNx, total, FR_TAG);
        if (!out)
            return STATUS_INSUFFICIENT_RESOURCES;

        KeAcquireSpinLock(&book->lock, &irql);
        status = Measure(book, part, parts, &again);
        if (!NT_SUCCESS(status)) {
            KeReleaseSpinLock(&book->lock, irql);
            ExFreePoolWithTag(out, FR_TAG);
            return status;
        }
#ifdef FIXED
        if (again > total) {
            KeReleaseSpinLock(&book->lock, irql);
            ExFreePoolWithTag(out, FR_TAG);
            continue;
        }
#endif
        used = 0;
        for (i = 0; i < parts; i++) {
            PHRASE *p = book->phrase[part[i]];
            RtlCopyMemory(out + used, p->text, p->length);
            used += p->length;
        }
        book->composed++;
        KeReleaseSpinLock(&book->lock, irql);
        break;
    }
    if (used > total)
        used = total;
    RtlCopyMemory(buffer, out, used);
    ExFreePoolWithTag(out, FR_TAG);
    *info = used;
    return STATUS_SUCCESS;
}

static NTSTATUS Count(BOOK *book, STANZA_COUNT *count, ULONG room, PULONG_PTR info)
{
    KIRQL irql;
    ULONG i;
    if (room < sizeof *count)
        return STATUS_BUFFER_TOO_SMALL;
    RtlZeroMemory(count, sizeof *count);
    KeAcquireSpinLock(&book->lock, &irql);
    for (i = 0; i < PHRASES; i++)
        if (book->phrase[i]) {
            count->phrases++;
            count->bytes += book->phrase[i]->length;
        }
    count->composed = book->composed;
    KeReleaseSpinLock(&book->lock, irql);
    *info = sizeof *count;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    BOOK *book = self->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    ULONG in = at->Parameters.DeviceIoControl.InputBufferLength;
    ULONG room = at->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status;

    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STANZA_SET:
        status = Set(book, buffer, in);
        break;
    case IOCTL_STANZA_FORGET:
        if (in < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (*(PULONG)buffer >= PHRASES)
            status = STATUS_INVALID_PARAMETER;
        else {
            Swap(book, *(PULONG)buffer, NULL);
            status = STATUS_SUCCESS;
        }
        break;
    case IOCTL_STANZA_COMPOSE:
        status = Compose(book, buffer, in, room, &info);
        break;
    case IOCTL_STANZA_COUNT:
        status = Count(book, buffer, room, &info);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrFinish(NULL, irp, status, info);
    return status;
}

static NTSTATUS NTAPI File(PDEVICE_OBJECT self, PIRP irp)
{
    UNREFERENCED_PARAMETER(self);
    FrFinish(NULL, irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    BOOK *book = Door->DeviceExtension;
    ULONG i;
    UNREFERENCED_PARAMETER(driver);
    for (i = 0; i < PHRASES; i++)
        Swap(book, i, NULL);
    FrDoorGone(Door, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS status;
    UNREFERENCED_PARAMETER(path);
    status = FrDoor(driver, NAME, LINK, sizeof(BOOK), &Door);
    if (!NT_SUCCESS(status))
        return status;
    KeInitializeSpinLock(&((BOOK *)Door->DeviceExtension)->lock);
    driver->MajorFunction[IRP_MJ_CREATE] = File;
    driver->MajorFunction[IRP_MJ_CLOSE] = File;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
