/*
 * kinship: bulletin slates shared by name. A handle is attached to a slate by its name (the slate is made when no one has it yet); handles that
 * are attached to the same slate read and write the same 256 bytes.
 *
 * The bug: the count of a slate's users is taken down outside the lock of the list, and only then the slate is taken out of the list. An attach
 * in between finds the slate, raises the count from 0 to 1 and keeps a pointer to memory that is freed at once.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define TAG 'sniK'
#define NAME_MAX 16
#define SLATE_SIZE 256

#define IOCTL_KINSHIP_ATTACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_KINSHIP_DETACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_KINSHIP_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _SLATE {
    LIST_ENTRY Link; /* guarded by the list's lock */
    volatile LONG Users;
    ULONG NameLength;
    UCHAR Name[NAME_MAX];
    KSPIN_LOCK DataLock;
    ULONG Version;
    UCHAR Data[SLATE_SIZE];
} SLATE, *PSLATE;

typedef struct _HOLDER {
    KSPIN_LOCK Lock;
    PSLATE Slate; /* counted in its Users */
} HOLDER, *PHOLDER;

typedef struct _KINSHIP {
    KSPIN_LOCK ListLock;
    LIST_ENTRY Slates;
} KINSHIP, *PKINSHIP;

typedef struct _KINSHIP_STATE {
    ULONG Version;
    ULONG NameLength;
    UCHAR Name[NAME_MAX];
} KINSHIP_STATE, *PKINSHIP_STATE;

static const UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Kinship");
static const UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Kinship");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* One user of the slate less; the last one takes it away. */
static VOID SlateLeave(PKINSHIP kin, PSLATE slate)
{
    BOOLEAN last;
    KIRQL irql;

#ifdef FIXED
    KeAcquireSpinLock(&kin->ListLock, &irql);
    last = InterlockedDecrement(&slate->Users) == 0;
    if (last)
        RemoveEntryList(&slate->Link);
    KeReleaseSpinLock(&kin->ListLock, irql);
#else
    last = InterlockedDecrement(&slate->Users) == 0;
    if (last) {
        KeAcquireSpinLock(&kin->ListLock, &irql);
        RemoveEntryList(&slate->Link);
        KeReleaseSpinLock(&kin->ListLock, irql);
    }
#endif
    if (last)
        ExFreePoolWithTag(slate, TAG);
}

static BOOLEAN SameName(const SLATE *slate, const UCHAR *name, ULONG length)
{
    return slate->NameLength == length && RtlCompareMemory(slate->Name, name, length) == length;
}

/* Finds the slate of this name or makes it; it has one user more then. */
static PSLATE SlateJoin(PKINSHIP kin, const UCHAR *name, ULONG length)
{
    PSLATE fresh = ExAllocatePoolWithTag(NonPagedPool, sizeof *fresh, TAG);
    PSLATE found = NULL;
    PLIST_ENTRY e;
    KIRQL irql;

    if (fresh) {
        RtlZeroMemory(fresh, sizeof *fresh);
        fresh->Users = 1;
        fresh->NameLength = length;
        RtlCopyMemory(fresh->Name, name, length);
        KeInitializeSpinLock(&fresh->DataLock);
    }
    KeAcquireSpinLock(&kin->ListLock, &irql);
    for (e = kin->Slates.Flink; e != &kin->Slates; e = e->Flink) {
        PSLATE slate = CONTAINING_RECORD(e, SLATE, Link);

        if (SameName(slate, name, length)) {
            InterlockedIncrement(&slate->Users);
            found = slate;
            break;
        }
    }
    if (!found && fresh) {
        InsertTailList(&kin->Slates, &fresh->Link);
        found = fresh;
        fresh = NULL;
    }
    KeReleaseSpinLock(&kin->ListLock, irql);
    if (fresh)
        ExFreePoolWithTag(fresh, TAG);
    return found;
}

/* The holder's slate with one user more, so that a detach by another thread cannot take it away under us; NULL if there is none. */
static PSLATE HolderSlate(PHOLDER holder)
{
    PSLATE slate;
    KIRQL irql;

    KeAcquireSpinLock(&holder->Lock, &irql);
    slate = holder->Slate;
    if (slate)
        InterlockedIncrement(&slate->Users);
    KeReleaseSpinLock(&holder->Lock, irql);
    return slate;
}

static VOID HolderSet(PKINSHIP kin, PHOLDER holder, PSLATE slate)
{
    PSLATE old;
    KIRQL irql;

    KeAcquireSpinLock(&holder->Lock, &irql);
    old = holder->Slate;
    holder->Slate = slate;
    KeReleaseSpinLock(&holder->Lock, irql);
    if (old)
        SlateLeave(kin, old);
}

static NTSTATUS KinshipCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHOLDER holder = ExAllocatePoolWithTag(NonPagedPool, sizeof *holder, TAG);

    UNREFERENCED_PARAMETER(Device);
    if (!holder)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    KeInitializeSpinLock(&holder->Lock);
    holder->Slate = NULL;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = holder;
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS KinshipCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS KinshipClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PHOLDER holder = file->FsContext;

    HolderSet(Device->DeviceExtension, holder, NULL);
    file->FsContext = NULL;
    ExFreePoolWithTag(holder, TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS KinshipReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = s->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? s->Parameters.Write.Length : s->Parameters.Read.Length;
    LONGLONG offset = write ? s->Parameters.Write.ByteOffset.QuadPart : s->Parameters.Read.ByteOffset.QuadPart;
    PUCHAR buffer = Irp->AssociatedIrp.SystemBuffer;
    PSLATE slate;
    KIRQL irql;

    if (length == 0)
        return Finish(Irp, STATUS_SUCCESS, 0);
    if (offset < 0 || offset >= SLATE_SIZE)
        return Finish(Irp, write ? STATUS_INVALID_PARAMETER : STATUS_END_OF_FILE, 0);
    if (length > SLATE_SIZE - (ULONG)offset) {
        if (write)
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        length = SLATE_SIZE - (ULONG)offset;
    }
    slate = HolderSlate(s->FileObject->FsContext);
    if (!slate)
        return Finish(Irp, STATUS_INVALID_DEVICE_STATE, 0);
    KeAcquireSpinLock(&slate->DataLock, &irql);
    if (write) {
        RtlCopyMemory(slate->Data + (ULONG)offset, buffer, length);
        slate->Version++;
    } else {
        RtlCopyMemory(buffer, slate->Data + (ULONG)offset, length);
    }
    KeReleaseSpinLock(&slate->DataLock, irql);
    SlateLeave(Device->DeviceExtension, slate);
    return Finish(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS KinshipControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PKINSHIP kin = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PHOLDER holder = s->FileObject->FsContext;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PSLATE slate;
    KIRQL irql;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KINSHIP_ATTACH:
        if (in == 0 || in > NAME_MAX)
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        slate = SlateJoin(kin, Irp->AssociatedIrp.SystemBuffer, in);
        if (!slate)
            return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        HolderSet(kin, holder, slate);
        return Finish(Irp, STATUS_SUCCESS, 0);

    case IOCTL_KINSHIP_DETACH:
        HolderSet(kin, holder, NULL);
        return Finish(Irp, STATUS_SUCCESS, 0);

    case IOCTL_KINSHIP_QUERY: {
        PKINSHIP_STATE state = Irp->AssociatedIrp.SystemBuffer;

        if (out < sizeof *state)
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        slate = HolderSlate(holder);
        if (!slate)
            return Finish(Irp, STATUS_INVALID_DEVICE_STATE, 0);
        RtlZeroMemory(state, sizeof *state);
        KeAcquireSpinLock(&slate->DataLock, &irql);
        state->Version = slate->Version;
        KeReleaseSpinLock(&slate->DataLock, irql);
        state->NameLength = slate->NameLength;
        RtlCopyMemory(state->Name, slate->Name, slate->NameLength);
        SlateLeave(kin, slate);
        return Finish(Irp, STATUS_SUCCESS, sizeof *state);
    }

    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID KinshipUnload(PDRIVER_OBJECT Driver)
{
    /* no handle is open any more, so no slate is left */
    IoDeleteSymbolicLink((PUNICODE_STRING)&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PKINSHIP kin;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverUnload = KinshipUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = KinshipCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KinshipCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KinshipClose;
    Driver->MajorFunction[IRP_MJ_READ] = KinshipReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = KinshipReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = KinshipControl;
    status = IoCreateDevice(Driver, sizeof *kin, (PUNICODE_STRING)&DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    kin = device->DeviceExtension;
    KeInitializeSpinLock(&kin->ListLock);
    InitializeListHead(&kin->Slates);
    device->Flags |= DO_BUFFERED_IO;
    status = IoCreateSymbolicLink((PUNICODE_STRING)&LinkName, (PUNICODE_STRING)&DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
