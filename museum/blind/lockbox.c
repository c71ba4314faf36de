/*
 * lockbox.sys: a page of statistics that applications see in their own memory: a section, of which IOCTL_LOCKBOX_MAP maps a view
 * (for reading) into the process that asks, one for each handle, and yields its address. The view goes with IOCTL_LOCKBOX_UNMAP or
 * with the handle. A handle may be closed by another process than the one that has mapped (it can be inherited or duplicated),
 * so the driver keeps in which process the view is, and goes there.
 *
 * The bug: it keeps a pointer to the process object, and takes no reference. If the process ends while another one still has the
 * handle, the object is freed, and the cleanup attaches to what was there.
 *
 * How it shows: a process maps by a handle that it shares with another one, and exits; then the other one closes the handle (or
 * asks to unmap).
 *
 * Device: none
 * Rule: not-a-process, use-after-free
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_LOCKBOX_MAP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LOCKBOX_UNMAP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG_LOCKBOX 'bkcL'

/* What mingw's wdm.h lacks. */
typedef struct _ATTACH_STATE {
    LIST_ENTRY ApcListHead[2];
    PVOID Process;
    BOOLEAN InProgress[3];
    PVOID Spare[2];
} ATTACH_STATE;
NTKERNELAPI VOID NTAPI KeStackAttachProcess(PEPROCESS Process, ATTACH_STATE *State);
NTKERNELAPI VOID NTAPI KeUnstackDetachProcess(ATTACH_STATE *State);

typedef struct _LOCKBOX_FILE {
    KEVENT Free; /* a lock that leaves the IRQL where it is */
    PEPROCESS Process; /* where the view is, NULL: there is none */
    PVOID Base;
} LOCKBOX_FILE, *PLOCKBOX_FILE;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING LbDevice = RTL_CONSTANT_STRING(L"\\Device\\Lockbox");
static UNICODE_STRING LbLink = RTL_CONSTANT_STRING(L"\\DosDevices\\Lockbox");
static HANDLE LbSection;

static NTSTATUS LbFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID LbLock(PLOCKBOX_FILE File)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&File->Free, Executive, KernelMode, FALSE, NULL);
}

static VOID LbUnlock(PLOCKBOX_FILE File)
{
    KeSetEvent(&File->Free, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS LbMap(PLOCKBOX_FILE File, PVOID *Address)
{
    PVOID Base = NULL;
    SIZE_T Size = 0;
    NTSTATUS Status;

    LbLock(File);
    if (File->Process != NULL) {
        LbUnlock(File);
        return STATUS_ALREADY_COMMITTED;
    }
    Status = ZwMapViewOfSection(LbSection, ZwCurrentProcess(), &Base, 0, 0, NULL, &Size, ViewUnmap, 0, PAGE_READONLY);
    if (NT_SUCCESS(Status)) {
        File->Process = PsGetCurrentProcess();
#ifdef FIXED
        ObReferenceObject(File->Process);
#endif
        File->Base = Base;
        *Address = Base;
    }
    LbUnlock(File);
    return Status;
}

/* Wherever the view is. In a process that has exited there is none any more. */
static NTSTATUS LbUnmap(PLOCKBOX_FILE File)
{
    ATTACH_STATE State;

    LbLock(File);
    if (File->Process == NULL) {
        LbUnlock(File);
        return STATUS_NOT_FOUND;
    }
    KeStackAttachProcess(File->Process, &State);
    ZwUnmapViewOfSection(ZwCurrentProcess(), File->Base);
    KeUnstackDetachProcess(&State);
#ifdef FIXED
    ObDereferenceObject(File->Process);
#endif
    File->Process = NULL;
    LbUnlock(File);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI LbCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLOCKBOX_FILE File = ExAllocatePoolWithTag(NonPagedPool, sizeof(*File), TAG_LOCKBOX);

    UNREFERENCED_PARAMETER(Device);
    if (File == NULL)
        return LbFinish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    KeInitializeEvent(&File->Free, SynchronizationEvent, TRUE);
    File->Process = NULL;
    File->Base = NULL;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = File;
    return LbFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LbCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    LbUnmap(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext);
    return LbFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LbClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLOCKBOX_FILE File = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Device);
    LbUnmap(File); /* a request that was under way at cleanup may have mapped after it */
    ExFreePoolWithTag(File, TAG_LOCKBOX);
    return LbFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LbControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Address = NULL;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LOCKBOX_MAP:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PVOID))
            return LbFinish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Status = LbMap(Stack->FileObject->FsContext, &Address);
        if (!NT_SUCCESS(Status))
            return LbFinish(Irp, Status, 0);
        *(PVOID *)Irp->AssociatedIrp.SystemBuffer = Address;
        return LbFinish(Irp, STATUS_SUCCESS, sizeof(PVOID));
    case IOCTL_LOCKBOX_UNMAP:
        return LbFinish(Irp, LbUnmap(Stack->FileObject->FsContext), 0);
    default:
        return LbFinish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI LbUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LbLink);
    IoDeleteDevice(Driver->DeviceObject);
    ZwClose(LbSection);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    OBJECT_ATTRIBUTES Attributes;
    PDEVICE_OBJECT Device;
    LARGE_INTEGER Size;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Size.QuadPart = PAGE_SIZE;
    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = ZwCreateSection(&LbSection, SECTION_ALL_ACCESS, &Attributes, &Size, PAGE_READWRITE, SEC_COMMIT, NULL);
    if (!NT_SUCCESS(Status))
        return Status;
    Driver->MajorFunction[IRP_MJ_CREATE] = LbCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = LbCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LbClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LbControl;
    Driver->DriverUnload = LbUnload;
    Status = IoCreateDevice(Driver, 0, &LbDevice, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (NT_SUCCESS(Status)) {
        Status = IoCreateSymbolicLink(&LbLink, &LbDevice);
        if (!NT_SUCCESS(Status))
            IoDeleteDevice(Device);
    }
    if (!NT_SUCCESS(Status))
        ZwClose(LbSection);
    return Status;
}
