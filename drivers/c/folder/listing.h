/* Stories of directories. */
#include "folder.h"

static UCHAR Listed[1024] __attribute__((aligned(8)));

static NTSTATUS List(PCWSTR Pattern, FILE_INFORMATION_CLASS Class, ULONG Length, BOOLEAN Single, BOOLEAN Restart)
{
    UNICODE_STRING String;

    RtlInitUnicodeString(&String, Pattern);
    RtlFillMemory(Listed, sizeof(Listed), 0xEE);
    Status.Information = 99;
    return ZwQueryDirectoryFile(File, NULL, NULL, NULL, &Status, Listed, Length, Class, Single, Pattern ? &String : NULL, Restart);
}

static BOOLEAN IsCalled(const WCHAR *Name, ULONG Bytes, PCWSTR Expected)
{
    return Bytes == wcslen(Expected) * sizeof(WCHAR) && memcmp(Name, Expected, Bytes) == 0;
}

static ULONG Walks(VOID)
{
    static const PCWSTR Names[] = {L".", L"..", L"alpha.log", L"Beta.TXT", L"gamma.sys", L"sub"};
    FILE_BOTH_DIR_INFORMATION *Entry = (PVOID)Listed;
    FILE_NAMES_INFORMATION *Name = (PVOID)Listed;
    FILE_DIRECTORY_INFORMATION *Plain = (PVOID)Listed;
    ULONG Index;

    CHECK(Open(L"\\??\\C:\\data", FILE_LIST_DIRECTORY | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(List(NULL, FileBothDirectoryInformation, sizeof(Listed), FALSE, FALSE) == STATUS_SUCCESS);
    for (Index = 0; Index < RTL_NUMBER_OF(Names); Index++) {
        CHECK(IsCalled(Entry->FileName, Entry->FileNameLength, Names[Index]) && Entry->ShortNameLength == 0);
        CHECK(((Entry->FileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0) == (Index < 2 || Index == 5));
        CHECK((Entry->NextEntryOffset == 0) == (Index == 5) && Entry->NextEntryOffset % 8 == 0);
        if (Index == 3) {
            CHECK(Entry->EndOfFile.QuadPart == 5 && Entry->FileAttributes == FILE_ATTRIBUTE_ARCHIVE);
            CHECK(Entry->CreationTime.QuadPart != 0);
        }
        Entry = (PVOID)((PUCHAR)Entry + Entry->NextEntryOffset);
    }
    CHECK(Status.Information == (ULONG_PTR)((PUCHAR)Entry - Listed) + FIELD_OFFSET(FILE_BOTH_DIR_INFORMATION, FileName) + 6);
    CHECK(List(NULL, FileBothDirectoryInformation, sizeof(Listed), FALSE, FALSE) == STATUS_NO_MORE_FILES);
    CHECK(Status.Information == 0 && Listed[0] == 0xEE);
    /* Once more, one by one, by other classes. */
    CHECK(List(NULL, FileNamesInformation, sizeof(Listed), TRUE, TRUE) == STATUS_SUCCESS);
    CHECK(IsCalled(Name->FileName, Name->FileNameLength, L".") && Name->NextEntryOffset == 0);
    CHECK(List(NULL, FileNamesInformation, sizeof(Listed), TRUE, FALSE) == STATUS_SUCCESS);
    CHECK(List(NULL, FileDirectoryInformation, sizeof(Listed), TRUE, FALSE) == STATUS_SUCCESS);
    CHECK(IsCalled(Plain->FileName, Plain->FileNameLength, L"alpha.log") && Plain->EndOfFile.QuadPart == 5);
    CHECK(Plain->AllocationSize.QuadPart == 4096);
    CHECK(List(NULL, FileFullDirectoryInformation, sizeof(Listed), TRUE, FALSE) == STATUS_SUCCESS);
    CHECK(IsCalled(((FILE_FULL_DIR_INFORMATION *)Listed)->FileName, 16, L"Beta.TXT"));
    CHECK(List(NULL, FileIdBothDirectoryInformation, sizeof(Listed), TRUE, FALSE) == STATUS_SUCCESS);
    CHECK(IsCalled(((FILE_ID_BOTH_DIR_INFORMATION *)Listed)->FileName, 18, L"gamma.sys"));
    CHECK(((FILE_ID_BOTH_DIR_INFORMATION *)Listed)->FileId.QuadPart != 0);
    CHECK(List(NULL, FileIdFullDirectoryInformation, sizeof(Listed), TRUE, FALSE) == STATUS_SUCCESS);
    CHECK(IsCalled(((FILE_ID_FULL_DIR_INFORMATION *)Listed)->FileName, 6, L"sub"));
    CHECK(List(NULL, FileNamesInformation, sizeof(Listed), TRUE, FALSE) == STATUS_NO_MORE_FILES);
    ZwClose(File);
    return 0;
}

static ULONG Patterns(VOID)
{
    FILE_NAMES_INFORMATION *Name = (PVOID)Listed;

    CHECK(Open(L"\\??\\C:\\data", FILE_LIST_DIRECTORY | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(List(L"*.t?t", FileNamesInformation, sizeof(Listed), FALSE, FALSE) == STATUS_SUCCESS);
    CHECK(IsCalled(Name->FileName, Name->FileNameLength, L"Beta.TXT") && Name->NextEntryOffset == 0);
    /* The pattern is that of the first call. */
    CHECK(List(L"*.log", FileNamesInformation, sizeof(Listed), FALSE, FALSE) == STATUS_NO_MORE_FILES);
    ZwClose(File);
    CHECK(Open(L"\\??\\C:\\data", FILE_LIST_DIRECTORY | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(List(L"*.inf", FileNamesInformation, sizeof(Listed), FALSE, FALSE) == STATUS_NO_SUCH_FILE);
    CHECK(List(NULL, FileNamesInformation, sizeof(Listed), FALSE, FALSE) == STATUS_NO_MORE_FILES);
    ZwClose(File);
    /* In the root there is no way up. */
    CHECK(Open(L"\\??\\C:\\", FILE_LIST_DIRECTORY | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(List(L"*", FileNamesInformation, sizeof(Listed), TRUE, FALSE) == STATUS_SUCCESS);
    CHECK(IsCalled(Name->FileName, Name->FileNameLength, L"config.txt"));
    ZwClose(File);
    CHECK(Open(L"\\??\\C:\\config.txt", TO_READ, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(List(NULL, FileNamesInformation, sizeof(Listed), TRUE, FALSE) == STATUS_INVALID_PARAMETER);
    ZwClose(File);
    return 0;
}

static ULONG NarrowBuffers(VOID)
{
    FILE_NAMES_INFORMATION *Name = (PVOID)Listed;

    CHECK(Open(L"\\??\\C:\\data", FILE_LIST_DIRECTORY | SYNCHRONIZE, FILE_OPEN, SYNCHRONOUS | FILE_DIRECTORY_FILE) == STATUS_SUCCESS);
    CHECK(List(L"*.*", FileNamesInformation, 11, FALSE, FALSE) == STATUS_INFO_LENGTH_MISMATCH);
    /* Two fit, with the third the buffer would be too small. */
    CHECK(List(L"*.*", FileNamesInformation, 32, FALSE, FALSE) == STATUS_SUCCESS);
    CHECK(Name->NextEntryOffset == 16 && Status.Information == 32 && Listed[32] == 0xEE);
    /* Of the first one the name may be cut off; it is passed over next time. */
    CHECK(List(NULL, FileNamesInformation, 20, FALSE, FALSE) == STATUS_BUFFER_OVERFLOW);
    CHECK(Status.Information == 20 && Name->FileNameLength == 18 && memcmp(Name->FileName, L"alph", 8) == 0);
    CHECK(List(NULL, FileNamesInformation, sizeof(Listed), TRUE, FALSE) == STATUS_SUCCESS);
    CHECK(IsCalled(Name->FileName, Name->FileNameLength, L"Beta.TXT"));
    CHECK(List(NULL, FileMaximumInformation + 100, sizeof(Listed), TRUE, FALSE) == STATUS_INVALID_INFO_CLASS);
    ZwClose(File);
    return 0;
}
