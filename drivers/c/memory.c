/*
 * memory.sys: a driver without hardware whose control codes tell stories of memory and check what comes of them.
 * \\.\DirqlMemory, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Stories
 * below; each answers with one STORY_RESULT. The first are idioms of correct drivers; those of doubtful.h are not, and go on all
 * the same, as Windows does.
 */
#include "memory/idioms.h"
#include "memory/doubtful.h"
#include "memory/limits.h"
#include "memory/mappings.h"
#include "memory/paged.h"
#include "memory/special.h"
#include "memory/stacks.h"
#include "memory/zones.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlMemory");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlMemory");

static ULONG (*const Stories[])(VOID) = {
    RamOnceMore, MappedWhereAsked, LookasidePools, ContiguousHoldsAnything, SkippedPages, /* from 0 on */
    ZeroBytes, WrongProtection, DescribedStack, LowRam, FreedWhileMapped, /* from 5 on */
    ExtendedConfiguration, /* with two cards */
    MostPool, MostPages, MostRegistry, MostText, MostDevices, MostRequests, MostThreads, MostTimers, /* from 11 on */
    FewerPages,
    Zones, ZonesWithLock, ZonesRefused, /* from 20 on */
    AdvancedMdl, AdvancedAndUnlocked, ProtectedMapping, WrittenThoughReadOnly, ReservedAddresses, ContiguousOfNode,
    MisusedRange, /* from 23 on */
    LargerStack, DeeperThanAsked, /* from 30 on */
    SpecialBlocks, SpecialMistake, DeepRoutines, FourteenKiB, PagedSections,
    SeenFromElsewhere, HeldBlocks, ExtendedParameters, Priorities, /* from 37 on */
    PacketMisused, LargerInDpc, DeeperInDpc, /* from 41 on */
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - 0x800;

    UNREFERENCED_PARAMETER(Device);
    if (Stack->Parameters.DeviceIoControl.InputBufferLength == sizeof(Chosen)) {
        Chosen = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
    }
    return TellStory(Irp, Stories, Index, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    ChecksHeld = OnlyAtStart(0);
    return Status;
}
