/*
 * parley: two or more applications talk in a session: one makes it and passes its number on, others attach, and all may post and fetch
 * the latest message.
 *
 * The bug: attaching to a session takes no reference of its own, so the session is freed when its maker closes, and those attached go on using it.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl
 */
#include "../include/bay_control.h"

#define IOCTL_MAKE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)    /* out: ULONG number */
#define IOCTL_ATTACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)    /* in: ULONG number */
#define IOCTL_POST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)    /* in: message */
#define IOCTL_FETCH  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)    /* out: message */

#define TAG 'apFA'
#define LONGEST 256

typedef struct SESSION {
    LIST_ENTRY entry;
    ULONG number, references, length;
    UCHAR message[LONGEST];
} SESSION;

static FAST_MUTEX Mutex;                        /* of all sessions, and of the files' FsContext */
static LIST_ENTRY Sessions;
static ULONG Last;

static SESSION *Find(ULONG number)
{
    LIST_ENTRY *entry;

    for (entry = Sessions.Flink; entry != &Sessions; entry = entry->Flink) {
        SESSION *session = CONTAINING_RECORD(entry, SESSION, entry);

        if (session->number == number)
            return session;
    }
    return NULL;
}

static NTSTATUS Make(FILE_OBJECT *file, ULONG *number)
{
    SESSION *session = ExAllocatePoolWithTag(PagedPool, sizeof *session, TAG);
    NTSTATUS status = STATUS_INVALID_DEVICE_STATE;

    if (!session)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(session, sizeof *session);
    session->references = 1;
    ExAcquireFastMutex(&Mutex);
    if (!file->FsContext) {
        do
            session->number = ++Last;
        while (!session->number || Find(session->number));
        *number = session->number;
        InsertTailList(&Sessions, &session->entry);
        file->FsContext = session;
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Mutex);
    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(session, TAG);
    return status;
}

static NTSTATUS Attach(FILE_OBJECT *file, ULONG number)
{
    NTSTATUS status = STATUS_INVALID_DEVICE_STATE;

    ExAcquireFastMutex(&Mutex);
    if (!file->FsContext) {
        SESSION *session = Find(number);

        status = STATUS_NOT_FOUND;
        if (session) {
#ifdef FIXED
            ++session->references;
#endif
            file->FsContext = session;
            status = STATUS_SUCCESS;
        }
    }
    ExReleaseFastMutex(&Mutex);
    return status;
}

static NTSTATUS Post(FILE_OBJECT *file, const UCHAR *message, ULONG length)
{
    SESSION *session;

    if (length > LONGEST)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&Mutex);
    session = file->FsContext;
    if (session) {
        if (length)
            RtlCopyMemory(session->message, message, length);
        session->length = length;
    }
    ExReleaseFastMutex(&Mutex);
    return session ? STATUS_SUCCESS : STATUS_INVALID_DEVICE_STATE;
}

static NTSTATUS Fetch(FILE_OBJECT *file, UCHAR *message, ULONG room, ULONG *length)
{
    NTSTATUS status = STATUS_INVALID_DEVICE_STATE;
    SESSION *session;

    ExAcquireFastMutex(&Mutex);
    session = file->FsContext;
    if (session) {
        status = STATUS_BUFFER_TOO_SMALL;
        if (session->length <= room) {
            if (session->length)
                RtlCopyMemory(message, session->message, session->length);
            *length = session->length;
            status = STATUS_SUCCESS;
        }
    }
    ExReleaseFastMutex(&Mutex);
    return status;
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT self, PIRP irp)
{
    FILE_OBJECT *file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    SESSION *session;

    UNREFERENCED_PARAMETER(self);
    ExAcquireFastMutex(&Mutex);
    session = file->FsContext;
    file->FsContext = NULL;
    if (session && --session->references == 0)
        RemoveEntryList(&session->entry);
    else
        session = NULL;
    ExReleaseFastMutex(&Mutex);
    if (session)
        ExFreePoolWithTag(session, TAG);
    return AfcComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG value = 0;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(self);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MAKE:
        if (out < sizeof(ULONG))
            return AfcComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = Make(stack->FileObject, &value);
        if (!NT_SUCCESS(status))
            return AfcComplete(irp, status, 0);
        *(ULONG *)buffer = value;
        return AfcComplete(irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_ATTACH:
        if (in != sizeof(ULONG))
            return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
        return AfcComplete(irp, Attach(stack->FileObject, *(ULONG *)buffer), 0);
    case IOCTL_POST:
        return AfcComplete(irp, Post(stack->FileObject, buffer, in), 0);
    case IOCTL_FETCH:
        status = Fetch(stack->FileObject, buffer, out, &value);
        return AfcComplete(irp, status, NT_SUCCESS(status) ? value : 0);
    default:
        return AfcComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    AfcDelete(L"\\DosDevices\\AfParley");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    ExInitializeFastMutex(&Mutex);
    InitializeListHead(&Sessions);
    driver->MajorFunction[IRP_MJ_CREATE] = AfcNothing;
    driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    driver->MajorFunction[IRP_MJ_CLEANUP] = AfcNothing;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    return AfcMake(driver, L"\\Device\\AfParley", L"\\DosDevices\\AfParley");
}
