/*
 * rescat: a catalogue of small resources (up to 512, of 64 bytes each), kept by number. What is asked for moves to the
 * front of the list, so that it is found quickly the next time; the one at the end goes when the catalogue is full.
 *
 * The bug: the look-up, which moves what it has found, holds the resource (ERESOURCE) shared only, like the other
 * readers.
 *
 * Device: ROOT\RESCAT
 * Rule: list-corrupt, data-race, endless-loop
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define RC_TAG      FR_TAG('R', 's', 'C', 't')
#define RC_ENTRIES  512
#define RC_BYTES    64

#define IOCTL_RC_PUT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RC_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_RC_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RC_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B3, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID GUID_RESCAT = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x05 } };

typedef struct _RC_DATA {
    ULONG Number;
    UCHAR Bytes[RC_BYTES];
} RC_DATA, *PRC_DATA;

typedef struct _RC_ENTRY {
    LIST_ENTRY Link;
    RC_DATA Data;
} RC_ENTRY, *PRC_ENTRY;

typedef struct _RC_EXT {
    FR_EXT Frame;
    ERESOURCE Resource;                 /* all below */
    LIST_ENTRY Entries;
    ULONG Count;
    PAGED_LOOKASIDE_LIST Lookaside;
} RC_EXT, *PRC_EXT;

static VOID RcShared(PRC_EXT Ext)
{
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Ext->Resource, TRUE);
}

static VOID RcExclusive(PRC_EXT Ext)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Ext->Resource, TRUE);
}

static VOID RcRelease(PRC_EXT Ext)
{
    ExReleaseResourceLite(&Ext->Resource);
    KeLeaveCriticalRegion();
}

static PRC_ENTRY RcFind(PRC_EXT Ext, ULONG Number)
{
    PLIST_ENTRY Link;
    for (Link = Ext->Entries.Flink; Link != &Ext->Entries; Link = Link->Flink) {
        PRC_ENTRY Entry = CONTAINING_RECORD(Link, RC_ENTRY, Link);
        if (Entry->Data.Number == Number)
            return Entry;
    }
    return NULL;
}

static VOID RcDropEntry(PRC_EXT Ext, PRC_ENTRY Entry)
{
    RemoveEntryList(&Entry->Link);
    Ext->Count--;
    ExFreeToPagedLookasideList(&Ext->Lookaside, Entry);
}

static NTSTATUS RcPut(PRC_EXT Ext, const RC_DATA *In)
{
    PRC_ENTRY Entry;
    NTSTATUS Status = STATUS_SUCCESS;

    RcExclusive(Ext);
    Entry = RcFind(Ext, In->Number);
    if (Entry) {
        Entry->Data = *In;
        RcRelease(Ext);
        return STATUS_SUCCESS;
    }
    if (Ext->Count == RC_ENTRIES)
        RcDropEntry(Ext, CONTAINING_RECORD(Ext->Entries.Blink, RC_ENTRY, Link));
    Entry = ExAllocateFromPagedLookasideList(&Ext->Lookaside);
    if (Entry) {
        Entry->Data = *In;
        InsertHeadList(&Ext->Entries, &Entry->Link);
        Ext->Count++;
    } else {
        Status = STATUS_INSUFFICIENT_RESOURCES;
    }
    RcRelease(Ext);
    return Status;
}

static NTSTATUS RcGet(PRC_EXT Ext, ULONG Number, PRC_DATA Out)
{
    PRC_ENTRY Entry;

#ifdef FIXED
    RcExclusive(Ext);
#else
    RcShared(Ext);
#endif
    Entry = RcFind(Ext, Number);
    if (Entry) {
        *Out = Entry->Data;
        RemoveEntryList(&Entry->Link);
        InsertHeadList(&Ext->Entries, &Entry->Link);
    }
    RcRelease(Ext);
    return Entry ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

static NTSTATUS RcDrop(PRC_EXT Ext, ULONG Number)
{
    PRC_ENTRY Entry;

    RcExclusive(Ext);
    Entry = RcFind(Ext, Number);
    if (Entry)
        RcDropEntry(Ext, Entry);
    RcRelease(Ext);
    return Entry ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

static NTSTATUS RcList(PRC_EXT Ext, PULONG Out, ULONG Room, PULONG_PTR Information)
{
    PLIST_ENTRY Link;
    ULONG n = 0;
    NTSTATUS Status = STATUS_SUCCESS;

    RcShared(Ext);
    for (Link = Ext->Entries.Flink; Link != &Ext->Entries; Link = Link->Flink) {
        if (n == Room) {
            Status = STATUS_BUFFER_OVERFLOW;
            break;
        }
        Out[n++] = CONTAINING_RECORD(Link, RC_ENTRY, Link)->Data.Number;
    }
    RcRelease(Ext);
    *Information = n * sizeof(ULONG);
    return Status;
}

static NTSTATUS RcControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PRC_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RC_PUT:
        Status = InLength < sizeof(RC_DATA) ? STATUS_INVALID_PARAMETER : RcPut(Ext, Buffer);
        break;
    case IOCTL_RC_GET:
        if (InLength < sizeof(ULONG) || OutLength < sizeof(RC_DATA)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = RcGet(Ext, *(PULONG)Buffer, Buffer);
        if (NT_SUCCESS(Status))
            Information = sizeof(RC_DATA);
        break;
    case IOCTL_RC_DROP:
        Status = InLength < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : RcDrop(Ext, *(PULONG)Buffer);
        break;
    case IOCTL_RC_LIST:
        Status = RcList(Ext, Buffer, OutLength / sizeof(ULONG), &Information);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

static VOID RcFree(PFR_EXT Frame)
{
    PRC_EXT Ext = (PRC_EXT)Frame;
    while (!IsListEmpty(&Ext->Entries))
        RcDropEntry(Ext, CONTAINING_RECORD(Ext->Entries.Flink, RC_ENTRY, Link));
    ExDeletePagedLookasideList(&Ext->Lookaside);
    ExDeleteResourceLite(&Ext->Resource);
}

/* The catalogue is made when the device is started for the first time, and lives as long as the device object. */
static BOOLEAN RcMade(PRC_EXT Ext)
{
    return Ext->Entries.Flink != NULL;
}

static NTSTATUS RcStart(PFR_EXT Frame, PFR_RES Resources)
{
    PRC_EXT Ext = (PRC_EXT)Frame;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Resources);
    if (RcMade(Ext))
        return STATUS_SUCCESS;
    Status = ExInitializeResourceLite(&Ext->Resource);
    if (!NT_SUCCESS(Status))
        return Status;
    ExInitializePagedLookasideList(&Ext->Lookaside, NULL, NULL, 0, sizeof(RC_ENTRY), RC_TAG, 0);
    InitializeListHead(&Ext->Entries);
    return STATUS_SUCCESS;
}

static VOID RcRemoved(PFR_EXT Frame)
{
    if (RcMade((PRC_EXT)Frame))
        RcFree(Frame);
}

static const FR_OPS RcOps = { .Start = RcStart, .Free = RcRemoved };

static NTSTATUS NTAPI RcAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(RC_EXT), DO_BUFFERED_IO, &GUID_RESCAT, &RcOps, NULL);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, RcAddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RcControl;
    return STATUS_SUCCESS;
}
