/*
 * clocks.sys: a driver without hardware whose control codes tell stories of DPCs, timers and time, and check what
 * happens against what Microsoft documents. \\.\DirqlClocks tells each story of Stories below by its name
 * (IOCTL_TELL_STORY of control.h). 0xB00 and 0xB01 delay the thread that asks.
 */
#include "clocks/dpcs.h"
#include "clocks/ex_timers.h"
#include "clocks/threaded.h"
#include "clocks/times.h"

/* Input: the LARGE_INTEGER of KeDelayExecutionThread, in this mode. */
#define DELAY_KERNEL 0xB00
#define DELAY_USER 0xB01

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlClocks");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlClocks");

static KDPC BugDpc, OtherBugDpc;
static KEVENT BugEvent;

static VOID NTAPI TakesTooLong(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    for (;;) {
        KeStallExecutionProcessor(1000000);
    }
}

static VOID NTAPI TakesTurns(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    for (ULONG Second10 = 0; Second10 < 10; Second10++) {
        KeStallExecutionProcessor(1000000);
    }
    KeInsertQueueDpc((PKDPC)Context, NULL, NULL);
}

static VOID NTAPI Waits(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    LARGE_INTEGER Time = {.QuadPart = -MILLISECOND};

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    KeWaitForSingleObject(&BugEvent, Executive, KernelMode, FALSE, &Time);
}

static VOID NTAPI StaysElsewhere(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    KeSetSystemAffinityThreadEx(KeQueryActiveProcessors());
}

/* One DPC for more than 20 seconds. */
static VOID OneDpcForever(VOID)
{
    KeInitializeDpc(&BugDpc, TakesTooLong, NULL);
    KeInsertQueueDpc(&BugDpc, NULL, NULL);
}

/* Two that queue each other, 10 seconds each, for more than two minutes. */
static VOID DpcsForever(VOID)
{
    KeInitializeDpc(&BugDpc, TakesTurns, &OtherBugDpc);
    KeInitializeDpc(&OtherBugDpc, TakesTurns, &BugDpc);
    KeInsertQueueDpc(&BugDpc, NULL, NULL);
}

static VOID WaitsInThreadedDpc(VOID)
{
    KeInitializeEvent(&BugEvent, NotificationEvent, FALSE);
    KeInitializeThreadedDpc(&BugDpc, Waits, NULL);
    KeInsertQueueDpc(&BugDpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

static VOID AffinityInThreadedDpc(VOID)
{
    KeInitializeThreadedDpc(&BugDpc, StaysElsewhere, NULL);
    KeInsertQueueDpc(&BugDpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

static VOID BothAttributes(VOID)
{
    ExAllocateTimer(NULL, NULL, EX_TIMER_HIGH_RESOLUTION | EX_TIMER_NO_WAKE);
}

static VOID AbsoluteHighResolution(VOID)
{
    PEX_TIMER Timer = ExAllocateTimer(NULL, NULL, EX_TIMER_HIGH_RESOLUTION);

    ExSetTimer(Timer, 1, 0, NULL);
}

static VOID WaitWithoutCancel(VOID)
{
    ExDeleteTimer(ExAllocateTimer(NULL, NULL, 0), FALSE, TRUE, NULL);
}

static VOID DeleteWaitsAtDispatch(VOID)
{
    PEX_TIMER Timer = ExAllocateTimer(NULL, NULL, 0);
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    ExDeleteTimer(Timer, TRUE, TRUE, NULL);
    KeLowerIrql(Old);
}

static VOID UsedAfterDelete(VOID)
{
    PEX_TIMER Timer = ExAllocateTimer(NULL, NULL, 0);

    ExDeleteTimer(Timer, TRUE, TRUE, NULL);
    ExSetTimer(Timer, -MILLISECOND, 0, NULL);
}

static VOID NegativeTolerance(VOID)
{
    EXT_SET_PARAMETERS Parameters = {0, 0, -2};

    ExSetTimer(ExAllocateTimer(NULL, NULL, EX_TIMER_NO_WAKE), -MILLISECOND, 0, &Parameters);
}

/* And then the driver is unloaded. */
static VOID LeavesTimer(VOID)
{
    ExAllocateTimer(RecordTimer, Letter('x'), 0);
}

/* The same, set. */
static VOID LeavesTimerSet(VOID)
{
    ExSetTimer(ExAllocateTimer(RecordTimer, Letter('x'), 0), -3600 * 1000 * MILLISECOND, 0, NULL);
}

/* Looks at a clock that it holds up itself. */
static VOID PollsStandingClock(VOID)
{
    LARGE_INTEGER Ticks, Later;
    KIRQL Old;

    KeSetSystemAffinityThreadEx(1);
    KeRaiseIrql(HIGH_LEVEL, &Old);
    KeQueryTickCount(&Ticks);
    do {
        KeQueryTickCount(&Later);
    } while (Later.QuadPart == Ticks.QuadPart);
    KeLowerIrql(Old);
}

static VOID NTAPI Stalls(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    for (ULONG_PTR Left = (ULONG_PTR)Context; Left != 0; Left--) {
        KeStallExecutionProcessor(25);
    }
}

/* Has a DPC do something so many times. */
static VOID DoInDpc(PKDEFERRED_ROUTINE Routine, ULONG_PTR Times)
{
    KeInitializeDpc(&BugDpc, Routine, (PVOID)Times);
    KeInsertQueueDpc(&BugDpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

/* A DPC that stalls for 100 microseconds in all: no bug. */
static VOID StallsInTime(VOID)
{
    DoInDpc(Stalls, 4);
}

/* Does so many rounds of sums, and calls nothing. */
static VOID NTAPI Computes(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    volatile ULONG Sum = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    for (ULONG_PTR Left = (ULONG_PTR)Context; Left != 0; Left--) {
        Sum += (ULONG)Left;
    }
}

static VOID ComputesLong(VOID)
{
    DoInDpc(Computes, 60000);
}

static VOID ComputesInTime(VOID)
{
    DoInDpc(Computes, 5000);
}

/* And one that stalls for 150. */
static VOID StallsTooOften(VOID)
{
    DoInDpc(Stalls, 6);
}

/* Calls nothing, for ever. */
static VOID CallsNothing(VOID)
{
    static volatile LONG Counter;

    KeEnterCriticalRegion();
    for (;;) {
        Counter++;
    }
}

/* The request's thread sleeps, as its application could: for ever, if the interval says so. */
static NTSTATUS Delay(PIRP Irp, KPROCESSOR_MODE Mode)
{
    PLARGE_INTEGER Interval = Irp->AssociatedIrp.SystemBuffer;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength < sizeof(*Interval)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    return Complete(Irp, KeDelayExecutionThread(Mode, FALSE, Interval), 0);
}

static const STORY Stories[] = {
    STORY(ExTimers), STORY(ExDeletions), STORY(ExPeriods), STORY(ExNoWake), STORY(Resolutions), STORY(Importance),
    STORY(LowOnesWait), STORY(Elsewhere), STORY(Queueing), STORY(Watchdog), STORY(ThreadedDpcs), STORY(ThreadedLevel),
    STORY(Cancellations), STORY(Periods), STORY(Coalescing), STORY(StandingStill), STORY(LongStall),
    STORY(ClockIsSetLater), STORY(ClockWasSet), STORY(ClockWasSetBack), STORY(WaitUntil), STORY(IdleElsewhere),
    STORY(NeverDue),
    /* What ends the run. */
    BUG(OneDpcForever), BUG(DpcsForever), BUG(WaitsInThreadedDpc), BUG(AffinityInThreadedDpc), BUG(BothAttributes),
    BUG(AbsoluteHighResolution), BUG(WaitWithoutCancel), BUG(DeleteWaitsAtDispatch), BUG(UsedAfterDelete),
    BUG(NegativeTolerance), BUG(LeavesTimer), BUG(LeavesTimerSet), BUG(PollsStandingClock), BUG(StallsInTime),
    BUG(StallsTooOften), BUG(ComputesLong), BUG(ComputesInTime), BUG(CallsNothing),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Function = (Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF;

    UNREFERENCED_PARAMETER(Device);
    if (Function == DELAY_KERNEL || Function == DELAY_USER) {
        return Delay(Irp, Function == DELAY_USER ? UserMode : KernelMode);
    }
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
