/* Stories of DPC queues: when they are processed, and what is in them. */
#include "clocks.h"

static KDPC Dpcs[8];

static VOID Prepare(VOID)
{
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Dpcs); Index++) {
        KeInitializeDpc(&Dpcs[Index], Record, Letter((CHAR)('a' + Index)));
    }
    Forget();
}

/* On this processor: low waits, everything else begins, high goes first. */
static ULONG Importance(VOID)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(1);
    KIRQL Old;
    ULONGLONG Queued;

    Prepare();
    KeSetImportanceDpc(&Dpcs[0], LowImportance);
    KeSetImportanceDpc(&Dpcs[2], HighImportance);
    KeSetImportanceDpc(&Dpcs[3], MediumHighImportance);
    CHECK(KeInsertQueueDpc(&Dpcs[1], NULL, NULL)); /* medium: at once */
    CHECK(RanAre("b") && Ran[0].Irql == DISPATCH_LEVEL && Ran[0].Processor == 0);

    Forget();
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(KeInsertQueueDpc(&Dpcs[1], NULL, NULL));
    CHECK(!KeInsertQueueDpc(&Dpcs[1], NULL, NULL)); /* is queued: runs once */
    CHECK(KeInsertQueueDpc(&Dpcs[3], NULL, NULL));
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    CHECK(KeInsertQueueDpc(&Dpcs[2], NULL, NULL));
    CHECK(RanAre("")); /* the level holds them back */
    KeLowerIrql(Old);
    CHECK(RanAre("cbda")); /* the high one in front, a low one with the others */

    /* A low one alone runs when the clock ticks at the latest, or earlier if requests are rare. */
    Forget();
    Queued = Now();
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    Busy(2 * TICK);
    CHECK(RanAre("a") && Ran[0].At <= Queued + TICK + 10 * MILLISECOND);
    KeRevertToUserAffinityThreadEx(Before);
    return 0;
}

/* As a run until blocked has it: the low one waits, for company or for a long queue. */
static ULONG LowOnesWait(VOID)
{
    ULONG Index;

    Prepare();
    Sleep(TICK); /* a tick has just been */
    KeSetImportanceDpc(&Dpcs[0], LowImportance);
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    CHECK(RanAre(""));
    CHECK(KeInsertQueueDpc(&Dpcs[1], NULL, NULL));
    CHECK(RanAre("ab"));

    Forget();
    Sleep(TICK);
    for (Index = 0; Index < 5; Index++) {
        KeSetImportanceDpc(&Dpcs[Index], LowImportance);
        CHECK(RanAre("")); /* four make no long queue yet */
        CHECK(KeInsertQueueDpc(&Dpcs[Index], NULL, NULL));
    }
    CHECK(RanAre("abcde"));

    Forget();
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    KeFlushQueuedDpcs();
    CHECK(RanAre("a"));

    Forget();
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    Sleep(MILLISECOND / 10); /* the processor has nothing else to do */
    CHECK(RanAre("a"));

    Forget();
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    CHECK(KeRemoveQueueDpc(&Dpcs[0]));
    CHECK(!KeRemoveQueueDpc(&Dpcs[0]));
    Sleep(2 * TICK);
    CHECK(RanAre(""));
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL)); /* and it can be queued again */
    CHECK(KeInsertQueueDpc(&Dpcs[5], NULL, NULL));
    CHECK(RanAre("af"));
    return 0;
}

static volatile LONG Hold, Holding;

static VOID NTAPI HoldProcessor(PVOID Context)
{
    KeSetSystemAffinityThreadEx((KAFFINITY)(ULONG_PTR)Context);
    InterlockedExchange(&Holding, 1);
    while (Hold != 0) {
        InterlockedIncrement(&HeldRounds);
        KeStallExecutionProcessor(10);
    }
    KeRevertToUserAffinityThread();
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static PVOID Thread(PKSTART_ROUTINE Routine, PVOID Context)
{
    HANDLE Handle;
    PVOID Object = NULL;

    if (NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Routine, Context))) {
        ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, &Object, NULL);
        ZwClose(Handle);
    }
    return Object;
}

static VOID Join(PVOID Object)
{
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Object);
}

/* On another processor, which is busy: medium waits there for the tick, medium-high begins. For two processors. */
static ULONG Elsewhere(VOID)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(1);
    PVOID Holder;
    ULONGLONG Queued;
    LONG Rounds, Waited;

    Prepare();
    KeSetTargetProcessorDpc(&Dpcs[0], 1);
    KeSetTargetProcessorDpc(&Dpcs[1], 1);
    KeSetImportanceDpc(&Dpcs[1], MediumHighImportance);
    Hold = 1;
    Holding = 0;
    Holder = Thread(HoldProcessor, (PVOID)2);
    CHECK(Holder != NULL);
    while (Holding == 0) {
        KeStallExecutionProcessor(10);
    }
    Queued = Now();
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    Busy(2 * TICK);
    CHECK(RanAre("a") && Ran[0].Processor == 1 && Ran[0].Irql == DISPATCH_LEVEL);
    CHECK(Ran[0].At <= Queued + TICK + 10 * MILLISECOND);
    Forget();
    CHECK(KeInsertQueueDpc(&Dpcs[1], NULL, NULL));
    Rounds = HeldRounds; /* read before, it would say how long this processor has taken to come to queue the DPC */
    for (Waited = 0; Waited < 1000 && !RanAre("b"); Waited++) {
        Busy(MILLISECOND); /* the other processor has its turn some time, and then all of it */
    }
    CHECK(RanAre("b") && Ran[0].Processor == 1 && Ran[0].Rounds - Rounds <= 10);
    Hold = 0;
    Join(Holder);
    KeRevertToUserAffinityThreadEx(Before);
    return 0;
}

/* On another processor, which is idle, as a run until blocked has it: its turn comes though this one stays busy. */
static ULONG IdleElsewhere(VOID)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(1);
    ULONGLONG Queued;
    ULONG Round;

    Prepare();
    KeSetTargetProcessorDpc(&Dpcs[0], 1);
    KeSetImportanceDpc(&Dpcs[0], HighImportance);
    Queued = Now();
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    for (Round = 0; Round < 100; Round++) {
        KeStallExecutionProcessor(20); /* two milliseconds, with few instructions */
    }
    CHECK(RanAre("a") && Ran[0].Processor == 1);
    CHECK(Ran[0].At <= Queued + MILLISECOND);
    KeRevertToUserAffinityThreadEx(Before);
    return 0;
}

static volatile LONG Rounds;

static VOID NTAPI Again(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    RunAt('r');
    if (InterlockedDecrement(&Rounds) > 0 && !KeInsertQueueDpc(Dpc, NULL, NULL)) {
        RunAt('!'); /* it has left the queue before its routine was called */
    }
}

static volatile LONG Entered, Left;

static VOID NTAPI SlowDpc(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    InterlockedIncrement(&Entered);
    Busy(MILLISECOND);
    InterlockedIncrement(&Left);
}

/* A DPC that queues itself, one that is removed, one that is waited for. */
static ULONG Queueing(VOID)
{
    KAFFINITY Others = KeQueryActiveProcessors() & ~(KAFFINITY)1, Before = KeSetSystemAffinityThreadEx(1);
    KIRQL Old;
    LONG Index;

    Prepare();
    KeInitializeDpc(&Dpcs[0], Again, NULL);
    Rounds = 5;
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    KeFlushQueuedDpcs();
    CHECK(RanAre("rrrrr"));

    Forget();
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(KeInsertQueueDpc(&Dpcs[1], NULL, NULL));
    CHECK(KeRemoveQueueDpc(&Dpcs[1]) && !KeRemoveQueueDpc(&Dpcs[1]));
    CHECK(KeInsertQueueDpc(&Dpcs[2], NULL, NULL));
    KeLowerIrql(Old);
    CHECK(RanAre("c"));
    CHECK(!KeRemoveQueueDpcEx(&Dpcs[2], TRUE)); /* has run */
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(KeInsertQueueDpc(&Dpcs[2], NULL, NULL));
    CHECK(KeRemoveQueueDpcEx(&Dpcs[2], FALSE));
    KeLowerIrql(Old);
    CHECK(RanAre("c"));

    if (Others != 0) {
        Entered = Left = 0;
        KeInitializeDpc(&Dpcs[3], SlowDpc, NULL);
        KeSetTargetProcessorDpc(&Dpcs[3], 1);
        KeSetImportanceDpc(&Dpcs[3], HighImportance);
        CHECK(KeInsertQueueDpc(&Dpcs[3], NULL, NULL));
        while (Entered == 0) {
            KeStallExecutionProcessor(10);
        }
        CHECK(!KeRemoveQueueDpcEx(&Dpcs[3], TRUE)); /* runs: not removed, and returns when it is over */
        CHECK(Left == 1);
        for (Index = 1; Index < 8; Index++) {
            CHECK(KeInsertQueueDpc(&Dpcs[3], NULL, NULL));
            KeFlushQueuedDpcs();
            CHECK(Entered == Index + 1 && Left == Index + 1);
        }
    }
    KeRevertToUserAffinityThreadEx(Before);
    return 0;
}

static KDPC_WATCHDOG_INFORMATION Early, Late;
static volatile NTSTATUS Asked[2];

static VOID NTAPI AsksWatchdog(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    Asked[0] = KeQueryDpcWatchdogInformation(&Early);
    Busy(100 * TICK);
    Asked[1] = KeQueryDpcWatchdogInformation(&Late);
}

static ULONG Watchdog(VOID)
{
    KDPC_WATCHDOG_INFORMATION Information;
    KIRQL Old;
    NTSTATUS Status;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Status = KeQueryDpcWatchdogInformation(&Information);
    KeLowerIrql(Old);
    CHECK(Status == STATUS_UNSUCCESSFUL); /* no DPC runs */
    KeInitializeDpc(&Dpcs[0], AsksWatchdog, NULL);
    CHECK(KeInsertQueueDpc(&Dpcs[0], NULL, NULL));
    KeFlushQueuedDpcs();
    CHECK(Asked[0] == STATUS_SUCCESS && Asked[1] == STATUS_SUCCESS);
    CHECK(Early.DpcTimeLimit != 0 && Early.DpcTimeCount == Early.DpcTimeLimit);
    CHECK(Early.DpcWatchdogLimit > Early.DpcTimeLimit && Early.DpcWatchdogCount <= Early.DpcWatchdogLimit);
    CHECK(Late.DpcTimeCount <= Early.DpcTimeCount - 100 && Late.DpcTimeCount >= Early.DpcTimeCount - 102);
    CHECK(Late.DpcWatchdogCount <= Early.DpcWatchdogCount - 100);
    return 0;
}
