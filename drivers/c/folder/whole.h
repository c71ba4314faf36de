/* Stories of the volume, and of files by their names alone. */
#include "folder.h"

static ULONG FillsTheDisk(VOID)
{
    LARGE_INTEGER Far = {.QuadPart = 1LL << 40}, Begin = {.QuadPart = 0};
    FILE_STANDARD_INFORMATION Standard;

    CHECK(Open(L"\\??\\C:\\config.txt", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "x", 1, &Far, NULL) == STATUS_DISK_FULL);
    Far.QuadPart = 0x7FFFFFFFFFFFFFFFLL;
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "x", 1, &Far, NULL) == STATUS_DISK_FULL);
    CHECK(ZwSetInformationFile(File, &Status, &Far, sizeof(Far), FileEndOfFileInformation) == STATUS_DISK_FULL);
    CHECK(ZwSetInformationFile(File, &Status, &Far, sizeof(Far), FileAllocationInformation) == STATUS_DISK_FULL);
    /* Nothing is lost by it. */
    CHECK(ZwQueryInformationFile(File, &Status, &Standard, sizeof(Standard), FileStandardInformation) == STATUS_SUCCESS);
    CHECK(Standard.EndOfFile.QuadPart == 11);
    Far.QuadPart = 100 << 20;
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "x", 1, &Far, NULL) == STATUS_SUCCESS);
    CHECK(ZwSetInformationFile(File, &Status, &Begin, sizeof(Begin), FileEndOfFileInformation) == STATUS_SUCCESS);
    ZwClose(File);
    return 0;
}

static ULONG TheVolume(VOID)
{
    static UCHAR Room[64] __attribute__((aligned(8)));
    FILE_FS_SIZE_INFORMATION *Size = (PVOID)Room;
    FILE_FS_FULL_SIZE_INFORMATION *Full = (PVOID)Room;
    FILE_FS_VOLUME_INFORMATION *Volume = (PVOID)Room;
    FILE_FS_ATTRIBUTE_INFORMATION *Attribute = (PVOID)Room;
    FILE_FS_DEVICE_INFORMATION *Device = (PVOID)Room;
    UNICODE_STRING Own = RTL_CONSTANT_STRING(L"\\Device\\DirqlFolder");
    UNICODE_STRING Drive, Letter = RTL_CONSTANT_STRING(L"C:");
    OBJECT_ATTRIBUTES Attributes;
    PFILE_OBJECT Object;
    LONGLONG Free;

    CHECK(Open(L"\\??\\C:", FILE_READ_ATTRIBUTES | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Size, sizeof(*Size), FileFsSizeInformation) == STATUS_SUCCESS);
    Free = Size->AvailableAllocationUnits.QuadPart;
    CHECK(Free > 0 && Free < Size->TotalAllocationUnits.QuadPart && Size->BytesPerSector == 512);
    ZwClose(File);
    CHECK(NT_SUCCESS(Make(L"\\??\\C:\\more", "bytes")) && Open(L"\\??\\C:\\", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Full, sizeof(*Full), FileFsFullSizeInformation) == STATUS_SUCCESS);
    CHECK(Full->CallerAvailableAllocationUnits.QuadPart == Free - 2 && Full->SectorsPerAllocationUnit == 8);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Volume, sizeof(Room), FileFsVolumeInformation) == STATUS_SUCCESS);
    CHECK(Volume->VolumeLabelLength == 10 && memcmp(Volume->VolumeLabel, L"dirql", 10) == 0);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Volume, 24, FileFsVolumeInformation) == STATUS_BUFFER_OVERFLOW);
    CHECK(Status.Information == 24 && Volume->VolumeLabelLength == 10);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Attribute, sizeof(Room), FileFsAttributeInformation) == STATUS_SUCCESS);
    CHECK(Attribute->MaximumComponentNameLength == 255 && memcmp(Attribute->FileSystemName, L"NTFS", 8) == 0);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Device, sizeof(*Device), FileFsDeviceInformation) == STATUS_SUCCESS);
    CHECK(Device->DeviceType == FILE_DEVICE_DISK && (Device->Characteristics & FILE_DEVICE_IS_MOUNTED) != 0);
    CHECK(ObReferenceObjectByHandle(File, 0, *IoFileObjectType, KernelMode, (PVOID *)&Object, NULL) == STATUS_SUCCESS);
    CHECK(IoVolumeDeviceToDosName(Object->DeviceObject, &Drive) == STATUS_SUCCESS && RtlEqualUnicodeString(&Drive, &Letter, FALSE));
    CHECK(Drive.Buffer[2] == 0 && Drive.MaximumLength == 6);
    ExFreePool(Drive.Buffer);
    CHECK(RtlVolumeDeviceToDosName(Object->DeviceObject, &Drive) == STATUS_SUCCESS && RtlEqualUnicodeString(&Drive, &Letter, FALSE));
    ExFreePool(Drive.Buffer);
    ObDereferenceObject(Object);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Size, 23, FileFsSizeInformation) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Size, sizeof(Room), 99) == STATUS_INVALID_INFO_CLASS);
    ZwClose(File);

    /* What kind of device a file is on, the I/O manager knows of any. */
    InitializeObjectAttributes(&Attributes, &Own, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwOpenFile(&File, FILE_READ_ATTRIBUTES, &Attributes, &Status, 0, 0) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(File, 0, *IoFileObjectType, KernelMode, (PVOID *)&Object, NULL) == STATUS_SUCCESS);
    CHECK(IoVolumeDeviceToDosName(Object->DeviceObject, &Drive) == STATUS_INVALID_PARAMETER);
    ObDereferenceObject(Object);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Device, sizeof(*Device), FileFsDeviceInformation) == STATUS_SUCCESS);
    CHECK(Device->DeviceType == FILE_DEVICE_UNKNOWN && Device->Characteristics == FILE_DEVICE_SECURE_OPEN);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Size, sizeof(*Size), FileFsSizeInformation) == STATUS_INVALID_DEVICE_REQUEST);
    ZwClose(File);
    return 0;
}

static ULONG ByNameAlone(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\??\\C:\\data\\Beta.TXT"), Gone = RTL_CONSTANT_STRING(L"\\??\\C:\\gone");
    OBJECT_ATTRIBUTES Attributes;
    FILE_NETWORK_OPEN_INFORMATION Network;
    HANDLE Opened;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwQueryFullAttributesFile(&Attributes, &Network) == STATUS_SUCCESS);
    CHECK(Network.EndOfFile.QuadPart == 5 && Network.FileAttributes == FILE_ATTRIBUTE_ARCHIVE);
    CHECK(IoCreateFileEx(&Opened, TO_READ, &Attributes, &Status, NULL, 0, FILE_SHARE_READ, FILE_OPEN, SYNCHRONOUS, NULL, 0,
                         CreateFileTypeNone, NULL, IO_NO_PARAMETER_CHECKING, NULL) == STATUS_SUCCESS);
    CHECK(Status.Information == FILE_OPENED);
    CHECK(ZwDeleteFile(&Attributes) == STATUS_SHARING_VIOLATION);
    ZwClose(Opened);
    CHECK(ZwDeleteFile(&Attributes) == STATUS_SUCCESS);
    CHECK(ZwDeleteFile(&Attributes) == STATUS_OBJECT_NAME_NOT_FOUND);
    InitializeObjectAttributes(&Attributes, &Gone, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwQueryFullAttributesFile(&Attributes, &Network) == STATUS_OBJECT_NAME_NOT_FOUND);
    return 0;
}

NTSYSAPI NTSTATUS NTAPI NtCreateFile(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes, PIO_STATUS_BLOCK Block,
                                     PLARGE_INTEGER Size, ULONG FileAttributes, ULONG Share, ULONG Disposition, ULONG Options,
                                     PVOID Ea, ULONG EaLength);
NTSYSAPI NTSTATUS NTAPI NtOpenFile(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes, PIO_STATUS_BLOCK Block,
                                   ULONG Share, ULONG Options);

static ULONG ByNtTold;

static ULONG ByNt(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\??\\C:\\nt.txt");
    OBJECT_ATTRIBUTES Attributes;
    LARGE_INTEGER Begin = {.QuadPart = 0};
    char Buffer[4];

    InitializeObjectAttributes(&Attributes, &Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(NtCreateFile(&File, TO_WRITE, &Attributes, &Status, NULL, 0, 0, FILE_CREATE, SYNCHRONOUS, NULL, 0) == STATUS_SUCCESS);
    CHECK(NtWriteFile(File, NULL, NULL, NULL, &Status, "text", 4, NULL, NULL) == STATUS_SUCCESS && Status.Information == 4);
    CHECK(NtReadFile(File, NULL, NULL, NULL, &Status, Buffer, 4, &Begin, NULL) == STATUS_SUCCESS);
    CHECK(memcmp(Buffer, "text", 4) == 0);
    ZwClose(File);
    CHECK(NtOpenFile(&File, TO_READ, &Attributes, &Status, FILE_SHARE_READ, SYNCHRONOUS) == STATUS_SUCCESS);
    ZwClose(File);
    return 0;
}

static VOID NTAPI ByNtThread(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    ByNtTold = ByNt();
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* The Nt routines are the kernel's own on a system thread; on an application's they take an application's pointers only. */
static ULONG InItsCallersMode(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\??\\C:\\config.txt");
    OBJECT_ATTRIBUTES Attributes, Nameless;
    HANDLE Thread;
    char Buffer[4];

    InitializeObjectAttributes(&Attributes, &Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(NtOpenFile(&File, TO_READ, &Attributes, &Status, FILE_SHARE_READ, SYNCHRONOUS) == STATUS_ACCESS_VIOLATION);
    CHECK(NtCreateFile(&File, TO_READ, &Attributes, &Status, NULL, 0, 0, FILE_OPEN, SYNCHRONOUS, NULL, 0) == STATUS_ACCESS_VIOLATION);
    CHECK(ZwOpenFile(&File, TO_READ, &Attributes, &Status, FILE_SHARE_READ, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(NtReadFile(File, NULL, NULL, NULL, &Status, Buffer, 4, NULL, NULL) == STATUS_ACCESS_VIOLATION);
    CHECK(NtWriteFile(File, NULL, NULL, NULL, &Status, Buffer, 4, NULL, NULL) == STATUS_ACCESS_VIOLATION);
    ZwClose(File);
    InitializeObjectAttributes(&Nameless, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Nameless, NULL, NULL, ByNtThread, NULL) == STATUS_SUCCESS);
    CHECK(ZwWaitForSingleObject(Thread, FALSE, NULL) == STATUS_SUCCESS);
    ZwClose(Thread);
    return ByNtTold;
}

#define FSCTL_OWN CTL_CODE(FILE_DEVICE_FILE_SYSTEM, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* The driver's own file system, which knows one control code: it turns a number round. */
static NTSTATUS NTAPI DispatchFsControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Number = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (Stack->MinorFunction != IRP_MN_USER_FS_REQUEST || Stack->Parameters.FileSystemControl.FsControlCode != FSCTL_OWN) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.FileSystemControl.InputBufferLength < 4 || Stack->Parameters.FileSystemControl.OutputBufferLength < 4) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *Number = ~*Number;
    return Complete(Irp, STATUS_SUCCESS, sizeof(*Number));
}

static ULONG ControlsFileSystems(VOID)
{
    ULONG Number = 5, Turned = 0;

    CHECK(Open(L"\\Device\\DirqlFolder", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwFsControlFile(File, NULL, NULL, NULL, &Status, FSCTL_OWN, &Number, 4, &Turned, 4) == STATUS_SUCCESS);
    CHECK(Turned == ~5u && Number == 5 && Status.Information == 4);
    CHECK(ZwFsControlFile(File, NULL, NULL, NULL, &Status, FSCTL_OWN, &Number, 3, &Turned, 4) == STATUS_BUFFER_TOO_SMALL);
    CHECK(ZwFsControlFile(File, NULL, NULL, NULL, &Status, FSCTL_OWN + 4, &Number, 4, &Turned, 4) == STATUS_INVALID_DEVICE_REQUEST);
    ZwClose(File);
    /* Drive C: has none. */
    CHECK(Open(L"\\??\\C:\\config.txt", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwFsControlFile(File, NULL, NULL, NULL, &Status, FSCTL_OWN, &Number, 4, &Turned, 4) == STATUS_INVALID_DEVICE_REQUEST);
    ZwClose(File);
    return 0;
}

NTSYSAPI NTSTATUS NTAPI ZwFlushBuffersFileEx(HANDLE File, ULONG Flags, PVOID Parameters, ULONG Size, PIO_STATUS_BLOCK Status);
NTSYSAPI NTSTATUS NTAPI ZwLockFile(HANDLE File, HANDLE Event, PIO_APC_ROUTINE Apc, PVOID Context, PIO_STATUS_BLOCK Status, PLARGE_INTEGER Offset,
                                   PLARGE_INTEGER Length, ULONG Key, BOOLEAN FailImmediately, BOOLEAN Exclusive);
NTSYSAPI NTSTATUS NTAPI ZwUnlockFile(HANDLE File, PIO_STATUS_BLOCK Status, PLARGE_INTEGER Offset, PLARGE_INTEGER Length, ULONG Key);
NTSYSAPI NTSTATUS NTAPI ZwSetVolumeInformationFile(HANDLE File, PIO_STATUS_BLOCK Status, PVOID Buffer, ULONG Length, FS_INFORMATION_CLASS Class);

static NTSTATUS LockRange(HANDLE Which, LONGLONG Offset, LONGLONG Length, ULONG Key, BOOLEAN Exclusive)
{
    LARGE_INTEGER From = {.QuadPart = Offset}, Bytes = {.QuadPart = Length};

    return ZwLockFile(Which, NULL, NULL, NULL, &Status, &From, &Bytes, Key, TRUE, Exclusive);
}

static NTSTATUS UnlockRange(HANDLE Which, LONGLONG Offset, LONGLONG Length, ULONG Key)
{
    LARGE_INTEGER From = {.QuadPart = Offset}, Bytes = {.QuadPart = Length};

    return ZwUnlockFile(Which, &Status, &From, &Bytes, Key);
}

static NTSTATUS Bytes(HANDLE Which, BOOLEAN Writes, LONGLONG Offset, ULONG Length, ULONG Key)
{
    LARGE_INTEGER From = {.QuadPart = Offset};
    char Some[16] = "0123456789abcde";

    return Writes ? ZwWriteFile(Which, NULL, NULL, NULL, &Status, Some, Length, &From, &Key)
                  : ZwReadFile(Which, NULL, NULL, NULL, &Status, Some, Length, &From, &Key);
}

static ULONG Locks(VOID)
{
    HANDLE One, Other;

    CHECK(NT_SUCCESS(Make(L"\\??\\C:\\locked", "0123456789")));
    CHECK(Open(L"\\??\\C:\\locked", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    One = File;
    CHECK(Open(L"\\??\\C:\\locked", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    Other = File;

    /* What one has for itself. */
    CHECK(LockRange(One, 2, 4, 0, TRUE) == STATUS_SUCCESS && Status.Status == STATUS_SUCCESS);
    CHECK(Bytes(Other, FALSE, 0, 3, 0) == STATUS_FILE_LOCK_CONFLICT && Bytes(Other, TRUE, 5, 1, 0) == STATUS_FILE_LOCK_CONFLICT);
    CHECK(Bytes(Other, FALSE, 0, 2, 0) == STATUS_SUCCESS && Bytes(Other, TRUE, 6, 2, 0) == STATUS_SUCCESS);
    CHECK(Bytes(One, FALSE, 0, 10, 0) == STATUS_SUCCESS && Bytes(One, TRUE, 2, 4, 0) == STATUS_SUCCESS);
    CHECK(Bytes(One, FALSE, 0, 10, 7) == STATUS_FILE_LOCK_CONFLICT); /* by another key */
    CHECK(LockRange(Other, 5, 1, 0, FALSE) == STATUS_LOCK_NOT_GRANTED && LockRange(Other, 5, 1, 0, TRUE) == STATUS_LOCK_NOT_GRANTED);
    CHECK(LockRange(One, 3, 1, 0, TRUE) == STATUS_LOCK_NOT_GRANTED);
    CHECK(LockRange(Other, 6, 100, 0, TRUE) == STATUS_SUCCESS && UnlockRange(Other, 6, 100, 0) == STATUS_SUCCESS);
    CHECK(UnlockRange(Other, 2, 4, 0) == STATUS_RANGE_NOT_LOCKED && UnlockRange(One, 2, 3, 0) == STATUS_RANGE_NOT_LOCKED);
    CHECK(UnlockRange(One, 2, 4, 1) == STATUS_RANGE_NOT_LOCKED && UnlockRange(One, 2, 4, 0) == STATUS_SUCCESS);
    CHECK(UnlockRange(One, 2, 4, 0) == STATUS_RANGE_NOT_LOCKED && Bytes(Other, TRUE, 0, 10, 0) == STATUS_SUCCESS);

    /* A range that several share: no write succeeds. */
    CHECK(LockRange(One, 0, 5, 0, FALSE) == STATUS_SUCCESS && LockRange(Other, 3, 5, 0, FALSE) == STATUS_SUCCESS);
    CHECK(Bytes(Other, FALSE, 0, 10, 0) == STATUS_SUCCESS && Bytes(One, TRUE, 0, 1, 0) == STATUS_FILE_LOCK_CONFLICT);
    CHECK(LockRange(One, 4, 1, 0, TRUE) == STATUS_LOCK_NOT_GRANTED);
    CHECK(LockRange(One, -1, 2, 0, FALSE) == STATUS_INVALID_LOCK_RANGE);

    /* With its handle they go. */
    ZwClose(Other);
    CHECK(UnlockRange(One, 0, 5, 0) == STATUS_SUCCESS && LockRange(One, 0, 10, 0, TRUE) == STATUS_SUCCESS);
    ZwClose(One);
    CHECK(Open(L"\\??\\C:\\data", FILE_LIST_DIRECTORY | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(LockRange(File, 0, 1, 0, FALSE) == STATUS_INVALID_PARAMETER);
    ZwClose(File);
    return 0;
}

/* Asks for a range of its own handle's, and waits for it if another has it. */
struct Waiter {
    HANDLE File, Event;
    IO_STATUS_BLOCK Ended;
};

static NTSTATUS WaitFor(struct Waiter *Who, LONGLONG Offset, LONGLONG Length, BOOLEAN Exclusive)
{
    LARGE_INTEGER From = {.QuadPart = Offset}, Bytes = {.QuadPart = Length};

    Who->Ended.Status = STATUS_PENDING;
    return ZwLockFile(Who->File, Who->Event, NULL, NULL, &Who->Ended, &From, &Bytes, 0, FALSE, Exclusive);
}

static BOOLEAN HasEnded(struct Waiter *Who, NTSTATUS As)
{
    LARGE_INTEGER Long = {.QuadPart = -10000000};

    return ZwWaitForSingleObject(Who->Event, FALSE, &Long) == STATUS_SUCCESS && Who->Ended.Status == As;
}

static OBJECT_ATTRIBUTES Unnamed = {.Length = sizeof(Unnamed), .Attributes = OBJ_KERNEL_HANDLE};

static NTSTATUS OpenAsWaiter(struct Waiter *Who)
{
    NTSTATUS Opened = Open(L"\\??\\C:\\locked", FILE_READ_DATA | FILE_WRITE_DATA, FILE_OPEN, 0);

    Who->File = File;
    return NT_SUCCESS(Opened) ? ZwCreateEvent(&Who->Event, EVENT_ALL_ACCESS, &Unnamed, SynchronizationEvent, FALSE) : Opened;
}

static VOID NTAPI AsksAndGoes(PVOID Waiter)
{
    WaitFor(Waiter, 0, 1, TRUE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG WaitsForLocks(VOID)
{
    struct Waiter First, Second, Third;
    HANDLE One, Thread;

    CHECK(NT_SUCCESS(Make(L"\\??\\C:\\locked", "0123456789")));
    CHECK(Open(L"\\??\\C:\\locked", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    One = File;
    CHECK(NT_SUCCESS(OpenAsWaiter(&First)) && NT_SUCCESS(OpenAsWaiter(&Second)) && NT_SUCCESS(OpenAsWaiter(&Third)));

    /* In the order of asking, as far as the ranges allow. */
    CHECK(LockRange(One, 0, 8, 0, TRUE) == STATUS_SUCCESS);
    CHECK(WaitFor(&First, 0, 4, TRUE) == STATUS_PENDING && WaitFor(&Second, 2, 4, FALSE) == STATUS_PENDING);
    CHECK(WaitFor(&Third, 6, 4, TRUE) == STATUS_PENDING && First.Ended.Status == STATUS_PENDING);
    CHECK(UnlockRange(One, 0, 8, 0) == STATUS_SUCCESS);
    CHECK(HasEnded(&First, STATUS_SUCCESS) && HasEnded(&Third, STATUS_SUCCESS) && Second.Ended.Status == STATUS_PENDING);
    CHECK(Bytes(One, FALSE, 3, 1, 0) == STATUS_FILE_LOCK_CONFLICT && Bytes(One, FALSE, 4, 2, 0) == STATUS_SUCCESS);

    /* A file that loses its last handle gives its locks to who waits, and waits for none. */
    ZwClose(First.File);
    CHECK(HasEnded(&Second, STATUS_SUCCESS) && Bytes(One, TRUE, 3, 1, 0) == STATUS_FILE_LOCK_CONFLICT);
    CHECK(LockRange(One, 0, 1, 0, TRUE) == STATUS_SUCCESS && WaitFor(&Second, 0, 1, FALSE) == STATUS_PENDING);
    ZwClose(Second.File);
    CHECK(HasEnded(&Second, STATUS_CANCELLED));

    /* A thread that ends cancels what it has asked for. */
    CHECK(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Unnamed, NULL, NULL, AsksAndGoes, &Third) == STATUS_SUCCESS);
    CHECK(ZwWaitForSingleObject(Thread, FALSE, NULL) == STATUS_SUCCESS && HasEnded(&Third, STATUS_CANCELLED));
    CHECK(UnlockRange(One, 0, 1, 0) == STATUS_SUCCESS && Bytes(One, TRUE, 0, 1, 0) == STATUS_SUCCESS);
    ZwClose(Thread);
    ZwClose(Third.File);
    ZwClose(One);
    ZwClose(First.Event);
    ZwClose(Second.Event);
    ZwClose(Third.Event);
    return 0;
}

/* Waits for itself: the waiting thread holds the range. */
static ULONG WaitsForItsOwnLock(VOID)
{
    LARGE_INTEGER From = {.QuadPart = 0}, Length = {.QuadPart = 1};
    HANDLE One;

    CHECK(NT_SUCCESS(Open(L"\\??\\C:\\config.txt", TO_WRITE, FILE_OPEN, SYNCHRONOUS)));
    One = File;
    CHECK(NT_SUCCESS(Open(L"\\??\\C:\\config.txt", TO_WRITE, FILE_OPEN, SYNCHRONOUS)));
    CHECK(LockRange(One, 0, 1, 0, TRUE) == STATUS_SUCCESS);
    CHECK(ZwLockFile(File, NULL, NULL, NULL, &Status, &From, &Length, 0, FALSE, TRUE) == STATUS_SUCCESS);
    return 0;
}

/* The minor function of the last IRP_MJ_FLUSH_BUFFERS of the driver's own device. */
static UCHAR Flushed = 0xFF;

static NTSTATUS NTAPI DispatchFlush(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Flushed = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static ULONG Flushes(VOID)
{
    CHECK(Open(L"\\Device\\DirqlFolder", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwFlushBuffersFileEx(File, 0, NULL, 0, &Status) == STATUS_SUCCESS && Flushed == 0);
    CHECK(ZwFlushBuffersFileEx(File, 1, NULL, 0, &Status) == STATUS_SUCCESS && Flushed == 2); /* IRP_MN_FLUSH_DATA_ONLY */
    CHECK(ZwFlushBuffersFileEx(File, 2, NULL, 0, &Status) == STATUS_SUCCESS && Flushed == 3); /* IRP_MN_FLUSH_NO_SYNC */
    CHECK(ZwFlushBuffersFileEx(File, 4, NULL, 0, &Status) == STATUS_SUCCESS && Flushed == 4); /* IRP_MN_FLUSH_DATA_SYNC_ONLY */
    Flushed = 0xFF;
    CHECK(ZwFlushBuffersFileEx(File, 3, NULL, 0, &Status) == STATUS_INVALID_PARAMETER && Flushed == 0xFF);
    CHECK(ZwFlushBuffersFile(File, &Status) == STATUS_SUCCESS && Flushed == 0);
    ZwClose(File);
    CHECK(Open(L"\\??\\C:\\config.txt", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwFlushBuffersFileEx(File, 4, NULL, 0, &Status) == STATUS_SUCCESS);
    ZwClose(File);
    return 0;
}

static ULONG Labels(VOID)
{
    static UCHAR Room[64] __attribute__((aligned(8)));
    static struct {
        ULONG Length;
        WCHAR Text[40];
    } Label = {8, L"Data"};
    FILE_FS_VOLUME_INFORMATION *Volume = (PVOID)Room;

    CHECK(Open(L"\\??\\C:\\config.txt", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwSetVolumeInformationFile(File, &Status, &Label, 12, 2) == STATUS_INVALID_PARAMETER);
    ZwClose(File);
    CHECK(Open(L"\\??\\C:", FILE_WRITE_DATA | FILE_READ_ATTRIBUTES | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwSetVolumeInformationFile(File, &Status, &Label, 12, 2) == STATUS_SUCCESS);
    CHECK(ZwSetVolumeInformationFile(File, &Status, &Label, 10, 2) == STATUS_INVALID_PARAMETER);
    CHECK(ZwSetVolumeInformationFile(File, &Status, &Label, 3, 2) == STATUS_INFO_LENGTH_MISMATCH);
    Label.Length = 66;
    CHECK(ZwSetVolumeInformationFile(File, &Status, &Label, sizeof(Label), 2) == STATUS_INVALID_VOLUME_LABEL);
    CHECK(ZwSetVolumeInformationFile(File, &Status, &Label, sizeof(Label), 99) == STATUS_INVALID_INFO_CLASS);
    CHECK(ZwQueryVolumeInformationFile(File, &Status, Volume, sizeof(Room), FileFsVolumeInformation) == STATUS_SUCCESS);
    CHECK(Volume->VolumeLabelLength == 8 && memcmp(Volume->VolumeLabel, L"Data", 8) == 0);
    ZwClose(File);
    return 0;
}
