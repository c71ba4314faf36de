/*
 * callboard: a board on which programs of one machine leave short notes for each other. A note is posted as
 * text with a priority, listed by number, and taken down again; the oldest goes when the board is full.
 *
 * The bug: the text of a note to be posted is taken to end with a zero within the input (RtlInitAnsiString),
 * which is not checked: without one the driver reads on behind the buffer.
 *
 * Device: none
 * Rule: pool-overrun, wild-read
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define CB_DEVICE   L"\\Device\\CallBoard"
#define CB_LINK     L"\\DosDevices\\CallBoard"
#define CB_TAG      FR_TAG('C', 'l', 'B', 'd')
#define CB_NOTES    48                  /* on the board at a time */
#define CB_TEXT     512                 /* characters of a note */

#define IOCTL_CB_POST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CB_LIST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CB_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CB_DROP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _CB_POST {
    ULONG Priority;                     /* 0 to 9 */
    CHAR Text[1];                       /* ends with a zero */
} CB_POST, *PCB_POST;

typedef struct _CB_ITEM {               /* of the list */
    ULONG Number;
    ULONG Priority;
    ULONG Length;
} CB_ITEM, *PCB_ITEM;

typedef struct _CB_NOTE {
    LIST_ENTRY Link;
    ULONG Number;
    ULONG Priority;
    USHORT Length;                      /* of the text without the zero */
    CHAR Text[1];
} CB_NOTE, *PCB_NOTE;

typedef struct _CB_EXT {
    FAST_MUTEX Mutex;                   /* all below */
    LIST_ENTRY Notes;                   /* the oldest first */
    ULONG Count;
    ULONG Number;                       /* of the latest note */
} CB_EXT, *PCB_EXT;

static PDEVICE_OBJECT CbDevice;

static PCB_NOTE CbFind(PCB_EXT Ext, ULONG Number)
{
    PLIST_ENTRY Entry;
    for (Entry = Ext->Notes.Flink; Entry != &Ext->Notes; Entry = Entry->Flink) {
        PCB_NOTE Note = CONTAINING_RECORD(Entry, CB_NOTE, Link);
        if (Note->Number == Number)
            return Note;
    }
    return NULL;
}

static VOID CbTakeDown(PCB_EXT Ext, PCB_NOTE Note)
{
    RemoveEntryList(&Note->Link);
    Ext->Count--;
    ExFreePoolWithTag(Note, CB_TAG);
}

static NTSTATUS CbPost(PCB_EXT Ext, PIRP Irp, ULONG InLength, ULONG OutLength)
{
    PCB_POST In = Irp->AssociatedIrp.SystemBuffer;
    PCB_NOTE Note;
    ANSI_STRING Text;

    if (InLength < sizeof(CB_POST) || OutLength < sizeof(ULONG))
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    if (In->Priority > 9)
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
#ifdef FIXED
    if (((PCHAR)In)[InLength - 1] != 0)
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
#endif
    RtlInitAnsiString(&Text, In->Text);
    if (Text.Length == 0 || Text.Length > CB_TEXT)
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);

    Note = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(CB_NOTE, Text) + Text.Length + 1, CB_TAG);
    if (!Note)
        return FrComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    Note->Priority = In->Priority;
    Note->Length = Text.Length;
    RtlCopyMemory(Note->Text, Text.Buffer, Text.Length);
    Note->Text[Text.Length] = 0;

    ExAcquireFastMutex(&Ext->Mutex);
    if (Ext->Count == CB_NOTES)
        CbTakeDown(Ext, CONTAINING_RECORD(Ext->Notes.Flink, CB_NOTE, Link));
    Note->Number = ++Ext->Number;
    InsertTailList(&Ext->Notes, &Note->Link);
    Ext->Count++;
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Note->Number;
    ExReleaseFastMutex(&Ext->Mutex);
    return FrComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS CbList(PCB_EXT Ext, PIRP Irp, ULONG OutLength)
{
    PCB_ITEM Out = Irp->AssociatedIrp.SystemBuffer;
    ULONG Room = OutLength / sizeof(CB_ITEM), n = 0;
    PLIST_ENTRY Entry;
    NTSTATUS Status = STATUS_SUCCESS;

    ExAcquireFastMutex(&Ext->Mutex);
    for (Entry = Ext->Notes.Flink; Entry != &Ext->Notes; Entry = Entry->Flink) {
        PCB_NOTE Note = CONTAINING_RECORD(Entry, CB_NOTE, Link);
        if (n == Room) {
            Status = STATUS_BUFFER_OVERFLOW;
            break;
        }
        Out[n].Number = Note->Number;
        Out[n].Priority = Note->Priority;
        Out[n].Length = Note->Length;
        n++;
    }
    ExReleaseFastMutex(&Ext->Mutex);
    return FrComplete(Irp, Status, n * sizeof(CB_ITEM));
}

static NTSTATUS CbFetch(PCB_EXT Ext, PIRP Irp, ULONG InLength, ULONG OutLength)
{
    ULONG Number, Length = 0;
    PCB_NOTE Note;
    NTSTATUS Status;

    if (InLength < sizeof(ULONG))
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    Number = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    ExAcquireFastMutex(&Ext->Mutex);
    Note = CbFind(Ext, Number);
    if (!Note) {
        Status = STATUS_NOT_FOUND;
    } else if (OutLength < (ULONG)Note->Length + 1) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        Length = (ULONG)Note->Length + 1;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Note->Text, Length);
        Status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Ext->Mutex);
    return FrComplete(Irp, Status, Length);
}

static NTSTATUS CbDrop(PCB_EXT Ext, PIRP Irp, ULONG InLength)
{
    PCB_NOTE Note;

    if (InLength < sizeof(ULONG))
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    ExAcquireFastMutex(&Ext->Mutex);
    Note = CbFind(Ext, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    if (Note)
        CbTakeDown(Ext, Note);
    ExReleaseFastMutex(&Ext->Mutex);
    return FrComplete(Irp, Note ? STATUS_SUCCESS : STATUS_NOT_FOUND, 0);
}

static NTSTATUS CbControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCB_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CB_POST:
        return CbPost(Ext, Irp, InLength, OutLength);
    case IOCTL_CB_LIST:
        return CbList(Ext, Irp, OutLength);
    case IOCTL_CB_FETCH:
        return CbFetch(Ext, Irp, InLength, OutLength);
    case IOCTL_CB_DROP:
        return CbDrop(Ext, Irp, InLength);
    }
    return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI CbUnload(PDRIVER_OBJECT Driver)
{
    PCB_EXT Ext = CbDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    while (!IsListEmpty(&Ext->Notes))
        CbTakeDown(Ext, CONTAINING_RECORD(Ext->Notes.Flink, CB_NOTE, Link));
    FrDeleteControl(CbDevice, CB_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PCB_EXT Ext;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CbControl;
    Driver->DriverUnload = CbUnload;

    Status = FrControlDevice(Driver, CB_DEVICE, CB_LINK, sizeof(CB_EXT), DO_BUFFERED_IO, &CbDevice);
    if (!NT_SUCCESS(Status))
        return Status;
    Ext = CbDevice->DeviceExtension;
    ExInitializeFastMutex(&Ext->Mutex);
    InitializeListHead(&Ext->Notes);
    Ext->Count = Ext->Number = 0;
    CbDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
