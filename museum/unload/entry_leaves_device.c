/*
 * A driver with a work item for its whole life.
 *
 * The bug: where the work item cannot be had, DriverEntry fails and leaves the device and its link. It shows when that call fails.
 *
 * Device: none
 * Rule: device-leak, symbolic-link-leak
 * Needs: failure
 */
#define DEVICE_NAME L"\\Device\\Hasty"
#define LINK_NAME L"\\DosDevices\\Hasty"
#include "../include/legacy.h"

static PIO_WORKITEM Item;

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    IoFreeWorkItem(Item);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Item = IoAllocateWorkItem(Device);
    if (Item == NULL) {
#ifdef FIXED
        LegacyDelete(Device);
#endif
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
