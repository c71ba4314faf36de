/* Names, strings and the registry. Pages: UNICODE_STRING structure, IoCreateNotificationEvent function,
 * RtlQueryRegistryValues function, RtlUnicodeStringToAnsiString function, RtlClearAllBits function. */
#include "files.h"

/* A constant made by hand, with a length and no room: who only reads a string looks at its length. */
static ULONG ShortMaximum(VOID)
{
    UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFilesOther");
    UNICODE_STRING Name = LowerName;
    PDEVICE_OBJECT Device;
    PFILE_OBJECT File;

    Link.MaximumLength = 0;
    Name.MaximumLength = Name.Length - 2;
    CHECK(IoCreateSymbolicLink(&Link, &Name) == STATUS_SUCCESS);
    CHECK(IoGetDeviceObjectPointer(&Link, FILE_READ_ATTRIBUTES, &File, &Device) == STATUS_SUCCESS);
    CHECK(Device == Lower);
    ObDereferenceObject(File);
    CHECK(IoDeleteSymbolicLink(&Link) == STATUS_SUCCESS);
    return 0;
}

/* As a driver shares an event with applications of every session. */
static ULONG GlobalNames(VOID)
{
    UNICODE_STRING Global = RTL_CONSTANT_STRING(L"\\BaseNamedObjects\\Global\\DirqlFiles");
    UNICODE_STRING Plain = RTL_CONSTANT_STRING(L"\\BaseNamedObjects\\DirqlFiles");
    HANDLE One, Two;
    PKEVENT Event = IoCreateNotificationEvent(&Global, &One);

    CHECK(Event != NULL);
    CHECK(IoCreateNotificationEvent(&Plain, &Two) == Event);
    CHECK(ZwClose(One) == STATUS_SUCCESS);
    CHECK(ZwClose(Two) == STATUS_SUCCESS);
    return 0;
}

/* Drivers open optional files, and go on without. */
static ULONG FilesOnDisks(VOID)
{
    UNICODE_STRING Names[3] = {
        RTL_CONSTANT_STRING(L"\\??\\C:\\firmware.bin"),
        RTL_CONSTANT_STRING(L"\\SystemRoot\\system32\\drivers\\firmware.bin"),
        RTL_CONSTANT_STRING(L"\\DosDevices\\C:\\log.txt"),
    };
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block;
    HANDLE Handle;
    ULONG Index;

    for (Index = 0; Index < RTL_NUMBER_OF(Names); Index++) {
        InitializeObjectAttributes(&Attributes, &Names[Index], OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
        CHECK(!NT_SUCCESS(ZwCreateFile(&Handle, GENERIC_READ, &Attributes, &Block, NULL, 0, FILE_SHARE_READ, FILE_OPEN,
                                       FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE, NULL, 0)));
    }
    return 0;
}

/* As keyboard and mouse class drivers read parameters that no one has set: the key is optional, and the defaults apply. */
static ULONG RegistryDefaults(VOID)
{
    RTL_QUERY_REGISTRY_TABLE Table[3];
    ULONG Default = 0x64, Number = 0;
    WCHAR Place[16];
    UNICODE_STRING Text = {0, sizeof(Place), Place};

    RtlZeroMemory(Table, sizeof(Table));
    Table[0].Flags = RTL_QUERY_REGISTRY_DIRECT;
    Table[0].Name = (PWSTR)L"DataQueueSize";
    Table[0].EntryContext = &Number;
    Table[0].DefaultType = REG_DWORD;
    Table[0].DefaultData = &Default;
    Table[0].DefaultLength = sizeof(Default);
    Table[1].Flags = RTL_QUERY_REGISTRY_DIRECT;
    Table[1].Name = (PWSTR)L"BaseName";
    Table[1].EntryContext = &Text;
    Table[1].DefaultType = REG_SZ;
    Table[1].DefaultData = (PVOID)(ULONG_PTR)L"Class";
    CHECK(RtlQueryRegistryValues(RTL_REGISTRY_SERVICES | RTL_REGISTRY_OPTIONAL, (PWSTR)L"DirqlNobody\\Parameters", Table,
                                 NULL, NULL) == STATUS_SUCCESS);
    CHECK(Number == 0x64 && Text.Length == 10 && Place[4] == L's');
    Table[1].Flags |= RTL_QUERY_REGISTRY_REQUIRED;
    CHECK(RtlQueryRegistryValues(RTL_REGISTRY_SERVICES | RTL_REGISTRY_OPTIONAL, (PWSTR)L"DirqlNobody\\Parameters", Table,
                                 NULL, NULL) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, (PWSTR)L"DirqlNobody\\Parameters", Table, NULL, NULL) ==
          STATUS_OBJECT_NAME_NOT_FOUND);
    return 0;
}

static ULONG Lengths[4], Texts;

static NTSTATUS NTAPI NoteText(PWSTR Name, ULONG Type, PVOID Data, ULONG Length, PVOID Context, PVOID Entry)
{
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Data);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Entry);
    if (Type == REG_SZ && Texts < RTL_NUMBER_OF(Lengths)) {
        Lengths[Texts] = Length;
    }
    Texts++;
    return STATUS_SUCCESS;
}

/* How often the routine is called for these characters as a REG_MULTI_SZ. */
static ULONG TextsOf(const WCHAR *Characters, ULONG Bytes)
{
    RTL_QUERY_REGISTRY_TABLE Table[2];

    Texts = 0;
    RtlZeroMemory(Table, sizeof(Table));
    Table[0].QueryRoutine = NoteText;
    Table[0].Name = (PWSTR)L"Texts";
    if (RtlWriteRegistryValue(RTL_REGISTRY_SERVICES, L"DirqlFilesTexts", L"Texts", REG_MULTI_SZ, (PVOID)(ULONG_PTR)Characters,
                              Bytes) != STATUS_SUCCESS ||
        RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, (PWSTR)L"DirqlFilesTexts", Table, NULL, NULL) != STATUS_SUCCESS) {
        return 99;
    }
    return Texts;
}

static ULONG MultipleTexts(VOID)
{
    static const WCHAR WithEmpty[] = {L'a', 0, 0, L'b', L'c', 0, 0}, Two[] = {L'a', 0, L'b', 0, 0}, Empty[] = {0, 0};

    CHECK(TextsOf(WithEmpty, sizeof(WithEmpty)) == 3);
    CHECK(Lengths[0] == 4 && Lengths[1] == 2 && Lengths[2] == 6);
    CHECK(TextsOf(Two, sizeof(Two)) == 2);
    CHECK(TextsOf(Empty, sizeof(Empty)) == 1 && Lengths[0] == 2);
    return 0;
}

static ULONG ShortStrings(VOID)
{
    UNICODE_STRING Text = RTL_CONSTANT_STRING(L"firmware");
    char Place[8] = {9, 9, 9, 9, 9, 9, 9, 9};
    ANSI_STRING Short = {0, 5, Place};
    ULONG Words[2] = {0xFFFFFFFF, 0xFFFFFFFF};
    RTL_BITMAP Map;

    CHECK(RtlUnicodeStringToAnsiString(&Short, &Text, FALSE) == STATUS_BUFFER_OVERFLOW);
    CHECK(Short.Length == 4 && RtlCompareMemory(Place, "firm\0", 5) == 5 && Place[5] == 9);
    Short.MaximumLength = 0;
    CHECK(RtlUnicodeStringToAnsiString(&Short, &Text, FALSE) == STATUS_BUFFER_OVERFLOW && Place[0] == 'f');
    RtlInitializeBitMap(&Map, Words, 5);
    RtlClearAllBits(&Map);
    CHECK(Words[0] == 0 && Words[1] == 0xFFFFFFFF); /* by whole words */
    RtlSetAllBits(&Map);
    CHECK(Words[0] == 0xFFFFFFFF);
    CHECK(NtTowupper(0xE4) == 0xC4 && NtTowupper(L'z') == L'Z');
    CHECK(NtWcsicmp(L"\x00E9t\x00E9", L"\x00C9T\x00C9") == 0);
    return 0;
}
