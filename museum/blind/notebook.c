/*
 * A control device that keeps short notes for the programs of a session: each note has a number and a text, which can
 * be added, read, listed and dropped. Notes live until they are dropped or the driver goes.
 *
 * The bug: the text of a note is allocated from paged pool, but is copied out while the spin lock of the list is held.
 * Shows by: a note is added, and read again after its page has been paged out.
 *
 * Device: none
 * Rule: paged-at-raised-irql
 * Needs: ioctl
 */
#include "../include/shared_frame.h"

#define DEVICE_NAME L"\\Device\\Notebook"
#define LINK_NAME   L"\\DosDevices\\Notebook"

#define IOCTL_NOTE_ADD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: NOTE_HEADER, text */
#define IOCTL_NOTE_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)  /* in: ULONG; out: NOTE_HEADER, text */
#define IOCTL_NOTE_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG */
#define IOCTL_NOTE_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: ULONG[] */

#define NOTE_MAXIMUM_TEXT 4096
#define NOTE_MAXIMUM      256

#ifdef FIXED
#define NOTE_TEXT_POOL NonPagedPoolNx
#else
#define NOTE_TEXT_POOL PagedPool
#endif

typedef struct _NOTE_HEADER {
    ULONG Number;
    ULONG Length;
} NOTE_HEADER;

typedef struct _NOTE {
    LIST_ENTRY Entry;
    ULONG Number;
    ULONG Length;
    PUCHAR Text;
} NOTE;

typedef struct _EXTENSION {
    KSPIN_LOCK Lock;
    LIST_ENTRY Notes;
    ULONG Count;
} EXTENSION;

/* Lock held. */
static NOTE *Find(EXTENSION *Ext, ULONG Number)
{
    PLIST_ENTRY e;

    for (e = Ext->Notes.Flink; e != &Ext->Notes; e = e->Flink) {
        NOTE *note = CONTAINING_RECORD(e, NOTE, Entry);
        if (note->Number == Number) {
            return note;
        }
    }
    return NULL;
}

static VOID FreeNote(NOTE *Note)
{
    if (Note->Text != NULL) {
        ExFreePoolWithTag(Note->Text, KIT_TAG);
    }
    ExFreePoolWithTag(Note, KIT_TAG);
}

static NTSTATUS Add(EXTENSION *Ext, PVOID Buffer, ULONG InLength)
{
    NOTE_HEADER *header = Buffer;
    NTSTATUS status = STATUS_SUCCESS;
    NOTE *note;
    KIRQL irql;

    if (InLength < sizeof(*header) || header->Length > NOTE_MAXIMUM_TEXT || header->Length > InLength - sizeof(*header)) {
        return STATUS_INVALID_PARAMETER;
    }
    note = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*note), KIT_TAG);
    if (note == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    note->Number = header->Number;
    note->Length = header->Length;
    note->Text = NULL;
    if (header->Length != 0) {
        note->Text = ExAllocatePoolWithTag(NOTE_TEXT_POOL, header->Length, KIT_TAG);
        if (note->Text == NULL) {
            FreeNote(note);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        RtlCopyMemory(note->Text, header + 1, header->Length);
    }

    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (Find(Ext, note->Number) != NULL) {
        status = STATUS_OBJECT_NAME_COLLISION;
    } else if (Ext->Count == NOTE_MAXIMUM) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        InsertTailList(&Ext->Notes, &note->Entry);
        Ext->Count++;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (!NT_SUCCESS(status)) {
        FreeNote(note);
    }
    return status;
}

static NTSTATUS Read(EXTENSION *Ext, PVOID Buffer, ULONG InLength, ULONG OutLength, ULONG_PTR *Information)
{
    NOTE_HEADER *header = Buffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG number;
    NOTE *note;
    KIRQL irql;

    if (InLength < sizeof(ULONG)) {
        return STATUS_INVALID_PARAMETER;
    }
    if (OutLength < sizeof(*header)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    number = *(PULONG)Buffer;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    note = Find(Ext, number);
    if (note == NULL) {
        status = STATUS_NOT_FOUND;
    } else if (note->Length > OutLength - sizeof(*header)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        header->Number = note->Number;
        header->Length = note->Length;
        if (note->Length != 0) {
            RtlCopyMemory(header + 1, note->Text, note->Length);
        }
        *Information = sizeof(*header) + note->Length;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    return status;
}

static NTSTATUS Drop(EXTENSION *Ext, PVOID Buffer, ULONG InLength)
{
    NOTE *note;
    KIRQL irql;

    if (InLength < sizeof(ULONG)) {
        return STATUS_INVALID_PARAMETER;
    }
    KeAcquireSpinLock(&Ext->Lock, &irql);
    note = Find(Ext, *(PULONG)Buffer);
    if (note != NULL) {
        RemoveEntryList(&note->Entry);
        Ext->Count--;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (note == NULL) {
        return STATUS_NOT_FOUND;
    }
    FreeNote(note);
    return STATUS_SUCCESS;
}

static NTSTATUS List(EXTENSION *Ext, PULONG Out, ULONG OutLength, ULONG_PTR *Information)
{
    ULONG room = OutLength / sizeof(ULONG), n = 0;
    NTSTATUS status = STATUS_SUCCESS;
    PLIST_ENTRY e;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    for (e = Ext->Notes.Flink; e != &Ext->Notes; e = e->Flink) {
        if (n == room) {
            status = STATUS_BUFFER_OVERFLOW;
            break;
        }
        Out[n++] = CONTAINING_RECORD(e, NOTE, Entry)->Number;
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    *Information = n * sizeof(ULONG);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NOTE_ADD:
        status = Add(ext, buffer, in);
        break;
    case IOCTL_NOTE_READ:
        status = Read(ext, buffer, in, out, &information);
        break;
    case IOCTL_NOTE_DROP:
        status = Drop(ext, buffer, in);
        break;
    case IOCTL_NOTE_LIST:
        status = List(ext, buffer, out, &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitComplete(Irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    EXTENSION *ext = Driver->DeviceObject->DeviceExtension;

    while (!IsListEmpty(&ext->Notes)) {
        FreeNote(CONTAINING_RECORD(RemoveHeadList(&ext->Notes), NOTE, Entry));
    }
    KitDeleteControl(Driver->DeviceObject, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = KitCreateControl(Driver, DEVICE_NAME, LINK_NAME, sizeof(EXTENSION), &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Notes);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
