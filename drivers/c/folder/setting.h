/* Stories of what is known of a file, and changed. */
#include "folder.h"

static ULONG Facts(VOID)
{
    static UCHAR Room[256] __attribute__((aligned(8)));
    FILE_BASIC_INFORMATION Basic;
    FILE_NETWORK_OPEN_INFORMATION Network;
    FILE_NAME_INFORMATION *Name = (PVOID)Room;
    FILE_ALL_INFORMATION *All = (PVOID)Room;
    FILE_ATTRIBUTE_TAG_INFORMATION Tag;
    LARGE_INTEGER Now;

    CHECK(Open(L"\\??\\C:\\config.txt", TO_WRITE | FILE_WRITE_ATTRIBUTES, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    KeQuerySystemTime(&Now);
    CHECK(ZwQueryInformationFile(File, &Status, &Basic, sizeof(Basic), FileBasicInformation) == STATUS_SUCCESS);
    CHECK(Basic.FileAttributes == FILE_ATTRIBUTE_ARCHIVE && Basic.CreationTime.QuadPart == Basic.LastWriteTime.QuadPart);
    CHECK(Basic.CreationTime.QuadPart > 0 && Basic.CreationTime.QuadPart < Now.QuadPart + 10000000);
    CHECK(ZwQueryInformationFile(File, &Status, &Basic, 39, FileBasicInformation) == STATUS_INFO_LENGTH_MISMATCH);
    CHECK(ZwQueryInformationFile(File, &Status, &Network, sizeof(Network), FileNetworkOpenInformation) == STATUS_SUCCESS);
    CHECK(Network.EndOfFile.QuadPart == 11 && Network.FileAttributes == FILE_ATTRIBUTE_ARCHIVE);
    CHECK(ZwQueryInformationFile(File, &Status, Name, sizeof(Room), FileNameInformation) == STATUS_SUCCESS);
    CHECK(Name->FileNameLength == 22 && memcmp(Name->FileName, L"\\config.txt", 22) == 0 && Status.Information == 26);
    CHECK(ZwQueryInformationFile(File, &Status, Name, 10, FileNameInformation) == STATUS_BUFFER_OVERFLOW);
    CHECK(Status.Information == 10 && Name->FileNameLength == 22 && memcmp(Name->FileName, L"\\co", 6) == 0);
    CHECK(ZwQueryInformationFile(File, &Status, &Tag, sizeof(Tag), FileAttributeTagInformation) == STATUS_SUCCESS);
    CHECK(Tag.FileAttributes == FILE_ATTRIBUTE_ARCHIVE && Tag.ReparseTag == 0);
    CHECK(ZwQueryInformationFile(File, &Status, All, sizeof(Room), FileAllInformation) == STATUS_SUCCESS);
    CHECK(All->StandardInformation.EndOfFile.QuadPart == 11 && All->ModeInformation.Mode == SYNCHRONOUS);
    CHECK(All->NameInformation.FileNameLength == 22 && memcmp(All->NameInformation.FileName, L"\\config.txt", 22) == 0);
    CHECK((All->AccessInformation.AccessFlags & FILE_WRITE_DATA) != 0 && All->InternalInformation.IndexNumber.QuadPart != 0);

    /* Times and attributes are set, but for those that are 0. */
    RtlZeroMemory(&Basic, sizeof(Basic));
    Basic.LastWriteTime.QuadPart = 12345;
    Basic.FileAttributes = FILE_ATTRIBUTE_HIDDEN | FILE_ATTRIBUTE_READONLY;
    CHECK(ZwSetInformationFile(File, &Status, &Basic, sizeof(Basic), FileBasicInformation) == STATUS_SUCCESS);
    CHECK(ZwQueryInformationFile(File, &Status, &Basic, sizeof(Basic), FileBasicInformation) == STATUS_SUCCESS);
    CHECK(Basic.LastWriteTime.QuadPart == 12345 && Basic.CreationTime.QuadPart > 12345);
    CHECK(Basic.FileAttributes == (FILE_ATTRIBUTE_HIDDEN | FILE_ATTRIBUTE_READONLY));
    Basic.FileAttributes = FILE_ATTRIBUTE_DIRECTORY;
    CHECK(ZwSetInformationFile(File, &Status, &Basic, sizeof(Basic), FileBasicInformation) == STATUS_INVALID_PARAMETER);
    ZwClose(File);
    CHECK(Open(L"\\??\\C:\\config.txt", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_ACCESS_DENIED);
    CHECK(Open(L"\\??\\C:\\config.txt", TO_READ | FILE_WRITE_ATTRIBUTES, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    Basic.FileAttributes = FILE_ATTRIBUTE_NORMAL;
    CHECK(ZwSetInformationFile(File, &Status, &Basic, sizeof(Basic), FileBasicInformation) == STATUS_SUCCESS);
    CHECK(ZwQueryInformationFile(File, &Status, &Basic, sizeof(Basic), FileBasicInformation) == STATUS_SUCCESS);
    CHECK(Basic.FileAttributes == FILE_ATTRIBUTE_NORMAL);
    ZwClose(File);
    return 0;
}

static ULONG Ends(VOID)
{
    FILE_STANDARD_INFORMATION Standard;
    LARGE_INTEGER End = {.QuadPart = 5};
    char Buffer[16] = "";

    CHECK(Open(L"\\??\\C:\\config.txt", TO_WRITE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwSetInformationFile(File, &Status, &End, sizeof(End), FileEndOfFileInformation) == STATUS_SUCCESS);
    End.QuadPart = 8;
    CHECK(ZwSetInformationFile(File, &Status, &End, sizeof(End), FileEndOfFileInformation) == STATUS_SUCCESS);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Buffer, sizeof(Buffer), NULL, NULL) == STATUS_SUCCESS);
    CHECK(Status.Information == 8 && memcmp(Buffer, "speed\0\0\0", 8) == 0);
    End.QuadPart = 2;
    CHECK(ZwSetInformationFile(File, &Status, &End, sizeof(End), FilePositionInformation) == STATUS_SUCCESS);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Buffer, 3, NULL, NULL) == STATUS_SUCCESS && Buffer[0] == 'e');
    End.QuadPart = 0;
    CHECK(ZwSetInformationFile(File, &Status, &End, sizeof(End), FileAllocationInformation) == STATUS_SUCCESS);
    CHECK(ZwQueryInformationFile(File, &Status, &Standard, sizeof(Standard), FileStandardInformation) == STATUS_SUCCESS);
    CHECK(Standard.EndOfFile.QuadPart == 0 && Standard.AllocationSize.QuadPart == 0);
    End.QuadPart = -1;
    CHECK(ZwSetInformationFile(File, &Status, &End, sizeof(End), FileEndOfFileInformation) == STATUS_INVALID_PARAMETER);
    CHECK(ZwSetInformationFile(File, &Status, &End, 7, FileEndOfFileInformation) == STATUS_INFO_LENGTH_MISMATCH);
    ZwClose(File);
    return 0;
}

static ULONG Deletes(VOID)
{
    FILE_DISPOSITION_INFORMATION Delete = {TRUE};
    FILE_STANDARD_INFORMATION Standard;
    HANDLE First, Second;

    /* By its handle: it is there until the last one is closed, and cannot be opened meanwhile. */
    CHECK(Open(L"\\??\\C:\\data\\alpha.log", TO_READ | DELETE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    First = File;
    CHECK(Open(L"\\??\\C:\\data\\alpha.log", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    Second = File;
    CHECK(ZwSetInformationFile(First, &Status, &Delete, sizeof(Delete), FileDispositionInformation) == STATUS_SUCCESS);
    CHECK(Open(L"\\??\\C:\\data\\alpha.log", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_DELETE_PENDING);
    CHECK(ZwQueryInformationFile(Second, &Status, &Standard, sizeof(Standard), FileStandardInformation) == STATUS_SUCCESS);
    CHECK(Standard.DeletePending && Standard.NumberOfLinks == 0);
    ZwClose(First);
    CHECK(Open(L"\\??\\C:\\data\\alpha.log", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_DELETE_PENDING);
    ZwClose(Second);
    CHECK(Open(L"\\??\\C:\\data\\alpha.log", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_NOT_FOUND);
    /* Or as it is opened. */
    CHECK(Open(L"\\??\\C:\\data\\gamma.sys", DELETE | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS | FILE_DELETE_ON_CLOSE) == STATUS_SUCCESS);
    First = File;
    CHECK(Open(L"\\??\\C:\\data\\gamma.sys", FILE_READ_ATTRIBUTES | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    Second = File;
    ZwClose(First);
    CHECK(Open(L"\\??\\C:\\data\\gamma.sys", FILE_READ_ATTRIBUTES | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS) == STATUS_DELETE_PENDING);
    ZwClose(Second);
    CHECK(Open(L"\\??\\C:\\data\\gamma.sys", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_NOT_FOUND);
    return 0;
}

static ULONG DeletesDirectory(VOID)
{
    FILE_DISPOSITION_INFORMATION Delete = {TRUE};
    HANDLE Sub;

    CHECK(Open(L"\\??\\C:\\data", TO_READ | DELETE, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(ZwSetInformationFile(File, &Status, &Delete, sizeof(Delete), FileDispositionInformation) == STATUS_DIRECTORY_NOT_EMPTY);
    ZwClose(File);
    CHECK(Open(L"\\??\\C:\\data\\sub", TO_READ | DELETE, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(ZwSetInformationFile(File, &Status, &Delete, sizeof(Delete), FileDispositionInformation) == STATUS_SUCCESS);
    Sub = File;
    CHECK(Open(L"\\??\\C:\\data\\sub\\x", TO_WRITE, FILE_CREATE, SYNCHRONOUS) == STATUS_DELETE_PENDING);
    ZwClose(Sub);
    CHECK(Open(L"\\??\\C:\\data\\sub", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_NOT_FOUND);
    return 0;
}

static NTSTATUS Rename(PCWSTR Name, HANDLE Root, BOOLEAN Replace)
{
    static UCHAR Room[256] __attribute__((aligned(8)));
    FILE_RENAME_INFORMATION *To = (PVOID)Room;

    To->ReplaceIfExists = Replace;
    To->RootDirectory = Root;
    To->FileNameLength = (ULONG)(wcslen(Name) * sizeof(WCHAR));
    RtlCopyMemory(To->FileName, Name, To->FileNameLength);
    return ZwSetInformationFile(File, &Status, To, FIELD_OFFSET(FILE_RENAME_INFORMATION, FileName) + To->FileNameLength,
                                FileRenameInformation);
}

static ULONG Renames(VOID)
{
    HANDLE Sub, Moved;

    CHECK(Open(L"\\??\\C:\\data\\sub", TO_READ, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    Sub = File;
    CHECK(Open(L"\\??\\C:\\data\\alpha.log", TO_READ | DELETE, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(Rename(L"omega.log", NULL, FALSE) == STATUS_SUCCESS && Holds(L"\\??\\C:\\data\\omega.log", "alpha"));
    CHECK(Rename(L"beta.txt", NULL, FALSE) == STATUS_OBJECT_NAME_COLLISION);
    CHECK(Rename(L"beta.txt", NULL, TRUE) == STATUS_SUCCESS && Holds(L"\\??\\C:\\data\\BETA.TXT", "alpha"));
    CHECK(Rename(L"inner", Sub, FALSE) == STATUS_SUCCESS && Holds(L"\\??\\C:\\data\\sub\\inner", "alpha"));
    CHECK(Rename(L"\\??\\C:\\outer", NULL, FALSE) == STATUS_SUCCESS && Holds(L"\\??\\C:\\outer", "alpha"));
    CHECK(Rename(L"..\\up", NULL, FALSE) == STATUS_OBJECT_NAME_INVALID);
    CHECK(Rename(L"\\??\\C:\\..\\up", NULL, FALSE) == STATUS_OBJECT_NAME_INVALID);
    CHECK(Rename(L"\\Device\\DirqlFolder", NULL, FALSE) == STATUS_NOT_SAME_DEVICE);
    CHECK(Rename(L"\\??\\C:\\nowhere\\up", NULL, FALSE) == STATUS_OBJECT_PATH_NOT_FOUND);
    CHECK(Rename(L"OUTER", NULL, FALSE) == STATUS_SUCCESS && Holds(L"\\??\\C:\\outer", "alpha"));
    Moved = File;
    CHECK(Open(L"\\??\\C:\\data", TO_READ | DELETE, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(Rename(L"\\??\\C:\\data\\sub\\data", NULL, FALSE) == STATUS_ACCESS_DENIED);
    ZwClose(Sub);
    CHECK(Rename(L"records", NULL, FALSE) == STATUS_SUCCESS && Holds(L"\\??\\C:\\records\\gamma.sys", ""));
    ZwClose(File);
    ZwClose(Moved);
    return 0;
}
