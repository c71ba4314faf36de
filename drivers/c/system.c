/*
 * system.sys: what drivers ask the system about itself: its image and other modules, processes, objects by their names. \\.\DirqlSystem,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Stories below; each answers with one
 * STORY_RESULT.
 */
#include "system/system.h"
#include "system/bugchecks.h"
#include "system/filing.h"
#include "system/information.h"
#include "system/life.h"
#include "system/loading.h"
#include "system/machine.h"
#include "system/modules.h"
#include "system/names.h"
#include "system/notify.h"
#include "system/stops.h"
#include "system/threads.h"
#include "system/tracing.h"

#define FIRST_FUNCTION 0x800

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlSystem");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSystem");

static ULONG (*const Stories[])(VOID) = {
    Information, ListOfProcesses, Modules, KernelImage, /* from 0 on */
    OwnImage, WhatIsNotThere, UnknownClass, NamesOfObjects, /* from 4 on */
    Directories, Links, WhatHandlesAre, OwnersOfThreads, /* from 8 on */
    HardErrors, Ranges, Watched, ToldOfThreads, /* from 12 on */
    ToldOfProcesses, NoLongerToldOfProcesses, Loading, LoadedAgain, /* from 16 on */
    NotOnDisk, UnloadsItself, RecordsOfBugChecks, StopsWithCallbacks, /* from 20 on */
    StopsAndFails, StopsInDpc, CalledAgain, WantsShutdown, /* from 24 on */
    FilesTellOfThemselves, ToldOfTheMachine, NobodyTraces, StopsPlainly, /* from 28 on */
    Asserts, Breaks, BreaksWithStatus, WordsOfTheSystem, /* from 32 on */
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;

    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, Index, RTL_NUMBER_OF(Stories));
}

static NTSTATUS NTAPI DispatchShutdown(PDEVICE_OBJECT Device, PIRP Irp)
{
    DbgPrint("system: shut down, %s\n", Device == LastDevice ? "at last" : "with the others");
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    if (LastDevice != NULL) {
        IoUnregisterShutdownNotification(LastDevice);
        IoDeleteDevice(LastDevice);
        IoUnregisterShutdownNotification(Driver->DeviceObject);
    }
    PsRemoveLoadImageNotifyRoutine(TellsOfImage);
    ControlUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    if (NT_SUCCESS(Status)) {
        PsSetLoadImageNotifyRoutine(TellsOfImage);
        IoRegisterBootDriverReinitialization(Driver, BeginsAgain, &BootCalls);
        IoRegisterDriverReinitialization(Driver, BeginsAgain, &EntryCalls);
        Driver->MajorFunction[IRP_MJ_SHUTDOWN] = DispatchShutdown;
        Driver->MajorFunction[IRP_MJ_QUERY_INFORMATION] = DispatchQuery;
        Driver->MajorFunction[IRP_MJ_SET_INFORMATION] = DispatchSet;
        Driver->MajorFunction[IRP_MJ_FLUSH_BUFFERS] = DispatchFlush;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
