/* Strings and what holds them. */
#include "damage.h"

static PVOID PrepareText(VOID)
{
    PUNICODE_STRING Text = Fresh(sizeof(*Text));

    Text->Buffer = Fresh(64);
    RtlCopyMemory(Text->Buffer, L"\\Device\\Absent", 28);
    Text->Length = 28;
    Text->MaximumLength = 64;
    return Text;
}
static VOID LinkIt(PVOID At) { IoCreateSymbolicLink(At, PrepareText()); IoDeleteSymbolicLink(At); }
static VOID OpenIt(PVOID At)
{
    PDEVICE_OBJECT Device;
    PFILE_OBJECT File;

    IoGetDeviceObjectPointer(At, 1, &File, &Device);
}
static VOID CopyIt(PVOID At)
{
    RtlCopyUnicodeString(PrepareText(), At);
    RtlCopyUnicodeString(At, PrepareText());
    RtlAppendUnicodeToString(At, L"more");
    RtlAppendUnicodeStringToString(At, At);
}
static VOID CompareIt(PVOID At)
{
    RtlCompareUnicodeString(At, PrepareText(), TRUE);
    RtlEqualUnicodeString(PrepareText(), At, FALSE);
    RtlUpcaseUnicodeString(At, At, FALSE);
}
static VOID ConvertIt(PVOID At)
{
    ULONG Value;
    ANSI_STRING Ansi = {0, 0, NULL};

    RtlUnicodeStringToInteger(At, 10, &Value);
    RtlIntegerToUnicodeString(0x12345, 16, At);
    RtlUnicodeStringToAnsiString(&Ansi, At, TRUE);
}
static VOID PrintIt(PVOID At) { DbgPrint("damage: %wZ\n", At); }
static VOID FreeIt(PVOID At) { RtlFreeUnicodeString(At); }
static const USE TextUses[] = {LinkIt, OpenIt, CopyIt, CompareIt, ConvertIt, PrintIt, FreeIt, NULL};

static PVOID PrepareAnsiText(VOID)
{
    PANSI_STRING Text = Fresh(sizeof(*Text));

    Text->Buffer = Fresh(16);
    RtlCopyMemory(Text->Buffer, "absent", 6);
    Text->Length = 6;
    Text->MaximumLength = 16;
    return Text;
}
static VOID WidenIt(PVOID At)
{
    UNICODE_STRING Text;

    RtlAnsiStringToUnicodeString(&Text, At, TRUE);
}
static VOID PrintAnsi(PVOID At) { DbgPrint("damage: %Z\n", At); }
static const USE AnsiTextUses[] = {WidenIt, PrintAnsi, NULL};

static PVOID PrepareAttributes(VOID)
{
    POBJECT_ATTRIBUTES Attributes = Fresh(sizeof(*Attributes));

    InitializeObjectAttributes(Attributes, PrepareText(), OBJ_KERNEL_HANDLE, NULL, NULL);
    return Attributes;
}
static VOID OpenFileBy(PVOID At)
{
    IO_STATUS_BLOCK Block;
    HANDLE Handle;

    ZwCreateFile(&Handle, GENERIC_READ, At, &Block, NULL, 0, 0, FILE_OPEN, 0, NULL, 0);
}
static VOID OpenKeyBy(PVOID At)
{
    HANDLE Handle;

    ZwOpenKey(&Handle, KEY_READ, At);
}
static VOID MakeThreadBy(PVOID At)
{
    HANDLE Handle;

    if (PsCreateSystemThread(&Handle, 0, At, NULL, NULL, Rest, NULL) == STATUS_SUCCESS) {
        ZwClose(Handle);
        Pause(5);
    }
}
static const USE AttributesUses[] = {OpenFileBy, OpenKeyBy, MakeThreadBy, NULL};

static PVOID PrepareRegistryTable(VOID)
{
    PRTL_QUERY_REGISTRY_TABLE Table = Fresh(3 * sizeof(*Table));
    static ULONG Default = 5;

    Table->Flags = RTL_QUERY_REGISTRY_DIRECT;
    Table->Name = (PWSTR)L"Absent";
    Table->EntryContext = Fresh(64);
    Table->DefaultType = REG_DWORD;
    Table->DefaultData = &Default;
    Table->DefaultLength = 4;
    return Table;
}
static VOID AskRegistry(PVOID At) { RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, (PWSTR)L"damage", At, NULL, NULL); }
static VOID AskAbsent(PVOID At)
{
    RtlQueryRegistryValues(RTL_REGISTRY_SERVICES | RTL_REGISTRY_OPTIONAL, (PWSTR)L"absent", At, NULL, NULL);
}
static const USE RegistryTableUses[] = {AskRegistry, AskAbsent, NULL};
