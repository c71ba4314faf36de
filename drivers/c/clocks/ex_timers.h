/* Stories of the timers that the system allocates, and of the clock's resolution. */
#include "clocks.h"

static PEX_TIMER CallbackTimer;
static volatile LONG Deleted;
static LONG DeletedAfter;

static VOID NTAPI RecordTimer(PEX_TIMER Timer, PVOID Context)
{
    CallbackTimer = Timer;
    RunAt((CHAR)(ULONG_PTR)Context);
}

static VOID NTAPI RecordDeletion(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    DeletedAfter = RanCount;
    InterlockedIncrement(&Deleted);
}

static EXT_DELETE_PARAMETERS Deletion = {0, 0, RecordDeletion, NULL};

/* Set, cancelled, set again, expired, deleted. */
static ULONG ExTimers(VOID)
{
    PEX_TIMER Timer = ExAllocateTimer(RecordTimer, Letter('a'), 0);
    LARGE_INTEGER Zero = {.QuadPart = 0};
    ULONGLONG Due;

    Forget();
    CHECK(Timer != NULL);
    CHECK(!ExCancelTimer(Timer, NULL)); /* never set */
    CHECK(!ExSetTimer(Timer, -40 * MILLISECOND, 0, NULL));
    CHECK(ExSetTimer(Timer, -50 * MILLISECOND, 0, NULL)); /* cancels the first setting */
    CHECK(ExCancelTimer(Timer, NULL));
    CHECK(!ExCancelTimer(Timer, NULL));
    Sleep(100 * MILLISECOND);
    CHECK(RanAre("")); /* cancelled: neither signaled nor called */
    CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, &Zero) == STATUS_TIMEOUT);

    Due = Now() + 30 * MILLISECOND;
    CHECK(!ExSetTimer(Timer, -30 * MILLISECOND, 0, NULL));
    CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(Now() >= Due); /* never early */
    CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, &Zero) == STATUS_TIMEOUT); /* synchronization */
    Sleep(TICK);
    CHECK(RanAre("a") && Ran[0].Irql == DISPATCH_LEVEL && Ran[0].At >= Due);
    CHECK(CallbackTimer == Timer);
    CHECK(!ExCancelTimer(Timer, NULL)); /* has expired */
    CHECK(!ExDeleteTimer(Timer, TRUE, TRUE, NULL));

    Timer = ExAllocateTimer(NULL, NULL, EX_TIMER_NOTIFICATION);
    CHECK(Timer != NULL);
    CHECK(!ExSetTimer(Timer, -5 * MILLISECOND, 0, NULL));
    CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, &Zero) == STATUS_SUCCESS); /* stays signaled */
    CHECK(!ExSetTimer(Timer, -5000 * MILLISECOND, 0, NULL)); /* later than a thread is held up */
    CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, &Zero) == STATUS_TIMEOUT);
    CHECK(ExDeleteTimer(Timer, TRUE, FALSE, NULL));
    return 0;
}

/* Due times that never come: 100 ns before the beginning of time that a LONGLONG can count, and the end of it. */
#define FOR_EVER ((LONGLONG)0x8000000000000000ull)
#define AT_THE_END 0x7FFFFFFFFFFFFFFFll

/* A timer that is set for ever is set, and does not expire. */
static ULONG NeverDue(VOID)
{
    static const LONGLONG Dues[] = {FOR_EVER, FOR_EVER + 1, AT_THE_END, AT_THE_END - 1};
    LARGE_INTEGER Zero = {.QuadPart = 0};
    LARGE_INTEGER Due;
    KTIMER Plain;
    KDPC Dpc;

    Forget();
    KeInitializeTimerEx(&Plain, NotificationTimer);
    KeInitializeDpc(&Dpc, Record, Letter('p'));
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Dues); Index++) {
        PEX_TIMER Timer = ExAllocateTimer(RecordTimer, Letter('e'), 0);

        CHECK(Timer != NULL);
        CHECK(!ExSetTimer(Timer, Dues[Index], 0, NULL));
        Due.QuadPart = Dues[Index];
        CHECK(!KeSetTimer(&Plain, Due, &Dpc));
        Sleep(5 * 1000 * MILLISECOND);
        CHECK(RanAre(""));
        CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, &Zero) == STATUS_TIMEOUT);
        CHECK(!KeReadStateTimer(&Plain));
        CHECK(ExSetTimer(Timer, -MILLISECOND, 0, NULL)); /* it was set; and now it comes */
        Sleep(10 * TICK);
        CHECK(RanAre("e"));
        Forget();
        CHECK(KeCancelTimer(&Plain));
        CHECK(!ExDeleteTimer(Timer, TRUE, TRUE, NULL));
    }
    return 0;
}

static volatile PEX_TIMER SlowTimer;
static volatile LONG SlowEntered, SlowLeft;

static VOID NTAPI Slow(PEX_TIMER Timer, PVOID Context)
{
    UNREFERENCED_PARAMETER(Timer);
    UNREFERENCED_PARAMETER(Context);
    InterlockedIncrement(&SlowEntered);
    Busy(2 * MILLISECOND);
    InterlockedIncrement(&SlowLeft);
}

static VOID NTAPI DeletesItself(PEX_TIMER Timer, PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    RunAt('d');
    ExDeleteTimer(Timer, TRUE, FALSE, &Deletion); /* the timer stays valid as long as its callback runs */
    RunAt('e');
}

/* Cancel and Wait, and the callback that says that the timer is gone. */
static ULONG ExDeletions(VOID)
{
    PEX_TIMER Timer = ExAllocateTimer(RecordTimer, Letter('a'), 0);
    KAFFINITY Others = KeQueryActiveProcessors() & ~(KAFFINITY)1, Before = 0;

    Forget();
    Deleted = 0;
    ExSetTimer(Timer, -40 * MILLISECOND, 40 * MILLISECOND, NULL);
    CHECK(ExDeleteTimer(Timer, TRUE, TRUE, &Deletion)); /* was set: cancelled */
    CHECK(Deleted == 1); /* with Wait, before the call returns */
    Sleep(100 * MILLISECOND);
    CHECK(RanAre(""));

    /* Not cancelled, it still expires, and then it is gone. */
    Timer = ExAllocateTimer(RecordTimer, Letter('b'), 0);
    ExSetTimer(Timer, -20 * MILLISECOND, 20 * MILLISECOND, NULL);
    CHECK(!ExDeleteTimer(Timer, FALSE, FALSE, &Deletion));
    CHECK(Deleted == 1 && RanAre(""));
    Sleep(200 * MILLISECOND);
    CHECK(RanAre("b") && Deleted == 2 && DeletedAfter == 1);

    /* From its own callback. */
    Forget();
    Timer = ExAllocateTimer(DeletesItself, NULL, 0);
    ExSetTimer(Timer, -20 * MILLISECOND, 20 * MILLISECOND, NULL);
    Sleep(100 * MILLISECOND);
    CHECK(RanAre("de") && Deleted == 3 && DeletedAfter == 2);

    /* While its callback runs on another processor: Wait waits for the end. */
    SlowEntered = SlowLeft = 0;
    Timer = ExAllocateTimer(Slow, NULL, 0);
    if (Others != 0) {
        Before = KeSetSystemAffinityThreadEx(Others);
    }
    ExSetTimer(Timer, -20 * MILLISECOND, 0, NULL);
    if (Others != 0) {
        KeRevertToUserAffinityThreadEx(Before);
        Before = KeSetSystemAffinityThreadEx(1);
        while (SlowEntered == 0) {
            KeStallExecutionProcessor(20);
        }
        KeRevertToUserAffinityThreadEx(Before);
    } else {
        Sleep(40 * MILLISECOND);
    }
    CHECK(!ExDeleteTimer(Timer, TRUE, TRUE, &Deletion)); /* had expired */
    CHECK(SlowEntered == 1 && SlowLeft == 1 && Deleted == 4);
    return 0;
}

/* A periodic timer keeps its phase; a high-resolution one its milliseconds. */
static ULONG ExPeriods(VOID)
{
    PEX_TIMER Timer = ExAllocateTimer(RecordTimer, Letter('p'), 0);
    ULONGLONG Start = Now();
    LONG Index;

    Forget();
    ExSetTimer(Timer, -100 * MILLISECOND, 100 * MILLISECOND, NULL);
    Sleep(2050 * MILLISECOND);
    CHECK(ExDeleteTimer(Timer, TRUE, TRUE, NULL));
    CHECK(RanCount == 20);
    for (Index = 0; Index < RanCount; Index++) {
        ULONGLONG Due = Start + (ULONGLONG)(Index + 1) * 100 * MILLISECOND;

        CHECK(Ran[Index].At >= Due && Ran[Index].At < Due + 2 * TICK); /* no drift: late by a tick, not by ticks */
    }

    Timer = ExAllocateTimer(RecordTimer, Letter('h'), EX_TIMER_HIGH_RESOLUTION);
    Forget();
    Start = Now();
    ExSetTimer(Timer, -2 * MILLISECOND, 2 * MILLISECOND, NULL);
    Sleep(50 * MILLISECOND);
    CHECK(ExDeleteTimer(Timer, TRUE, TRUE, NULL));
    CHECK(RanCount >= 24);
    for (Index = 0; Index < 24; Index++) {
        ULONGLONG Due = Start + (ULONGLONG)(Index + 1) * 2 * MILLISECOND;

        CHECK(Ran[Index].At >= Due && Ran[Index].At < Due + 2 * FINEST);
    }
    return 0;
}

/* A no-wake timer may be late by what it tolerates, and no more. */
static ULONG ExNoWake(VOID)
{
    PEX_TIMER Timer = ExAllocateTimer(RecordTimer, Letter('n'), EX_TIMER_NO_WAKE | EX_TIMER_NOTIFICATION);
    EXT_SET_PARAMETERS Parameters = {0, 0, 200 * MILLISECOND};
    ULONGLONG Due = Now() + 50 * MILLISECOND;

    Forget();
    ExSetTimer(Timer, -50 * MILLISECOND, 0, &Parameters);
    Sleep(300 * MILLISECOND);
    CHECK(RanAre("n") && Ran[0].At >= Due && Ran[0].At < Due + 200 * MILLISECOND + 2 * TICK);
    Forget();
    Parameters.NoWakeTolerance = EX_TIMER_UNLIMITED_TOLERANCE;
    Due = Now() + 50 * MILLISECOND;
    ExSetTimer(Timer, -50 * MILLISECOND, 0, &Parameters);
    CHECK(KeWaitForSingleObject(Timer, Executive, KernelMode, FALSE, NULL) == STATUS_SUCCESS);
    CHECK(Now() >= Due);
    CHECK(!ExDeleteTimer(Timer, TRUE, TRUE, NULL));
    CHECK(RanAre("n"));
    return 0;
}

/* ExSetTimerResolution: rules of its page, and what becomes finer. */
static ULONG Resolutions(VOID)
{
    ULONG Maximum, Minimum, Current, Increment = KeQueryTimeIncrement();
    ULONGLONG Before, After;
    LARGE_INTEGER Ticks, TicksLater;

    ExQueryTimerResolution(&Maximum, &Minimum, &Current);
    CHECK(Maximum == TICK && Minimum == FINEST && Current == TICK && Increment == TICK);
    CHECK(ExSetTimerResolution(50000, TRUE) == 50000);
    CHECK(ExSetTimerResolution(1, TRUE) == FINEST);     /* the finest there is */
    CHECK(ExSetTimerResolution(50000, TRUE) == FINEST); /* coarser than what is set: nothing changes */
    ExQueryTimerResolution(&Maximum, &Minimum, &Current);
    CHECK(Maximum == TICK && Minimum == FINEST && Current == FINEST);
    CHECK(KeQueryTimeIncrement() == Increment);

    KeQueryTickCount(&Ticks);
    Before = KeQueryInterruptTime();
    After = Now();
    Sleep(3 * MILLISECOND);
    CHECK(Now() >= After + 3 * MILLISECOND);
    CHECK(Now() < After + 3 * MILLISECOND + 2 * FINEST); /* a delay of 3 ms takes no 15 any more */
    CHECK(KeQueryInterruptTime() > Before && KeQueryInterruptTime() - Before < 6 * MILLISECOND);
    CHECK(KeQueryInterruptTime() % FINEST == 0);
    Sleep(1000 * MILLISECOND);
    KeQueryTickCount(&TicksLater);
    TicksLater.QuadPart -= Ticks.QuadPart;
    CHECK(TicksLater.QuadPart >= 63 && TicksLater.QuadPart <= 66); /* still counts in units of the increment */

    CHECK(ExSetTimerResolution(0, FALSE) == FINEST); /* others still want it */
    CHECK(ExSetTimerResolution(0, FALSE) == FINEST);
    Before = KeQueryInterruptTime();
    CHECK(ExSetTimerResolution(0, FALSE) == TICK);
    CHECK(KeQueryInterruptTime() >= Before); /* time does not go back */
    return 0;
}
