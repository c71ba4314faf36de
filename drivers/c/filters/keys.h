/* A story of the keys that a driver has in the registry: its parameters, and its state. */
#include "filters.h"

enum { PARAMETERS, STATE, SHARED_STATE }; /* DRIVER_REGKEY_TYPE */

NTKERNELAPI NTSTATUS NTAPI IoOpenDriverRegistryKey(PDRIVER_OBJECT Driver, ULONG Type, ACCESS_MASK Access, ULONG Flags, PHANDLE Key);

/* The number that the key has as Number, or 0. */
static ULONG NumberIn(HANDLE Key)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Number");
    UCHAR Room[64] __attribute__((aligned(8)));
    KEY_VALUE_PARTIAL_INFORMATION *Value = (PVOID)Room;
    ULONG Length;

    return NT_SUCCESS(ZwQueryValueKey(Key, &Name, KeyValuePartialInformation, Value, sizeof(Room), &Length)) ? *(PULONG)Value->Data : 0;
}

static NTSTATUS PutNumber(HANDLE Key, ULONG Number)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Number");

    return ZwSetValueKey(Key, &Name, 0, REG_DWORD, &Number, sizeof(Number));
}

static ULONG OwnKeys(VOID)
{
    UNICODE_STRING Path =
        RTL_CONSTANT_STRING(L"\\Registry\\Machine\\System\\CurrentControlSet\\Services\\filters\\Parameters");
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Key, Own;

    CHECK(IoOpenDriverRegistryKey(NULL, STATE, KEY_READ, 0, &Own) == STATUS_INVALID_PARAMETER);
    CHECK(IoOpenDriverRegistryKey(TheDriver, 7, KEY_READ, 0, &Own) == STATUS_INVALID_PARAMETER);
    CHECK(IoOpenDriverRegistryKey(TheDriver, STATE, KEY_READ, 1, &Own) == STATUS_INVALID_PARAMETER);

    /* What an INF would have made. */
    CHECK(IoOpenDriverRegistryKey(TheDriver, PARAMETERS, KEY_READ, 0, &Own) == STATUS_OBJECT_NAME_NOT_FOUND);
    InitializeObjectAttributes(&Attributes, &Path, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    CHECK(ZwCreateKey(&Key, KEY_ALL_ACCESS, &Attributes, 0, NULL, REG_OPTION_NON_VOLATILE, NULL) == STATUS_SUCCESS);
    CHECK(PutNumber(Key, 7) == STATUS_SUCCESS);
    ZwClose(Key);
    CHECK(IoOpenDriverRegistryKey(TheDriver, PARAMETERS, KEY_READ, 0, &Own) == STATUS_SUCCESS && NumberIn(Own) == 7);
    ZwClose(Own);

    /* What it has noted itself, and what it shares. */
    CHECK(IoOpenDriverRegistryKey(TheDriver, STATE, KEY_ALL_ACCESS, 0, &Own) == STATUS_SUCCESS && NumberIn(Own) == 0);
    CHECK(PutNumber(Own, 9) == STATUS_SUCCESS);
    ZwClose(Own);
    CHECK(IoOpenDriverRegistryKey(TheDriver, SHARED_STATE, KEY_ALL_ACCESS, 0, &Own) == STATUS_SUCCESS && NumberIn(Own) == 0);
    ZwClose(Own);
    CHECK(IoOpenDriverRegistryKey(TheDriver, STATE, KEY_READ, 0, &Own) == STATUS_SUCCESS && NumberIn(Own) == 9);
    ZwClose(Own);
    return 0;
}
