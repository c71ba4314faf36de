/* Dispatcher objects, timers and DPCs. */
#include "damage.h"

static PVOID PrepareEvent(VOID)
{
    PKEVENT Event = Fresh(sizeof(*Event));

    KeInitializeEvent(Event, SynchronizationEvent, FALSE);
    return Event;
}

static VOID NTAPI WaitForIt(PVOID Context)
{
    LARGE_INTEGER Limit = {.QuadPart = -30000};

    KeWaitForSingleObject(Context, Executive, KernelMode, FALSE, &Limit);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* With a thread that waits for it for 3 ms. */
static PVOID PrepareWaitedEvent(VOID)
{
    PKEVENT Event = PrepareEvent();
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Handle;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, WaitForIt, Event) == STATUS_SUCCESS) {
        ZwClose(Handle);
        Pause(1);
    }
    return Event;
}

static VOID SetIt(PVOID At) { KeSetEvent(At, IO_NO_INCREMENT, FALSE); }
static VOID ClearIt(PVOID At) { KeClearEvent(At); }
static VOID ResetIt(PVOID At) { KeResetEvent(At); }
static VOID ReadIt(PVOID At) { KeReadStateEvent(At); }
static VOID WaitIt(PVOID At) { WaitBriefly(At); }
static VOID PulseLater(PVOID At) { Pause(5); KeSetEvent(At, 1, FALSE); }
static VOID SendWithIt(PVOID At)
{
    IO_STATUS_BLOCK Block;
    PIRP Irp = IoBuildDeviceIoControlRequest(0x22A000, TheDevice, NULL, 0, NULL, 0, TRUE, At, &Block);

    if (Irp != NULL) {
        IoCallDriver(TheDevice, Irp);
    }
}
static VOID WaitForTwo(PVOID At)
{
    LARGE_INTEGER Zero = {.QuadPart = 0};
    PVOID Objects[2] = {At, PrepareEvent()};

    KeWaitForMultipleObjects(2, Objects, WaitAll, Executive, KernelMode, FALSE, &Zero, NULL);
    KeWaitForMultipleObjects(2, Objects, WaitAny, Executive, KernelMode, FALSE, &Zero, NULL);
}
static const USE EventUses[] = {SetIt, ClearIt, ResetIt, ReadIt, WaitIt, PulseLater, SendWithIt, WaitForTwo, NULL};

static PVOID PrepareSemaphore(VOID)
{
    PKSEMAPHORE Semaphore = Fresh(sizeof(*Semaphore));

    KeInitializeSemaphore(Semaphore, 1, 3);
    return Semaphore;
}
static VOID ReleaseIt(PVOID At) { KeReleaseSemaphore(At, 0, 1, FALSE); }
static VOID CountIt(PVOID At) { KeReadStateSemaphore(At); }
static const USE SemaphoreUses[] = {ReleaseIt, CountIt, WaitIt, WaitForTwo, NULL};

static PVOID PrepareMutex(VOID)
{
    PKMUTEX Mutex = Fresh(sizeof(*Mutex));

    KeInitializeMutex(Mutex, 0);
    WaitBriefly(Mutex);
    return Mutex;
}
static VOID LeaveIt(PVOID At) { KeReleaseMutex(At, FALSE); }
static VOID AskIt(PVOID At) { KeReadStateMutex(At); }
static const USE MutexUses[] = {LeaveIt, AskIt, WaitIt, WaitForTwo, NULL};

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
}

static PVOID PrepareDpc(VOID)
{
    PKDPC Dpc = Fresh(sizeof(*Dpc));

    KeInitializeDpc(Dpc, Deferred, NULL);
    return Dpc;
}

/* Queued, and the level stays where it does not run. */
static PVOID PrepareQueuedDpc(VOID)
{
    PKDPC Dpc = PrepareDpc();
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeInsertQueueDpc(Dpc, NULL, NULL);
    return Dpc;
}

static VOID Settle(VOID)
{
    if (KeGetCurrentIrql() != PASSIVE_LEVEL) {
        KeLowerIrql(PASSIVE_LEVEL);
    }
}
static VOID QueueDpc(PVOID At) { KeInsertQueueDpc(At, At, At); Settle(); KeFlushQueuedDpcs(); }
static VOID TakeDpc(PVOID At) { KeRemoveQueueDpc(At); Settle(); }
static VOID RunDpc(PVOID At) { UNREFERENCED_PARAMETER(At); Settle(); KeFlushQueuedDpcs(); }
static VOID AimDpc(PVOID At) { KeSetTargetProcessorDpc(At, 0); KeSetImportanceDpc(At, HighImportance); QueueDpc(At); }
static VOID TimeDpc(PVOID At)
{
    PKTIMER Timer = Fresh(sizeof(*Timer));
    LARGE_INTEGER Due = {.QuadPart = -10000};

    Settle();
    KeInitializeTimer(Timer);
    KeSetTimer(Timer, Due, At);
    Pause(3);
    KeCancelTimer(Timer);
}
static const USE DpcUses[] = {QueueDpc, TakeDpc, RunDpc, AimDpc, TimeDpc, NULL};

static PVOID PrepareTimer(VOID)
{
    PKTIMER Timer = Fresh(sizeof(*Timer));

    KeInitializeTimerEx(Timer, SynchronizationTimer);
    return Timer;
}
static PVOID PrepareSetTimer(VOID)
{
    PKTIMER Timer = PrepareTimer();
    LARGE_INTEGER Due = {.QuadPart = -20000};

    KeSetTimerEx(Timer, Due, 1, PrepareDpc());
    return Timer;
}
static VOID StartTimer(PVOID At)
{
    LARGE_INTEGER Due = {.QuadPart = -10000};

    KeSetTimer(At, Due, NULL);
    Pause(2);
    KeCancelTimer(At);
}
static VOID StartPeriod(PVOID At)
{
    LARGE_INTEGER Due = {.QuadPart = -10000};

    KeSetTimerEx(At, Due, 1, PrepareDpc());
    Pause(4);
    KeCancelTimer(At);
}
static VOID StopTimer(PVOID At) { KeCancelTimer(At); }
static VOID PassTime(PVOID At) { Pause(5); KeCancelTimer(At); }
static VOID ReadTimer(PVOID At) { KeReadStateTimer(At); KeCancelTimer(At); }
static VOID WaitTimer(PVOID At) { WaitBriefly(At); KeCancelTimer(At); }
static const USE TimerUses[] = {StartTimer, StartPeriod, StopTimer, PassTime, ReadTimer, WaitTimer, NULL};
