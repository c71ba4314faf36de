/*
 * evtrelay: a small message board with channels.  Clients hand in event handles (IOCTL_REGISTER) which the driver
 * signals whenever a program posts to the channel (IOCTL_POST); IOCTL_FETCH reads the newest message.
 *
 * The bug: the handle of an event that a program gives is looked up without a type.
 *
 * Device: none
 * Rule: object-of-another-kind
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_REGISTER   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_UNREGISTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_POST       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FETCH      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'vEoB'
#define CHANNELS 16
#define MAX_TEXT 64
#define MAX_LISTENERS 256

typedef struct _REGISTER_IN {
    ULONG64 Event;
    ULONG Channel;
    ULONG Reserved;
} REGISTER_IN;

typedef struct _MESSAGE {
    ULONG Channel;
    ULONG Length;
    ULONG Sequence;
    UCHAR Text[MAX_TEXT];
} MESSAGE;

typedef struct _LISTENER {
    LIST_ENTRY Link;
    PFILE_OBJECT Owner;
    PKEVENT Event;
    ULONG Channel;
    ULONG Cookie;
} LISTENER, *PLISTENER;

typedef struct _BOARD {
    FAST_MUTEX Mutex;
    LIST_ENTRY Listeners;
    ULONG Count;
    ULONG NextCookie;
    MESSAGE Last[CHANNELS];
} BOARD, *PBOARD;

DRIVER_INITIALIZE DriverEntry;
static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\EvtRelay");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\EvtRelay");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID FreeListeners(PLIST_ENTRY List)
{
    while (!IsListEmpty(List)) {
        PLISTENER L = CONTAINING_RECORD(RemoveHeadList(List), LISTENER, Link);
        ObDereferenceObject(L->Event);
        ExFreePoolWithTag(L, TAG);
    }
}

/* Takes the listeners of a file (all, or the one with the cookie) off the board. */
static ULONG DropListeners(PBOARD Board, PFILE_OBJECT Owner, BOOLEAN All, ULONG Cookie)
{
    LIST_ENTRY Dropped;
    PLIST_ENTRY E, Next;
    ULONG n = 0;

    InitializeListHead(&Dropped);
    ExAcquireFastMutex(&Board->Mutex);
    for (E = Board->Listeners.Flink; E != &Board->Listeners; E = Next) {
        PLISTENER L = CONTAINING_RECORD(E, LISTENER, Link);
        Next = E->Flink;
        if (L->Owner == Owner && (All || L->Cookie == Cookie)) {
            RemoveEntryList(E);
            InsertTailList(&Dropped, E);
            Board->Count--;
            n++;
        }
    }
    ExReleaseFastMutex(&Board->Mutex);
    FreeListeners(&Dropped);
    return n;
}

static NTSTATUS Register(PBOARD Board, PIRP Irp, PFILE_OBJECT Owner, const REGISTER_IN *In, PULONG Cookie)
{
    PLISTENER L;
    NTSTATUS Status;

    if (In->Channel >= CHANNELS || In->Reserved)
        return STATUS_INVALID_PARAMETER;
    L = ExAllocatePoolWithTag(NonPagedPool, sizeof(*L), TAG);
    if (!L)
        return STATUS_INSUFFICIENT_RESOURCES;
    L->Owner = Owner;
    L->Channel = In->Channel;
    Status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)In->Event, EVENT_MODIFY_STATE,
#ifdef FIXED
                                       *ExEventObjectType,
#else
                                       NULL,
#endif
                                       Irp->RequestorMode, (PVOID *)&L->Event, NULL);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(L, TAG);
        return Status;
    }

    ExAcquireFastMutex(&Board->Mutex);
    if (Board->Count >= MAX_LISTENERS) {
        Status = STATUS_QUOTA_EXCEEDED;
    } else {
        L->Cookie = ++Board->NextCookie;
        *Cookie = L->Cookie;
        InsertTailList(&Board->Listeners, &L->Link);
        Board->Count++;
    }
    ExReleaseFastMutex(&Board->Mutex);

    if (!NT_SUCCESS(Status)) {
        ObDereferenceObject(L->Event);
        ExFreePoolWithTag(L, TAG);
    }
    return Status;
}

static NTSTATUS Post(PBOARD Board, const MESSAGE *In, ULONG InLength)
{
    PLIST_ENTRY E;
    MESSAGE *M;

    if (InLength < FIELD_OFFSET(MESSAGE, Text) || In->Channel >= CHANNELS || In->Length > MAX_TEXT ||
        In->Length > InLength - FIELD_OFFSET(MESSAGE, Text))
        return STATUS_INVALID_PARAMETER;

    ExAcquireFastMutex(&Board->Mutex);
    M = &Board->Last[In->Channel];
    M->Channel = In->Channel;
    M->Sequence++;
    M->Length = In->Length;
    RtlZeroMemory(M->Text, sizeof(M->Text));
    RtlCopyMemory(M->Text, In->Text, In->Length);
    for (E = Board->Listeners.Flink; E != &Board->Listeners; E = E->Flink) {
        PLISTENER L = CONTAINING_RECORD(E, LISTENER, Link);
        if (L->Channel == In->Channel)
            KeSetEvent(L->Event, IO_NO_INCREMENT, FALSE);
    }
    ExReleaseFastMutex(&Board->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI CreateFile_(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CleanupClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    DropListeners(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, TRUE, 0);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBOARD Board = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    ULONG Value;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_REGISTER: {
        REGISTER_IN Copy;
        if (In < sizeof(Copy) || Out < sizeof(ULONG))
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&Copy, Buffer, sizeof(Copy));
        Value = 0;
        Status = Register(Board, Irp, Sp->FileObject, &Copy, &Value);
        if (!NT_SUCCESS(Status))
            return Finish(Irp, Status, 0);
        *(PULONG)Buffer = Value;
        return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    case IOCTL_UNREGISTER:
        if (In < sizeof(ULONG))
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        Value = DropListeners(Board, Sp->FileObject, FALSE, *(PULONG)Buffer);
        return Finish(Irp, Value ? STATUS_SUCCESS : STATUS_NOT_FOUND, 0);
    case IOCTL_POST:
        return Finish(Irp, Post(Board, Buffer, In), 0);
    case IOCTL_FETCH:
        if (In < sizeof(ULONG) || Out < sizeof(MESSAGE))
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        Value = *(PULONG)Buffer;
        if (Value >= CHANNELS)
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&Board->Mutex);
        RtlCopyMemory(Buffer, &Board->Last[Value], sizeof(MESSAGE));
        ExReleaseFastMutex(&Board->Mutex);
        return Finish(Irp, STATUS_SUCCESS, sizeof(MESSAGE));
    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PBOARD Board = Driver->DeviceObject->DeviceExtension;
    IoDeleteSymbolicLink(&LinkName);
    FreeListeners(&Board->Listeners);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT Device;
    PBOARD Board;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Status = IoCreateDevice(Driver, sizeof(BOARD), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Board = Device->DeviceExtension;
    RtlZeroMemory(Board, sizeof(*Board));
    ExInitializeFastMutex(&Board->Mutex);
    InitializeListHead(&Board->Listeners);

    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = CreateFile_;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = CleanupClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CleanupClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
