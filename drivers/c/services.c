/*
 * services.sys: a driver without hardware whose control codes tell stories of kernel services and check what they
 * answer against what Microsoft documents. \\.\DirqlServices tells each story of Stories below by its name
 * (IOCTL_TELL_STORY of control.h).
 *
 * The stories are in the folder services. A story that fails leaves what it has acquired: the run is over then.
 */
#include "services/bus_data.h"
#include "services/callers.h"
#include "services/locks.h"
#include "services/memory.h"
#include "services/objects.h"
#include "services/pages.h"
#include "services/reach.h"
#include "services/returns.h"
#include "services/text.h"
#include "services/threads.h"
#include "services/times.h"
#include "services/waits.h"

#define INIT_CODE __attribute__((section("INIT")))

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlServices");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlServices");
static PDEVICE_OBJECT TheDevice;

static ULONG WorkItemsOfDevice(VOID)
{
    return WorkItems(TheDevice);
}

static ULONG CallsByExport(VOID)
{
    return CallByExport(TheDevice);
}

static ULONG ReturnsOfDevice(VOID)
{
    return Returns(TheDevice);
}

static const STORY Stories[] = {
    STORY(Events), STORY(Semaphores), STORY(Mutexes), STORY(Timers), STORY(Waits), STORY(Threads), STORY(Processes),
    STORY(Dpcs), STORY(WorkItemsOfDevice), STORY(Levels), STORY(SpinLocks), STORY(Regions), STORY(FastMutexes),
    STORY(Resources), STORY(Pool), STORY(Lookaside), STORY(Lists), STORY(SequencedLists), STORY(BitMaps),
    STORY(Bytes), STORY(Clocks), STORY(Calendars), STORY(Processors), STORY(Versions), STORY(Randoms),
    STORY(Debugger), STORY(UnicodeStrings), STORY(AnsiStrings), STORY(Integers), STORY(Guids), STORY(CLibrary),
    STORY(Prints), STORY(Pages), STORY(YieldsAndShould), STORY(ReturnsOfDevice), STORY(EndedThreads),
    STORY(AbsentProcessors), STORY(HarmlessQuestions), STORY(UntidyTexts), STORY(ConvertedResource), STORY(FarAway),
    STORY(HandMadeLocks), STORY(SystemThreads), STORY(IdleQueues), STORY(Features), STORY(ReachPool),
    STORY(ReachDevice), STORY(ReachUser), STORY(HeldProcess), STORY(DamagedDpc), STORY(UserModeMutex),
    STORY(Callbacks), STORY(CallbackUnderWay), STORY(BackTraces), STORY(PowerStates), STORY(CallsByExport),
    STORY(BusData),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    TheUserBuffer = Irp->UserBuffer;
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

static VOID NTAPI UnloadServices(PDRIVER_OBJECT Driver)
{
    TellOfHeldProcess();
    EndPowerStates();
    ControlUnload(Driver);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    TheDevice = Driver->DeviceObject;
    if (NT_SUCCESS(Status)) {
        Driver->DriverUnload = UnloadServices;
        Driver->MajorFunction[IRP_MJ_CLEANUP] = CleanupByExport;
    }
    return Status;
}
