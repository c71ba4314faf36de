/* Stories of threaded DPCs, which run at PASSIVE_LEVEL where they are enabled and at DISPATCH_LEVEL where they are not. */
#include "clocks.h"

static KSPIN_LOCK ThreadedLock;
static volatile LONG Guarded, ThreadedRuns;
static volatile LONG ThreadedPriority;
static KDPC Threaded[3], Ordinary;
static volatile KIRQL LockedAt, UnlockedAt;

static VOID NTAPI CountsUnderLock(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    KLOCK_QUEUE_HANDLE Handle;
    KIRQL Old;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    RunAt((CHAR)(ULONG_PTR)Context);
    Old = KeAcquireSpinLockForDpc(&ThreadedLock);
    LockedAt = KeGetCurrentIrql();
    Guarded++;
    KeReleaseSpinLockForDpc(&ThreadedLock, Old);
    UnlockedAt = KeGetCurrentIrql();
    KeAcquireInStackQueuedSpinLockForDpc(&ThreadedLock, &Handle);
    Guarded++;
    KeReleaseInStackQueuedSpinLockForDpc(&Handle);
    if (KeGetCurrentIrql() == PASSIVE_LEVEL) {
        ThreadedPriority = KeQueryPriorityThread(CurrentThread());
    }
    InterlockedIncrement(&ThreadedRuns);
}

static VOID NTAPI IsInterrupted(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    RunAt('(');
    KeInsertQueueDpc(&Ordinary, NULL, NULL); /* comes in between where this one is on a thread, else after it */
    RunAt(')');
}

static ULONG ThreadedDpcs(VOID)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(1);
    BOOLEAN OnThread;
    KIRQL Old;

    Forget();
    Guarded = ThreadedRuns = 0;
    KeInitializeSpinLock(&ThreadedLock);
    KeInitializeThreadedDpc(&Threaded[0], CountsUnderLock, Letter('a'));
    KeInitializeThreadedDpc(&Threaded[1], CountsUnderLock, Letter('b'));
    KeInitializeThreadedDpc(&Threaded[2], IsInterrupted, NULL);
    KeInitializeDpc(&Ordinary, Record, Letter('o'));
    CHECK(KeInsertQueueDpc(&Threaded[0], NULL, NULL));
    KeFlushQueuedDpcs(); /* threaded ones too */
    CHECK(RanAre("a") && ThreadedRuns == 1 && Guarded == 2);
    CHECK(Ran[0].Irql == PASSIVE_LEVEL || Ran[0].Irql == DISPATCH_LEVEL);
    CHECK(Ran[0].Processor == 0);
    CHECK(LockedAt == DISPATCH_LEVEL && UnlockedAt == Ran[0].Irql);
    OnThread = Ran[0].Irql == PASSIVE_LEVEL;
    CHECK(!OnThread || ThreadedPriority >= LOW_REALTIME_PRIORITY); /* no other thread comes in between */

    Forget();
    KeSetImportanceDpc(&Threaded[1], HighImportance);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(KeInsertQueueDpc(&Threaded[0], NULL, NULL) && !KeInsertQueueDpc(&Threaded[0], NULL, NULL));
    CHECK(KeInsertQueueDpc(&Threaded[1], NULL, NULL));
    CHECK(RanAre(""));
    KeLowerIrql(Old);
    KeFlushQueuedDpcs();
    CHECK(RanAre("ba") && Ran[0].Irql == Ran[1].Irql);

    Forget();
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(KeInsertQueueDpc(&Threaded[0], NULL, NULL) && KeRemoveQueueDpc(&Threaded[0]));
    KeLowerIrql(Old);
    KeFlushQueuedDpcs();
    CHECK(RanAre(""));

    CHECK(KeInsertQueueDpc(&Threaded[2], NULL, NULL));
    KeFlushQueuedDpcs();
    CHECK(OnThread ? RanAre("(o)") : RanAre("()o")); /* an ordinary one preempts a threaded one */
    CHECK(Ran[OnThread ? 1 : 2].Irql == DISPATCH_LEVEL);

    if (KeQueryActiveProcessorCount(NULL) > 1) {
        Forget();
        KeSetTargetProcessorDpc(&Threaded[0], 1);
        CHECK(KeInsertQueueDpc(&Threaded[0], NULL, NULL));
        KeFlushQueuedDpcs();
        CHECK(RanAre("a") && Ran[0].Processor == 1);
    }
    KeRevertToUserAffinityThreadEx(Before);
    return 0;
}

/* Answers where threaded DPCs run on this machine: the line says which. */
static ULONG ThreadedLevel(VOID)
{
    Forget();
    KeInitializeThreadedDpc(&Threaded[0], Record, Letter('a'));
    CHECK(KeInsertQueueDpc(&Threaded[0], NULL, NULL));
    KeFlushQueuedDpcs();
    CHECK(RanAre("a"));
    DbgPrint("clocks: a threaded DPC ran at IRQL %u\n", Ran[0].Irql);
    return 0;
}
