/*
 * A virtual memory disk of 64 KiB, on which the system may have a paging file, a hibernation file or a crash dump file.
 *
 * The bug: when there is such a file, DO_POWER_PAGABLE stays set in the driver's device object. Its power requests come at PASSIVE_LEVEL only, and may have to wait for pages that are in the
 * paging file. It shows as soon as there is a file on the device.
 *
 * Device: Root\VirtualMemoryDisk
 * Rule: usage-power-pagable
 * Needs: power
 */
#include "../include/block_store.h"

static const GUID BlockInterface = {0x10c3e030, 0x6a1d, 0x4c0e, {0x9b, 0x53, 0x20, 0x7d, 0xe1, 0x88, 0x4f, 0x36}};

/* There is room for any of them. */
static NTSTATUS BlockAsked(PSTORE Store, DEVICE_USAGE_NOTIFICATION_TYPE Type, BOOLEAN There)
{
    UNREFERENCED_PARAMETER(Store);
    UNREFERENCED_PARAMETER(Type);
    UNREFERENCED_PARAMETER(There);
    return STATUS_SUCCESS;
}

static VOID BlockChanged(PSTORE Store, DEVICE_USAGE_NOTIFICATION_TYPE Type, BOOLEAN There)
{
    IoAdjustPagingPathCount(&Store->Special[Type - DeviceUsageTypePaging], There);
#ifdef FIXED
    if (There) {
        Store->Soft.Self->Flags &= ~DO_POWER_PAGABLE;
        return;
    }
#endif
    if (StoreFiles(Store) == 0) {
        Store->Soft.Self->Flags |= Store->Soft.Lower->Flags & DO_POWER_PAGABLE;
    }
}

static BOOLEAN BlockMustStay(PSTORE Store)
{
    return StoreFiles(Store) != 0;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    StoreDriver(Driver);
    return STATUS_SUCCESS;
}
