/*
 * A list of notes: writes add one at the end, reads take the first one out.
 *
 * The bug: nothing guards the list: two requests at a time on two processors, or one that is preempted, corrupt it. It shows with a schedule in which
 * one comes between the other's stores.
 *
 * Device: none
 * Rule: list-corrupt, use-after-free, double-free, pool-leak, wild-write, fast-fail
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Notes"
#define LINK_NAME L"\\DosDevices\\Notes"
#include "../include/legacy.h"

#define NOTE_TAG 'etoN'

typedef struct _NOTE {
    LIST_ENTRY Entry;
    ULONG Length;
    UCHAR Text[64];
} NOTE, *PNOTE;

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Notes;
} DEVICE, *PDEVICE;

static VOID Add(PDEVICE Own, PNOTE Note)
{
#ifdef FIXED
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
#endif
    InsertTailList(&Own->Notes, &Note->Entry);
#ifdef FIXED
    KeReleaseSpinLock(&Own->Lock, OldIrql);
#endif
}

static PNOTE Take(PDEVICE Own)
{
    PLIST_ENTRY Entry = NULL;
#ifdef FIXED
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
#endif
    if (!IsListEmpty(&Own->Notes)) {
        Entry = RemoveHeadList(&Own->Notes);
    }
#ifdef FIXED
    KeReleaseSpinLock(&Own->Lock, OldIrql);
#endif
    return Entry == NULL ? NULL : CONTAINING_RECORD(Entry, NOTE, Entry);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PNOTE Note;

    if (Length > sizeof(Note->Text)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Note = ExAllocatePoolWithTag(NonPagedPool, sizeof(NOTE), NOTE_TAG);
    if (Note == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Note->Length = Length;
    RtlCopyMemory(Note->Text, Irp->AssociatedIrp.SystemBuffer, Length);
    Add(Device->DeviceExtension, Note);
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PNOTE Note = Take(Device->DeviceExtension);
    ULONG Length;

    if (Note == NULL) {
        return Complete(Irp, STATUS_END_OF_FILE, 0);
    }
    Length = min(Note->Length, IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Note->Text, Length);
    ExFreePoolWithTag(Note, NOTE_TAG);
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PNOTE Note;

    while ((Note = Take(Driver->DeviceObject->DeviceExtension)) != NULL) {
        ExFreePoolWithTag(Note, NOTE_TAG);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Own = Device->DeviceExtension;
        KeInitializeSpinLock(&Own->Lock);
        InitializeListHead(&Own->Notes);
        Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
