/*
 * A device with a table for its whole life.
 *
 * The bug: Unload frees the table with the letters of its tag the other way round. It shows when the driver is unloaded.
 *
 * Device: none
 * Rule: pool-tag-mismatch, bad-free
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Tagged"
#define LINK_NAME L"\\DosDevices\\Tagged"
#include "../include/legacy.h"

#define TABLE_TAG 'elbT'
#ifdef FIXED
#define FREE_TAG TABLE_TAG
#else
#define FREE_TAG 'Tble'
#endif

typedef struct _DEVICE {
    PULONG Table;
} DEVICE, *PDEVICE;

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExFreePoolWithTag(((PDEVICE)Driver->DeviceObject->DeviceExtension)->Table, FREE_TAG);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    Own->Table = ExAllocatePoolWithTag(NonPagedPool, 256, TABLE_TAG);
    if (Own->Table == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Own->Table, 256);
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
