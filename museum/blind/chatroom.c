/*
 * chatroom: named rooms for short messages between processes. A handle joins one
 * room at a time (IOCTL_CR_JOIN; the room is made by its first member), WriteFile
 * says something to the room, ReadFile gives the next message not yet read (or
 * STATUS_NO_MORE_ENTRIES). A room goes with its last member.
 *
 * The bug: looking up a room takes the reference only after the list lock was released.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define CR_TAG 'morC'
#define NAME_CHARS 24
#define TEXT_BYTES 120
#define KEPT 16u

#define IOCTL_CR_JOIN  CTL_CODE(0x8002, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CR_LEAVE CTL_CODE(0x8002, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CR_WHERE CTL_CODE(0x8002, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _MESSAGE {
    ULONG Bytes;
    UCHAR Text[TEXT_BYTES];
} MESSAGE;

typedef struct _ROOM {
    LIST_ENTRY Link;
    LONG Refs;                  /* guarded by the list lock when it goes to 0 */
    WCHAR Name[NAME_CHARS];
    KSPIN_LOCK Lock;            /* guards the messages */
    ULONG Said;                 /* number of messages ever */
    MESSAGE Messages[KEPT];
} ROOM, *PROOM;

typedef struct _MEMBER {        /* one per handle */
    FAST_MUTEX Mutex;
    PROOM Room;
    ULONG Read;
} MEMBER, *PMEMBER;

static UNICODE_STRING gDevice = RTL_CONSTANT_STRING(L"\\Device\\ChatRoom");
static UNICODE_STRING gLink = RTL_CONSTANT_STRING(L"\\DosDevices\\ChatRoom");
static KSPIN_LOCK gListLock;
static LIST_ENTRY gRooms;

static NTSTATUS Done(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static PROOM FindLocked(const WCHAR *Name)
{
    PLIST_ENTRY e;
    for (e = gRooms.Flink; e != &gRooms; e = e->Flink) {
        PROOM r = CONTAINING_RECORD(e, ROOM, Link);
        if (RtlCompareMemory(r->Name, Name, sizeof r->Name) == sizeof r->Name)
            return r;
    }
    return NULL;
}

/* the room of that name with a reference; made when there is none */
static PROOM GetRoom(const WCHAR *Name)
{
    PROOM r, fresh;
    KIRQL irql;

    KeAcquireSpinLock(&gListLock, &irql);
    r = FindLocked(Name);
#ifdef FIXED
    if (r)
        InterlockedIncrement(&r->Refs);
    KeReleaseSpinLock(&gListLock, irql);
#else
    KeReleaseSpinLock(&gListLock, irql);
    if (r)
        InterlockedIncrement(&r->Refs);
#endif
    if (r)
        return r;

    fresh = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *fresh, CR_TAG);
    if (!fresh)
        return NULL;
    RtlZeroMemory(fresh, sizeof *fresh);
    RtlCopyMemory(fresh->Name, Name, sizeof fresh->Name);
    KeInitializeSpinLock(&fresh->Lock);
    fresh->Refs = 1;

    KeAcquireSpinLock(&gListLock, &irql);
    r = FindLocked(Name);       /* another thread may have been faster */
    if (r)
        InterlockedIncrement(&r->Refs);
    else
        InsertTailList(&gRooms, &fresh->Link);
    KeReleaseSpinLock(&gListLock, irql);
    if (r) {
        ExFreePoolWithTag(fresh, CR_TAG);
        return r;
    }
    return fresh;
}

static VOID PutRoom(PROOM Room)
{
    KIRQL irql;
    BOOLEAN last;
    KeAcquireSpinLock(&gListLock, &irql);
    last = InterlockedDecrement(&Room->Refs) == 0;
    if (last)
        RemoveEntryList(&Room->Link);
    KeReleaseSpinLock(&gListLock, irql);
    if (last)
        ExFreePoolWithTag(Room, CR_TAG);
}

static NTSTATUS Join(PMEMBER M, const WCHAR *Name)
{
    PROOM room = GetRoom(Name), old;
    KIRQL irql;
    ULONG said;
    if (!room)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&room->Lock, &irql);
    said = room->Said;
    KeReleaseSpinLock(&room->Lock, irql);
    ExAcquireFastMutex(&M->Mutex);
    old = M->Room;
    M->Room = room;
    M->Read = said;
    ExReleaseFastMutex(&M->Mutex);
    if (old)
        PutRoom(old);
    return STATUS_SUCCESS;
}

static NTSTATUS Leave(PMEMBER M)
{
    PROOM old;
    ExAcquireFastMutex(&M->Mutex);
    old = M->Room;
    M->Room = NULL;
    ExReleaseFastMutex(&M->Mutex);
    if (!old)
        return STATUS_NOT_FOUND;
    PutRoom(old);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PMEMBER m = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *m, CR_TAG);
    UNREFERENCED_PARAMETER(Dev);
    if (!m)
        return Done(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    ExInitializeFastMutex(&m->Mutex);
    m->Room = NULL;
    m->Read = 0;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = m;
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Dev);
    Leave(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PMEMBER m = file->FsContext;
    UNREFERENCED_PARAMETER(Dev);
    Leave(m);                   /* a join may have come behind the cleanup */
    file->FsContext = NULL;
    ExFreePoolWithTag(m, CR_TAG);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PMEMBER m = sp->FileObject->FsContext;
    ULONG length = sp->Parameters.Write.Length;
    NTSTATUS status = STATUS_SUCCESS;
    UNREFERENCED_PARAMETER(Dev);

    if (length == 0)
        return Done(Irp, STATUS_SUCCESS, 0);
    if (length > TEXT_BYTES)
        return Done(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    ExAcquireFastMutex(&m->Mutex);
    if (m->Room) {
        PROOM r = m->Room;
        MESSAGE *msg;
        KIRQL irql;
        KeAcquireSpinLock(&r->Lock, &irql);
        msg = &r->Messages[r->Said++ % KEPT];
        msg->Bytes = length;
        RtlCopyMemory(msg->Text, Irp->AssociatedIrp.SystemBuffer, length);
        KeReleaseSpinLock(&r->Lock, irql);
    } else
        status = STATUS_INVALID_DEVICE_STATE;
    ExReleaseFastMutex(&m->Mutex);
    return Done(Irp, status, NT_SUCCESS(status) ? length : 0);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PMEMBER m = sp->FileObject->FsContext;
    ULONG length = sp->Parameters.Read.Length, got = 0;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Dev);

    ExAcquireFastMutex(&m->Mutex);
    if (!m->Room)
        status = STATUS_INVALID_DEVICE_STATE;
    else {
        PROOM r = m->Room;
        KIRQL irql;
        KeAcquireSpinLock(&r->Lock, &irql);
        if (r->Said - m->Read > KEPT)
            m->Read = r->Said - KEPT;           /* the older ones are lost */
        if (r->Said == m->Read)
            status = STATUS_NO_MORE_ENTRIES;
        else if (r->Messages[m->Read % KEPT].Bytes > length)
            status = STATUS_BUFFER_TOO_SMALL;
        else {
            got = r->Messages[m->Read % KEPT].Bytes;
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, r->Messages[m->Read % KEPT].Text, got);
            m->Read++;
            status = STATUS_SUCCESS;
        }
        KeReleaseSpinLock(&r->Lock, irql);
    }
    ExReleaseFastMutex(&m->Mutex);
    return Done(Irp, status, got);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PMEMBER m = sp->FileObject->FsContext;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Dev);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CR_JOIN: {
        WCHAR name[NAME_CHARS];
        ULONG i;
        if (in < sizeof(WCHAR) || in >= sizeof name || in % sizeof(WCHAR))
            return Done(Irp, STATUS_OBJECT_NAME_INVALID, 0);
        RtlZeroMemory(name, sizeof name);
        RtlCopyMemory(name, Irp->AssociatedIrp.SystemBuffer, in);
        for (i = 0; i < NAME_CHARS && name[i]; i++)
            ;
        if (i == 0)
            return Done(Irp, STATUS_OBJECT_NAME_INVALID, 0);
        for (; i < NAME_CHARS; i++)
            name[i] = 0;
        return Done(Irp, Join(m, name), 0);
    }
    case IOCTL_CR_LEAVE:
        return Done(Irp, Leave(m), 0);
    case IOCTL_CR_WHERE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(WCHAR) * NAME_CHARS)
            return Done(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = STATUS_INVALID_DEVICE_STATE;
        ExAcquireFastMutex(&m->Mutex);
        if (m->Room) {
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, m->Room->Name, sizeof m->Room->Name);
            status = STATUS_SUCCESS;
        }
        ExReleaseFastMutex(&m->Mutex);
        return Done(Irp, status, NT_SUCCESS(status) ? sizeof(WCHAR) * NAME_CHARS : 0);
    }
    return Done(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&gLink);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Path);
    KeInitializeSpinLock(&gListLock);
    InitializeListHead(&gRooms);
    status = IoCreateDevice(Driver, 0, &gDevice, 0x8002, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    dev->Flags |= DO_BUFFERED_IO;
    status = IoCreateSymbolicLink(&gLink, &gDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = DriverUnload;
    return STATUS_SUCCESS;
}
