/* Stories of routines that filter the registry: what they are called with, in which order, and what they can change. */
#include "filters.h"

#ifndef STATUS_CALLBACK_BYPASS
#define STATUS_CALLBACK_BYPASS ((NTSTATUS)0xC0000503)
#endif
#define STATUS_ALTITUDE_TAKEN ((NTSTATUS)0xC01C0011)
#define LOGGED 48

NTSYSAPI NTSTATUS NTAPI ObReferenceObjectByHandle(HANDLE Handle, ACCESS_MASK Access, POBJECT_TYPE Type, KPROCESSOR_MODE Mode,
                                                  PVOID *Object, POBJECT_HANDLE_INFORMATION Information);
NTKERNELAPI NTSTATUS NTAPI CmCallbackGetKeyObjectIDEx(PLARGE_INTEGER Cookie, PVOID Object, PULONG_PTR Id,
                                                      PCUNICODE_STRING *Name, ULONG Flags);
NTKERNELAPI VOID NTAPI CmCallbackReleaseKeyObjectIDEx(PCUNICODE_STRING Name);

/* One of the routines: what it is to do, and what it was called with. */
typedef struct _FILTER {
    LARGE_INTEGER Cookie;
    ULONG Who;
    ULONG Class;      /* of the notification that it answers */
    NTSTATUS Answer;  /* with this */
    NTSTATUS Changed; /* ReturnStatus */
    PVOID Context;    /* what it wants to have back */
    PVOID Given;      /* ResultObject, if it opens a key itself */
    ULONG Cleaned;
    PVOID CleanedContext;
    PVOID SeenContext; /* the object's */
    PVOID SeenBack;    /* CallContext, after the operation */
    NTSTATUS SeenStatus;
    PVOID SeenObject;
    BOOLEAN SetsContext;
} FILTER;

static FILTER High = {.Who = 1}, Low = {.Who = 2};
static struct {
    ULONG Who, Class;
} Log[LOGGED];
static ULONG Logs;
static WCHAR SeenName[64];
static ULONG SeenAccess, SeenType, SeenSize;

static VOID NoteBefore(FILTER *Filter, ULONG Class, PVOID Argument)
{
    REG_CREATE_KEY_INFORMATION_V1 *Open = Argument;
    REG_SET_VALUE_KEY_INFORMATION *Set = Argument;
    REG_QUERY_VALUE_KEY_INFORMATION *Query = Argument;

    switch (Class) {
    case RegNtPreCreateKeyEx:
    case RegNtPreOpenKeyEx:
        RtlZeroMemory(SeenName, sizeof(SeenName));
        RtlCopyMemory(SeenName, Open->CompleteName->Buffer, Open->CompleteName->Length);
        SeenAccess = Open->DesiredAccess;
        Open->CallContext = Filter->Context;
        if (Filter->Given != NULL && Filter->Class == Class) {
            ObReferenceObject(Filter->Given);
            *Open->ResultObject = Filter->Given;
            Open->GrantedAccess = Open->DesiredAccess;
        }
        break;
    case RegNtPreSetValueKey:
        RtlZeroMemory(SeenName, sizeof(SeenName));
        RtlCopyMemory(SeenName, Set->ValueName->Buffer, Set->ValueName->Length);
        SeenType = Set->Type;
        SeenSize = Set->DataSize;
        Set->CallContext = Filter->Context;
        Filter->SeenContext = Set->ObjectContext;
        break;
    case RegNtPreQueryValueKey:
        Query->CallContext = Filter->Context;
        Filter->SeenContext = Query->ObjectContext;
        break;
    }
}

static NTSTATUS NTAPI Filters(PVOID Context, PVOID Argument1, PVOID Argument2)
{
    FILTER *Filter = Context;
    ULONG Class = (ULONG)(ULONG_PTR)Argument1;
    REG_POST_OPERATION_INFORMATION *After = Argument2;
    REG_CALLBACK_CONTEXT_CLEANUP_INFORMATION *Clean = Argument2;
    PVOID Old = Context;

    if (Class == RegNtCallbackObjectContextCleanup) {
        Filter->Cleaned++;
        Filter->CleanedContext = Clean->ObjectContext;
        return STATUS_SUCCESS;
    }
    if (Logs < LOGGED) {
        Log[Logs].Who = Filter->Who;
        Log[Logs++].Class = Class;
    }
    switch (Class) {
    case RegNtPostCreateKeyEx:
    case RegNtPostOpenKeyEx:
        if (Filter->SetsContext && After->Status == STATUS_SUCCESS &&
            (!NT_SUCCESS(CmSetCallbackObjectContext(After->Object, &Filter->Cookie, Filter, &Old)) || Old != NULL)) {
            return STATUS_UNSUCCESSFUL;
        }
        /* fall through */
    case RegNtPostSetValueKey:
    case RegNtPostQueryValueKey:
    case RegNtPostDeleteKey:
        Filter->SeenBack = After->CallContext;
        Filter->SeenStatus = After->Status;
        Filter->SeenObject = After->Object;
        After->ReturnStatus = Filter->Changed;
        break;
    default:
        NoteBefore(Filter, Class, Argument2);
    }
    return Class == Filter->Class ? Filter->Answer : STATUS_SUCCESS;
}

static BOOLEAN Logged(const ULONG *Expected, ULONG Count)
{
    ULONG Index;

    if (Logs != Count) {
        DbgPrint("filters: %u notifications, not %u\n", Logs, Count);
    }
    for (Index = 0; Index < Count && Index < Logs; Index++) {
        if (Log[Index].Who * 100 + Log[Index].Class != Expected[Index]) {
            DbgPrint("filters: %u is %u of %u\n", Index, Log[Index].Class, Log[Index].Who);
            return FALSE;
        }
    }
    Index = Logs;
    Logs = 0;
    return Index == Count;
}

#define LOGGED_ARE(...)                                                                                                \
    do {                                                                                                               \
        static const ULONG Expected_[] = {__VA_ARGS__};                                                                \
        CHECK(Logged(Expected_, RTL_NUMBER_OF(Expected_)));                                                            \
    } while (0)

static NTSTATUS OpenKey(PCWSTR Path, HANDLE Root, PHANDLE Handle)
{
    UNICODE_STRING Name;
    OBJECT_ATTRIBUTES Attributes;

    RtlInitUnicodeString(&Name, Path);
    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, Root, NULL);
    *Handle = NULL;
    return ZwOpenKey(Handle, KEY_READ, &Attributes);
}

static NTSTATUS CreateKey(PCWSTR Path, PHANDLE Handle)
{
    UNICODE_STRING Name;
    OBJECT_ATTRIBUTES Attributes;
    ULONG Disposition;

    RtlInitUnicodeString(&Name, Path);
    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    *Handle = NULL;
    return ZwCreateKey(Handle, KEY_ALL_ACCESS, &Attributes, 0, NULL, REG_OPTION_VOLATILE, &Disposition);
}

static NTSTATUS SetNumber(HANDLE Key, PCWSTR Name, ULONG Number)
{
    UNICODE_STRING Text;

    RtlInitUnicodeString(&Text, Name);
    return ZwSetValueKey(Key, &Text, 0, REG_DWORD, &Number, sizeof(Number));
}

static NTSTATUS Number(HANDLE Key, PCWSTR Name, PULONG Value)
{
    UCHAR Room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + 8];
    KEY_VALUE_PARTIAL_INFORMATION *Partial = (PVOID)Room;
    UNICODE_STRING Text;
    ULONG Length;
    NTSTATUS Status;

    RtlInitUnicodeString(&Text, Name);
    Status = ZwQueryValueKey(Key, &Text, KeyValuePartialInformation, Room, sizeof(Room), &Length);
    if (NT_SUCCESS(Status)) {
        *Value = *(ULONG UNALIGNED *)Partial->Data;
    }
    return Status;
}

static NTSTATUS Register(FILTER *Filter, PCWSTR Altitude)
{
    UNICODE_STRING Text;

    RtlInitUnicodeString(&Text, Altitude);
    Filter->Class = ~0u;
    return CmRegisterCallbackEx(Filters, &Text, TheDriver, Filter, &Filter->Cookie, NULL);
}

#define KEY L"\\Registry\\Machine\\Software\\DirqlFilters"

/* The routines run before and after each call, from the highest altitude down, and back up. */
static ULONG TheRegistryIsWatched(VOID)
{
    FILTER Old = {.Who = 3, .Class = ~0u}, Same = {.Who = 4};
    KEY_BASIC_INFORMATION Basic;
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Value");
    ULONG Value = 0, Length;
    HANDLE Key, Other;

    CHECK(Register(&Low, L"1000.5") == STATUS_SUCCESS && Register(&High, L"20000") == STATUS_SUCCESS);
    CHECK(Low.Cookie.QuadPart != High.Cookie.QuadPart && Register(&Same, L"01000.50") == STATUS_ALTITUDE_TAKEN);
    High.Context = &High;
    Low.Context = &Low;
    CHECK(CreateKey(KEY, &Key) == STATUS_SUCCESS && Key != NULL);
    LOGGED_ARE(126, 226, 227, 127);
    CHECK(_wcsicmp(SeenName, KEY) == 0 && SeenAccess == KEY_ALL_ACCESS);
    CHECK(High.SeenBack == &High && Low.SeenBack == &Low && Low.SeenStatus == STATUS_SUCCESS && Low.SeenObject != NULL);
    CHECK(SetNumber(Key, L"Value", 77) == STATUS_SUCCESS);
    LOGGED_ARE(101, 201, 216, 116);
    CHECK(wcscmp(SeenName, L"Value") == 0 && SeenType == REG_DWORD && SeenSize == 4);
    CHECK(Number(Key, L"Value", &Value) == STATUS_SUCCESS && Value == 77);
    LOGGED_ARE(108, 208, 223, 123);
    CHECK(Number(Key, L"None", &Value) == STATUS_OBJECT_NAME_NOT_FOUND);
    LOGGED_ARE(108, 208, 223, 123);
    CHECK(Low.SeenStatus == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(ZwQueryKey(Key, KeyBasicInformation, &Basic, sizeof(Basic), &Length) == STATUS_BUFFER_OVERFLOW);
    CHECK(ZwEnumerateKey(Key, 0, KeyBasicInformation, &Basic, sizeof(Basic), &Length) == STATUS_NO_MORE_ENTRIES);
    CHECK(ZwEnumerateValueKey(Key, 1, KeyValueBasicInformation, &Basic, sizeof(Basic), &Length) == STATUS_NO_MORE_ENTRIES);
    LOGGED_ARE(107, 207, 222, 122, 105, 205, 220, 120, 106, 206, 221, 121);
    CHECK(OpenKey(L"Below", Key, &Other) == STATUS_OBJECT_NAME_NOT_FOUND);
    LOGGED_ARE(128, 228, 229, 129);
    CHECK(_wcsicmp(SeenName, L"Below") == 0 && Low.SeenObject != NULL && High.SeenStatus == STATUS_OBJECT_NAME_NOT_FOUND);

    /* One that has no altitude comes first. */
    CHECK(CmRegisterCallback(Filters, &Old, &Old.Cookie) == STATUS_SUCCESS);
    CHECK(ZwFlushKey(Key) == STATUS_SUCCESS);
    LOGGED_ARE(330, 130, 230, 231, 131, 331);
    CHECK(ZwDeleteValueKey(Key, &Name) == STATUS_SUCCESS);
    LOGGED_ARE(302, 102, 202, 217, 117, 317);
    CHECK(CmUnRegisterCallback(Old.Cookie) == STATUS_SUCCESS);
    CHECK(CmUnRegisterCallback(Old.Cookie) == STATUS_INVALID_PARAMETER);
    CHECK(ZwDeleteKey(Key) == STATUS_SUCCESS);
    LOGGED_ARE(100, 200, 215, 115);
    CHECK(ZwClose(Key) == STATUS_SUCCESS);
    LOGGED_ARE(114, 214, 225, 125);
    CHECK(CmUnRegisterCallback(High.Cookie) == STATUS_SUCCESS && CmUnRegisterCallback(Low.Cookie) == STATUS_SUCCESS);
    CHECK(OpenKey(L"\\Registry\\Machine", NULL, &Key) == STATUS_SUCCESS && ZwClose(Key) == STATUS_SUCCESS && Logs == 0);
    return 0;
}

/* A routine blocks a call, carries it out itself, or changes what comes of it. */
static ULONG TheRegistryIsChanged(VOID)
{
    ULONG Value = 0;
    PVOID Object;
    HANDLE Key, Other;

    CHECK(CreateKey(KEY, &Key) == STATUS_SUCCESS && SetNumber(Key, L"Value", 1) == STATUS_SUCCESS);
    CHECK(Register(&Low, L"1000") == STATUS_SUCCESS && Register(&High, L"20000") == STATUS_SUCCESS);
    Logs = 0;

    /* The lower one blocks: the higher one hears of it afterwards. */
    Low.Class = RegNtPreSetValueKey;
    Low.Answer = STATUS_ACCESS_DENIED;
    CHECK(SetNumber(Key, L"Value", 2) == STATUS_ACCESS_DENIED);
    LOGGED_ARE(101, 201, 116);
    CHECK(High.SeenStatus == STATUS_ACCESS_DENIED && Number(Key, L"Value", &Value) == STATUS_SUCCESS && Value == 1);
    /* The higher one carries it out itself: the lower one hears nothing. */
    Logs = 0;
    High.Class = RegNtPreSetValueKey;
    High.Answer = STATUS_CALLBACK_BYPASS;
    CHECK(SetNumber(Key, L"Value", 3) == STATUS_SUCCESS);
    LOGGED_ARE(101);
    CHECK(Number(Key, L"Value", &Value) == STATUS_SUCCESS && Value == 1);
    /* The call succeeds, and the routine makes another status of it. */
    Low.Class = ~0u;
    High.Class = RegNtPostQueryValueKey;
    High.Changed = STATUS_OBJECT_NAME_NOT_FOUND;
    CHECK(Number(Key, L"Value", &Value) == STATUS_OBJECT_NAME_NOT_FOUND);
    High.Answer = STATUS_SUCCESS;
    CHECK(Number(Key, L"Value", &Value) == STATUS_SUCCESS);
    /* A key is not to be opened; or another one is. */
    High.Class = RegNtPreOpenKeyEx;
    High.Answer = STATUS_OBJECT_NAME_NOT_FOUND;
    CHECK(OpenKey(KEY, NULL, &Other) == STATUS_OBJECT_NAME_NOT_FOUND && Other == NULL);
    CHECK(ObReferenceObjectByHandle(Key, 0, *CmKeyObjectType, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    High.Given = Object;
    High.Answer = STATUS_CALLBACK_BYPASS;
    CHECK(OpenKey(L"\\Registry\\Machine\\Nowhere", NULL, &Other) == STATUS_SUCCESS && Other != NULL && Other != Key);
    Value = 0;
    CHECK(Number(Other, L"Value", &Value) == STATUS_SUCCESS && Value == 1 && ZwClose(Other) == STATUS_SUCCESS);
    ObDereferenceObject(Object);
    High.Given = NULL;
    /* What was opened is refused after all. */
    High.Class = RegNtPostOpenKeyEx;
    High.Changed = STATUS_ACCESS_DENIED;
    CHECK(OpenKey(KEY, NULL, &Other) == STATUS_ACCESS_DENIED && Other == NULL);
    CHECK(CmUnRegisterCallback(High.Cookie) == STATUS_SUCCESS && CmUnRegisterCallback(Low.Cookie) == STATUS_SUCCESS);
    CHECK(ZwDeleteKey(Key) == STATUS_SUCCESS && ZwClose(Key) == STATUS_SUCCESS);
    return 0;
}

/* What a routine knows of keys: contexts, their numbers and names. */
static ULONG KeysAreKnown(VOID)
{
    ULONG_PTR Id = 0, Again = 0, Above = 0;
    PCUNICODE_STRING Name = NULL, Own = NULL;
    ULONG Value, Major = 0, Minor = 0;
    HANDLE Key, Other;
    PVOID Object, OtherObject, Old = &Key;

    CmGetCallbackVersion(&Major, &Minor);
    CHECK(Major == 1 && Minor == 1);
    CHECK(Register(&Low, L"1000") == STATUS_SUCCESS);
    Low.SetsContext = TRUE;
    Low.Cleaned = 0;
    CHECK(CreateKey(KEY, &Key) == STATUS_SUCCESS && SetNumber(Key, L"Value", 1) == STATUS_SUCCESS);
    CHECK(Low.SeenContext == &Low && Low.Cleaned == 0);
    CHECK(OpenKey(KEY, NULL, &Other) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Key, 0, *CmKeyObjectType, KernelMode, &Object, NULL) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Other, 0, *CmKeyObjectType, KernelMode, &OtherObject, NULL) == STATUS_SUCCESS);
    CHECK(CmSetCallbackObjectContext(Object, &Low.Cookie, &High, &Old) == STATUS_SUCCESS && Old == &Low);
    CHECK(Number(Key, L"Value", &Value) == STATUS_SUCCESS && Low.SeenContext == &High);

    CHECK(CmCallbackGetKeyObjectID(&Low.Cookie, Object, &Id, &Name) == STATUS_SUCCESS && Id != 0 && IsWide(Name, KEY));
    CHECK(CmCallbackGetKeyObjectIDEx(&Low.Cookie, OtherObject, &Again, &Own, 0) == STATUS_SUCCESS);
    CHECK(Again == Id && Own != Name && IsWide(Own, KEY));
    CmCallbackReleaseKeyObjectIDEx(Own);
    CHECK(CmCallbackGetKeyObjectIDEx(&Low.Cookie, Object, NULL, NULL, 1) == STATUS_INVALID_PARAMETER);
    CHECK(CmCallbackGetKeyObjectID(&Low.Cookie, &Key, &Id, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(CmGetBoundTransaction(&Low.Cookie, Object) == NULL);
    ObDereferenceObject(OtherObject);

    /* A context is cleaned up when its key's object goes, or its routine. */
    CHECK(ZwClose(Other) == STATUS_SUCCESS && Low.Cleaned == 1 && Low.CleanedContext == &Low);
    CHECK(OpenKey(L"\\Registry\\Machine", NULL, &Other) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Other, 0, *CmKeyObjectType, KernelMode, &OtherObject, NULL) == STATUS_SUCCESS);
    CHECK(CmCallbackGetKeyObjectID(&Low.Cookie, OtherObject, &Above, NULL) == STATUS_SUCCESS && Above != Id);
    ObDereferenceObject(OtherObject);
    CHECK(ZwClose(Other) == STATUS_SUCCESS && Low.Cleaned == 2);
    CHECK(CmUnRegisterCallback(Low.Cookie) == STATUS_SUCCESS && Low.Cleaned == 3 && Low.CleanedContext == &High);
    Low.SetsContext = FALSE;
    ObDereferenceObject(Object);
    CHECK(ZwDeleteKey(Key) == STATUS_SUCCESS && ZwClose(Key) == STATUS_SUCCESS);
    return 0;
}
