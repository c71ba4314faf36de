/*
 * objects.sys: objects with handles and without, of the kinds that few drivers use. \\.\DirqlObjects tells each story
 * of Stories below by its name (IOCTL_TELL_STORY of control.h).
 */
#include "objects/objects.h"
#include "objects/timers.h"
#include "objects/processes.h"
#include "objects/memory.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlObjects");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlObjects");

static const STORY Stories[] = {
    STORY(TimersHaveHandles), STORY(SeveralHandlesAreWaitedFor), STORY(MutantsHaveOwners),
    STORY(OneInitializesForAll), STORY(ProcessesTellOfThemselves), STORY(ThreadsAreChanged), STORY(TokensHaveHandles),
    STORY(MemoryIsCopiedSafely), STORY(ResourcesAreFound), STORY(ChecksAreMade), STORY(PrefixesInACircle),
    STORY(RoutinesOfModules),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    TheIrp = Irp;
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
