/* Stories of names, and of what an open does for whom. */
#include "folder.h"

static ULONG Dispositions(VOID)
{
    static const PCWSTR Name = L"\\??\\C:\\made.bin";

    CHECK(Open(Name, TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_NOT_FOUND && File == NULL);
    CHECK(Open(Name, TO_READ, FILE_OVERWRITE, SYNCHRONOUS) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(Status.Information == FILE_DOES_NOT_EXIST);
    CHECK(Open(Name, TO_WRITE, FILE_CREATE, SYNCHRONOUS) == STATUS_SUCCESS && Status.Information == FILE_CREATED);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "text", 4, NULL, NULL) == STATUS_SUCCESS);
    ZwClose(File);
    CHECK(Open(Name, TO_WRITE, FILE_CREATE, SYNCHRONOUS) == STATUS_OBJECT_NAME_COLLISION && Status.Information == FILE_EXISTS);
    CHECK(Open(Name, TO_WRITE, FILE_OPEN_IF, SYNCHRONOUS) == STATUS_SUCCESS && Status.Information == FILE_OPENED);
    ZwClose(File);
    CHECK(Holds(Name, "text"));
    CHECK(Open(Name, TO_WRITE, FILE_OVERWRITE, SYNCHRONOUS) == STATUS_SUCCESS && Status.Information == FILE_OVERWRITTEN);
    ZwClose(File);
    CHECK(Holds(Name, ""));
    CHECK(NT_SUCCESS(Make(Name, "again")));
    CHECK(Open(Name, TO_WRITE, FILE_SUPERSEDE, SYNCHRONOUS) == STATUS_SUCCESS && Status.Information == FILE_SUPERSEDED);
    ZwClose(File);
    CHECK(Holds(Name, ""));
    CHECK(Open(L"\\??\\C:\\new.bin", TO_WRITE, FILE_OVERWRITE_IF, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(Status.Information == FILE_CREATED);
    ZwClose(File);

    /* A directory is not opened as a file, nor a file as a directory. */
    CHECK(Open(L"\\??\\C:\\data", TO_READ, FILE_OPEN, SYNCHRONOUS | FILE_NON_DIRECTORY_FILE) == STATUS_FILE_IS_A_DIRECTORY);
    CHECK(Open(Name, TO_READ, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_NOT_A_DIRECTORY);
    CHECK(Open(L"\\??\\C:\\data\\deep", TO_READ, FILE_CREATE, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(Status.Information == FILE_CREATED);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 1, NULL, NULL) == STATUS_INVALID_DEVICE_REQUEST);
    ZwClose(File);
    CHECK(NT_SUCCESS(Make(L"\\??\\C:\\data\\deep\\inner", "x")) && Holds(L"\\??\\C:\\DATA\\DEEP\\INNER", "x"));
    return 0;
}

static ULONG WrongNames(VOID)
{
    static const PCWSTR Invalid[] = {
        L"\\??\\C:\\..\\..\\etc\\passwd", L"\\??\\C:\\data\\..\\..\\..\\etc\\passwd", L"\\??\\C:\\data\\.\\alpha.log",
        L"\\??\\C:\\data\\\\alpha.log", L"\\??\\C:\\*.txt", L"\\??\\C:\\a/b", L"\\??\\C:\\config.txt\\",
        L"\\SystemRoot\\..\\config.txt", L"\\??\\C:\\a|b",
    };
    ULONG Index;

    for (Index = 0; Index < RTL_NUMBER_OF(Invalid); Index++) {
        CHECK(Open(Invalid[Index], TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_INVALID);
        CHECK(Open(Invalid[Index], TO_WRITE, FILE_OPEN_IF, SYNCHRONOUS) == STATUS_OBJECT_NAME_INVALID);
    }
    CHECK(Open(L"\\??\\C:\\nowhere\\x", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_PATH_NOT_FOUND);
    CHECK(Open(L"\\??\\C:\\nowhere\\x", TO_WRITE, FILE_CREATE, SYNCHRONOUS) == STATUS_OBJECT_PATH_NOT_FOUND);
    CHECK(Open(L"\\??\\C:\\config.txt\\x", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_PATH_NOT_FOUND);
    CHECK(Open(L"\\??\\C:\\data\\x", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(Open(L"\\??\\D:\\x", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_PATH_NOT_FOUND);
    CHECK(Open(L"C:\\config.txt", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_PATH_SYNTAX_BAD);
    CHECK(Open(L"\\??\\C:\\data\\", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    ZwClose(File);
    return 0;
}

static ULONG Relative(VOID)
{
    UNICODE_STRING Whole = RTL_CONSTANT_STRING(L"\\data\\alpha.log");
    PFILE_OBJECT Object;
    HANDLE Data;

    CHECK(Open(L"\\??\\C:\\data", TO_READ, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    Data = File;
    CHECK(OpenIn(Data, L"ALPHA.log", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(File, 0, *IoFileObjectType, KernelMode, (PVOID *)&Object, NULL) == STATUS_SUCCESS);
    CHECK(RtlEqualUnicodeString(&Object->FileName, &Whole, FALSE) && Object->RelatedFileObject == NULL);
    ObDereferenceObject(Object);
    ZwClose(File);
    CHECK(OpenIn(Data, L"sub\\made", TO_WRITE, ALL_SHARED, FILE_CREATE, SYNCHRONOUS) == STATUS_SUCCESS);
    ZwClose(File);
    CHECK(Holds(L"\\??\\C:\\data\\sub\\made", ""));
    /* Nothing leads out of it. */
    CHECK(OpenIn(Data, L"..\\config.txt", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_INVALID);
    CHECK(OpenIn(Data, L"\\config.txt", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_INVALID);
    CHECK(OpenIn(Data, L"nothing", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_NOT_FOUND);
    /* No name at all is the directory once more. */
    CHECK(OpenIn(Data, L"", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    ZwClose(File);
    CHECK(OpenIn((HANDLE)0x1234, L"alpha.log", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_INVALID_HANDLE);
    ZwClose(Data);
    return 0;
}

static ULONG Sharing(VOID)
{
    static const PCWSTR Name = L"\\??\\C:\\config.txt";
    HANDLE First;

    CHECK(OpenIn(NULL, Name, TO_READ, FILE_SHARE_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    First = File;
    CHECK(OpenIn(NULL, Name, TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    ZwClose(File);
    CHECK(OpenIn(NULL, Name, TO_WRITE, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_SHARING_VIOLATION);
    CHECK(OpenIn(NULL, Name, TO_READ, 0, FILE_OPEN, SYNCHRONOUS) == STATUS_SHARING_VIOLATION);
    CHECK(OpenIn(NULL, Name, DELETE | SYNCHRONIZE, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_SHARING_VIOLATION);
    /* An open for attributes only conflicts with no other. */
    CHECK(OpenIn(NULL, Name, FILE_READ_ATTRIBUTES | SYNCHRONIZE, 0, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    ZwClose(File);
    ZwClose(First);
    CHECK(OpenIn(NULL, Name, TO_WRITE, 0, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    First = File;
    CHECK(OpenIn(NULL, Name, TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_SHARING_VIOLATION);
    ZwClose(First);
    CHECK(Holds(Name, "speed=9600\n"));
    return 0;
}

static ULONG OptionsThatDoNotGoTogether(VOID)
{
    static const PCWSTR Name = L"\\??\\C:\\config.txt";

    CHECK(Open(Name, FILE_READ_DATA, FILE_OPEN, SYNCHRONOUS) == STATUS_INVALID_PARAMETER);
    CHECK(Open(Name, TO_READ, FILE_OPEN, SYNCHRONOUS | FILE_SYNCHRONOUS_IO_ALERT) == STATUS_INVALID_PARAMETER);
    CHECK(Open(Name, TO_READ, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE | FILE_NON_DIRECTORY_FILE) == STATUS_INVALID_PARAMETER);
    CHECK(Open(Name, TO_READ, FILE_OVERWRITE_IF, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_INVALID_PARAMETER);
    CHECK(Open(Name, TO_READ, 6, SYNCHRONOUS) == STATUS_INVALID_PARAMETER);
    CHECK(Open(Name, TO_READ, FILE_OPEN, SYNCHRONOUS | FILE_DELETE_ON_CLOSE) == STATUS_INVALID_PARAMETER);
    CHECK(Open(Name, FILE_APPEND_DATA | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS | FILE_NO_INTERMEDIATE_BUFFERING) ==
          STATUS_INVALID_PARAMETER);
    return 0;
}

/* Of a machine that was given no folder: nothing is there, and no story goes on. */
static ULONG WithoutADisk(VOID)
{
    CHECK(Open(L"\\SystemRoot\\System32\\drivers\\fw.bin", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_PATH_NOT_FOUND);
    CHECK(Open(L"\\??\\C:\\config.txt", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_PATH_NOT_FOUND);
    return 0;
}

/* What dirql has not says so by name. */

static ULONG AsksForStream(VOID)
{
    CHECK(Open(L"\\??\\C:\\config.txt:stream", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    return 0;
}

static ULONG AsksForVolumesBytes(VOID)
{
    CHECK(Open(L"\\??\\C:", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 512, NULL, NULL) == STATUS_SUCCESS);
    return 0;
}

/* Opens by a number of Length bytes instead of a name, behind Volume, which is null if it counts from Root. */
static NTSTATUS OpenById(HANDLE Root, PCWSTR Volume, PVOID Id, USHORT Length, ULONG Disposition)
{
    WCHAR Name[32];
    UNICODE_STRING String = {0, sizeof(Name), Name};
    OBJECT_ATTRIBUTES Attributes;

    if (Volume != NULL) {
        RtlAppendUnicodeToString(&String, Volume);
    }
    memcpy((PUCHAR)Name + String.Length, Id, Length);
    String.Length += Length;
    InitializeObjectAttributes(&Attributes, &String, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, Root, NULL);
    return ZwCreateFile(&File, TO_READ, &Attributes, &Status, NULL, 0, ALL_SHARED, Disposition,
                        SYNCHRONOUS | FILE_OPEN_BY_FILE_ID, NULL, 0);
}

static ULONG ByItsId(VOID)
{
    FILE_INTERNAL_INFORMATION Internal, Again;
    ULONGLONG Unknown = 0x7654321, Parts[2] = {1, 2};
    HANDLE Root;

    CHECK(Open(L"\\??\\C:\\data\\alpha.log", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwQueryInformationFile(File, &Status, &Internal, sizeof(Internal), FileInternalInformation) == STATUS_SUCCESS);
    ZwClose(File);
    CHECK(Open(L"\\??\\C:\\config.txt", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    Root = File; /* any file of the volume will do */
    CHECK(OpenById(Root, NULL, &Internal.IndexNumber, 8, FILE_OPEN) == STATUS_SUCCESS && Status.Information == FILE_OPENED);
    CHECK(ZwQueryInformationFile(File, &Status, &Again, sizeof(Again), FileInternalInformation) == STATUS_SUCCESS);
    CHECK(Again.IndexNumber.QuadPart == Internal.IndexNumber.QuadPart);
    ZwClose(File);
    CHECK(OpenById(NULL, L"\\??\\C:\\", &Internal.IndexNumber, 8, FILE_OPEN_IF) == STATUS_SUCCESS);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Firmware, 5, NULL, NULL) == STATUS_SUCCESS && Status.Information == 5);
    ZwClose(File);
    /* What is not there cannot be made so, and what is there is neither emptied nor made once more. */
    CHECK(OpenById(Root, NULL, &Unknown, 8, FILE_OPEN) == STATUS_INVALID_PARAMETER);
    CHECK(OpenById(Root, NULL, &Unknown, 8, FILE_OPEN_IF) == STATUS_INVALID_PARAMETER);
    CHECK(OpenById(Root, NULL, &Internal.IndexNumber, 8, FILE_CREATE) == STATUS_INVALID_PARAMETER);
    CHECK(OpenById(Root, NULL, &Internal.IndexNumber, 4, FILE_OPEN) == STATUS_INVALID_PARAMETER);
    CHECK(OpenById(Root, NULL, Parts, 16, FILE_OPEN) == STATUS_INVALID_PARAMETER);
    ZwClose(Root);
    return 0;
}

static ULONG AsksForClass(VOID)
{
    CHECK(Open(L"\\??\\C:\\config.txt", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwQueryInformationFile(File, &Status, Firmware, sizeof(Firmware), FileStreamInformation) == STATUS_SUCCESS);
    return 0;
}
