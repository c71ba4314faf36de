/*
 * objects.sys: objects with handles and without, of the kinds that few drivers use. \\.\DirqlObjects, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N,
 * METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Stories below; each answers with one STORY_RESULT.
 */
#include "objects/objects.h"
#include "objects/timers.h"
#include "objects/processes.h"
#include "objects/memory.h"

#define FIRST_FUNCTION 0x800

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlObjects");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlObjects");

static ULONG (*const Stories[])(VOID) = {
    TimersHaveHandles, SeveralHandlesAreWaitedFor, MutantsHaveOwners, OneInitializesForAll, /* from 0 on */
    ProcessesTellOfThemselves, ThreadsAreChanged, TokensHaveHandles, MemoryIsCopiedSafely, /* from 4 on */
    ResourcesAreFound, ChecksAreMade, PrefixesInACircle, RoutinesOfModules, /* from 8 on */
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;

    UNREFERENCED_PARAMETER(Device);
    TheIrp = Irp;
    return TellStory(Irp, Stories, Index, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
