/*
 * ROSTRUM: the list of speakers of a conference system. The chairman's panel and the delegates' programs share it: delegates ask for
 * the floor, the panel shows the list and calls up the next one. It is software only; the microphones are switched elsewhere.
 *
 * The bug: when the caller's buffer is too small for the whole list, what is needed is returned as the number of bytes returned, with
 * STATUS_BUFFER_OVERFLOW, which copies data out: the I/O manager copies beyond the system buffer into the program's memory.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/stead_ward.h"

#define IOCTL_ROSTRUM_ASK   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROSTRUM_LIST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROSTRUM_CALL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROSTRUM_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x904, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_SPEAKERS 256

typedef struct ASK {
    ULONG seat;
    ULONG seconds;
    WCHAR name[20];
} ASK;

typedef struct LISTING {
    ULONG waiting;              /* how many there are */
    ULONG listed;               /* how many follow */
} LISTING;

typedef struct SPEAKER {
    LIST_ENTRY link;
    ASK ask;
} SPEAKER;

static LIST_ENTRY Speakers;
static ULONG Waiting;
static FAST_MUTEX Floor;

static NTSTATUS Ask(const ASK *in, ULONG length)
{
    SPEAKER *fresh;
    PLIST_ENTRY at;
    NTSTATUS status = STATUS_SUCCESS;

    if (length < sizeof(ASK))
        return STATUS_BUFFER_TOO_SMALL;
    if (in->seconds == 0 || in->seconds > 3600)
        return STATUS_INVALID_PARAMETER;
    fresh = ExAllocatePoolWithTag(PagedPool, sizeof(SPEAKER), TAG_AC);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    fresh->ask = *in;
    fresh->ask.name[19] = 0;

    ExAcquireFastMutex(&Floor);
    if (Waiting >= MOST_SPEAKERS)
        status = STATUS_QUOTA_EXCEEDED;
    for (at = Speakers.Flink; at != &Speakers && NT_SUCCESS(status); at = at->Flink) {
        if (CONTAINING_RECORD(at, SPEAKER, link)->ask.seat == in->seat)
            status = STATUS_OBJECT_NAME_COLLISION;      /* asked already */
    }
    if (NT_SUCCESS(status)) {
        InsertTailList(&Speakers, &fresh->link);
        Waiting++;
    }
    ExReleaseFastMutex(&Floor);
    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(fresh, TAG_AC);
    return status;
}

static NTSTATUS List(LISTING *out, ULONG length, ULONG_PTR *info)
{
    ASK *next = (ASK *)(out + 1);
    PLIST_ENTRY at;
    ULONG room;
    NTSTATUS status = STATUS_SUCCESS;

    if (length < sizeof(LISTING))
        return STATUS_BUFFER_TOO_SMALL;
    room = (length - sizeof(LISTING)) / sizeof(ASK);
    ExAcquireFastMutex(&Floor);
    out->waiting = Waiting;
    out->listed = 0;
    for (at = Speakers.Flink; at != &Speakers && out->listed < room; at = at->Flink) {
        *next++ = CONTAINING_RECORD(at, SPEAKER, link)->ask;
        out->listed++;
    }
    if (out->listed < out->waiting)
        status = STATUS_BUFFER_OVERFLOW;
#ifndef FIXED
    *info = sizeof(LISTING) + out->waiting * sizeof(ASK);
#else
    *info = sizeof(LISTING) + out->listed * sizeof(ASK);
#endif
    ExReleaseFastMutex(&Floor);
    return status;
}

static NTSTATUS Call(ASK *out, ULONG length, ULONG_PTR *info)
{
    SPEAKER *first = NULL;

    if (length < sizeof(ASK))
        return STATUS_BUFFER_TOO_SMALL;
    ExAcquireFastMutex(&Floor);
    if (!IsListEmpty(&Speakers)) {
        first = CONTAINING_RECORD(RemoveHeadList(&Speakers), SPEAKER, link);
        Waiting--;
    }
    ExReleaseFastMutex(&Floor);
    if (first == NULL)
        return STATUS_NO_MORE_ENTRIES;
    *out = first->ask;
    *info = sizeof(ASK);
    ExFreePoolWithTag(first, TAG_AC);
    return STATUS_SUCCESS;
}

static VOID Clear(VOID)
{
    ExAcquireFastMutex(&Floor);
    while (!IsListEmpty(&Speakers))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Speakers), SPEAKER, link), TAG_AC);
    Waiting = 0;
    ExReleaseFastMutex(&Floor);
}

static NTSTATUS Serve(PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROSTRUM_ASK:
        return Ask(buffer, in);
    case IOCTL_ROSTRUM_LIST:
        return List(buffer, out, info);
    case IOCTL_ROSTRUM_CALL:
        return Call(buffer, out, info);
    case IOCTL_ROSTRUM_CLEAR:
        Clear();
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const WARD Rostrum = {
    .device = L"\\Device\\Rostrum",
    .link = L"\\DosDevices\\Rostrum",
    .flags = DO_BUFFERED_IO,
    .serve = Serve,
};

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    WardRaze();
    Clear();
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    InitializeListHead(&Speakers);
    ExInitializeFastMutex(&Floor);
    driver->DriverUnload = Unload;
    return WardRaise(driver, &Rostrum);
}
