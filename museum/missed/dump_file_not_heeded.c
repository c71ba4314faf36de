/*
 * A virtual memory disk of 64 KiB, on which the system may have a paging file, a hibernation file or a crash dump file.
 *
 * The bug: asked whether the device may be stopped or removed, the driver looks for a hibernation file twice, and not for a crash dump file. It shows when there is no other file on the
 * device and the question comes.
 *
 * Device: Root\VirtualDumpDisk
 * Rule: usage-not-heeded
 * Needs: removal
 */
#include "../include/block_store.h"

static const GUID BlockInterface = {0x10c3e031, 0x6a1d, 0x4c0e, {0x9b, 0x53, 0x20, 0x7d, 0xe1, 0x88, 0x4f, 0x36}};

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
    if (There) {
        Store->Soft.Self->Flags &= ~DO_POWER_PAGABLE;
    } else if (StoreFiles(Store) == 0) {
        Store->Soft.Self->Flags |= Store->Soft.Lower->Flags & DO_POWER_PAGABLE;
    }
}

static BOOLEAN BlockHas(PSTORE Store, DEVICE_USAGE_NOTIFICATION_TYPE Type)
{
    return Store->Special[Type - DeviceUsageTypePaging] != 0;
}

static BOOLEAN BlockMustStay(PSTORE Store)
{
#ifdef FIXED
    return BlockHas(Store, DeviceUsageTypePaging) || BlockHas(Store, DeviceUsageTypeHibernation) || BlockHas(Store, DeviceUsageTypeDumpFile);
#else
    return BlockHas(Store, DeviceUsageTypePaging) || BlockHas(Store, DeviceUsageTypeHibernation) || BlockHas(Store, DeviceUsageTypeHibernation);
#endif
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    StoreDriver(Driver);
    return STATUS_SUCCESS;
}
