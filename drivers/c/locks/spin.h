/* Reader/writer spin locks, and the spin locks of threaded DPCs. */
#include "locks.h"

static EX_SPIN_LOCK Shared;
static volatile LONG Readers, Writers, MostReaders;
static volatile LONG First, Second; /* the same whenever no writer is inside */
static volatile LONG Written;       /* how often they were written */
static KDPC WriteDpc, ReadDpc;

static VOID ReadIt(VOID)
{
    LONG Now = InterlockedIncrement(&Readers);

    if (Now > MostReaders) {
        MostReaders = Now;
    }
    EXPECT(Writers == 0);
    LONG Seen = First;
    InterlockedExchangeAdd(&Readers, 0); /* where another could come between */
    EXPECT(Seen == Second && Writers == 0);
    InterlockedDecrement(&Readers);
}

static VOID WriteIt(VOID)
{
    EXPECT(InterlockedIncrement(&Writers) == 1 && Readers == 0);
    LONG Seen = First;
    First = Seen + 1;
    InterlockedIncrement(&Written);
    EXPECT(Second == Seen && Readers == 0);
    Second = Seen + 1;
    EXPECT(InterlockedDecrement(&Writers) == 0);
}

static NTSTATUS Read(VOID)
{
    KIRQL Old = ExAcquireSpinLockShared(&Shared);

    ReadIt();
    ExReleaseSpinLockShared(&Shared, Old);
    return STATUS_SUCCESS;
}

static NTSTATUS Write(VOID)
{
    KIRQL Old = ExAcquireSpinLockExclusive(&Shared);

    WriteIt();
    ExReleaseSpinLockExclusive(&Shared, Old);
    return STATUS_SUCCESS;
}

/* Reads, and writes if it can have the lock alone without giving it up. */
static NTSTATUS Convert(VOID)
{
    KIRQL Old = ExAcquireSpinLockShared(&Shared);

    ReadIt();
    if (ExTryConvertSharedSpinLockExclusive(&Shared)) {
        WriteIt();
        ExReleaseSpinLockExclusive(&Shared, Old);
    } else {
        ReadIt();
        ExReleaseSpinLockShared(&Shared, Old);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Try(VOID)
{
    KIRQL Old = KeRaiseIrqlToDpcLevel();

    if (ExTryAcquireSpinLockExclusiveAtDpcLevel(&Shared)) {
        WriteIt();
        ExReleaseSpinLockExclusiveFromDpcLevel(&Shared);
    }
    if (ExTryAcquireSpinLockSharedAtDpcLevel(&Shared)) {
        ReadIt();
        ExReleaseSpinLockSharedFromDpcLevel(&Shared);
    }
    KeLowerIrql(Old);
    return STATUS_SUCCESS;
}

static VOID NTAPI WriteInDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    ExAcquireSpinLockExclusiveAtDpcLevel(&Shared);
    WriteIt();
    ExReleaseSpinLockExclusiveFromDpcLevel(&Shared);
}

static VOID NTAPI ReadInDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    ExAcquireSpinLockSharedAtDpcLevel(&Shared);
    ReadIt();
    ExReleaseSpinLockSharedFromDpcLevel(&Shared);
}

static NTSTATUS QueueBoth(VOID)
{
    KeInsertQueueDpc(&ReadDpc, NULL, NULL);
    KeInsertQueueDpc(&WriteDpc, NULL, NULL);
    return STATUS_SUCCESS;
}

/* ---- stories ---- */

static ULONG OneProcessorsLock(VOID)
{
    EX_SPIN_LOCK Lock = 0;
    LOGICAL Again, Alone;
    KIRQL Old, Held;

    Old = ExAcquireSpinLockShared(&Lock);
    Held = LevelNow();
    Alone = ExTryAcquireSpinLockExclusiveAtDpcLevel(&Lock);
    ExReleaseSpinLockShared(&Lock, Old);
    CHECK(Old == PASSIVE_LEVEL && Held == DISPATCH_LEVEL && LevelNow() == PASSIVE_LEVEL);
    CHECK(!Alone && Lock == 0);

    Old = ExAcquireSpinLockExclusive(&Lock);
    Held = LevelNow();
    Again = ExTryAcquireSpinLockSharedAtDpcLevel(&Lock);
    Alone = ExTryAcquireSpinLockExclusiveAtDpcLevel(&Lock);
    ExReleaseSpinLockExclusive(&Lock, Old);
    CHECK(Old == PASSIVE_LEVEL && Held == DISPATCH_LEVEL && LevelNow() == PASSIVE_LEVEL);
    CHECK(!Again && !Alone && Lock == 0);

    Old = KeRaiseIrqlToDpcLevel();
    Alone = ExTryAcquireSpinLockExclusiveAtDpcLevel(&Lock);
    if (Alone) {
        ExReleaseSpinLockExclusiveFromDpcLevel(&Lock);
    }
    KeLowerIrql(Old);
    CHECK(Alone && Lock == 0);

    Old = ExAcquireSpinLockShared(&Lock);
    Alone = ExTryConvertSharedSpinLockExclusive(&Lock);
    Again = ExTryAcquireSpinLockSharedAtDpcLevel(&Lock);
    ExReleaseSpinLockExclusive(&Lock, Old);
    CHECK(Alone && !Again && Lock == 0 && LevelNow() == PASSIVE_LEVEL);

    KeRaiseIrql(DISPATCH_LEVEL + 1, &Old); /* "at DPC level" is that level or a higher one */
    ExAcquireSpinLockSharedAtDpcLevel(&Lock);
    ExReleaseSpinLockSharedFromDpcLevel(&Lock);
    ExAcquireSpinLockExclusiveAtDpcLevel(&Lock);
    ExReleaseSpinLockExclusiveFromDpcLevel(&Lock);
    Held = LevelNow();
    KeLowerIrql(Old);
    CHECK(Held == DISPATCH_LEVEL + 1 && Lock == 0);
    return 0;
}

/* Reader on processor 0, a writer on processor 1 that comes to wait, and who asks on processor 2. */
static EX_SPIN_LOCK Queued;
static volatile LONG Asked, WriterWaits, WriterHas, ReaderHas;

static VOID NTAPI QueuedWriter(PVOID Context)
{
    KIRQL Old;

    UNREFERENCED_PARAMETER(Context);
    KeSetSystemAffinityThread(2);
    while (!Asked) {
        YieldProcessor();
    }
    Old = ExAcquireSpinLockExclusive(&Queued);
    WriterHas = 1;
    EXPECT(ReaderHas == 0);
    ExReleaseSpinLockExclusive(&Queued, Old);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI LateReader(PVOID Context)
{
    KIRQL Old;

    UNREFERENCED_PARAMETER(Context);
    KeSetSystemAffinityThread(4);
    Old = KeRaiseIrqlToDpcLevel();
    EXPECT(ExTryAcquireSpinLockSharedAtDpcLevel(&Queued)); /* readers share it */
    EXPECT(!ExTryConvertSharedSpinLockExclusive(&Queued)); /* and none has it alone then */
    ExReleaseSpinLockSharedFromDpcLevel(&Queued);
    Asked = 1;
    while (ExTryAcquireSpinLockSharedAtDpcLevel(&Queued)) { /* until the writer waits */
        ExReleaseSpinLockSharedFromDpcLevel(&Queued);
    }
    EXPECT(!WriterHas);
    WriterWaits = 1;
    ExAcquireSpinLockSharedAtDpcLevel(&Queued);
    ReaderHas = 1;
    EXPECT(WriterHas == 1); /* which came before, though the lock was shared when this one asked */
    ExReleaseSpinLockSharedFromDpcLevel(&Queued);
    KeLowerIrql(Old);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG WriterComesFirst(VOID)
{
    PVOID Writer, Reader;
    KAFFINITY Before;
    LONG Were = Wrong;
    KIRQL Old;

    Asked = WriterWaits = WriterHas = ReaderHas = 0;
    Before = KeSetSystemAffinityThreadEx(1);
    CHECK(NT_SUCCESS(StartThread(QueuedWriter, NULL, &Writer)));
    CHECK(NT_SUCCESS(StartThread(LateReader, NULL, &Reader)));
    Old = ExAcquireSpinLockShared(&Queued);
    while (!WriterWaits) {
        YieldProcessor();
    }
    EXPECT(!ExTryConvertSharedSpinLockExclusive(&Queued)); /* a writer waits */
    EXPECT(!WriterHas && !ReaderHas);
    ExReleaseSpinLockShared(&Queued, Old);
    KeRevertToUserAffinityThreadEx(Before);
    CHECK(Join(Writer) == STATUS_SUCCESS && Join(Reader) == STATUS_SUCCESS);
    CHECK(WriterHas && ReaderHas && Queued == 0 && Wrong == Were);
    return 0;
}

static KSPIN_LOCK Plain;
static volatile LONG ThreadedRan;

static VOID NTAPI Threaded(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    KIRQL Before = LevelNow(), Old = KeAcquireSpinLockForDpc(&Plain);
    KLOCK_QUEUE_HANDLE Handle;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    EXPECT(Old == Before && LevelNow() == DISPATCH_LEVEL && !KeTestSpinLock(&Plain));
    KeReleaseSpinLockForDpc(&Plain, Old);
    EXPECT(LevelNow() == Before && KeTestSpinLock(&Plain));
    KeAcquireInStackQueuedSpinLockForDpc(&Plain, &Handle);
    EXPECT(LevelNow() == DISPATCH_LEVEL && !KeTestSpinLock(&Plain));
    KeReleaseInStackQueuedSpinLockForDpc(&Handle);
    EXPECT(LevelNow() == Before && KeTestSpinLock(&Plain));
    ThreadedRan = 1;
}

static ULONG ThreadedDpcs(VOID)
{
    KLOCK_QUEUE_HANDLE Handle;
    LONG Were = Wrong;
    KIRQL Old, Held;
    KDPC Dpc;

    KeInitializeSpinLock(&Plain);
    ThreadedRan = 0;
    KeInitializeThreadedDpc(&Dpc, Threaded, NULL);
    CHECK(KeInsertQueueDpc(&Dpc, NULL, NULL));
    KeFlushQueuedDpcs();
    CHECK(ThreadedRan && Wrong == Were);

    /* Where threaded DPCs are enabled they run at PASSIVE_LEVEL. */
    Old = KeAcquireSpinLockForDpc(&Plain);
    Held = LevelNow();
    KeReleaseSpinLockForDpc(&Plain, Old);
    CHECK(Old == PASSIVE_LEVEL && Held == DISPATCH_LEVEL && LevelNow() == PASSIVE_LEVEL);
    KeAcquireInStackQueuedSpinLockForDpc(&Plain, &Handle);
    Held = LevelNow();
    KeReleaseInStackQueuedSpinLockForDpc(&Handle);
    CHECK(Held == DISPATCH_LEVEL && LevelNow() == PASSIVE_LEVEL && KeTestSpinLock(&Plain));
    return 0;
}
