/*
 * jackdaw: keeps an inventory of the assets that agents of a machine report: an agent adds a record with a name and a number, takes
 * it away again, and the console asks for the list, as many records as its buffer takes, and how many bytes all of it would be.
 *
 * The bug: when the list does not fit, the driver answers STATUS_BUFFER_OVERFLOW with the number of bytes that would be needed in
 * Information, and the I/O manager copies that many bytes out of a system buffer that is shorter.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#define SITE_CONTROL
#include "../include/site_frame.h"

#define JACKDAW_TAG 'dkcJ'

#define IOCTL_JACKDAW_ADD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_JACKDAW_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x962, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_JACKDAW_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x963, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_RECORDS 64u

typedef struct RECORD {
    ULONG Number;
    CHAR Name[28];
} RECORD;

typedef struct LISTING {
    ULONG Needed;           /* bytes of the whole list, with these two words */
    ULONG Count;            /* records that follow */
    RECORD Records[1];
} LISTING;

typedef struct JACKDAW {
    SITE Site;
    FAST_MUTEX Mutex;       /* guards what is below */
    RECORD *Records;
    ULONG Count;
} JACKDAW;

static const RECORD First[] = {
    { 1, "chassis" }, { 2, "power supply" }, { 3, "fan tray" },
};

/* With the mutex. */
static NTSTATUS JackdawAdd(JACKDAW *jackdaw, const RECORD *record)
{
    ULONG i;

    for (i = 0; i < jackdaw->Count; ++i)
        if (jackdaw->Records[i].Number == record->Number)
            return STATUS_OBJECT_NAME_COLLISION;
    if (jackdaw->Count == MOST_RECORDS)
        return STATUS_QUOTA_EXCEEDED;
    jackdaw->Records[jackdaw->Count] = *record;
    jackdaw->Records[jackdaw->Count].Name[sizeof record->Name - 1] = 0;
    jackdaw->Count += 1;
    return STATUS_SUCCESS;
}

/* With the mutex. */
static NTSTATUS JackdawDrop(JACKDAW *jackdaw, ULONG number)
{
    ULONG i;

    for (i = 0; i < jackdaw->Count; ++i) {
        if (jackdaw->Records[i].Number == number) {
            jackdaw->Count -= 1;
            jackdaw->Records[i] = jackdaw->Records[jackdaw->Count];
            return STATUS_SUCCESS;
        }
    }
    return STATUS_NOT_FOUND;
}

/* With the mutex. */
static NTSTATUS JackdawList(JACKDAW *jackdaw, LISTING *listing, ULONG room, PULONG information)
{
    ULONG head = FIELD_OFFSET(LISTING, Records);
    ULONG needed = head + jackdaw->Count * sizeof(RECORD);
    ULONG fit;

    if (room < head)
        return STATUS_BUFFER_TOO_SMALL;
    fit = (room - head) / sizeof(RECORD);
    if (fit > jackdaw->Count)
        fit = jackdaw->Count;
    listing->Needed = needed;
    listing->Count = fit;
    if (fit != 0)
        RtlCopyMemory(listing->Records, jackdaw->Records, fit * sizeof(RECORD));
    if (fit < jackdaw->Count) {
#ifndef FIXED
        *information = needed;
#else
        *information = head + fit * sizeof(RECORD);
#endif
        return STATUS_BUFFER_OVERFLOW;
    }
    *information = needed;
    return STATUS_SUCCESS;
}

static NTSTATUS JackdawServe(SITE *site, ASK *ask)
{
    JACKDAW *jackdaw = (JACKDAW *)site;
    NTSTATUS status;
    ULONG information = 0;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    ExAcquireFastMutex(&jackdaw->Mutex);
    switch (ask->Code) {
    case IOCTL_JACKDAW_ADD:
        status = ask->In < sizeof(RECORD) ? STATUS_BUFFER_TOO_SMALL : JackdawAdd(jackdaw, ask->Buffer);
        break;
    case IOCTL_JACKDAW_DROP:
        status = ask->In < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : JackdawDrop(jackdaw, *(PULONG)ask->Buffer);
        break;
    case IOCTL_JACKDAW_LIST:
        status = JackdawList(jackdaw, ask->Buffer, ask->Out, &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&jackdaw->Mutex);
    return Finish(site, ask->Irp, status, information);
}

static NTSTATUS JackdawBorn(SITE *site)
{
    JACKDAW *jackdaw = (JACKDAW *)site;

    ExInitializeFastMutex(&jackdaw->Mutex);
    jackdaw->Records = ExAllocatePoolWithTag(PagedPool, MOST_RECORDS * sizeof(RECORD), JACKDAW_TAG);
    if (jackdaw->Records == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(jackdaw->Records, First, sizeof First);
    jackdaw->Count = sizeof First / sizeof First[0];
    return STATUS_SUCCESS;
}

static VOID JackdawBuried(SITE *site)
{
    ExFreePoolWithTag(((JACKDAW *)site)->Records, JACKDAW_TAG);
}

static const SCRIPT Script = {
    .Size = sizeof(JACKDAW),
    .Device = L"\\Device\\Jackdaw",
    .Link = L"\\DosDevices\\Jackdaw",
    .Born = JackdawBorn,
    .Buried = JackdawBuried,
    .Serve = JackdawServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return ControlEntry(driver, &Script);
}
