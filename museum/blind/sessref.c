/*
 * A legacy driver with counting sessions: an application opens a session, which gets a number, adds to it from any thread, reads its total and closes it.
 *
 * The bug: a lookup takes its reference to the session after it has let go of the table's lock, so that a close in between frees the session that is used.
 * Shows by: one thread adds to a session or reads it, while another one closes the session between the lookup and the reference.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define SESSION_TAG 'sseS'
#define SESSIONS_MOST 64u

#define IOCTL_SESSION_OPEN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)  /* out: ULONG, its number */
#define IOCTL_SESSION_CLOSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)  /* in: ULONG */
#define IOCTL_SESSION_ADD   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_ANY_ACCESS)  /* in: SESSION_ADD */
#define IOCTL_SESSION_TOTAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x844, METHOD_BUFFERED, FILE_ANY_ACCESS)  /* in: ULONG, out: ULONGLONG */

typedef struct _SESSION_ADD {
    ULONG Number;
    ULONG Value;
} SESSION_ADD, *PSESSION_ADD;

typedef struct _SESSION {
    LIST_ENTRY Link;
    PFILE_OBJECT Owner;                         /* compared only */
    ULONG Number;
    volatile LONG References;                   /* the table's and one for each use */
    volatile LONGLONG Total;
} SESSION, *PSESSION;

typedef struct _SESSION_TABLE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Sessions;
    ULONG Count;
    ULONG Next;
} SESSION_TABLE, *PSESSION_TABLE;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\SessRef");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\SessRef");

static NTSTATUS SessionComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static void SessionRelease(PSESSION Session)
{
    if (InterlockedDecrement(&Session->References) == 0)
        ExFreePoolWithTag(Session, SESSION_TAG);
}

/* Lock held. */
static PSESSION SessionFind(PSESSION_TABLE Table, PFILE_OBJECT Owner, ULONG Number)
{
    PLIST_ENTRY entry;

    for (entry = Table->Sessions.Flink; entry != &Table->Sessions; entry = entry->Flink) {
        PSESSION session = CONTAINING_RECORD(entry, SESSION, Link);

        if (session->Owner == Owner && session->Number == Number)
            return session;
    }
    return NULL;
}

/* The session with a reference, or NULL. */
static PSESSION SessionGet(PSESSION_TABLE Table, PFILE_OBJECT Owner, ULONG Number)
{
    PSESSION session;
    KIRQL irql;

    KeAcquireSpinLock(&Table->Lock, &irql);
    session = SessionFind(Table, Owner, Number);
#ifdef FIXED
    if (session != NULL)
        InterlockedIncrement(&session->References);
    KeReleaseSpinLock(&Table->Lock, irql);
#else
    KeReleaseSpinLock(&Table->Lock, irql);
    if (session != NULL)
        InterlockedIncrement(&session->References);
#endif
    return session;
}

static NTSTATUS SessionOpen(PSESSION_TABLE Table, PFILE_OBJECT Owner, PULONG Number)
{
    PSESSION session = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*session), SESSION_TAG);
    KIRQL irql;

    if (session == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    session->Owner = Owner;
    session->References = 1;
    session->Total = 0;
    KeAcquireSpinLock(&Table->Lock, &irql);
    if (Table->Count == SESSIONS_MOST) {
        KeReleaseSpinLock(&Table->Lock, irql);
        ExFreePoolWithTag(session, SESSION_TAG);
        return STATUS_TOO_MANY_SESSIONS;
    }
    Table->Count++;
    *Number = session->Number = Table->Next++;
    InsertTailList(&Table->Sessions, &session->Link);
    KeReleaseSpinLock(&Table->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS SessionClose(PSESSION_TABLE Table, PFILE_OBJECT Owner, ULONG Number)
{
    PSESSION session;
    KIRQL irql;

    KeAcquireSpinLock(&Table->Lock, &irql);
    session = SessionFind(Table, Owner, Number);
    if (session != NULL) {
        RemoveEntryList(&session->Link);
        Table->Count--;
    }
    KeReleaseSpinLock(&Table->Lock, irql);
    if (session == NULL)
        return STATUS_NOT_FOUND;
    SessionRelease(session);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI SessionControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSESSION_TABLE table = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    PFILE_OBJECT owner = sp->FileObject;
    PSESSION session;
    ULONG number;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SESSION_OPEN:
        if (out < sizeof(ULONG))
            return SessionComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = SessionOpen(table, owner, &number);
        if (!NT_SUCCESS(status))
            return SessionComplete(Irp, status, 0);
        *(PULONG)buffer = number;
        return SessionComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_SESSION_CLOSE:
        if (in < sizeof(ULONG))
            return SessionComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return SessionComplete(Irp, SessionClose(table, owner, *(PULONG)buffer), 0);

    case IOCTL_SESSION_ADD:
        if (in < sizeof(SESSION_ADD))
            return SessionComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        session = SessionGet(table, owner, ((PSESSION_ADD)buffer)->Number);
        if (session == NULL)
            return SessionComplete(Irp, STATUS_NOT_FOUND, 0);
        InterlockedAdd64(&session->Total, ((PSESSION_ADD)buffer)->Value);
        SessionRelease(session);
        return SessionComplete(Irp, STATUS_SUCCESS, 0);

    case IOCTL_SESSION_TOTAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONGLONG))
            return SessionComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        session = SessionGet(table, owner, *(PULONG)buffer);
        if (session == NULL)
            return SessionComplete(Irp, STATUS_NOT_FOUND, 0);
        *(PLONGLONG)buffer = InterlockedCompareExchange64(&session->Total, 0, 0);
        SessionRelease(session);
        return SessionComplete(Irp, STATUS_SUCCESS, sizeof(ULONGLONG));
    }
    return SessionComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* The last handle is closed, or the last request after that has ended: the handle's sessions end. */
static NTSTATUS NTAPI SessionEnd(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSESSION_TABLE table = Device->DeviceExtension;
    PFILE_OBJECT owner = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LIST_ENTRY mine;
    PLIST_ENTRY entry, next;
    KIRQL irql;

    InitializeListHead(&mine);
    KeAcquireSpinLock(&table->Lock, &irql);
    for (entry = table->Sessions.Flink; entry != &table->Sessions; entry = next) {
        next = entry->Flink;
        if (CONTAINING_RECORD(entry, SESSION, Link)->Owner == owner) {
            RemoveEntryList(entry);
            InsertTailList(&mine, entry);
            table->Count--;
        }
    }
    KeReleaseSpinLock(&table->Lock, irql);
    while (!IsListEmpty(&mine))
        SessionRelease(CONTAINING_RECORD(RemoveHeadList(&mine), SESSION, Link));
    return SessionComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SessionCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return SessionComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI SessionUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PSESSION_TABLE table;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = SessionCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = SessionEnd;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SessionEnd;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SessionControl;
    Driver->DriverUnload = SessionUnload;
    status = IoCreateDevice(Driver, sizeof(SESSION_TABLE), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    table = device->DeviceExtension;
    KeInitializeSpinLock(&table->Lock);
    InitializeListHead(&table->Sessions);
    table->Count = 0;
    table->Next = 1;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
