/* Stories of reading and writing. */
#include "folder.h"

static UCHAR Firmware[512];

static ULONG LoadsFirmware(VOID)
{
    UNICODE_STRING Inner = RTL_CONSTANT_STRING(L"\\windows\\System32\\drivers\\fw.bin");
    FILE_STANDARD_INFORMATION Standard;
    FILE_POSITION_INFORMATION Position;
    LARGE_INTEGER Far = {.QuadPart = 0x100000000LL};
    PFILE_OBJECT Object;
    ULONG Index, Returned;
    struct {
        OBJECT_NAME_INFORMATION Name;
        WCHAR Room[128];
    } Called;

    CHECK(Open(L"\\SystemRoot\\System32\\DRIVERS\\fw.bin", TO_READ, FILE_OPEN, SYNCHRONOUS | FILE_NON_DIRECTORY_FILE) ==
          STATUS_SUCCESS);
    CHECK(Status.Status == STATUS_SUCCESS && Status.Information == FILE_OPENED);
    CHECK(ZwQueryInformationFile(File, &Status, &Standard, sizeof(Standard), FileStandardInformation) == STATUS_SUCCESS);
    CHECK(Standard.EndOfFile.QuadPart == 300 && Standard.AllocationSize.QuadPart == 4096 && !Standard.Directory);
    CHECK(Standard.NumberOfLinks == 1 && !Standard.DeletePending && Status.Information == sizeof(Standard));
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 100, NULL, NULL) == STATUS_SUCCESS);
    CHECK(Status.Information == 100);
    CHECK(ZwQueryInformationFile(File, &Status, &Position, sizeof(Position), FilePositionInformation) == STATUS_SUCCESS);
    CHECK(Position.CurrentByteOffset.QuadPart == 100);
    /* The rest, though more is asked for; then there is no more. */
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware + 100, 412, NULL, NULL) == STATUS_SUCCESS);
    CHECK(Status.Information == 200 && Status.Status == STATUS_SUCCESS);
    for (Index = 0; Index < 300; Index++) {
        if (Firmware[Index] != (UCHAR)(Index * 7)) {
            break;
        }
    }
    CHECK(Index == 300);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 1, NULL, NULL) == STATUS_END_OF_FILE);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 1, &Far, NULL) == STATUS_END_OF_FILE);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 0, NULL, NULL) == STATUS_SUCCESS && Status.Information == 0);

    /* It is a file object like any other. */
    CHECK(ObReferenceObjectByHandle(File, FILE_READ_DATA, *IoFileObjectType, KernelMode, (PVOID *)&Object, NULL) ==
          STATUS_SUCCESS);
    CHECK(Object->Type == 5 && Object->ReadAccess && !Object->WriteAccess && Object->SharedRead && Object->SharedWrite);
    CHECK(RtlEqualUnicodeString(&Object->FileName, &Inner, TRUE));
    CHECK(ObQueryNameString(Object, &Called.Name, sizeof(Called), &Returned) == STATUS_SUCCESS);
    CHECK(wcsncmp(Called.Name.Name.Buffer, L"\\Device\\HarddiskVolume1\\Windows\\", 32) == 0);
    CHECK(IoGetRelatedDeviceObject(Object)->DeviceType == FILE_DEVICE_DISK_FILE_SYSTEM);
    ObDereferenceObject(Object);
    CHECK(ZwClose(File) == STATUS_SUCCESS);
    return 0;
}

static ULONG KeepsALog(VOID)
{
    LARGE_INTEGER Begin = {.QuadPart = 0}, End = {.LowPart = FILE_WRITE_TO_END_OF_FILE, .HighPart = -1};
    LARGE_INTEGER Here = {.LowPart = FILE_USE_FILE_POINTER_POSITION, .HighPart = -1}, Wrong = {.QuadPart = -3};
    FILE_POSITION_INFORMATION Position;

    /* The first time it is made. */
    CHECK(Open(L"\\??\\C:\\log.txt", FILE_APPEND_DATA | SYNCHRONIZE, FILE_OPEN_IF, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(Status.Information == FILE_CREATED);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "one ", 4, NULL, NULL) == STATUS_SUCCESS && Status.Information == 4);
    ZwClose(File);
    /* Later it is there; who may only append does so, whatever the offset says. */
    CHECK(Open(L"\\DosDevices\\C:\\LOG.TXT", FILE_APPEND_DATA | SYNCHRONIZE, FILE_OPEN_IF, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(Status.Information == FILE_OPENED);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "two ", 4, &Begin, NULL) == STATUS_SUCCESS);
    ZwClose(File);
    CHECK(Holds(L"\\??\\C:\\log.txt", "one two "));
    /* Who may write anywhere says where the end is. */
    CHECK(Open(L"\\Device\\HarddiskVolume1\\log.txt", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "three", 5, &End, NULL) == STATUS_SUCCESS);
    CHECK(ZwQueryInformationFile(File, &Status, &Position, sizeof(Position), FilePositionInformation) == STATUS_SUCCESS);
    CHECK(Position.CurrentByteOffset.QuadPart == 13);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "ONE", 3, &Begin, NULL) == STATUS_SUCCESS);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "-", 1, &Here, NULL) == STATUS_SUCCESS);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "-", 1, &Wrong, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(ZwFlushBuffersFile(File, &Status) == STATUS_SUCCESS);
    ZwClose(File);
    CHECK(Holds(L"\\??\\c:\\log.txt", "ONE-two three"));
    return 0;
}

static ULONG WithoutPosition(VOID)
{
    LARGE_INTEGER Offset = {.QuadPart = 2};
    OBJECT_ATTRIBUTES Nameless;
    HANDLE Event;
    char Buffer[8];

    InitializeObjectAttributes(&Nameless, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwCreateEvent(&Event, EVENT_ALL_ACCESS, &Nameless, NotificationEvent, FALSE) == STATUS_SUCCESS);
    CHECK(Open(L"\\??\\C:\\config.txt", FILE_READ_DATA, FILE_OPEN, 0) == STATUS_SUCCESS);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Buffer, 3, NULL, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(ZwReadFile(File, Event, NULL, NULL, &Status, Buffer, 3, &Offset, NULL) == STATUS_SUCCESS);
    CHECK(ZwWaitForSingleObject(Event, FALSE, NULL) == STATUS_SUCCESS && Status.Information == 3);
    CHECK(memcmp(Buffer, "eed", 3) == 0);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Buffer, 3, &Offset, NULL) == STATUS_SUCCESS);
    CHECK(ZwWaitForSingleObject(File, FALSE, NULL) == STATUS_SUCCESS);
    ZwClose(File);
    ZwClose(Event);

    /* Without a buffer of the system's, whole sectors. */
    CHECK(Open(L"\\??\\C:\\config.txt", TO_READ, FILE_OPEN, SYNCHRONOUS | FILE_NO_INTERMEDIATE_BUFFERING) == STATUS_SUCCESS);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 512, NULL, NULL) == STATUS_SUCCESS && Status.Information == 11);
    Offset.QuadPart = 2;
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 512, &Offset, NULL) == STATUS_INVALID_PARAMETER);
    Offset.QuadPart = 0;
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 100, &Offset, NULL) == STATUS_INVALID_PARAMETER);
    ZwClose(File);
    return 0;
}

/* A driver that sends the requests itself. */
static ULONG ItsOwnRequest(VOID)
{
    LARGE_INTEGER Offset = {.QuadPart = 6};
    PFILE_OBJECT Object;
    KEVENT Event;
    PIRP Irp;
    char Buffer[8] = "";
    NTSTATUS Sent;

    CHECK(Open(L"\\??\\C:\\config.txt", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(File, 0, *IoFileObjectType, KernelMode, (PVOID *)&Object, NULL) == STATUS_SUCCESS);
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_READ, IoGetRelatedDeviceObject(Object), Buffer, 4, &Offset, &Event, &Status);
    CHECK(Irp != NULL);
    IoGetNextIrpStackLocation(Irp)->FileObject = Object;
    Sent = IoCallDriver(IoGetRelatedDeviceObject(Object), Irp);
    if (Sent == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
    }
    CHECK(Status.Status == STATUS_SUCCESS && Status.Information == 4 && memcmp(Buffer, "9600", 4) == 0);

    /* A request without the file is about none. */
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_READ, IoGetRelatedDeviceObject(Object), Buffer, 4, &Offset, &Event, &Status);
    CHECK(Irp != NULL);
    CHECK(IoCallDriver(IoGetRelatedDeviceObject(Object), Irp) == STATUS_INVALID_PARAMETER);
    ObDereferenceObject(Object);
    ZwClose(File);
    return 0;
}

/* Of the tests of what a machine leaves behind: a file that grows by a byte. */
static ULONG Adds(VOID)
{
    CHECK(Open(L"\\??\\C:\\counter", FILE_APPEND_DATA | SYNCHRONIZE, FILE_OPEN_IF, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "+", 1, NULL, NULL) == STATUS_SUCCESS);
    ZwClose(File);
    return 0;
}

static LONG Makers; /* of the file that two want to make */

/* Requests of two threads at a time: nothing here is shared but the count. */
static ULONG MakesOnce(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\??\\C:\\once");
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Own;
    HANDLE Handle;
    NTSTATUS Made;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    Made = ZwCreateFile(&Handle, FILE_APPEND_DATA | SYNCHRONIZE, &Attributes, &Own, NULL, 0, FILE_SHARE_READ, FILE_CREATE,
                        SYNCHRONOUS, NULL, 0);
    if (Made == STATUS_SUCCESS) {
        InterlockedIncrement(&Makers);
        ZwWriteFile(Handle, NULL, NULL, NULL, &Own, "once", 4, NULL, NULL);
        ZwClose(Handle);
        return 0;
    }
    return Made == STATUS_OBJECT_NAME_COLLISION ? 0 : __LINE__;
}

static ULONG WasMadeOnce(VOID)
{
    CHECK(Makers == 1);
    CHECK(Holds(L"\\??\\C:\\once", "once"));
    return 0;
}

/* By an asynchronous handle: whether it waits for the end, if that is not there yet. */
static ULONG ReadsAsynchronously(BOOLEAN Waits)
{
    LARGE_INTEGER Offset = {.QuadPart = 6};
    static char Buffer[4]; /* it outlives a caller that does not wait */
    NTSTATUS Read;

    RtlFillMemory(Buffer, 4, '?');
    CHECK(Open(L"\\??\\C:\\config.txt", FILE_READ_DATA | SYNCHRONIZE, FILE_OPEN, 0) == STATUS_SUCCESS);
    Read = ZwReadFile(File, NULL, NULL, NULL, &Status, Buffer, 4, &Offset, NULL);
    if (Read == STATUS_PENDING && Waits) {
        ZwWaitForSingleObject(File, FALSE, NULL);
        Read = Status.Status;
    }
    ZwClose(File);
    CHECK(memcmp(Buffer, "9600", 4) == 0);
    CHECK(Read == STATUS_SUCCESS && Status.Information == 4);
    return 0;
}

static ULONG WaitsForTheEnd(VOID)
{
    return ReadsAsynchronously(TRUE);
}

static ULONG GoesOnAtOnce(VOID)
{
    return ReadsAsynchronously(FALSE);
}
