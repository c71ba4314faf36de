/*
 * roster: the duty roster of a control room. Programs enrol and dismiss people by name, and list who is on duty; a program with a small buffer
 * gets the names that fit, and the number of all.
 *
 * The bug: when not all names fit, the request ends with STATUS_BUFFER_OVERFLOW and the length that the whole list would have in
 * IoStatus.Information, so the I/O manager copies more than the output buffer has.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/hall_desk.h"

#define PLACES 24
#define NAME_BYTES 32
#define NAME L"\\Device\\Roster"
#define LINK L"\\DosDevices\\Roster"

#define IOCTL_ROSTER_ENROL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_ROSTER_DISMISS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_ROSTER_LIST    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_DATA)

typedef struct _PERSON {
    CHAR Name[NAME_BYTES];      /* filled up with zeros, the last one always */
} PERSON;

typedef struct _LISTING {
    ULONG Total;
    ULONG Given;
    PERSON Person[ANYSIZE_ARRAY];
} LISTING;

#define LISTING_HEAD FIELD_OFFSET(LISTING, Person)

typedef struct _ROSTER {
    FAST_MUTEX Lock;
    ULONG Count;
    PERSON Person[PLACES];
} ROSTER;

static PDEVICE_OBJECT TheRoster;

static ULONG Find(ROSTER *Roster, const PERSON *Person)
{
    ULONG i;

    for (i = 0; i < Roster->Count; i++)
        if (RtlCompareMemory(&Roster->Person[i], Person, sizeof(PERSON)) == sizeof(PERSON))
            break;
    return i;
}

/* A person out of what a program has sent: without what stands behind the first zero. */
static BOOLEAN Capture(PERSON *Person, const CHAR *Data, ULONG Bytes)
{
    ULONG i;

    RtlZeroMemory(Person, sizeof(PERSON));
    for (i = 0; i < Bytes && i < NAME_BYTES - 1 && Data[i]; i++)
        Person->Name[i] = Data[i];
    return i != 0;
}

static NTSTATUS Enrol(ROSTER *Roster, const PERSON *Person)
{
    NTSTATUS Status = STATUS_SUCCESS;

    ExAcquireFastMutex(&Roster->Lock);
    if (Find(Roster, Person) < Roster->Count)
        Status = STATUS_OBJECT_NAME_COLLISION;
    else if (Roster->Count == PLACES)
        Status = STATUS_INSUFFICIENT_RESOURCES;
    else
        Roster->Person[Roster->Count++] = *Person;
    ExReleaseFastMutex(&Roster->Lock);
    return Status;
}

static NTSTATUS Dismiss(ROSTER *Roster, const PERSON *Person)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG i;

    ExAcquireFastMutex(&Roster->Lock);
    i = Find(Roster, Person);
    if (i == Roster->Count)
        Status = STATUS_NOT_FOUND;
    else
        Roster->Person[i] = Roster->Person[--Roster->Count];
    ExReleaseFastMutex(&Roster->Lock);
    return Status;
}

static NTSTATUS List(ROSTER *Roster, LISTING *Listing, ULONG Room, ULONG_PTR *Information)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Whole, Given;

    if (Room < LISTING_HEAD)
        return STATUS_BUFFER_TOO_SMALL;
    ExAcquireFastMutex(&Roster->Lock);
    Given = (Room - LISTING_HEAD) / sizeof(PERSON);
    if (Given < Roster->Count)
        Status = STATUS_BUFFER_OVERFLOW;
    else
        Given = Roster->Count;
    Listing->Total = Roster->Count;
    Listing->Given = Given;
    RtlCopyMemory(Listing->Person, Roster->Person, Given * sizeof(PERSON));
    Whole = LISTING_HEAD + Roster->Count * sizeof(PERSON);
    ExReleaseFastMutex(&Roster->Lock);
#ifndef FIXED
    *Information = Whole;
#else
    *Information = Status == STATUS_SUCCESS ? Whole : LISTING_HEAD + Given * sizeof(PERSON);
#endif
    return Status;
}

static NTSTATUS NTAPI RosterControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    ROSTER *Roster = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Data = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status;
    PERSON Person;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROSTER_ENROL:
        Status = Capture(&Person, Data, In) ? Enrol(Roster, &Person) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_ROSTER_DISMISS:
        Status = Capture(&Person, Data, In) ? Dismiss(Roster, &Person) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_ROSTER_LIST:
        Status = List(Roster, Data, Out, &Information);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(NULL, Irp, Status, Information);
}

static VOID NTAPI RosterUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DeskDrop(TheRoster, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    static const CHAR *const Standing[] = { "Operator", "Supervisor", "Fire watch" };
    NTSTATUS Status;
    ROSTER *Roster;
    PERSON Person;
    ULONG i;

    UNREFERENCED_PARAMETER(Path);
    Status = DeskMake(Driver, sizeof(ROSTER), NAME, LINK, &TheRoster);
    if (!NT_SUCCESS(Status))
        return Status;
    Roster = TheRoster->DeviceExtension;
    ExInitializeFastMutex(&Roster->Lock);
    for (i = 0; i < sizeof(Standing) / sizeof(Standing[0]); i++) {
        Capture(&Person, Standing[i], NAME_BYTES);
        Enrol(Roster, &Person);
    }
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RosterControl;
    Driver->DriverUnload = RosterUnload;
    return STATUS_SUCCESS;
}
