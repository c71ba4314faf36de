/* A device interface, disabled at removal or left to the PnP manager; and a name that is looked at before the device is started. */
#ifndef CORRECT_PNP_INTERFACE_H
#define CORRECT_PNP_INTERFACE_H

/* {D5A1E2B4-6C37-4F09-8E5D-21C07B94A3F6} */
static const GUID InterfaceClass = {0xD5A1E2B4, 0x6C37, 0x4F09, {0x8E, 0x5D, 0x21, 0xC0, 0x7B, 0x94, 0xA3, 0xF6}};

/* Whether IoGetDeviceInterfaces finds the name that IoRegisterDeviceInterface gave, letter by letter. */
static BOOLEAN IsListed(PDEVICE_EXTENSION Extension)
{
    UNICODE_STRING Listed;
    BOOLEAN Same;
    PWSTR List;

    if (!NT_SUCCESS(IoGetDeviceInterfaces(&InterfaceClass, Extension->Pdo, 0, &List))) {
        return FALSE;
    }
    RtlInitUnicodeString(&Listed, List);
    Same = RtlEqualUnicodeString(&Listed, &Extension->Interface, FALSE);
    ExFreePool(List);
    return Same;
}

/* Opens the interface's own key, for each of which there is one; what is written there is there the next time. */
static BOOLEAN KeepsWords(PDEVICE_EXTENSION Extension)
{
    UCHAR Buffer[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PKEY_VALUE_PARTIAL_INFORMATION)Buffer;
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Word");
    ULONG Word = 0x600D, Length;
    HANDLE Key = NULL;
    NTSTATUS Status;

    if (!NT_SUCCESS(IoOpenDeviceInterfaceRegistryKey(&Extension->Interface, KEY_WRITE, &Key)) || Key == NULL) {
        return FALSE;
    }
    Status = ZwSetValueKey(Key, &Name, 0, REG_DWORD, &Word, sizeof(Word));
    ZwClose(Key);
    if (!NT_SUCCESS(Status) || !NT_SUCCESS(IoOpenDeviceInterfaceRegistryKey(&Extension->Interface, KEY_READ, &Key))) {
        return FALSE;
    }
    Status = ZwQueryValueKey(Key, &Name, KeyValuePartialInformation, Value, sizeof(Buffer), &Length);
    ZwClose(Key);
    return NT_SUCCESS(Status) && Value->Type == REG_DWORD && *(PULONG)Value->Data == Word;
}

/* A value of the interface's key, as the INF has written it; FALSE if it is not there. */
static BOOLEAN Given(PDEVICE_EXTENSION Extension, PCWSTR Name, ULONG Type, PVOID Data, ULONG Size)
{
    UCHAR Buffer[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + 64];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PKEY_VALUE_PARTIAL_INFORMATION)Buffer;
    UNICODE_STRING String;
    HANDLE Key = NULL;
    NTSTATUS Status;
    ULONG Length;

    if (!NT_SUCCESS(IoOpenDeviceInterfaceRegistryKey(&Extension->Interface, KEY_READ, &Key))) {
        return FALSE;
    }
    RtlInitUnicodeString(&String, Name);
    Status = ZwQueryValueKey(Key, &String, KeyValuePartialInformation, Value, sizeof(Buffer), &Length);
    ZwClose(Key);
    if (!NT_SUCCESS(Status) || Value->Type != Type || Value->DataLength > Size) {
        return FALSE;
    }
    RtlCopyMemory(Data, Value->Data, Value->DataLength);
    return TRUE;
}

static VOID TellGiven(PDEVICE_EXTENSION Extension)
{
    UNICODE_STRING First;
    WCHAR List[32];
    ULONG Word;

    if (Given(Extension, L"Given", REG_DWORD, &Word, sizeof(Word))) {
        DbgPrint("interface's word: %x\n", Word);
    }
    if (Given(Extension, L"List", REG_MULTI_SZ, List, sizeof(List))) {
        RtlInitUnicodeString(&First, List);
        DbgPrint("interface's list: %wZ, then %ws\n", &First, List + First.Length / sizeof(WCHAR) + 1);
    }
}

static VOID EnableInterface(PDEVICE_EXTENSION Extension)
{
    NTSTATUS Status = IoSetDeviceInterfaceState(&Extension->Interface, TRUE);

    TellGiven(Extension);
    DbgPrint("interface: %s, %s\n", NT_SUCCESS(Status) ? "enabled" : "not enabled",
             IsListed(Extension) ? "listed as registered" : "listed otherwise");
    DbgPrint("interface's key: %s\n", KeepsWords(Extension) ? "kept" : "lost");
}

static VOID DisableInterface(PDEVICE_EXTENSION Extension)
{
    if (Extension->Interface.Buffer != NULL && !(Extension->Idioms & IDIOM_KEEPS_INTERFACE)) {
        IoSetDeviceInterfaceState(&Extension->Interface, FALSE);
    }
}

static VOID ForgetInterface(PDEVICE_EXTENSION Extension)
{
    if (Extension->Interface.Buffer != NULL) {
        RtlFreeUnicodeString(&Extension->Interface);
        Extension->Interface.Buffer = NULL;
    }
}

/* The PnP manager fails creates until the start request has succeeded. */
static VOID OpenEarly(VOID)
{
    PDEVICE_OBJECT Device;
    PFILE_OBJECT File;
    NTSTATUS Status = IoGetDeviceObjectPointer(&DeviceName, FILE_READ_DATA, &File, &Device);

    DbgPrint("opened early: 0x%08x\n", Status);
    if (NT_SUCCESS(Status)) {
        ObDereferenceObject(File);
    }
}

#endif
