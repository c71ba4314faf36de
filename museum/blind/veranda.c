/*
 * veranda: watches devices come and go. A program names an interface class; from then on the symbolic links of the interfaces of that class that arrive or
 * leave are noted, and the programs read the notes one by one.
 *
 * The bug: the notification is unregistered under the lock that the notification routine takes. IoUnregisterPlugPlayNotificationEx waits for a routine that is
 * running, the routine waits for the lock: the request (or the removal of the device) and the system's notification thread hang for ever.
 *
 * Device: ROOT\VERANDA
 * Rule: unload-still-called, deadlock
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

NTKERNELAPI NTSTATUS NTAPI IoUnregisterPlugPlayNotificationEx(PVOID NotificationEntry);

#define VER_TAG 'reV '
#define VER_DEEPEST 64 /* notes kept */

#define IOCTL_VERANDA_WATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_VERANDA_REST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_VERANDA_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID VerInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x05}};
static const GUID VerArrival = {0xcb3a4004, 0x46f0, 0x11d0, {0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f}}; /* GUID_DEVICE_INTERFACE_ARRIVAL */

/* What a read answers: 1 arrived, 0 left; then the name. */
typedef struct _VER_NOTE {
    LIST_ENTRY Entry;
    ULONG Length; /* of the rest */
    ULONG Arrived;
    WCHAR Name[1];
} VER_NOTE, *PVER_NOTE;

typedef struct _VER_STATE {
    ULONG Notes;
    ULONG Missed;
    ULONG Watching;
} VER_STATE, *PVER_STATE;

typedef struct _VER_EXT {
    YK Yk;
    KMUTEX Setup; /* one at a time begins or ends the watching; taken before Lock, never by the notification routine */
    BOOLEAN Shut;
    KMUTEX Lock;  /* of the rest */
    PVOID Registration;
    LIST_ENTRY Notes;
    ULONG Depth;
    ULONG Missed;
} VER_EXT, *PVER_EXT;

DRIVER_INITIALIZE DriverEntry;

static VOID VerTake(PKMUTEX Mutex)
{
    KeWaitForSingleObject(Mutex, Executive, KernelMode, FALSE, NULL);
}

static NTSTATUS NTAPI VerHappened(PVOID Structure, PVOID Context)
{
    PDEVICE_INTERFACE_CHANGE_NOTIFICATION c = Structure;
    PVER_EXT x = Context;
    PVER_NOTE n;

    n = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(VER_NOTE, Name) + c->SymbolicLinkName->Length, VER_TAG);
    if (n != NULL) {
        n->Length = sizeof(ULONG) + c->SymbolicLinkName->Length;
        n->Arrived = RtlCompareMemory(&c->Event, &VerArrival, sizeof(GUID)) == sizeof(GUID);
        RtlCopyMemory(n->Name, c->SymbolicLinkName->Buffer, c->SymbolicLinkName->Length);
    }
    VerTake(&x->Lock);
    if (n != NULL && x->Depth < VER_DEEPEST) {
        InsertTailList(&x->Notes, &n->Entry);
        x->Depth++;
        n = NULL;
    } else {
        x->Missed++;
    }
    KeReleaseMutex(&x->Lock, FALSE);
    if (n != NULL)
        ExFreePoolWithTag(n, VER_TAG);
    return STATUS_SUCCESS;
}

/* Under Setup: ends the watching if there is any. */
static VOID VerRest(PVER_EXT x)
{
    PVOID Registration;

    VerTake(&x->Lock);
    Registration = x->Registration;
    x->Registration = NULL;
#ifdef FIXED
    KeReleaseMutex(&x->Lock, FALSE);
    if (Registration != NULL)
        IoUnregisterPlugPlayNotificationEx(Registration);
#else
    if (Registration != NULL)
        IoUnregisterPlugPlayNotificationEx(Registration);
    KeReleaseMutex(&x->Lock, FALSE);
#endif
}

static NTSTATUS VerWatch(PVER_EXT x, GUID *Class)
{
    PVOID Registration;
    NTSTATUS Status;

    VerTake(&x->Setup);
    if (x->Shut) {
        Status = STATUS_DELETE_PENDING;
    } else {
        VerRest(x);
        Status = IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange, 0, Class, x->Yk.Self->DriverObject, VerHappened, x, &Registration);
        if (NT_SUCCESS(Status)) {
            VerTake(&x->Lock);
            x->Registration = Registration;
            KeReleaseMutex(&x->Lock, FALSE);
        }
    }
    KeReleaseMutex(&x->Setup, FALSE);
    return Status;
}

static NTSTATUS VerRead(PVER_EXT x, PIRP Irp, ULONG Room)
{
    PVER_NOTE n = NULL;
    NTSTATUS Status;
    ULONG Length = 0;

    VerTake(&x->Lock);
    if (IsListEmpty(&x->Notes)) {
        Status = STATUS_NO_MORE_ENTRIES;
    } else {
        n = CONTAINING_RECORD(x->Notes.Flink, VER_NOTE, Entry);
        if (n->Length > Room) {
            n = NULL;
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RemoveEntryList(&n->Entry);
            x->Depth--;
            Status = STATUS_SUCCESS;
        }
    }
    KeReleaseMutex(&x->Lock, FALSE);
    if (n != NULL) {
        Length = n->Length;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &n->Arrived, Length);
        ExFreePoolWithTag(n, VER_TAG);
    }
    return YkFinish(&x->Yk, Irp, Status, Length);
}

static NTSTATUS VerRequest(PYK d, PIRP Irp)
{
    PVER_EXT x = CONTAINING_RECORD(d, VER_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVER_STATE State;
    GUID Class;

    if (s->MajorFunction == IRP_MJ_READ)
        return VerRead(x, Irp, s->Parameters.Read.Length);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VERANDA_WATCH:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(GUID))
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&Class, Irp->AssociatedIrp.SystemBuffer, sizeof(GUID));
        return YkFinish(d, Irp, VerWatch(x, &Class), 0);
    case IOCTL_VERANDA_REST:
        VerTake(&x->Setup);
        VerRest(x);
        KeReleaseMutex(&x->Setup, FALSE);
        return YkFinish(d, Irp, STATUS_SUCCESS, 0);
    case IOCTL_VERANDA_STATE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*State))
            return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        State = Irp->AssociatedIrp.SystemBuffer;
        VerTake(&x->Lock);
        State->Notes = x->Depth;
        State->Missed = x->Missed;
        State->Watching = x->Registration != NULL;
        KeReleaseMutex(&x->Lock, FALSE);
        return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(*State));
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS VerInit(PYK d)
{
    PVER_EXT x = CONTAINING_RECORD(d, VER_EXT, Yk);

    KeInitializeMutex(&x->Setup, 0);
    KeInitializeMutex(&x->Lock, 0);
    InitializeListHead(&x->Notes);
    return STATUS_SUCCESS;
}

static VOID VerGone(PYK d)
{
    PVER_EXT x = CONTAINING_RECORD(d, VER_EXT, Yk);

    VerTake(&x->Setup);
    x->Shut = TRUE;
    VerRest(x);
    KeReleaseMutex(&x->Setup, FALSE);
}

/* Nothing is noted or read any more. */
static VOID VerUninit(PYK d)
{
    PVER_EXT x = CONTAINING_RECORD(d, VER_EXT, Yk);

    while (!IsListEmpty(&x->Notes))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&x->Notes), VER_NOTE, Entry), VER_TAG);
}

static const YK_OPS VerOps = {
    .ExtensionSize = sizeof(VER_EXT),
    .Interface = &VerInterface,
    .Flags = DO_BUFFERED_IO,
    .Init = VerInit,
    .Uninit = VerUninit,
    .Request = VerRequest,
    .Gone = VerGone,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &VerOps);
}
