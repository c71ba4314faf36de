/*
 * A virtual memory disk of 64 KiB, on which the system may have one special file: a paging file, a hibernation file or a crash dump file.
 *
 * The bug: while there is one file the driver refuses every notification, as it would a second file: also the one that the file is gone, which must not fail. From then on the device counts
 * as one that can be neither stopped nor removed. It shows when there was a file on the device.
 *
 * Device: Root\VirtualSmallDisk
 * Rule: usage-end-failed
 * Needs: power
 */
#include "../include/block_store.h"

#define MOST_FILES 1

static const GUID BlockInterface = {0x10c3e032, 0x6a1d, 0x4c0e, {0x9b, 0x53, 0x20, 0x7d, 0xe1, 0x88, 0x4f, 0x36}};

static NTSTATUS BlockAsked(PSTORE Store, DEVICE_USAGE_NOTIFICATION_TYPE Type, BOOLEAN There)
{
    UNREFERENCED_PARAMETER(Type);
#ifdef FIXED
    if (There && StoreFiles(Store) >= MOST_FILES) {
        return STATUS_DISK_FULL;
    }
#else
    UNREFERENCED_PARAMETER(There);
    if (StoreFiles(Store) >= MOST_FILES) {
        return STATUS_DISK_FULL;
    }
#endif
    return STATUS_SUCCESS;
}

static VOID BlockChanged(PSTORE Store, DEVICE_USAGE_NOTIFICATION_TYPE Type, BOOLEAN There)
{
    IoAdjustPagingPathCount(&Store->Special[Type - DeviceUsageTypePaging], There);
    if (There) {
        Store->Soft.Self->Flags &= ~DO_POWER_PAGABLE;
    } else if (StoreFiles(Store) == 0) {
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
