/*
 * palaver: a talking place for programs. A handle to \\.\Palaver gets what the others write: a write goes to all other handles, a read takes the oldest
 * message this handle has not got yet.
 *
 * The bug: a message is counted up for a listener only after it stands in the listener's list; a listener that hears it in between gives back the reference
 * of the speaker, and the message is freed while the speaker still delivers it (and is freed again at the end).
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define YK_LEGACY
#include "../include/queue_kit.h"

#define PAL_TAG 'alaP'
#define PAL_LONGEST 1024 /* bytes in a message */
#define PAL_DEEPEST 64   /* messages a listener may leave unheard */

#define IOCTL_PALAVER_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)

/* What is said, once for all listeners. */
typedef struct _PAL_MESSAGE {
    volatile LONG Refs;
    ULONG Length;
    UCHAR Text[1];
} PAL_MESSAGE, *PPAL_MESSAGE;

/* A message in the list of one listener. */
typedef struct _PAL_NOTE {
    LIST_ENTRY Entry;
    PPAL_MESSAGE Message;
} PAL_NOTE, *PPAL_NOTE;

typedef struct _PAL_LISTENER {
    LIST_ENTRY Entry; /* in the room */
    KSPIN_LOCK Lock;  /* of the rest */
    LIST_ENTRY Notes;
    ULONG Depth;
    ULONG Missed;
} PAL_LISTENER, *PPAL_LISTENER;

typedef struct _PAL_STATE {
    ULONG Waiting; /* messages not read yet */
    ULONG Missed;  /* messages lost because too many waited or memory was short */
} PAL_STATE, *PPAL_STATE;

typedef struct _PAL_ROOM {
    FAST_MUTEX Lock; /* of the list of listeners */
    LIST_ENTRY Listeners;
} PAL_ROOM, *PPAL_ROOM;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING PalLink = {sizeof(L"\\DosDevices\\Palaver") - sizeof(WCHAR), sizeof(L"\\DosDevices\\Palaver"), (PWSTR)L"\\DosDevices\\Palaver"};
static UNICODE_STRING PalName = {sizeof(L"\\Device\\Palaver") - sizeof(WCHAR), sizeof(L"\\Device\\Palaver"), (PWSTR)L"\\Device\\Palaver"};

static VOID PalLeave(PPAL_MESSAGE m)
{
    if (InterlockedDecrement(&m->Refs) == 0)
        ExFreePoolWithTag(m, PAL_TAG);
}

/* Puts a message into one listener's list. */
static VOID PalDeliver(PPAL_LISTENER l, PPAL_MESSAGE m)
{
    PPAL_NOTE n;
    BOOLEAN Taken = FALSE;
    KIRQL Irql;

    n = ExAllocatePoolWithTag(NonPagedPool, sizeof(*n), PAL_TAG);
    if (n != NULL)
        n->Message = m;
#ifdef FIXED
    InterlockedIncrement(&m->Refs);
#endif
    KeAcquireSpinLock(&l->Lock, &Irql);
    if (n != NULL && l->Depth < PAL_DEEPEST) {
        InsertTailList(&l->Notes, &n->Entry);
        l->Depth++;
        Taken = TRUE;
    } else {
        l->Missed++;
    }
    KeReleaseSpinLock(&l->Lock, Irql);
#ifndef FIXED
    InterlockedIncrement(&m->Refs);
#endif
    if (!Taken) {
        PalLeave(m);
        if (n != NULL)
            ExFreePoolWithTag(n, PAL_TAG);
    }
}

static NTSTATUS PalSay(PPAL_ROOM Room, PPAL_LISTENER Speaker, PIRP Irp, ULONG Length)
{
    PPAL_LISTENER l;
    PPAL_MESSAGE m;
    PLIST_ENTRY e;

    if (Length == 0 || Length > PAL_LONGEST)
        return YkReply(Irp, STATUS_INVALID_PARAMETER, 0);
    m = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(PAL_MESSAGE, Text) + Length, PAL_TAG);
    if (m == NULL)
        return YkReply(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    m->Refs = 1;
    m->Length = Length;
    RtlCopyMemory(m->Text, Irp->AssociatedIrp.SystemBuffer, Length);

    ExAcquireFastMutex(&Room->Lock);
    for (e = Room->Listeners.Flink; e != &Room->Listeners; e = e->Flink) {
        l = CONTAINING_RECORD(e, PAL_LISTENER, Entry);
        if (l != Speaker)
            PalDeliver(l, m);
    }
    ExReleaseFastMutex(&Room->Lock);

    PalLeave(m);
    return YkReply(Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS PalHear(PPAL_LISTENER l, PIRP Irp, ULONG Room)
{
    PPAL_NOTE n = NULL;
    NTSTATUS Status;
    ULONG Length = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&l->Lock, &Irql);
    if (IsListEmpty(&l->Notes)) {
        Status = STATUS_NO_MORE_ENTRIES;
    } else {
        n = CONTAINING_RECORD(l->Notes.Flink, PAL_NOTE, Entry);
        if (n->Message->Length > Room) {
            n = NULL;
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RemoveEntryList(&n->Entry);
            l->Depth--;
            Status = STATUS_SUCCESS;
        }
    }
    KeReleaseSpinLock(&l->Lock, Irql);

    if (n != NULL) {
        Length = n->Message->Length;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, n->Message->Text, Length);
        PalLeave(n->Message);
        ExFreePoolWithTag(n, PAL_TAG);
    }
    return YkReply(Irp, Status, Length);
}

static NTSTATUS NTAPI PalCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAL_ROOM Room = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PPAL_LISTENER l;

    l = ExAllocatePoolWithTag(NonPagedPool, sizeof(*l), PAL_TAG);
    if (l == NULL)
        return YkReply(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    KeInitializeSpinLock(&l->Lock);
    InitializeListHead(&l->Notes);
    l->Depth = 0;
    l->Missed = 0;
    s->FileObject->FsContext = l;
    ExAcquireFastMutex(&Room->Lock);
    InsertTailList(&Room->Listeners, &l->Entry);
    ExReleaseFastMutex(&Room->Lock);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

/* The last handle is closed: nothing is said to this listener any more. A read may still be under way. */
static NTSTATUS NTAPI PalCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAL_ROOM Room = DeviceObject->DeviceExtension;
    PPAL_LISTENER l = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    ExAcquireFastMutex(&Room->Lock);
    RemoveEntryList(&l->Entry);
    ExReleaseFastMutex(&Room->Lock);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PalClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAL_LISTENER l = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(DeviceObject);
    while (!IsListEmpty(&l->Notes)) {
        PPAL_NOTE n = CONTAINING_RECORD(RemoveHeadList(&l->Notes), PAL_NOTE, Entry);

        PalLeave(n->Message);
        ExFreePoolWithTag(n, PAL_TAG);
    }
    ExFreePoolWithTag(l, PAL_TAG);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PalRequest(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPAL_ROOM Room = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PPAL_LISTENER l = s->FileObject->FsContext;
    PPAL_STATE State;
    KIRQL Irql;

    switch (s->MajorFunction) {
    case IRP_MJ_READ:
        return PalHear(l, Irp, s->Parameters.Read.Length);
    case IRP_MJ_WRITE:
        return PalSay(Room, l, Irp, s->Parameters.Write.Length);
    }
    if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_PALAVER_STATE)
        return YkReply(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*State))
        return YkReply(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    State = Irp->AssociatedIrp.SystemBuffer;
    KeAcquireSpinLock(&l->Lock, &Irql);
    State->Waiting = l->Depth;
    State->Missed = l->Missed;
    KeReleaseSpinLock(&l->Lock, Irql);
    return YkReply(Irp, STATUS_SUCCESS, sizeof(*State));
}

static VOID NTAPI PalUnload(PDRIVER_OBJECT DriverObject)
{
    IoDeleteSymbolicLink(&PalLink);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT DeviceObject;
    PPAL_ROOM Room;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = IoCreateDevice(DriverObject, sizeof(PAL_ROOM), &PalName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &DeviceObject);
    if (!NT_SUCCESS(Status))
        return Status;
    Room = DeviceObject->DeviceExtension;
    ExInitializeFastMutex(&Room->Lock);
    InitializeListHead(&Room->Listeners);
    Status = IoCreateSymbolicLink(&PalLink, &PalName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PalCreate;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = PalCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PalClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = PalRequest;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = PalRequest;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PalRequest;
    DriverObject->DriverUnload = PalUnload;
    DeviceObject->Flags |= DO_BUFFERED_IO;
    DeviceObject->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
