/*
 * torvex: mailbox with channels. A handle chooses its channel (IOCTL_TORVEX_CHANNEL); writes leave messages there,
 * reads are pended until a system thread, which hands out the paged messages, has one of the channel for them.
 *
 * The bug: the thread takes a read off the queue to look for its message and puts it back if there is none, without
 * looking whether it was cancelled while it was off the queue; such a read never ends and its process cannot exit.
 *
 * Device: ROOT\TORVEX
 * Rule: irp-never-completed, cancellation-missed
 * Needs: ioctl, cancel, schedule
 */
#include "../include/perch_pnp.h"

#define TORVEX_TAG          'vroT'
#define TORVEX_MAX_LENGTH   512         /* bytes of a message; reads have to have that much room */
#define TORVEX_MAX_MESSAGES 128

#define IOCTL_TORVEX_CHANNEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TORVEX_DEPTH   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifndef THREAD_ALL_ACCESS
#define THREAD_ALL_ACCESS (STANDARD_RIGHTS_REQUIRED | SYNCHRONIZE | 0xFFFF)
#endif

/* Not in wdm.h. */
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

/* {C7F5A4E2-5D6B-4A0F-9B27-71A3E0C53303} */
static const GUID TorvexInterface = { 0xc7f5a4e2, 0x5d6b, 0x4a0f, { 0x9b, 0x27, 0x71, 0xa3, 0xe0, 0xc5, 0x33, 0x03 } };

typedef struct _TORVEX_MESSAGE {        /* paged */
    LIST_ENTRY Link;
    LONG Channel;
    ULONG Length;
    UCHAR Data[ANYSIZE_ARRAY];
} TORVEX_MESSAGE, *PTORVEX_MESSAGE;

typedef struct _TORVEX_EXT {
    PERCH_BASE Base;

    KSPIN_LOCK Lock;                    /* Reads, and Closed of the handles */
    LIST_ENTRY Reads;

    FAST_MUTEX Mutex;                   /* Messages and Count; never taken with Lock held, nor Lock under it */
    LIST_ENTRY Messages;
    ULONG Count;

    KEVENT Wake;                        /* a message or a read came, or Stop was set */
    volatile LONG Stop;
    PVOID Thread;                       /* referenced */
} TORVEX_EXT, *PTORVEX_EXT;

typedef struct _TORVEX_HANDLE {
    volatile LONG Channel;
    BOOLEAN Closed;
} TORVEX_HANDLE, *PTORVEX_HANDLE;

static PTORVEX_HANDLE TorvexHandle(PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    return File != NULL ? (PTORVEX_HANDLE)File->FsContext : NULL;
}

static VOID NTAPI TorvexCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTORVEX_EXT Ext = (PTORVEX_EXT)DeviceObject->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    PerchFinish(&Ext->Base, Irp, STATUS_CANCELLED, 0);
}

/* Takes the oldest read off the queue; it cannot be cancelled until it is put back. */
static PIRP TorvexTake(PTORVEX_EXT Ext)
{
    PLIST_ENTRY Entry;
    PIRP Irp = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    while (Irp == NULL && !IsListEmpty(&Ext->Reads)) {
        Entry = RemoveHeadList(&Ext->Reads);
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(Irp, NULL) == NULL) {
            InitializeListHead(Entry);          /* its cancel routine ends it */
            Irp = NULL;
        }
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return Irp;
}

/* There is nothing for this read yet: back to the queue, unless the handle was closed or the device halted. */
static VOID TorvexPutBack(PTORVEX_EXT Ext, PIRP Irp)
{
    NTSTATUS Status;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Status = TorvexHandle(Irp)->Closed ? STATUS_CANCELLED : PerchStateStatus(&Ext->Base);
    if (NT_SUCCESS(Status)) {
        IoSetCancelRoutine(Irp, TorvexCancel);
#ifdef FIXED
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL)
            Status = STATUS_CANCELLED;
        else
#endif
        InsertTailList(&Ext->Reads, &Irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    if (!NT_SUCCESS(Status))
        PerchFinish(&Ext->Base, Irp, Status, 0);
}

/* Ends all reads of File, or all at all if it is NULL, that are on the queue. */
static VOID TorvexFlush(PTORVEX_EXT Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    PLIST_ENTRY Entry, Next;
    LIST_ENTRY List;
    PIRP Irp;
    KIRQL Irql;

    InitializeListHead(&List);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    for (Entry = Ext->Reads.Flink; Entry != &Ext->Reads; Entry = Next) {
        Next = Entry->Flink;
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
            continue;
        RemoveEntryList(Entry);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            InsertTailList(&List, Entry);
        else
            InitializeListHead(Entry);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    while (!IsListEmpty(&List))
        PerchFinish(&Ext->Base, CONTAINING_RECORD(RemoveHeadList(&List), IRP, Tail.Overlay.ListEntry), Status, 0);
}

/* The oldest message of a channel, taken off the list, or NULL. */
static PTORVEX_MESSAGE TorvexFind(PTORVEX_EXT Ext, LONG Channel)
{
    PTORVEX_MESSAGE Message, Found = NULL;
    PLIST_ENTRY Entry;

    ExAcquireFastMutex(&Ext->Mutex);
    for (Entry = Ext->Messages.Flink; Entry != &Ext->Messages; Entry = Entry->Flink) {
        Message = CONTAINING_RECORD(Entry, TORVEX_MESSAGE, Link);
        if (Message->Channel == Channel) {
            RemoveEntryList(Entry);
            Ext->Count--;
            Found = Message;
            break;
        }
    }
    ExReleaseFastMutex(&Ext->Mutex);
    return Found;
}

/* Looks once at each read that is on the queue now. A read or message that comes meanwhile sets Wake again. */
static VOID TorvexServe(PTORVEX_EXT Ext)
{
    PTORVEX_MESSAGE Message;
    PLIST_ENTRY Entry;
    ULONG Reads = 0;
    ULONG Length;
    PIRP Irp;
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    for (Entry = Ext->Reads.Flink; Entry != &Ext->Reads; Entry = Entry->Flink)
        Reads++;
    KeReleaseSpinLock(&Ext->Lock, Irql);

    while (Reads-- != 0) {
        Irp = TorvexTake(Ext);
        if (Irp == NULL)
            break;
        Message = TorvexFind(Ext, TorvexHandle(Irp)->Channel);
        if (Message == NULL) {
            TorvexPutBack(Ext, Irp);
            continue;
        }
        Length = Message->Length;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Message->Data, Length);
        ExFreePoolWithTag(Message, TORVEX_TAG);
        PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, Length);
    }
}

static VOID NTAPI TorvexThread(PVOID Context)
{
    PTORVEX_EXT Ext = (PTORVEX_EXT)Context;

    for (;;) {
        KeWaitForSingleObject(&Ext->Wake, Executive, KernelMode, FALSE, NULL);
        if (Ext->Stop)
            break;
        TorvexServe(Ext);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS NTAPI TorvexRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTORVEX_EXT Ext = (PTORVEX_EXT)DeviceObject->DeviceExtension;
    PTORVEX_HANDLE Handle = TorvexHandle(Irp);
    NTSTATUS Status;
    KIRQL Irql;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_PARAMETER, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < TORVEX_MAX_LENGTH)
        return PerchFinish(&Ext->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);

    /* The remove lock of the thread's wake-up is this dispatch routine's own: Irp may have ended before KeSetEvent. */
    Status = IoAcquireRemoveLock(&Ext->Base.RemoveLock, Ext);
    if (!NT_SUCCESS(Status))
        return PerchFinish(&Ext->Base, Irp, STATUS_DELETE_PENDING, 0);

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Status = Handle->Closed ? STATUS_FILE_CLOSED : PerchStateStatus(&Ext->Base);
    if (NT_SUCCESS(Status)) {
        IoSetCancelRoutine(Irp, TorvexCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            InsertTailList(&Ext->Reads, &Irp->Tail.Overlay.ListEntry);
        }
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);

    if (NT_SUCCESS(Status)) {
        KeSetEvent(&Ext->Wake, IO_NO_INCREMENT, FALSE);
        Status = STATUS_PENDING;
    } else {
        PerchFinish(&Ext->Base, Irp, Status, 0);
    }
    IoReleaseRemoveLock(&Ext->Base.RemoveLock, Ext);
    return Status;
}

static NTSTATUS NTAPI TorvexWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTORVEX_EXT Ext = (PTORVEX_EXT)DeviceObject->DeviceExtension;
    PTORVEX_HANDLE Handle = TorvexHandle(Irp);
    PTORVEX_MESSAGE Message;
    NTSTATUS Status;
    ULONG Length;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_PARAMETER, 0);
    Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    if (Length == 0 || Length > TORVEX_MAX_LENGTH)
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_BUFFER_SIZE, 0);

    Message = (PTORVEX_MESSAGE)ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(TORVEX_MESSAGE, Data) + Length,
                                                     TORVEX_TAG);
    if (Message == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    Message->Channel = Handle->Channel;
    Message->Length = Length;
    RtlCopyMemory(Message->Data, Irp->AssociatedIrp.SystemBuffer, Length);

    ExAcquireFastMutex(&Ext->Mutex);
    if (Ext->Count < TORVEX_MAX_MESSAGES) {
        InsertTailList(&Ext->Messages, &Message->Link);
        Ext->Count++;
    } else {
        Status = STATUS_DEVICE_BUSY;
    }
    ExReleaseFastMutex(&Ext->Mutex);

    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Message, TORVEX_TAG);
        return PerchFinish(&Ext->Base, Irp, Status, 0);
    }
    KeSetEvent(&Ext->Wake, IO_NO_INCREMENT, FALSE);
    return PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI TorvexControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTORVEX_EXT Ext = (PTORVEX_EXT)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PTORVEX_HANDLE Handle = TorvexHandle(Irp);
    NTSTATUS Status;
    ULONG Depth;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_PARAMETER, 0);

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TORVEX_CHANNEL:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(LONG))
            return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_BUFFER_SIZE, 0);
        InterlockedExchange(&Handle->Channel, *(PLONG)Irp->AssociatedIrp.SystemBuffer);
        KeSetEvent(&Ext->Wake, IO_NO_INCREMENT, FALSE);         /* there may be messages for the reads now */
        return PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, 0);

    case IOCTL_TORVEX_DEPTH:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PerchFinish(&Ext->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&Ext->Mutex);
        Depth = Ext->Count;
        ExReleaseFastMutex(&Ext->Mutex);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Depth;
        return PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, sizeof(ULONG));

    default:
        return PerchFinish(&Ext->Base, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI TorvexCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTORVEX_EXT Ext = (PTORVEX_EXT)DeviceObject->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PTORVEX_HANDLE Handle;
    NTSTATUS Status;

    Status = PerchEnter(&Ext->Base, Irp);
    if (!NT_SUCCESS(Status))
        return PerchComplete(Irp, Status, 0);
    if (File == NULL || File->FileName.Length != 0)
        return PerchFinish(&Ext->Base, Irp, STATUS_OBJECT_NAME_INVALID, 0);
    Handle = (PTORVEX_HANDLE)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*Handle), TORVEX_TAG);
    if (Handle == NULL)
        return PerchFinish(&Ext->Base, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(Handle, sizeof(*Handle));
    File->FsContext = Handle;
    return PerchFinish(&Ext->Base, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TorvexCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTORVEX_EXT Ext = (PTORVEX_EXT)DeviceObject->DeviceExtension;
    PTORVEX_HANDLE Handle = TorvexHandle(Irp);
    KIRQL Irql;

    if (Handle != NULL) {
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Handle->Closed = TRUE;                  /* a read that the thread has in hand is ended by TorvexPutBack */
        KeReleaseSpinLock(&Ext->Lock, Irql);
        TorvexFlush(Ext, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    }
    return PerchComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TorvexClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PVOID Handle = File->FsContext;

    UNREFERENCED_PARAMETER(DeviceObject);
    File->FsContext = NULL;
    if (Handle != NULL)
        ExFreePoolWithTag(Handle, TORVEX_TAG);
    return PerchComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS PerchOnAdd(PPERCH_BASE Base)
{
    PTORVEX_EXT Ext = (PTORVEX_EXT)Base;
    OBJECT_ATTRIBUTES Attributes;
    NTSTATUS Status;
    HANDLE Thread;

    KeInitializeSpinLock(&Ext->Lock);
    InitializeListHead(&Ext->Reads);
    ExInitializeFastMutex(&Ext->Mutex);
    InitializeListHead(&Ext->Messages);
    KeInitializeEvent(&Ext->Wake, SynchronizationEvent, FALSE);

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, TorvexThread, Ext);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = ObReferenceObjectByHandle(Thread, SYNCHRONIZE, *PsThreadType, KernelMode, &Ext->Thread, NULL);
    if (!NT_SUCCESS(Status)) {
        InterlockedExchange(&Ext->Stop, 1);
        KeSetEvent(&Ext->Wake, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(Thread, FALSE, NULL);
    }
    ZwClose(Thread);
    return Status;
}

static NTSTATUS PerchOnStart(PPERCH_BASE Base)
{
    UNREFERENCED_PARAMETER(Base);
    return STATUS_SUCCESS;
}

static VOID PerchOnHalt(PPERCH_BASE Base)
{
    TorvexFlush((PTORVEX_EXT)Base, NULL, Base->State == PERCH_GONE ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY);
}

static VOID PerchOnDelete(PPERCH_BASE Base)
{
    PTORVEX_EXT Ext = (PTORVEX_EXT)Base;

    InterlockedExchange(&Ext->Stop, 1);
    KeSetEvent(&Ext->Wake, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Ext->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Ext->Thread);
    while (!IsListEmpty(&Ext->Messages))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Ext->Messages), TORVEX_MESSAGE, Link), TORVEX_TAG);
}

static NTSTATUS NTAPI TorvexAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return PerchAdd(Driver, Pdo, sizeof(TORVEX_EXT), TORVEX_TAG, &TorvexInterface);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    PerchDriver(Driver, TorvexAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = TorvexCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TorvexCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TorvexClose;
    Driver->MajorFunction[IRP_MJ_READ] = TorvexRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = TorvexWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TorvexControl;
    return STATUS_SUCCESS;
}
