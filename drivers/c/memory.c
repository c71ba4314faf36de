/*
 * memory.sys: a driver without hardware whose control codes tell stories of memory and check what comes of them.
 * \\.\DirqlMemory tells each story of Stories below by its name (IOCTL_TELL_STORY of control.h). The first are idioms
 * of correct drivers; those of doubtful.h are not, and go on all the same, as Windows does.
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

static const STORY Stories[] = {
    STORY(RamOnceMore), STORY(MappedWhereAsked), STORY(LookasidePools), STORY(ContiguousHoldsAnything),
    STORY(SkippedPages), STORY(ZeroBytes), STORY(WrongProtection), STORY(DescribedStack), STORY(LowRam),
    STORY(FreedWhileMapped), STORY(ExtendedConfiguration), STORY(MostPool), STORY(MostPages), STORY(MostRegistry),
    STORY(MostText), STORY(MostDevices), STORY(MostRequests), STORY(MostThreads), STORY(MostTimers),
    STORY(FewerPages), STORY(Zones), STORY(ZonesWithLock), STORY(ZonesRefused), STORY(AdvancedMdl),
    STORY(AdvancedAndUnlocked), STORY(ProtectedMapping), STORY(WrittenThoughReadOnly), STORY(ReservedAddresses),
    STORY(ContiguousOfNode), STORY(MisusedRange), STORY(LargerStack), STORY(DeeperThanAsked), STORY(SpecialBlocks),
    STORY(SpecialMistake), STORY(DeepRoutines), STORY(FourteenKiB), STORY(PagedSections), STORY(SeenFromElsewhere),
    STORY(HeldBlocks), STORY(ExtendedParameters), STORY(Priorities), STORY(PacketMisused), STORY(LargerInDpc),
    STORY(DeeperInDpc),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    const VOID *Input = StoryInput(Irp, sizeof(Chosen));

    UNREFERENCED_PARAMETER(Device);
    if (Input != NULL) {
        RtlCopyMemory(&Chosen, Input, sizeof(Chosen));
    }
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    ChecksHeld = OnlyAtStart(0);
    return Status;
}
