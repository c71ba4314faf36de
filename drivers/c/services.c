/*
 * services.sys: a driver without hardware whose control codes tell stories of kernel services and check what they
 * answer against what Microsoft documents. \\.\DirqlServices, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED,
 * FILE_ANY_ACCESS), N being the index into Stories below; each answers with one STORY_RESULT.
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

#define FIRST_FUNCTION 0x800
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

static ULONG (*const Stories[])(VOID) = {
    Events, Semaphores, Mutexes, Timers, /* from 0 on */
    Waits, Threads, Processes, Dpcs, /* from 4 on */
    WorkItemsOfDevice, Levels, SpinLocks, Regions, /* from 8 on */
    FastMutexes, Resources, Pool, Lookaside, /* from 12 on */
    Lists, SequencedLists, BitMaps, Bytes, /* from 16 on */
    Clocks, Calendars, Processors, Versions, /* from 20 on */
    Randoms, Debugger, UnicodeStrings, AnsiStrings, /* from 24 on */
    Integers, Guids, CLibrary, Prints, /* from 28 on */
    Pages, YieldsAndShould, ReturnsOfDevice, EndedThreads, /* from 32 on */
    AbsentProcessors, HarmlessQuestions, UntidyTexts, ConvertedResource, /* from 36 on */
    FarAway, HandMadeLocks, SystemThreads, IdleQueues, /* from 40 on */
    Features, ReachPool, ReachDevice, ReachUser, /* from 44 on */
    HeldProcess, DamagedDpc, UserModeMutex, Callbacks, /* from 48 on */
    CallbackUnderWay, BackTraces, PowerStates, CallsByExport, /* from 52 on */
    BusData, /* 56 */
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;

    UNREFERENCED_PARAMETER(Device);
    TheUserBuffer = Irp->UserBuffer;
    return TellStory(Irp, Stories, Index, RTL_NUMBER_OF(Stories));
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
