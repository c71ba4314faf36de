/*
 * pagorn: message pipe with a submission ring shared with the application. IOCTL_PAGORN_ATTACH is pended and lends its
 * buffer as ring; IOCTL_PAGORN_DOORBELL takes the messages that are in the ring; reads of any handle get them in order.
 *
 * The bug: the length of a message is checked and the block allocated for it, then it is fetched from the shared ring
 * once more for the copy; an application that changes it in between has the driver write behind the block.
 *
 * Device: ROOT\PAGORN
 * Rule: pool-overrun
 * Needs: ioctl, schedule
 */
#include "../include/perch_pnp.h"

#ifndef MdlMappingNoExecute
#define MdlMappingNoExecute 0x40000000
#endif

#define PAGORN_TAG          'nroP'
#define PAGORN_SLOTS        16
#define PAGORN_DATA         248         /* bytes of a message at most; reads have to have that much room */
#define PAGORN_MAX_MESSAGES 256

#define IOCTL_PAGORN_ATTACH   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_OUT_DIRECT, FILE_ANY_ACCESS)
#define IOCTL_PAGORN_DETACH   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PAGORN_DOORBELL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x913, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* {0F3D7A10-94A4-4F0E-8E5B-3B7B0D5C2202} */
static const GUID PagornInterface = { 0x0f3d7a10, 0x94a4, 0x4f0e, { 0x8e, 0x5b, 0x3b, 0x7b, 0x0d, 0x5c, 0x22, 0x02 } };

/* State of a slot: the application makes it full, the driver makes it empty or bad. */
#define PAGORN_EMPTY  0
#define PAGORN_FULL   1
#define PAGORN_BAD    2

typedef struct _PAGORN_SLOT {
    volatile ULONG State;
    volatile ULONG Length;
    UCHAR Data[PAGORN_DATA];
} PAGORN_SLOT, *PPAGORN_SLOT;

typedef struct _PAGORN_RING {           /* the buffer of IOCTL_PAGORN_ATTACH */
    volatile ULONG Taken;               /* written by the driver for the application, never read by the driver */
    ULONG Reserved[63];
    PAGORN_SLOT Slots[PAGORN_SLOTS];
} PAGORN_RING, *PPAGORN_RING;

typedef struct _PAGORN_MESSAGE {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Data[ANYSIZE_ARRAY];
} PAGORN_MESSAGE, *PPAGORN_MESSAGE;

typedef struct _PAGORN_EXT {
    PERCH_BASE Base;
    KSPIN_LOCK Lock;                    /* all below and the handles */
    LIST_ENTRY Handles;
    LIST_ENTRY Reads;
    LIST_ENTRY Messages;
    ULONG Count;                        /* of Messages */
} PAGORN_EXT, *PPAGORN_EXT;

typedef struct _PAGORN_HANDLE {
    LIST_ENTRY Link;
    BOOLEAN Closed;
    PIRP Attach;                        /* the pended request that lends the ring, and the system's address of it */
    PPAGORN_RING Ring;
    ULONG Taken;
} PAGORN_HANDLE, *PPAGORN_HANDLE;

/* Lock held. Moves the reads of File (all if NULL) that are not being cancelled to List. */
static VOID PagornTakeReads(PPAGORN_EXT Ext, PFILE_OBJECT File, PLIST_ENTRY List)
{
    PLIST_ENTRY Entry, Next;
    PIRP Irp;

    for (Entry = Ext->Reads.Flink; Entry != &Ext->Reads; Entry = Next) {
        Next = Entry->Flink;
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
            continue;
        RemoveEntryList(Entry);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            InsertTailList(List, Entry);
        else
            InitializeListHead(Entry);
    }
}

/* Lock held. Takes the ring from the handle; its request goes to List if the caller has to end it. */
static VOID PagornDetachLocked(PPAGORN_HANDLE Handle, PLIST_ENTRY List)
{
    PIRP Irp = Handle->Attach;

    if (Irp == NULL)
        return;
    Handle->Attach = NULL;
    Handle->Ring = NULL;
    if (IoSetCancelRoutine(Irp, NULL) != NULL)
        InsertTailList(List, &Irp->Tail.Overlay.ListEntry);
}

/* Lock held. Gives queued messages to waiting reads; served reads go to List with their result set. */
static VOID PagornMatch(PPAGORN_EXT Ext, PLIST_ENTRY List)
{
    PPAGORN_MESSAGE Message;
    PLIST_ENTRY Entry;
    PIRP Irp;

    while (!IsListEmpty(&Ext->Messages) && !IsListEmpty(&Ext->Reads)) {
        Entry = RemoveHeadList(&Ext->Reads);
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(Irp, NULL) == NULL) {
            InitializeListHead(Entry);
            continue;
        }
        Message = CONTAINING_RECORD(RemoveHeadList(&Ext->Messages), PAGORN_MESSAGE, Link);
        Ext->Count--;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Message->Data, Message->Length);
        Irp->IoStatus.Information = Message->Length;
        ExFreePoolWithTag(Message, PAGORN_TAG);
        InsertTailList(List, Entry);
    }
}

static VOID PagornEndServed(PPAGORN_EXT Ext, PLIST_ENTRY List)
{
    PIRP Irp;

    while (!IsListEmpty(List)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(List), IRP, Tail.Overlay.ListEntry);
        PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, Irp->IoStatus.Information);
    }
}

static VOID PagornEndList(PPAGORN_EXT Ext, PLIST_ENTRY List, NTSTATUS Status)
{
    while (!IsListEmpty(List))
        PerchFinish(&Ext->Base, CONTAINING_RECORD(RemoveHeadList(List), IRP, Tail.Overlay.ListEntry), Status, 0);
}

static VOID NTAPI PagornCancelRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAGORN_EXT Ext = (PPAGORN_EXT)DeviceObject->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PerchFinish(&Ext->Base, Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI PagornCancelAttach(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAGORN_EXT Ext = (PPAGORN_EXT)DeviceObject->DeviceExtension;
    PPAGORN_HANDLE Handle = (PPAGORN_HANDLE)IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (Handle->Attach == Irp) {
        Handle->Attach = NULL;
        Handle->Ring = NULL;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PerchFinish(&Ext->Base, Irp, STATUS_CANCELLED, 0);
}

/* Called with the remove lock held for Irp; ends the request or pends it. */
static NTSTATUS PagornAttach(PPAGORN_EXT Ext, PPAGORN_HANDLE Handle, PIRP Irp)
{
    PPAGORN_RING Ring;
    NTSTATUS Status;
    KIRQL Irql;

    if (Irp->MdlAddress == NULL || MmGetMdlByteCount(Irp->MdlAddress) != sizeof(PAGORN_RING))
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    if ((MmGetMdlByteOffset(Irp->MdlAddress) & 7) != 0)
        return PerchFinish(&Ext->Base, Irp, STATUS_DATATYPE_MISALIGNMENT, 0);
    Ring = (PPAGORN_RING)MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority | MdlMappingNoExecute);
    if (Ring == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Status = Handle->Closed ? STATUS_FILE_CLOSED : PerchStateStatus(&Ext->Base);
    if (NT_SUCCESS(Status) && Handle->Attach != NULL)
        Status = STATUS_DEVICE_BUSY;
    if (NT_SUCCESS(Status)) {
        IoSetCancelRoutine(Irp, PagornCancelAttach);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL)
            Status = STATUS_CANCELLED;
    }
    if (!NT_SUCCESS(Status)) {
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return PerchFinish(&Ext->Base, Irp, Status, 0);
    }
    IoMarkIrpPending(Irp);
    Handle->Attach = Irp;
    Handle->Ring = Ring;
    Handle->Taken = 0;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return STATUS_PENDING;
}

static VOID PagornDetach(PPAGORN_EXT Ext, PPAGORN_HANDLE Handle)
{
    LIST_ENTRY List;
    KIRQL Irql;

    InitializeListHead(&List);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    PagornDetachLocked(Handle, &List);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PagornEndList(Ext, &List, STATUS_SUCCESS);
}

/* Lock held. Takes the message of one slot; FALSE if there is no room for it now. */
static BOOLEAN PagornTakeSlot(PPAGORN_EXT Ext, PPAGORN_HANDLE Handle, PPAGORN_SLOT Slot)
{
    PPAGORN_MESSAGE Message;
    ULONG Length;

    if (Ext->Count >= PAGORN_MAX_MESSAGES)
        return FALSE;
    Length = Slot->Length;
    if (Length == 0 || Length > PAGORN_DATA) {
        Slot->State = PAGORN_BAD;
        return TRUE;
    }
    Message = (PPAGORN_MESSAGE)ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(PAGORN_MESSAGE, Data) + Length,
                                                     PAGORN_TAG);
    if (Message == NULL)
        return FALSE;
#ifdef FIXED
    Message->Length = Length;
#else
    Message->Length = Slot->Length;
#endif
    RtlCopyMemory(Message->Data, Slot->Data, Message->Length);
    InsertTailList(&Ext->Messages, &Message->Link);
    Ext->Count++;
    Handle->Taken++;
    Slot->State = PAGORN_EMPTY;
    return TRUE;
}

static NTSTATUS PagornDoorbell(PPAGORN_EXT Ext, PPAGORN_HANDLE Handle)
{
    LIST_ENTRY Served;
    PPAGORN_RING Ring;
    ULONG i;
    KIRQL Irql;

    InitializeListHead(&Served);
    /* The ring stays mapped while the lock is held: its request is ended only after the handle has lost it. */
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Ring = Handle->Ring;
    if (Ring == NULL) {
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return STATUS_INVALID_DEVICE_STATE;
    }
    for (i = 0; i < PAGORN_SLOTS; i++) {
        if (Ring->Slots[i].State == PAGORN_FULL && !PagornTakeSlot(Ext, Handle, &Ring->Slots[i]))
            break;
    }
    Ring->Taken = Handle->Taken;
    PagornMatch(Ext, &Served);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PagornEndServed(Ext, &Served);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI PagornRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAGORN_EXT Ext = (PPAGORN_EXT)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PPAGORN_HANDLE Handle;
    LIST_ENTRY Served;
    NTSTATUS Status;
    KIRQL Irql;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    Handle = Stack->FileObject != NULL ? (PPAGORN_HANDLE)Stack->FileObject->FsContext : NULL;
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_PARAMETER, 0);
    if (Stack->Parameters.Read.Length < PAGORN_DATA)
        return PerchFinish(&Ext->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);

    InitializeListHead(&Served);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Status = Handle->Closed ? STATUS_FILE_CLOSED : PerchStateStatus(&Ext->Base);
    if (NT_SUCCESS(Status)) {
        IoSetCancelRoutine(Irp, PagornCancelRead);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL)
            Status = STATUS_CANCELLED;
    }
    if (!NT_SUCCESS(Status)) {
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return PerchFinish(&Ext->Base, Irp, Status, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&Ext->Reads, &Irp->Tail.Overlay.ListEntry);
    PagornMatch(Ext, &Served);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PagornEndServed(Ext, &Served);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI PagornControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAGORN_EXT Ext = (PPAGORN_EXT)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PPAGORN_HANDLE Handle;
    NTSTATUS Status;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    Handle = Stack->FileObject != NULL ? (PPAGORN_HANDLE)Stack->FileObject->FsContext : NULL;
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_PARAMETER, 0);

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PAGORN_ATTACH:
        return PagornAttach(Ext, Handle, Irp);
    case IOCTL_PAGORN_DETACH:
        PagornDetach(Ext, Handle);
        break;
    case IOCTL_PAGORN_DOORBELL:
        Status = PagornDoorbell(Ext, Handle);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return PerchFinish(&Ext->Base, Irp, Status, 0);
}

static NTSTATUS NTAPI PagornCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAGORN_EXT Ext = (PPAGORN_EXT)DeviceObject->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PPAGORN_HANDLE Handle;
    NTSTATUS Status;
    KIRQL Irql;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    if (File == NULL || File->FileName.Length != 0)
        return PerchFinish(&Ext->Base, Irp, STATUS_OBJECT_NAME_INVALID, 0);
    Handle = (PPAGORN_HANDLE)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*Handle), PAGORN_TAG);
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(Handle, sizeof(*Handle));
    File->FsContext = Handle;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    InsertTailList(&Ext->Handles, &Handle->Link);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PagornCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAGORN_EXT Ext = (PPAGORN_EXT)DeviceObject->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PPAGORN_HANDLE Handle = (PPAGORN_HANDLE)File->FsContext;
    LIST_ENTRY List;
    KIRQL Irql;

    InitializeListHead(&List);
    if (Handle != NULL) {
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        if (!Handle->Closed) {
            Handle->Closed = TRUE;
            RemoveEntryList(&Handle->Link);
            PagornDetachLocked(Handle, &List);
            PagornTakeReads(Ext, File, &List);
        }
        KeReleaseSpinLock(&Ext->Lock, Irql);
        PagornEndList(Ext, &List, STATUS_CANCELLED);
    }
    return PerchComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PagornClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PVOID Handle = File->FsContext;

    UNREFERENCED_PARAMETER(DeviceObject);
    File->FsContext = NULL;
    if (Handle != NULL)
        ExFreePoolWithTag(Handle, PAGORN_TAG);
    return PerchComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS PerchOnAdd(PPERCH_BASE Base)
{
    PPAGORN_EXT Ext = (PPAGORN_EXT)Base;

    KeInitializeSpinLock(&Ext->Lock);
    InitializeListHead(&Ext->Handles);
    InitializeListHead(&Ext->Reads);
    InitializeListHead(&Ext->Messages);
    return STATUS_SUCCESS;
}

static NTSTATUS PerchOnStart(PPERCH_BASE Base)
{
    UNREFERENCED_PARAMETER(Base);
    return STATUS_SUCCESS;
}

static VOID PerchOnHalt(PPERCH_BASE Base)
{
    PPAGORN_EXT Ext = (PPAGORN_EXT)Base;
    LIST_ENTRY List;
    PLIST_ENTRY Entry;
    KIRQL Irql;

    InitializeListHead(&List);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    for (Entry = Ext->Handles.Flink; Entry != &Ext->Handles; Entry = Entry->Flink)
        PagornDetachLocked(CONTAINING_RECORD(Entry, PAGORN_HANDLE, Link), &List);
    PagornTakeReads(Ext, NULL, &List);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PagornEndList(Ext, &List, Base->State == PERCH_GONE ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY);
}

static VOID PerchOnDelete(PPERCH_BASE Base)
{
    PPAGORN_EXT Ext = (PPAGORN_EXT)Base;

    while (!IsListEmpty(&Ext->Messages))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Ext->Messages), PAGORN_MESSAGE, Link), PAGORN_TAG);
}

static NTSTATUS NTAPI PagornAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return PerchAdd(Driver, Pdo, sizeof(PAGORN_EXT), PAGORN_TAG, &PagornInterface);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    PerchDriver(Driver, PagornAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = PagornCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PagornCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = PagornClose;
    Driver->MajorFunction[IRP_MJ_READ] = PagornRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PagornControl;
    return STATUS_SUCCESS;
}
