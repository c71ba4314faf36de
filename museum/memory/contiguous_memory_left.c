/*
 * A ring in contiguous memory, for a card that is to come.
 *
 * The bug: the memory is not freed when the driver is unloaded. It shows when it is.
 *
 * Device: none
 * Rule: contiguous-memory-leak
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Contiguous"
#define LINK_NAME L"\\DosDevices\\Contiguous"
#include "../include/legacy.h"

static PVOID Ring;

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
#ifdef FIXED
    MmFreeContiguousMemory(Ring);
#endif
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PHYSICAL_ADDRESS Highest;
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Highest.QuadPart = 0xFFFFFFFF;
    Ring = MmAllocateContiguousMemory(4 * PAGE_SIZE, Highest);
    if (Ring == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
