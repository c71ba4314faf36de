/*
 * A number from the Parameters key of a driver's service, as drivers should read it: RtlQueryRegistryValues with RTL_QUERY_REGISTRY_TYPECHECK.
 */
#ifndef REGISTRY_VALUE_H
#define REGISTRY_VALUE_H

#include "driver.h"

#define VALUE_TAG 'ulaV'

#ifndef RTL_QUERY_REGISTRY_TYPECHECK
#define RTL_QUERY_REGISTRY_TYPECHECK 0x00000100
#define RTL_QUERY_REGISTRY_TYPECHECK_SHIFT 24
#endif

/* The path of the Parameters key, which ends with a zero and is the caller's to free with VALUE_TAG; NULL if there is no memory for it. */
SHARED PWSTR ParametersOf(PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING Path;

    Path.Length = 0;
    Path.MaximumLength = (USHORT)(RegistryPath->Length + sizeof(L"\\Parameters"));
    Path.Buffer = ExAllocatePoolWithTag(PagedPool, Path.MaximumLength, VALUE_TAG);
    if (Path.Buffer == NULL) {
        return NULL;
    }
    RtlCopyUnicodeString(&Path, RegistryPath);
    RtlAppendUnicodeToString(&Path, L"\\Parameters");
    return Path.Buffer;
}

/* The number of this name, or Default. */
SHARED ULONG ValueOf(PUNICODE_STRING RegistryPath, PCWSTR Name, ULONG Default)
{
    RTL_QUERY_REGISTRY_TABLE Table[2];
    ULONG Value = Default;
    PWSTR Path = ParametersOf(RegistryPath);

    if (Path == NULL) {
        return Default;
    }
    RtlZeroMemory(Table, sizeof(Table));
    Table[0].Flags = RTL_QUERY_REGISTRY_DIRECT | RTL_QUERY_REGISTRY_TYPECHECK;
    Table[0].Name = (PWSTR)Name;
    Table[0].EntryContext = &Value;
    Table[0].DefaultType = (REG_DWORD << RTL_QUERY_REGISTRY_TYPECHECK_SHIFT) | REG_NONE;
    if (!NT_SUCCESS(RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, Path, Table, NULL, NULL))) {
        Value = Default;
    }
    ExFreePoolWithTag(Path, VALUE_TAG);
    return Value;
}

#endif
