/*
 * A driver that reads how many of its buffers it makes at once from the value "Depth" of its Parameters key.
 *
 * The bug: RtlQueryRegistryValues stores the value directly and is not asked to check its type. A text is stored as a UNICODE_STRING, which is longer than a
 * number, and whose buffer is the driver's to free. It shows when the value is there and a text.
 *
 * Device: none
 * Rule: pool-leak, pool-overrun, wild-write
 * Needs: registry
 */
#define DEVICE_NAME L"\\Device\\Depth"
#define LINK_NAME L"\\DosDevices\\Depth"
#include "../include/legacy.h"
#include "../include/registry_value.h"

typedef struct _DEPTH {
    ULONG Depth;
    ULONG Made;
    PVOID First;
} DEPTH, *PDEPTH;

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    RTL_QUERY_REGISTRY_TABLE Table[2];
    PDEVICE_OBJECT Device;
    PDEPTH Depth;
    PWSTR Path = ParametersOf(RegistryPath);
    NTSTATUS Status;

    if (Path == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = LegacyCreate(Driver, sizeof(DEPTH), DO_BUFFERED_IO, &Device);
    if (NT_SUCCESS(Status)) {
        Depth = Device->DeviceExtension;
        RtlZeroMemory(Table, sizeof(Table));
        Table[0].Flags = RTL_QUERY_REGISTRY_DIRECT;
#ifdef FIXED
        Table[0].Flags |= RTL_QUERY_REGISTRY_TYPECHECK;
        Table[0].DefaultType = REG_DWORD << RTL_QUERY_REGISTRY_TYPECHECK_SHIFT;
#endif
        Table[0].Name = (PWSTR)L"Depth";
        Table[0].EntryContext = &Depth->Depth;
        /* Without the value, or with one of another type, it stays 0. */
        RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, Path, Table, NULL, NULL);
    }
    ExFreePoolWithTag(Path, VALUE_TAG);
    return Status;
}
