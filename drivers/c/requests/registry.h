/* The registry below the driver's service key. Pages: ZwCreateKey function, ZwQueryValueKey function,
 * ZwEnumerateValueKey function, ZwQueryKey function, RtlQueryRegistryValues function,
 * RtlWriteRegistryValue function. */

static UNICODE_STRING NumberName = RTL_CONSTANT_STRING(L"Number");
static UNICODE_STRING TextName = RTL_CONSTANT_STRING(L"Text");

static HANDLE OpenKey(REQUESTS_RESULT *Result, HANDLE Root, PUNICODE_STRING Name, ULONG Expected)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Key = NULL;
    ULONG Disposition = 0;

    InitializeObjectAttributes(&Attributes, Name, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, Root, NULL);
    if (!CHECK_STATUS(ZwCreateKey(&Key, KEY_ALL_ACCESS, &Attributes, 0, NULL, REG_OPTION_NON_VOLATILE, &Disposition),
                      STATUS_SUCCESS)) {
        return NULL;
    }
    CHECK(Disposition == Expected);
    return Key;
}

static VOID CheckValues(REQUESTS_RESULT *Result, HANDLE Key)
{
    static const WCHAR Text[] = L"eleven";
    ULONG Number = 0x12345678, Length = 0;
    UCHAR Buffer[128];
    PKEY_VALUE_PARTIAL_INFORMATION Partial = (PVOID)Buffer;
    PKEY_VALUE_BASIC_INFORMATION Basic = (PVOID)Buffer;
    PKEY_VALUE_FULL_INFORMATION Full = (PVOID)Buffer;
    const ULONG Head = FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data);

    CHECK_STATUS(ZwQueryValueKey(Key, &NumberName, KeyValuePartialInformation, Buffer, sizeof(Buffer), &Length),
                 STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK_STATUS(ZwSetValueKey(Key, &NumberName, 0, REG_DWORD, &Number, sizeof(Number)), STATUS_SUCCESS);
    CHECK_STATUS(ZwSetValueKey(Key, &TextName, 0, REG_SZ, (PVOID)(ULONG_PTR)Text, sizeof(Text)), STATUS_SUCCESS);
    CHECK_STATUS(ZwQueryValueKey(Key, &NumberName, KeyValuePartialInformation, NULL, 0, &Length),
                 STATUS_BUFFER_TOO_SMALL);
    CHECK(Length == Head + sizeof(Number));
    CHECK_STATUS(ZwQueryValueKey(Key, &TextName, KeyValuePartialInformation, Buffer, Head + 2, &Length),
                 STATUS_BUFFER_OVERFLOW);
    CHECK(Length == Head + sizeof(Text) && Partial->Type == REG_SZ && Partial->DataLength == sizeof(Text));
    CHECK_STATUS(ZwQueryValueKey(Key, &NumberName, KeyValuePartialInformation, Buffer, sizeof(Buffer), &Length),
                 STATUS_SUCCESS);
    CHECK(Partial->Type == REG_DWORD && Partial->DataLength == 4 && *(ULONG UNALIGNED *)Partial->Data == Number);
    CHECK_STATUS(ZwEnumerateValueKey(Key, 0, KeyValueBasicInformation, Buffer, sizeof(Buffer), &Length),
                 STATUS_SUCCESS);
    CHECK(Basic->NameLength == NumberName.Length || Basic->NameLength == TextName.Length); /* in no promised order */
    CHECK_STATUS(ZwEnumerateValueKey(Key, 1, KeyValueFullInformation, Buffer, sizeof(Buffer), &Length), STATUS_SUCCESS);
    CHECK(Full->DataOffset + Full->DataLength <= Length);
    CHECK(Full->DataLength == (Full->Type == REG_SZ ? sizeof(Text) : 4));
    CHECK_STATUS(ZwEnumerateValueKey(Key, 2, KeyValueFullInformation, Buffer, sizeof(Buffer), &Length),
                 STATUS_NO_MORE_ENTRIES);
}

static VOID CheckKeys(REQUESTS_RESULT *Result, HANDLE Key)
{
    UNICODE_STRING ChildName = RTL_CONSTANT_STRING(L"Child");
    OBJECT_ATTRIBUTES Attributes;
    UCHAR Buffer[256];
    PKEY_BASIC_INFORMATION Basic = (PVOID)Buffer;
    PKEY_FULL_INFORMATION Full = (PVOID)Buffer;
    HANDLE Again = NULL, Child = OpenKey(Result, Key, &ChildName, REG_CREATED_NEW_KEY);
    ULONG Length = 0;

    if (Child == NULL) {
        return;
    }
    InitializeObjectAttributes(&Attributes, &ChildName, OBJ_KERNEL_HANDLE, Key, NULL);
    if (CHECK_STATUS(ZwOpenKey(&Again, KEY_READ, &Attributes), STATUS_SUCCESS)) {
        /* A value of no bytes needs no pointer. */
        CHECK_STATUS(ZwSetValueKey(Child, &TextName, 0, REG_SZ, NULL, 0), STATUS_SUCCESS);
        CHECK_STATUS(ZwQueryValueKey(Again, &TextName, KeyValuePartialInformation, Buffer, sizeof(Buffer), &Length),
                     STATUS_SUCCESS);
        CHECK(((PKEY_VALUE_PARTIAL_INFORMATION)Buffer)->DataLength == 0);
        CHECK_STATUS(ZwClose(Again), STATUS_SUCCESS);
    }
    if (CHECK_STATUS(ZwOpenKeyEx(&Again, KEY_READ, &Attributes, 0), STATUS_SUCCESS)) {
        CHECK_STATUS(ZwClose(Again), STATUS_SUCCESS);
    }
    CHECK_STATUS(ZwEnumerateKey(Key, 0, KeyBasicInformation, Buffer, sizeof(Buffer), &Length), STATUS_SUCCESS);
    CHECK(Basic->NameLength == ChildName.Length);
    CHECK(RtlCompareMemory(Basic->Name, ChildName.Buffer, ChildName.Length) == ChildName.Length);
    CHECK_STATUS(ZwEnumerateKey(Key, 1, KeyBasicInformation, Buffer, sizeof(Buffer), &Length), STATUS_NO_MORE_ENTRIES);
    CHECK_STATUS(ZwQueryKey(Key, KeyFullInformation, NULL, 0, &Length), STATUS_BUFFER_TOO_SMALL);
    CHECK(Length >= FIELD_OFFSET(KEY_FULL_INFORMATION, Class));
    CHECK_STATUS(ZwQueryKey(Key, KeyFullInformation, Buffer, sizeof(Buffer), &Length), STATUS_SUCCESS);
    CHECK(Full->SubKeys == 1 && Full->Values == 2 && Full->MaxValueNameLen == NumberName.Length);
    CHECK_STATUS(ZwFlushKey(Key), STATUS_SUCCESS);
    CHECK_STATUS(ZwDeleteKey(Key), STATUS_CANNOT_DELETE); /* it has a subkey */
    CHECK_STATUS(ZwDeleteKey(Child), STATUS_SUCCESS);
    CHECK_STATUS(ZwClose(Child), STATUS_SUCCESS);
    CHECK_STATUS(ZwOpenKey(&Again, KEY_READ, &Attributes), STATUS_OBJECT_NAME_NOT_FOUND);
}

/* The routines that take a path. */
static VOID CheckPaths(REQUESTS_RESULT *Result)
{
    PWSTR Path = ServiceKey.Buffer;
    RTL_QUERY_REGISTRY_TABLE Table[3];
    WCHAR Place[16];
    UNICODE_STRING Text = {0, sizeof(Place), Place};
    ULONG Written = 99, Read = 0;

    CHECK_STATUS(RtlCheckRegistryKey(RTL_REGISTRY_ABSOLUTE, Path), STATUS_SUCCESS);
    CHECK_STATUS(RtlCheckRegistryKey(RTL_REGISTRY_SERVICES, (PWSTR)L"DirqlNobody"), STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK_STATUS(RtlWriteRegistryValue(RTL_REGISTRY_ABSOLUTE, Path, L"Written", REG_DWORD, &Written, 4),
                 STATUS_SUCCESS);
    CHECK_STATUS(RtlWriteRegistryValue(RTL_REGISTRY_ABSOLUTE, Path, L"Word", REG_SZ, (PVOID)(ULONG_PTR)L"ab", 6),
                 STATUS_SUCCESS);
    RtlZeroMemory(Table, sizeof(Table));
    Table[0].Flags = RTL_QUERY_REGISTRY_DIRECT | RTL_QUERY_REGISTRY_REQUIRED;
    Table[0].Name = (PWSTR)L"Written";
    Table[0].EntryContext = &Read;
    Table[1].Flags = RTL_QUERY_REGISTRY_DIRECT | RTL_QUERY_REGISTRY_REQUIRED | RTL_QUERY_REGISTRY_DELETE;
    Table[1].Name = (PWSTR)L"Word";
    Table[1].EntryContext = &Text;
    CHECK_STATUS(RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, Path, Table, NULL, NULL), STATUS_SUCCESS);
    CHECK(Read == 99 && Text.Length == 4 && Place[0] == L'a' && Place[1] == L'b');
    CHECK_STATUS(RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, Path, Table, NULL, NULL), STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK_STATUS(RtlDeleteRegistryValue(RTL_REGISTRY_ABSOLUTE, Path, L"Written"), STATUS_SUCCESS);
    CHECK_STATUS(RtlDeleteRegistryValue(RTL_REGISTRY_ABSOLUTE, Path, L"Written"), STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK_STATUS(RtlCreateRegistryKey(RTL_REGISTRY_SERVICES, (PWSTR)L"DirqlRequestsNew"), STATUS_SUCCESS);
    CHECK_STATUS(RtlCheckRegistryKey(RTL_REGISTRY_SERVICES, (PWSTR)L"DirqlRequestsNew"), STATUS_SUCCESS);
}

static VOID RegistryFamily(REQUESTS_RESULT *Result, PIRP Irp)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Checks");
    HANDLE Service, Key, Again;

    UNREFERENCED_PARAMETER(Irp);
    Service = OpenKey(Result, NULL, &ServiceKey, REG_OPENED_EXISTING_KEY);
    if (Service == NULL) {
        return;
    }
    Key = OpenKey(Result, Service, &Name, REG_CREATED_NEW_KEY);
    if (Key != NULL) {
        Again = OpenKey(Result, Service, &Name, REG_OPENED_EXISTING_KEY);
        if (Again != NULL) {
            ZwClose(Again);
        }
        CheckValues(Result, Key);
        CheckKeys(Result, Key);
        CHECK_STATUS(ZwDeleteValueKey(Key, &TextName), STATUS_SUCCESS);
        CHECK_STATUS(ZwDeleteValueKey(Key, &TextName), STATUS_OBJECT_NAME_NOT_FOUND);
        CHECK_STATUS(ZwDeleteKey(Key), STATUS_SUCCESS);
        CHECK_STATUS(ZwClose(Key), STATUS_SUCCESS);
    }
    CHECK_STATUS(ZwClose(Service), STATUS_SUCCESS);
    CheckPaths(Result);
}
