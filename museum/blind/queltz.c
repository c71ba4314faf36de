/*
 * queltz: journal of processes for a licence meter. A process callback keeps the last 256 starts and ends; a handle of
 * \\.\Queltz reads them from where it was opened on, and may have an event of the application set at each record.
 *
 * The bug: when the symbolic link cannot be made, DriverEntry deletes the device and the journal and fails, but the
 * process callback stays registered; the next process has it called in freed memory, the code included.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: failure
 */
#include <ddk/wdm.h>

#define QUELTZ_TAG          'tleQ'
#define QUELTZ_RECORDS      256         /* a power of two */

#define IOCTL_QUELTZ_EVENT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUELTZ_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* In ntddk.h only. */
typedef VOID (NTAPI *QUELTZ_PROCESS_NOTIFY)(HANDLE ParentId, HANDLE ProcessId, BOOLEAN Create);
NTKERNELAPI NTSTATUS NTAPI PsSetCreateProcessNotifyRoutine(QUELTZ_PROCESS_NOTIFY NotifyRoutine, BOOLEAN Remove);

typedef struct _QUELTZ_RECORD {         /* reads return whole records */
    ULONG64 Sequence;                   /* a gap means that records were overwritten before they were read */
    LONG64 Time;
    ULONG64 ProcessId;
    ULONG64 ParentId;
    ULONG Created;
    ULONG Reserved;
} QUELTZ_RECORD, *PQUELTZ_RECORD;

typedef struct _QUELTZ_EVENT {          /* input of IOCTL_QUELTZ_EVENT; 0 takes the event back */
    ULONG64 Event;
} QUELTZ_EVENT, *PQUELTZ_EVENT;

typedef struct _QUELTZ_STATE {          /* output of IOCTL_QUELTZ_STATE */
    ULONG64 Written;                    /* records written since the driver was loaded */
    ULONG64 Unread;                     /* records that a read of this handle would find */
    ULONG64 Skipped;                    /* records that this handle missed */
} QUELTZ_STATE, *PQUELTZ_STATE;

typedef struct _QUELTZ_EXT {
    KSPIN_LOCK Lock;                    /* all below and the handles */
    LIST_ENTRY Handles;
    PQUELTZ_RECORD Records;
    ULONG64 Next;                       /* sequence number of the next record */
} QUELTZ_EXT, *PQUELTZ_EXT;

typedef struct _QUELTZ_HANDLE {
    LIST_ENTRY Link;
    BOOLEAN Closed;
    PKEVENT Event;                      /* referenced */
    ULONG64 Next;                       /* to be read */
    ULONG64 Skipped;
} QUELTZ_HANDLE, *PQUELTZ_HANDLE;

static PDEVICE_OBJECT QueltzDevice;     /* for the callback, which is given no context */

static NTSTATUS QueltzComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI QueltzProcess(HANDLE ParentId, HANDLE ProcessId, BOOLEAN Create)
{
    PQUELTZ_EXT Ext = (PQUELTZ_EXT)QueltzDevice->DeviceExtension;
    PQUELTZ_RECORD Record;
    PQUELTZ_HANDLE Handle;
    LARGE_INTEGER Now;
    PLIST_ENTRY Entry;
    KIRQL Irql;

    KeQuerySystemTime(&Now);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Record = &Ext->Records[Ext->Next % QUELTZ_RECORDS];
    Record->Sequence = Ext->Next++;
    Record->Time = Now.QuadPart;
    Record->ProcessId = (ULONG64)(ULONG_PTR)ProcessId;
    Record->ParentId = (ULONG64)(ULONG_PTR)ParentId;
    Record->Created = Create ? 1 : 0;
    Record->Reserved = 0;
    for (Entry = Ext->Handles.Flink; Entry != &Ext->Handles; Entry = Entry->Flink) {
        Handle = CONTAINING_RECORD(Entry, QUELTZ_HANDLE, Link);
        if (Handle->Event != NULL)
            KeSetEvent(Handle->Event, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
}

/* Lock held. Moves the handle's position over records that were overwritten. */
static VOID QueltzSkipLocked(PQUELTZ_EXT Ext, PQUELTZ_HANDLE Handle)
{
    ULONG64 Behind = Ext->Next - Handle->Next;

    if (Behind > QUELTZ_RECORDS) {
        Handle->Skipped += Behind - QUELTZ_RECORDS;
        Handle->Next = Ext->Next - QUELTZ_RECORDS;
    }
}

static NTSTATUS NTAPI QueltzRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUELTZ_EXT Ext = (PQUELTZ_EXT)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PQUELTZ_RECORD Out = (PQUELTZ_RECORD)Irp->AssociatedIrp.SystemBuffer;
    PQUELTZ_HANDLE Handle;
    ULONG Room, Count = 0;
    KIRQL Irql;

    Handle = Stack->FileObject != NULL ? (PQUELTZ_HANDLE)Stack->FileObject->FsContext : NULL;
    if (Handle == NULL)
        return QueltzComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    Room = Stack->Parameters.Read.Length / sizeof(QUELTZ_RECORD);
    if (Room == 0)
        return QueltzComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    QueltzSkipLocked(Ext, Handle);
    while (Count < Room && Handle->Next != Ext->Next) {
        Out[Count] = Ext->Records[Handle->Next % QUELTZ_RECORDS];
        Handle->Next++;
        Count++;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return QueltzComplete(Irp, STATUS_SUCCESS, Count * sizeof(QUELTZ_RECORD));
}

/* Gives the handle the event Value of the calling process, or none for 0. */
static NTSTATUS QueltzSetEvent(PQUELTZ_EXT Ext, PQUELTZ_HANDLE Handle, ULONG64 Value, KPROCESSOR_MODE Mode)
{
    PVOID Event = NULL;
    PVOID Old;
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (Value != 0) {
        Status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)Value, EVENT_MODIFY_STATE, *ExEventObjectType, Mode,
                                           &Event, NULL);
        if (!NT_SUCCESS(Status))
            return Status;
    }
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (Handle->Closed) {
        Old = Event;                            /* cleanup has passed: keep none */
        Status = STATUS_FILE_CLOSED;
    } else {
        Old = Handle->Event;
        Handle->Event = (PKEVENT)Event;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    if (Old != NULL)
        ObDereferenceObject(Old);
    return Status;
}

static VOID QueltzGetState(PQUELTZ_EXT Ext, PQUELTZ_HANDLE Handle, PQUELTZ_STATE State)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Ext->Lock, &Irql);
    QueltzSkipLocked(Ext, Handle);
    State->Written = Ext->Next;
    State->Unread = Ext->Next - Handle->Next;
    State->Skipped = Handle->Skipped;
    KeReleaseSpinLock(&Ext->Lock, Irql);
}

static NTSTATUS NTAPI QueltzControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUELTZ_EXT Ext = (PQUELTZ_EXT)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    PQUELTZ_HANDLE Handle;
    NTSTATUS Status;

    Handle = Stack->FileObject != NULL ? (PQUELTZ_HANDLE)Stack->FileObject->FsContext : NULL;
    if (Handle == NULL)
        return QueltzComplete(Irp, STATUS_INVALID_PARAMETER, 0);

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QUELTZ_EVENT:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(QUELTZ_EVENT))
            return QueltzComplete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
        Status = QueltzSetEvent(Ext, Handle, ((PQUELTZ_EVENT)Buffer)->Event, Irp->RequestorMode);
        return QueltzComplete(Irp, Status, 0);

    case IOCTL_QUELTZ_STATE:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(QUELTZ_STATE))
            return QueltzComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        QueltzGetState(Ext, Handle, (PQUELTZ_STATE)Buffer);
        return QueltzComplete(Irp, STATUS_SUCCESS, sizeof(QUELTZ_STATE));

    default:
        return QueltzComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI QueltzCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUELTZ_EXT Ext = (PQUELTZ_EXT)DeviceObject->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PQUELTZ_HANDLE Handle;
    KIRQL Irql;

    if (File == NULL || File->FileName.Length != 0)
        return QueltzComplete(Irp, STATUS_OBJECT_NAME_INVALID, 0);
    Handle = (PQUELTZ_HANDLE)ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*Handle), QUELTZ_TAG);
    if (Handle == NULL)
        return QueltzComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(Handle, sizeof(*Handle));
    File->FsContext = Handle;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Handle->Next = Ext->Next;
    InsertTailList(&Ext->Handles, &Handle->Link);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return QueltzComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI QueltzCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUELTZ_EXT Ext = (PQUELTZ_EXT)DeviceObject->DeviceExtension;
    PQUELTZ_HANDLE Handle = (PQUELTZ_HANDLE)IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    PKEVENT Event = NULL;
    KIRQL Irql;

    if (Handle != NULL) {
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        if (!Handle->Closed) {
            Handle->Closed = TRUE;
            RemoveEntryList(&Handle->Link);
            Event = Handle->Event;
            Handle->Event = NULL;
        }
        KeReleaseSpinLock(&Ext->Lock, Irql);
        if (Event != NULL)
            ObDereferenceObject(Event);
    }
    return QueltzComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI QueltzClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PVOID Handle = File->FsContext;

    UNREFERENCED_PARAMETER(DeviceObject);
    File->FsContext = NULL;
    if (Handle != NULL)
        ExFreePoolWithTag(Handle, QUELTZ_TAG);
    return QueltzComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI QueltzUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT Device = Driver->DeviceObject;
    PQUELTZ_EXT Ext = (PQUELTZ_EXT)Device->DeviceExtension;
    UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Queltz");

    PsSetCreateProcessNotifyRoutine(QueltzProcess, TRUE);       /* waits for callbacks that are running */
    IoDeleteSymbolicLink(&Link);
    ExFreePoolWithTag(Ext->Records, QUELTZ_TAG);
    IoDeleteDevice(Device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\Queltz");
    UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Queltz");
    PDEVICE_OBJECT Device;
    PQUELTZ_EXT Ext;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = QueltzCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = QueltzCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = QueltzClose;
    Driver->MajorFunction[IRP_MJ_READ] = QueltzRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = QueltzControl;
    Driver->DriverUnload = QueltzUnload;

    Status = IoCreateDevice(Driver, sizeof(QUELTZ_EXT), &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                            &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Device->Flags |= DO_BUFFERED_IO;
    Ext = (PQUELTZ_EXT)Device->DeviceExtension;
    KeInitializeSpinLock(&Ext->Lock);
    InitializeListHead(&Ext->Handles);
    Ext->Next = 0;
    Ext->Records = (PQUELTZ_RECORD)ExAllocatePoolWithTag(NonPagedPoolNx, QUELTZ_RECORDS * sizeof(QUELTZ_RECORD),
                                                         QUELTZ_TAG);
    if (Ext->Records == NULL) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
        goto NoRecords;
    }
    RtlZeroMemory(Ext->Records, QUELTZ_RECORDS * sizeof(QUELTZ_RECORD));

    QueltzDevice = Device;
    Status = PsSetCreateProcessNotifyRoutine(QueltzProcess, FALSE);
    if (!NT_SUCCESS(Status))
        goto NoCallback;
    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status))
        goto NoLink;
    return STATUS_SUCCESS;

NoLink:
#ifdef FIXED
    PsSetCreateProcessNotifyRoutine(QueltzProcess, TRUE);
#endif
NoCallback:
    ExFreePoolWithTag(Ext->Records, QUELTZ_TAG);
NoRecords:
    IoDeleteDevice(Device);
    return Status;
}
