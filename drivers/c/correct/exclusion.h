/* Mutual exclusion: two threads and a DPC count together, under each kind of lock that the kernel has. */
#ifndef EXCLUSION_H
#define EXCLUSION_H

#include "gallery.h"

#define ROUNDS 6

typedef struct _SHARED_COUNT SHARED_COUNT;
typedef VOID ADD_ONE(SHARED_COUNT *Shared);

struct _SHARED_COUNT {
    ADD_ONE *AddOne;
    LONG Count;
    union {
        KSPIN_LOCK Spin;
        FAST_MUTEX Fast;
        KGUARDED_MUTEX Guarded;
        KMUTEX Mutex;
        ERESOURCE Resource;
        KEVENT Token;
        KSEMAPHORE Semaphore;
        EX_SPIN_LOCK Readers;
    };
};

static VOID NTAPI AddsAll(PVOID Context)
{
    SHARED_COUNT *Shared = Context;

    for (ULONG Round = 0; Round < ROUNDS; Round++) {
        Shared->AddOne(Shared);
    }
}

/* Two threads add; nothing may be lost. */
static ULONG AddTogether(SHARED_COUNT *Shared, ADD_ONE *AddOne)
{
    PKTHREAD Other;

    Shared->AddOne = AddOne;
    Shared->Count = 0;
    Other = StartThread(AddsAll, Shared);
    CHECK(Other != NULL);
    AddsAll(Shared);
    JoinThread(Other);
    CHECK(Shared->Count == 2 * ROUNDS);
    return 0;
}

/* An idiom: the count under a lock that is made by Initialize. */
#define ADDED_UNDER(Idiom, Initialize, AddOne)                                                                         \
    static ULONG Idiom(VOID)                                                                                           \
    {                                                                                                                  \
        SHARED_COUNT Shared;                                                                                           \
                                                                                                                       \
        Initialize;                                                                                                    \
        return AddTogether(&Shared, AddOne);                                                                           \
    }

static VOID UnderSpinLock(SHARED_COUNT *Shared)
{
    KIRQL Old;

    KeAcquireSpinLock(&Shared->Spin, &Old);
    Shared->Count++;
    KeReleaseSpinLock(&Shared->Spin, Old);
}

ADDED_UNDER(SpinLock, KeInitializeSpinLock(&Shared.Spin), UnderSpinLock)

static VOID UnderQueuedSpinLock(SHARED_COUNT *Shared)
{
    KLOCK_QUEUE_HANDLE Handle;

    KeAcquireInStackQueuedSpinLock(&Shared->Spin, &Handle);
    Shared->Count++;
    KeReleaseInStackQueuedSpinLock(&Handle);
}

ADDED_UNDER(SpinLockInStackQueued, KeInitializeSpinLock(&Shared.Spin), UnderQueuedSpinLock)

static VOID UnderReaderWriterLock(SHARED_COUNT *Shared)
{
    KIRQL Old = ExAcquireSpinLockShared(&Shared->Readers);
    LONG Seen = Shared->Count;

    ExReleaseSpinLockShared(&Shared->Readers, Old);
    Old = ExAcquireSpinLockExclusive(&Shared->Readers);
    if (Shared->Count >= Seen) {
        Shared->Count++;
    }
    ExReleaseSpinLockExclusive(&Shared->Readers, Old);
}

ADDED_UNDER(SpinLockOfReadersAndWriters, Shared.Readers = 0, UnderReaderWriterLock)

static VOID UnderFastMutex(SHARED_COUNT *Shared)
{
    ExAcquireFastMutex(&Shared->Fast);
    Shared->Count++;
    ExReleaseFastMutex(&Shared->Fast);
}

ADDED_UNDER(FastMutex, ExInitializeFastMutex(&Shared.Fast), UnderFastMutex)

static VOID TryFastMutex(SHARED_COUNT *Shared)
{
    while (!ExTryToAcquireFastMutex(&Shared->Fast)) {
        Delay(1);
    }
    Shared->Count++;
    ExReleaseFastMutex(&Shared->Fast);
}

ADDED_UNDER(FastMutexTried, ExInitializeFastMutex(&Shared.Fast), TryFastMutex)

static VOID UnderUnsafeFastMutex(SHARED_COUNT *Shared)
{
    KeEnterCriticalRegion();
    ExAcquireFastMutexUnsafe(&Shared->Fast);
    Shared->Count++;
    ExReleaseFastMutexUnsafe(&Shared->Fast);
    KeLeaveCriticalRegion();
}

ADDED_UNDER(FastMutexInCriticalRegion, ExInitializeFastMutex(&Shared.Fast), UnderUnsafeFastMutex)

static VOID UnderGuardedMutex(SHARED_COUNT *Shared)
{
    KeAcquireGuardedMutex(&Shared->Guarded);
    Shared->Count++;
    KeReleaseGuardedMutex(&Shared->Guarded);
}

ADDED_UNDER(GuardedMutex, KeInitializeGuardedMutex(&Shared.Guarded), UnderGuardedMutex)

static VOID UnderMutexTwice(SHARED_COUNT *Shared)
{
    WaitFor(&Shared->Mutex);
    WaitFor(&Shared->Mutex); /* its owner may take it again */
    Shared->Count++;
    KeReleaseMutex(&Shared->Mutex, FALSE);
    KeReleaseMutex(&Shared->Mutex, FALSE);
}

ADDED_UNDER(MutexTakenTwice, KeInitializeMutex(&Shared.Mutex, 0), UnderMutexTwice)

static VOID UnderResource(SHARED_COUNT *Shared)
{
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Shared->Resource, TRUE);
    if (Shared->Count < 0) {
        Shared->Count = MINLONG;
    }
    ExReleaseResourceLite(&Shared->Resource);
    ExAcquireResourceExclusiveLite(&Shared->Resource, TRUE);
    ExAcquireResourceExclusiveLite(&Shared->Resource, TRUE); /* and again */
    Shared->Count++;
    ExReleaseResourceLite(&Shared->Resource);
    ExConvertExclusiveToSharedLite(&Shared->Resource);
    ExReleaseResourceLite(&Shared->Resource);
    KeLeaveCriticalRegion();
}

static ULONG Resource(VOID)
{
    SHARED_COUNT *Shared = Nonpaged(sizeof(*Shared)); /* a resource lies in nonpaged memory, 8-byte aligned */
    ULONG Failed;

    CHECK(Shared != NULL);
    CHECK(NT_SUCCESS(ExInitializeResourceLite(&Shared->Resource)));
    Failed = AddTogether(Shared, UnderResource);
    ExDeleteResourceLite(&Shared->Resource);
    ExFreePoolWithTag(Shared, TAG);
    return Failed;
}

static VOID UnderToken(SHARED_COUNT *Shared)
{
    WaitFor(&Shared->Token);
    Shared->Count++;
    KeSetEvent(&Shared->Token, IO_NO_INCREMENT, FALSE);
}

/* An event that is signalled while the data are free. */
ADDED_UNDER(EventAsLock, KeInitializeEvent(&Shared.Token, SynchronizationEvent, TRUE), UnderToken)

static VOID UnderSemaphore(SHARED_COUNT *Shared)
{
    WaitFor(&Shared->Semaphore);
    Shared->Count++;
    KeReleaseSemaphore(&Shared->Semaphore, IO_NO_INCREMENT, 1, FALSE);
}

ADDED_UNDER(SemaphoreAsLock, KeInitializeSemaphore(&Shared.Semaphore, 1, 1), UnderSemaphore)

static VOID AddInterlocked(SHARED_COUNT *Shared)
{
    LONG Seen = Shared->Count, Found;

    while ((Found = InterlockedCompareExchange(&Shared->Count, Seen + 1, Seen)) != Seen) {
        Seen = Found;
    }
}

static ULONG Interlocked(VOID)
{
    SHARED_COUNT Shared;

    return AddTogether(&Shared, AddInterlocked);
}

static VOID AtHighLevel(SHARED_COUNT *Shared)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeAcquireSpinLockAtDpcLevel(&Shared->Spin);
    Shared->Count++;
    KeReleaseSpinLockFromDpcLevel(&Shared->Spin);
    KeLowerIrql(Old);
}

ADDED_UNDER(SpinLockAtDispatchLevel, KeInitializeSpinLock(&Shared.Spin), AtHighLevel)

typedef struct _WITH_DPC {
    KDPC Dpc;
    KSPIN_LOCK Lock;
    LONG Count;
} WITH_DPC;

static VOID NTAPI AddsInDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    WITH_DPC *With = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeAcquireSpinLockAtDpcLevel(&With->Lock);
    With->Count++;
    KeReleaseSpinLockFromDpcLevel(&With->Lock);
}

/* What a thread and a DPC share is under a lock that the thread takes by raising its level. */
static ULONG SpinLockOfThreadAndDpc(VOID)
{
    WITH_DPC With = {.Count = 0};
    LONG Queued = 0;

    KeInitializeSpinLock(&With.Lock);
    KeInitializeDpc(&With.Dpc, AddsInDpc, &With);
    for (ULONG Round = 0; Round < ROUNDS; Round++) {
        KIRQL Old;

        Queued += KeInsertQueueDpc(&With.Dpc, NULL, NULL);
        KeAcquireSpinLock(&With.Lock, &Old);
        With.Count++;
        KeReleaseSpinLock(&With.Lock, Old);
    }
    KeFlushQueuedDpcs();
    CHECK(With.Count == ROUNDS + Queued);
    return 0;
}

/* Run-down protection: who is in is waited for; who comes too late stays out. */
static ULONG RundownProtection(VOID)
{
    EX_RUNDOWN_REF Rundown;

    ExInitializeRundownProtection(&Rundown);
    CHECK(ExAcquireRundownProtection(&Rundown));
    CHECK(ExAcquireRundownProtection(&Rundown));
    ExReleaseRundownProtection(&Rundown);
    ExReleaseRundownProtection(&Rundown);
    ExWaitForRundownProtectionRelease(&Rundown);
    CHECK(!ExAcquireRundownProtection(&Rundown));
    return 0;
}

typedef struct _POPPED {
    SLIST_ENTRY Link;
    LONG Value;
} POPPED;

/* A sequenced list needs no lock; its header and entries are aligned at 16 bytes. */
static ULONG SequencedList(VOID)
{
    DECLSPEC_ALIGN(16) SLIST_HEADER Head;
    POPPED *Block = Nonpaged(3 * sizeof(*Block));
    LONG Sum = 0;
    PSLIST_ENTRY Link;

    CHECK(Block != NULL);
    InitializeSListHead(&Head);
    for (LONG Index = 0; Index < 3; Index++) {
        Block[Index].Value = Index + 1;
        InterlockedPushEntrySList(&Head, &Block[Index].Link);
    }
    CHECK(ExQueryDepthSList(&Head) == 3);
    while ((Link = InterlockedPopEntrySList(&Head)) != NULL) {
        Sum = Sum * 10 + CONTAINING_RECORD(Link, POPPED, Link)->Value;
    }
    CHECK(Sum == 321);
    ExFreePoolWithTag(Block, TAG);
    return 0;
}

/* A semaphore has a limit; a release beyond it raises, and changes nothing. */
static ULONG SemaphoreBeyondItsLimit(VOID)
{
    KSEMAPHORE Semaphore;
    volatile NTSTATUS Raised = STATUS_SUCCESS;

    KeInitializeSemaphore(&Semaphore, 1, 2);
    __try {
        KeReleaseSemaphore(&Semaphore, IO_NO_INCREMENT, 2, FALSE);
    } __except (1) {
        Raised = GetExceptionCode();
    }
    CHECK(Raised == STATUS_SEMAPHORE_LIMIT_EXCEEDED);
    CHECK(KeReadStateSemaphore(&Semaphore) == 1);
    return 0;
}

#define EXCLUSION_IDIOMS                                                                                               \
    IDIOM(SemaphoreBeyondItsLimit)                                                                                     \
    IDIOM(SpinLock)                                                                                                    \
    IDIOM(SpinLockInStackQueued)                                                                                       \
    IDIOM(SpinLockOfReadersAndWriters)                                                                                 \
    IDIOM(SpinLockAtDispatchLevel)                                                                                     \
    IDIOM(SpinLockOfThreadAndDpc)                                                                                      \
    IDIOM(FastMutex)                                                                                                   \
    IDIOM(FastMutexTried)                                                                                              \
    IDIOM(FastMutexInCriticalRegion)                                                                                   \
    IDIOM(GuardedMutex)                                                                                                \
    IDIOM(MutexTakenTwice)                                                                                             \
    IDIOM(Resource)                                                                                                    \
    IDIOM(EventAsLock)                                                                                                 \
    IDIOM(SemaphoreAsLock)                                                                                             \
    IDIOM(Interlocked)                                                                                                 \
    IDIOM(RundownProtection)                                                                                           \
    IDIOM(SequencedList)

#endif
