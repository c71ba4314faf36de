/* Pairs of events, semaphores, mutexes, timers, DPCs, threads and waits. */
#ifndef PAIRS_DISPATCHER_H
#define PAIRS_DISPATCHER_H

#include "pairs.h"

NTKERNELAPI HANDLE NTAPI PsGetProcessId(PEPROCESS Process);

/* Zeroed, and never set up. */
static union {
    KEVENT Event;
    KDPC Dpc;
} Nothing;
static KEVENT Never;

static VOID EventType(BOOLEAN Wrong)
{
    KEVENT Event;

    KeInitializeEvent(&Event, Wrong ? (EVENT_TYPE)2 : SynchronizationEvent, FALSE);
}

static VOID SemaphoreCount(BOOLEAN Wrong)
{
    KSEMAPHORE Semaphore;

    KeInitializeSemaphore(&Semaphore, Wrong ? 3 : 2, 2);
}

static VOID SemaphoreLimitExceeded(BOOLEAN Wrong)
{
    KSEMAPHORE Semaphore;

    KeInitializeSemaphore(&Semaphore, Wrong ? 1 : 0, 1);
    KeReleaseSemaphore(&Semaphore, IO_NO_INCREMENT, 1, FALSE);
}

static VOID MutexNotOwned(BOOLEAN Wrong)
{
    KMUTEX Mutex;

    KeInitializeMutex(&Mutex, 0);
    if (!Wrong) {
        WaitFor(&Mutex);
    }
    KeReleaseMutex(&Mutex, FALSE);
}

/* After two thousand million waits, which are not waited for here. */
static VOID MutexLimitExceeded(BOOLEAN Wrong)
{
    static KMUTEX Mutex;

    KeInitializeMutex(&Mutex, 0);
    WaitFor(&Mutex);
    if (Wrong) {
        Mutex.Header.SignalState = (LONG)0x80000000;
    }
    WaitFor(&Mutex);
    KeReleaseMutex(&Mutex, FALSE);
    KeReleaseMutex(&Mutex, FALSE);
}

static VOID MutexWaitMode(BOOLEAN Wrong)
{
    static KMUTEX Mutex;

    KeInitializeMutex(&Mutex, 0);
    KeWaitForSingleObject(&Mutex, Executive, Wrong ? UserMode : KernelMode, FALSE, NULL);
    KeReleaseMutex(&Mutex, FALSE);
}

static VOID TimerType(BOOLEAN Wrong)
{
    KTIMER Timer;

    KeInitializeTimerEx(&Timer, Wrong ? (TIMER_TYPE)2 : SynchronizationTimer);
}

static VOID TimerPeriod(BOOLEAN Wrong)
{
    KTIMER Timer;

    KeInitializeTimer(&Timer);
    KeSetTimerEx(&Timer, After(MILLISECONDS(5)), Wrong ? -1 : 1, NULL);
    KeCancelTimer(&Timer);
}

static VOID TimerInitializedWhileSet(BOOLEAN Wrong)
{
    static KTIMER Timer;

    KeInitializeTimer(&Timer);
    KeSetTimer(&Timer, After(MILLISECONDS(5)), NULL);
    if (!Wrong) {
        KeCancelTimer(&Timer);
    }
    KeInitializeTimer(&Timer);
}

static VOID FreedActiveTimer(BOOLEAN Wrong)
{
    PKTIMER Timer = Nonpaged(sizeof(*Timer));

    if (Timer == NULL) {
        return;
    }
    KeInitializeTimer(Timer);
    KeSetTimer(Timer, After(MILLISECONDS(5)), NULL);
    if (!Wrong) {
        KeCancelTimer(Timer);
    }
    Free(Timer);
}

static VOID NTAPI DoNothing(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
}

static VOID FreedQueuedDpc(BOOLEAN Wrong)
{
    PKDPC Dpc = Nonpaged(sizeof(*Dpc));
    KIRQL Old;

    if (Dpc == NULL) {
        return;
    }
    KeInitializeDpc(Dpc, DoNothing, NULL);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeInsertQueueDpc(Dpc, NULL, NULL);
    if (!Wrong) {
        KeRemoveQueueDpc(Dpc);
    }
    Free(Dpc);
    KeLowerIrql(Old);
}

static VOID NTAPI WaitForContext(PVOID Context)
{
    WaitFor(Context);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID FreedWhileWaitedFor(BOOLEAN Wrong)
{
    PKEVENT Event = Nonpaged(sizeof(*Event));
    PKTHREAD Thread;

    if (Event == NULL) {
        return;
    }
    KeInitializeEvent(Event, NotificationEvent, FALSE);
    Thread = StartThread(WaitForContext, Event);
    if (Thread == NULL) {
        Free(Event);
        return;
    }
    Delay(1);
    if (!Wrong) {
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
        JoinThread(Thread);
    }
    Free(Event);
}

static VOID ObjectInitializedWhileWaitedFor(BOOLEAN Wrong)
{
    static KEVENT Event;
    PKTHREAD Thread;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Thread = StartThread(WaitForContext, &Event);
    if (Thread == NULL) {
        return;
    }
    Delay(1);
    if (Wrong) {
        KeInitializeEvent(&Event, NotificationEvent, FALSE);
    }
    KeSetEvent(&Event, IO_NO_INCREMENT, FALSE);
    JoinThread(Thread);
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
}

static VOID WaitListDamaged(BOOLEAN Wrong)
{
    static KEVENT Event;
    PKTHREAD Thread;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Thread = StartThread(WaitForContext, &Event);
    if (Thread == NULL) {
        return;
    }
    Delay(1);
    if (Wrong) {
        Event.Header.WaitListHead.Flink = &Event.Header.WaitListHead;
    }
    KeSetEvent(&Event, IO_NO_INCREMENT, FALSE);
    JoinThread(Thread);
}

static VOID ObjectNotInitialized(BOOLEAN Wrong)
{
    if (!Wrong) {
        KeInitializeEvent(&Nothing.Event, NotificationEvent, FALSE);
    }
    KeSetEvent(&Nothing.Event, IO_NO_INCREMENT, FALSE);
}

static VOID ObjectOfAnotherKind(BOOLEAN Wrong)
{
    static union {
        KSEMAPHORE Semaphore;
        KEVENT Event;
    } Object;

    KeInitializeSemaphore(&Object.Semaphore, 0, 1);
    if (!Wrong) {
        KeInitializeEvent(&Object.Event, NotificationEvent, FALSE);
    }
    KeSetEvent(&Object.Event, IO_NO_INCREMENT, FALSE);
}

static VOID WaitObjectCount(BOOLEAN Wrong)
{
    KEVENT Events[4];
    PVOID Objects[4];
    KWAIT_BLOCK Blocks[4];

    for (ULONG Index = 0; Index < 4; Index++) {
        KeInitializeEvent(&Events[Index], NotificationEvent, TRUE);
        Objects[Index] = &Events[Index];
    }
    KeWaitForMultipleObjects(4, Objects, WaitAll, Executive, KernelMode, FALSE, NULL, Wrong ? NULL : Blocks);
}

static VOID WaitPromised(BOOLEAN Wrong)
{
    KEVENT Event, Other;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    KeInitializeEvent(&Other, NotificationEvent, TRUE);
    KeSetEvent(&Event, IO_NO_INCREMENT, TRUE);
    if (Wrong) {
        KeClearEvent(&Event);
    }
    WaitFor(&Other);
    KeClearEvent(&Event);
}

static VOID WaitAtRaisedIrql(BOOLEAN Wrong)
{
    LARGE_INTEGER Time = After(Wrong ? MILLISECONDS(1) : 0);
    KEVENT Event;
    KIRQL Old;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, &Time);
    KeLowerIrql(Old);
}

static VOID WaitWithInterruptsDisabled(BOOLEAN Wrong)
{
    LARGE_INTEGER Time = After(MILLISECONDS(1));
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    __asm__ volatile("cli" ::: "memory");
    if (!Wrong) {
        __asm__ volatile("sti" ::: "memory");
    }
    KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, &Time);
    __asm__ volatile("sti" ::: "memory");
}

/* For its unloading: a request that cannot end is another rule's. */
static VOID Deadlock(BOOLEAN Wrong)
{
    KeInitializeEvent(&Never, NotificationEvent, !Wrong);
    AwaitedByUnload = &Never;
}

static VOID NTAPI TakeBits(PKDPC Dpc, PVOID Context, PVOID Bits, PVOID Unused)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Unused);
    Sink |= (ULONG)(ULONG_PTR)Bits;
}

static VOID DpcArgumentLost(BOOLEAN Wrong)
{
    static KDPC Dpc;
    KIRQL Old;

    KeInitializeDpc(&Dpc, Wrong ? TakeBits : DoNothing, NULL);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeInsertQueueDpc(&Dpc, (PVOID)1, NULL);
    KeInsertQueueDpc(&Dpc, (PVOID)2, NULL);
    KeLowerIrql(Old);
    KeFlushQueuedDpcs();
}

static VOID DpcImportance(BOOLEAN Wrong)
{
    KDPC Dpc;

    KeInitializeDpc(&Dpc, DoNothing, NULL);
    KeSetImportanceDpc(&Dpc, Wrong ? (KDPC_IMPORTANCE)7 : HighImportance);
}

static VOID DpcInitializedWhileQueued(BOOLEAN Wrong)
{
    static KDPC Dpc;
    KIRQL Old;

    KeInitializeDpc(&Dpc, DoNothing, NULL);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    if (!Wrong) {
        KeRemoveQueueDpc(&Dpc);
    }
    KeInitializeDpc(&Dpc, DoNothing, NULL);
    KeLowerIrql(Old);
}

static VOID DpcNotInitialized(BOOLEAN Wrong)
{
    static KDPC Dpc;

    if (!Wrong) {
        KeInitializeDpc(&Dpc, DoNothing, NULL);
    }
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

static VOID DpcTarget(BOOLEAN Wrong)
{
    KDPC Dpc;

    KeInitializeDpc(&Dpc, DoNothing, NULL);
    KeSetTargetProcessorDpc(&Dpc, Wrong ? 63 : 0);
}

static VOID DpcDamaged(BOOLEAN Wrong)
{
    static KDPC Dpc;

    KeInitializeDpc(&Dpc, DoNothing, NULL);
    if (Wrong) {
        ((volatile UCHAR *)&Dpc)[3] = 0x77; /* the high byte of Number */
    }
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

static VOID NTAPI Stall(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    for (ULONG_PTR Left = (ULONG_PTR)Context; Left != 0; Left--) {
        KeStallExecutionProcessor(50);
    }
}

static VOID DpcWatchdog(BOOLEAN Wrong)
{
    static KDPC Dpc;

    KeInitializeDpc(&Dpc, Stall, (PVOID)(Wrong ? (ULONG_PTR)600000 : 1));
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

static VOID LongStall(BOOLEAN Wrong)
{
    KeStallExecutionProcessor(Wrong ? 60 : 50);
}

static VOID PriorityOfThread(BOOLEAN Wrong)
{
    KPRIORITY Before = KeSetPriorityThread(KeGetCurrentThread(), Wrong ? 32 : 12);

    KeSetPriorityThread(KeGetCurrentThread(), Before);
}

static VOID NotAThread(BOOLEAN Wrong)
{
    PKTHREAD Thread = Wrong ? (PKTHREAD)&Nothing : KeGetCurrentThread();
    KPRIORITY Before = KeSetPriorityThread(Thread, 12);

    KeSetPriorityThread(Thread, Before);
}

static VOID NotAProcess(BOOLEAN Wrong)
{
    Sink = (ULONG)(ULONG_PTR)PsGetProcessId(Wrong ? (PEPROCESS)&Nothing : PsGetCurrentProcess());
}

static VOID AffinityWithoutEffect(BOOLEAN Wrong)
{
    KeSetSystemAffinityThread(Wrong ? (KAFFINITY)1 << 62 : 1);
    KeRevertToUserAffinityThread();
}

static VOID NTAPI EndOwningMutex(PVOID Context)
{
    static KMUTEX Mutex;

    KeInitializeMutex(&Mutex, 0);
    WaitFor(&Mutex);
    if (Context == NULL) {
        KeReleaseMutex(&Mutex, FALSE);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI EndInRegion(PVOID Context)
{
    KeEnterCriticalRegion();
    if (Context == NULL) {
        KeLeaveCriticalRegion();
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID RunToEnd(PKSTART_ROUTINE Routine, PVOID Context)
{
    PKTHREAD Thread = StartThread(Routine, Context);

    if (Thread != NULL) {
        JoinThread(Thread);
    }
}

static VOID ThreadEndedOwningMutex(BOOLEAN Wrong)
{
    RunToEnd(EndOwningMutex, Wrong ? &Never : NULL);
}

static VOID ThreadEndedInCriticalRegion(BOOLEAN Wrong)
{
    RunToEnd(EndInRegion, Wrong ? &Never : NULL);
}

static VOID NullRoutine(BOOLEAN Wrong)
{
    KeInitializeEvent(&Never, NotificationEvent, TRUE);
    RunToEnd(Wrong ? NULL : WaitForContext, &Never);
}

/* KeGetCurrentThread, or what it would be for a thread of one's own making. */
static VOID ThreadObjectDamaged(BOOLEAN Wrong)
{
    UCHAR Own[0x18];
    PUCHAR Thread;

    __asm__("mov %%gs:0x188, %0" : "=r"(Thread));
    RtlFillMemory(Wrong ? Thread : Own, sizeof(Own), 0xFF);
}

/* The processor's own region, by its member Self. */
static VOID ProcessorRegionDamaged(BOOLEAN Wrong)
{
    static UCHAR Own[0x60];
    PUCHAR Region;

    __asm__("mov %%gs:0x18, %0" : "=r"(Region));
    RtlFillMemory(Wrong ? Region : Own, 0x28, 0xFF);
}

static VOID UserWaitOnStack(BOOLEAN Wrong)
{
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, TRUE);
    KeWaitForSingleObject(&Event, UserRequest, Wrong ? UserMode : KernelMode, FALSE, NULL);
}

#define DISPATCHER_PAIRS                                                                                               \
    PAIR("affinity-without-effect", AffinityWithoutEffect)                                                             \
    PAIR("deadlock", Deadlock)                                                                                         \
    PAIR("dpc-argument-lost", DpcArgumentLost)                                                                         \
    PAIR("dpc-damaged", DpcDamaged)                                                                                    \
    PAIR("dpc-importance", DpcImportance)                                                                              \
    PAIR("dpc-initialized-while-queued", DpcInitializedWhileQueued)                                                    \
    PAIR("dpc-not-initialized", DpcNotInitialized)                                                                     \
    PAIR("dpc-target", DpcTarget)                                                                                      \
    PAIR("dpc-watchdog", DpcWatchdog)                                                                                  \
    PAIR("event-type", EventType)                                                                                      \
    PAIR("freed-active-timer", FreedActiveTimer)                                                                       \
    PAIR("freed-queued-dpc", FreedQueuedDpc)                                                                           \
    PAIR("freed-while-waited-for", FreedWhileWaitedFor)                                                                \
    PAIR("long-stall", LongStall)                                                                                      \
    PAIR("mutex-limit-exceeded", MutexLimitExceeded)                                                                   \
    PAIR("mutex-not-owned", MutexNotOwned)                                                                             \
    PAIR("mutex-wait-mode", MutexWaitMode)                                                                             \
    PAIR("not-a-process", NotAProcess)                                                                                 \
    PAIR("not-a-thread", NotAThread)                                                                                   \
    PAIR("null-routine", NullRoutine)                                                                                  \
    PAIR("object-initialized-while-waited-for", ObjectInitializedWhileWaitedFor)                                       \
    PAIR("object-not-initialized", ObjectNotInitialized)                                                               \
    PAIR("object-of-another-kind", ObjectOfAnotherKind)                                                                \
    PAIR("processor-region-damaged", ProcessorRegionDamaged)                                                           \
    PAIR("semaphore-count", SemaphoreCount)                                                                            \
    PAIR("semaphore-limit-exceeded", SemaphoreLimitExceeded)                                                           \
    PAIR("thread-ended-in-critical-region", ThreadEndedInCriticalRegion)                                               \
    PAIR("thread-ended-owning-mutex", ThreadEndedOwningMutex)                                                          \
    PAIR("thread-object-damaged", ThreadObjectDamaged)                                                                 \
    PAIR("thread-priority", PriorityOfThread)                                                                          \
    PAIR("timer-initialized-while-set", TimerInitializedWhileSet)                                                      \
    PAIR("timer-period", TimerPeriod)                                                                                  \
    PAIR("timer-type", TimerType)                                                                                      \
    PAIR("wait-at-raised-irql", WaitAtRaisedIrql)                                                                      \
    PAIR("wait-list-damaged", WaitListDamaged)                                                                         \
    PAIR("user-wait-on-stack", UserWaitOnStack)                                                                        \
    PAIR("wait-object-count", WaitObjectCount)                                                                         \
    PAIR("wait-promised", WaitPromised)                                                                                \
    PAIR("wait-with-interrupts-disabled", WaitWithInterruptsDisabled)

#endif
