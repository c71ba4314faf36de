/*
 * filters.sys: routines that filter the registry, handles of processes and threads, and processes themselves.
 * \\.\DirqlFilters tells each story of Stories below by its name (IOCTL_TELL_STORY of control.h).
 */
#include "filters/filters.h"
#include "filters/registry.h"
#include "filters/handles.h"
#include "filters/keys.h"
#include "filters/processes.h"
#include "filters/applications.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFilters");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFilters");

static const STORY Stories[] = {
    STORY(TheRegistryIsWatched), STORY(TheRegistryIsChanged), STORY(KeysAreKnown), STORY(HandlesAreFiltered),
    STORY(FiltersAreRefused), STORY(StillFilters), STORY(StillFiltersTheRegistry), STORY(ProcessesAreWatched),
    STORY(ProcessesWereTold), STORY(ProcessesAreNotTold), STORY(ThreadsAreWatched), STORY(ThreadsWereTold),
    STORY(OwnKeys), STORY(ApplicationsAreWatched), STORY(ApplicationsAreLeftAlone),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
