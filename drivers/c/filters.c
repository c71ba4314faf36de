/*
 * filters.sys: routines that filter the registry, handles of processes and threads, and processes themselves. \\.\DirqlFilters, CTL_CODE(FILE_DEVICE_UNKNOWN,
 * 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Stories below; each answers with one STORY_RESULT.
 */
#include "filters/filters.h"
#include "filters/registry.h"
#include "filters/handles.h"
#include "filters/keys.h"
#include "filters/processes.h"

#define FIRST_FUNCTION 0x800

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFilters");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFilters");

static ULONG (*const Stories[])(VOID) = {
    TheRegistryIsWatched, TheRegistryIsChanged, KeysAreKnown, HandlesAreFiltered, /* from 0 on */
    FiltersAreRefused, StillFilters, StillFiltersTheRegistry, ProcessesAreWatched, /* from 4 on */
    ProcessesWereTold, ProcessesAreNotTold, ThreadsAreWatched, ThreadsWereTold, /* from 8 on */
    OwnKeys,
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;

    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, Index, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
