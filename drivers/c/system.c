/*
 * system.sys: what drivers ask the system about itself: its image and other modules, processes, objects by their
 * names. \\.\DirqlSystem tells each story of Stories below by its name (IOCTL_TELL_STORY of control.h).
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

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlSystem");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSystem");

static const STORY Stories[] = {
    STORY(Information), STORY(ListOfProcesses), STORY(Modules), STORY(KernelImage), STORY(OwnImage),
    STORY(WhatIsNotThere), STORY(UnknownClass), STORY(NamesOfObjects), STORY(Directories), STORY(Links),
    STORY(WhatHandlesAre), STORY(OwnersOfThreads), STORY(HardErrors), STORY(Ranges), STORY(Watched),
    STORY(ToldOfThreads), STORY(ToldOfProcesses), STORY(NoLongerToldOfProcesses), STORY(Loading), STORY(LoadedAgain),
    STORY(NotOnDisk), STORY(UnloadsItself), STORY(RecordsOfBugChecks), STORY(StopsWithCallbacks),
    STORY(StopsAndFails), STORY(StopsInDpc), STORY(CalledAgain), STORY(WantsShutdown), STORY(FilesTellOfThemselves),
    STORY(ToldOfTheMachine), STORY(NobodyTraces), STORY(StopsPlainly), STORY(Asserts), STORY(Breaks),
    STORY(BreaksWithStatus), STORY(WordsOfTheSystem),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
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
