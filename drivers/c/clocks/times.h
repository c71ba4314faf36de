/* Stories of KTIMERs and of the time that drivers read. */
#include "clocks.h"

static KTIMER Timers[2];
static KDPC TimerDpcs[2];

static BOOLEAN Set(ULONG Index, LONGLONG Due, LONG Period)
{
    LARGE_INTEGER Time = {.QuadPart = Due};

    return KeSetTimerEx(&Timers[Index], Time, Period, &TimerDpcs[Index]);
}

static VOID PrepareTimers(VOID)
{
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Timers); Index++) {
        KeInitializeTimerEx(&Timers[Index], NotificationTimer);
        KeInitializeDpc(&TimerDpcs[Index], Record, Letter((CHAR)('a' + Index)));
    }
    Forget();
}

/* KeCancelTimer against a DPC that is queued or runs already. */
static ULONG Cancellations(VOID)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(1);
    KIRQL Old;

    PrepareTimers();
    CHECK(!Set(0, -30 * MILLISECOND, 0));
    CHECK(KeCancelTimer(&Timers[0]) && !KeCancelTimer(&Timers[0]));
    Sleep(100 * MILLISECOND);
    CHECK(RanAre(""));

    /* Due while the level holds everything back: it has expired when the level falls, and its DPC has begun. */
    CHECK(!Set(0, -20 * MILLISECOND, 0));
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Busy(60 * MILLISECOND);
    CHECK(RanAre(""));
    KeLowerIrql(Old);
    KeFlushQueuedDpcs(); /* if another processor has taken the tick, it may run there still */
    CHECK(RanAre("a"));
    CHECK(!KeCancelTimer(&Timers[0])); /* not set any more */

    /* Its DPC is queued: the timer is not set, and cancelling it removes no DPC. */
    Forget();
    KeSetImportanceDpc(&TimerDpcs[0], LowImportance);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(!Set(0, 0, 0)); /* due in 1601: expires at once */
    CHECK(KeReadStateTimer(&Timers[0]));
    CHECK(!KeCancelTimer(&Timers[0]));
    CHECK(RanAre(""));
    KeLowerIrql(Old);
    KeFlushQueuedDpcs();
    CHECK(RanAre("a"));

    /* A periodic one is set again before its DPC runs. */
    Forget();
    KeSetImportanceDpc(&TimerDpcs[0], MediumImportance);
    CHECK(!Set(0, -20 * MILLISECOND, 20));
    Sleep(35 * MILLISECOND);
    CHECK(RanCount >= 1);
    CHECK(KeCancelTimer(&Timers[0]));
    KeFlushQueuedDpcs();
    Forget();
    Sleep(100 * MILLISECOND);
    CHECK(RanAre(""));
    KeRevertToUserAffinityThreadEx(Before);
    return 0;
}

/* A periodic timer keeps its phase, and makes up for no period that was missed. */
static ULONG Periods(VOID)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(1);
    ULONGLONG Start;
    KIRQL Old;
    LONG Index;

    PrepareTimers();
    Start = Now();
    CHECK(!Set(0, -50 * MILLISECOND, 50));
    Sleep(1020 * MILLISECOND);
    CHECK(RanCount == 20);
    for (Index = 0; Index < 20; Index++) {
        ULONGLONG Due = Start + (ULONGLONG)(Index + 1) * 50 * MILLISECOND;

        CHECK(Ran[Index].At >= Due && Ran[Index].At < Due + 2 * TICK);
    }
    Forget();
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Busy(230 * MILLISECOND); /* four or five of them fall due */
    KeLowerIrql(Old);
    CHECK(RanAre("a")); /* the DPC runs once */
    Sleep(500 * MILLISECOND);
    CHECK(KeCancelTimer(&Timers[0]));
    for (Index = 1; Index < RanCount; Index++) {
        CHECK((Ran[Index].At - Start) % (50 * MILLISECOND) < 2 * TICK); /* still where they always were */
    }
    KeRevertToUserAffinityThreadEx(Before);
    return 0;
}

/* A coalescable timer comes between its due time and what it tolerates after it. */
static ULONG Coalescing(VOID)
{
    LARGE_INTEGER Time = {.QuadPart = -100 * MILLISECOND};
    ULONGLONG Start;
    LONG Index;

    PrepareTimers();
    Start = Now();
    CHECK(!KeSetCoalescableTimer(&Timers[0], Time, 100, 40, &TimerDpcs[0]));
    Sleep(1080 * MILLISECOND);
    CHECK(KeCancelTimer(&Timers[0]));
    CHECK(RanCount == 10 || RanCount == 11 || RanCount == 9);
    for (Index = 0; Index < RanCount; Index++) {
        ULONGLONG Due = Start + (ULONGLONG)(Index + 1) * 100 * MILLISECOND;

        CHECK(Ran[Index].At >= Due && Ran[Index].At < Due + 40 * MILLISECOND + 2 * TICK);
        if (Index != 0) {
            ULONGLONG Between = Ran[Index].At - Ran[Index - 1].At;

            CHECK(Between + 2 * TICK >= 60 * MILLISECOND && Between <= 140 * MILLISECOND + 2 * TICK);
        }
    }
    return 0;
}

/* Loops that do nothing but look at the time see it move; at CLOCK_LEVEL and above the clock's interrupt is held back. */
static ULONG StandingStill(VOID)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(1);
    LARGE_INTEGER Ticks, Later, First, Last, Frequency;
    ULONGLONG Interrupt;
    KIRQL Old, Level;

    KeQueryTickCount(&Ticks);
    do {
        KeQueryTickCount(&Later);
    } while (Later.QuadPart < Ticks.QuadPart + 5);
    Interrupt = KeQueryInterruptTime();
    while (KeQueryInterruptTime() < Interrupt + 40 * MILLISECOND) {
    }
    KeQuerySystemTime(&First);
    do {
        KeQuerySystemTime(&Last);
    } while (Last.QuadPart < First.QuadPart + 40 * MILLISECOND);
    CHECK(KeQueryInterruptTime() >= Interrupt + 80 * MILLISECOND);

    for (Level = CLOCK_LEVEL; Level <= HIGH_LEVEL; Level++) {
        KeRaiseIrql(Level, &Old);
        KeQueryTickCount(&Ticks);
        Interrupt = KeQueryInterruptTime();
        First = KeQueryPerformanceCounter(&Frequency);
        Busy(50 * MILLISECOND);
        Last = KeQueryPerformanceCounter(NULL);
        KeQueryTickCount(&Later);
        CHECK(Later.QuadPart == Ticks.QuadPart && KeQueryInterruptTime() == Interrupt);
        CHECK((Last.QuadPart - First.QuadPart) * 1000 / Frequency.QuadPart >= 49); /* the counter does not stop */
        KeLowerIrql(Old);
        CHECK(KeQueryInterruptTime() >= Interrupt + 45 * MILLISECOND - TICK); /* and the time has caught up */
    }
    /* Below, the clock interrupts. */
    KeRaiseIrql(CLOCK_LEVEL - 1, &Old);
    Interrupt = KeQueryInterruptTime();
    Busy(50 * MILLISECOND);
    CHECK(KeQueryInterruptTime() > Interrupt);
    KeLowerIrql(Old);
    KeRevertToUserAffinityThreadEx(Before);
    return 0;
}

/* More than 50 microseconds is a finding; the time passes all the same. */
static ULONG LongStall(VOID)
{
    ULONGLONG Before = Now();

    KeStallExecutionProcessor(50);
    CHECK(Now() >= Before + 500);
    KeStallExecutionProcessor(51);
    CHECK(Now() >= Before + 1010);
    return 0;
}

static LONGLONG SetAt;

/* An absolute and a relative timer, an hour from now, and a waiting thread; then the system time is set. */
static ULONG ClockIsSetLater(VOID)
{
    LARGE_INTEGER System;

    PrepareTimers();
    KeQuerySystemTime(&System);
    SystemTimePrecise(&System);
    SetAt = System.QuadPart;
    CHECK(!Set(0, System.QuadPart + 3600 * 1000 * MILLISECOND, 0)); /* absolute */
    CHECK(!Set(1, -3600 * 1000 * MILLISECOND, 0));                  /* relative */
    return 0;
}

/* It was set an hour forward. */
static ULONG ClockWasSet(VOID)
{
    LARGE_INTEGER System;

    SystemTimePrecise(&System);
    CHECK(System.QuadPart >= SetAt + 3600 * 1000 * MILLISECOND);
    Sleep(TICK);
    CHECK(RanAre("a"));
    CHECK(KeReadStateTimer(&Timers[0]) && !KeReadStateTimer(&Timers[1]));
    CHECK(!KeCancelTimer(&Timers[0]));
    CHECK(KeCancelTimer(&Timers[1]));
    KeQuerySystemTime(&System);
    CHECK(System.QuadPart >= SetAt + 3600 * 1000 * MILLISECOND);
    return 0;
}

/* It was set back, and an hour has passed: the relative timer has come, the absolute one has not. */
static ULONG ClockWasSetBack(VOID)
{
    CHECK(RanAre("b"));
    CHECK(!KeCancelTimer(&Timers[1]));
    CHECK(KeCancelTimer(&Timers[0]));
    return 0;
}

/* A wait until a system time; answers when it is over. */
static ULONG WaitUntil(VOID)
{
    KEVENT Never;
    LARGE_INTEGER System, Later;

    KeInitializeEvent(&Never, NotificationEvent, FALSE);
    SystemTimePrecise(&System);
    System.QuadPart += 3600 * 1000 * MILLISECOND;
    CHECK(KeWaitForSingleObject(&Never, Executive, KernelMode, FALSE, &System) == STATUS_TIMEOUT);
    SystemTimePrecise(&Later);
    CHECK(Later.QuadPart >= System.QuadPart);
    DbgPrint("clocks: waited until that time\n");
    return 0;
}
