/* Stories of mutual exclusion: levels, spin locks, critical regions, fast and guarded mutexes, resources. */
#include "services.h"

static ULONG Levels(VOID)
{
    CHECK(NtKeGetCurrentIrql() == PASSIVE_LEVEL);
    CHECK(NtKfRaiseIrql(APC_LEVEL) == PASSIVE_LEVEL);
    CHECK(NtKeGetCurrentIrql() == APC_LEVEL);
    CHECK(NtKeRaiseIrqlToDpcLevel() == APC_LEVEL);
    CHECK(NtKeGetCurrentIrql() == DISPATCH_LEVEL);
    CHECK(KeGetCurrentIrql() == DISPATCH_LEVEL); /* inline: CR8 */
    NtKeLowerIrql(APC_LEVEL);
    CHECK(NtKeGetCurrentIrql() == APC_LEVEL);
    NtKeLowerIrql(PASSIVE_LEVEL);
    CHECK(NtKeGetCurrentIrql() == PASSIVE_LEVEL);
    return 0;
}

static ULONG SpinLocks(VOID)
{
    KLOCK_QUEUE_HANDLE Handle;
    BOOLEAN Free, Taken;
    KIRQL OldIrql, Held;
    KSPIN_LOCK Lock;

    NtKeInitializeSpinLock(&Lock);
    CHECK(KeTestSpinLock(&Lock));
    KeAcquireSpinLock(&Lock, &OldIrql);
    Held = NtKeGetCurrentIrql();
    Free = KeTestSpinLock(&Lock);
    Taken = KeTryToAcquireSpinLockAtDpcLevel(&Lock);
    KeReleaseSpinLock(&Lock, OldIrql);
    CHECK(OldIrql == PASSIVE_LEVEL && Held == DISPATCH_LEVEL);
    CHECK(NtKeGetCurrentIrql() == PASSIVE_LEVEL);
    CHECK(!Free && !Taken);

    OldIrql = NtKeRaiseIrqlToDpcLevel();
    Taken = KeTryToAcquireSpinLockAtDpcLevel(&Lock);
    KeReleaseSpinLockFromDpcLevel(&Lock);
    KeAcquireSpinLockAtDpcLevel(&Lock);
    Free = KeTestSpinLock(&Lock);
    KeReleaseSpinLockFromDpcLevel(&Lock);
    KeAcquireInStackQueuedSpinLockAtDpcLevel(&Lock, &Handle);
    Held = KeTestSpinLock(&Lock);
    KeReleaseInStackQueuedSpinLockFromDpcLevel(&Handle);
    NtKeLowerIrql(OldIrql);
    CHECK(Taken && !Free && !Held);

    KeAcquireInStackQueuedSpinLock(&Lock, &Handle);
    Held = NtKeGetCurrentIrql();
    Free = KeTestSpinLock(&Lock);
    KeReleaseInStackQueuedSpinLock(&Handle);
    CHECK(Held == DISPATCH_LEVEL && !Free);
    CHECK(NtKeGetCurrentIrql() == PASSIVE_LEVEL && KeTestSpinLock(&Lock));
    return 0;
}

static ULONG Regions(VOID)
{
    CHECK(!KeAreApcsDisabled() && !KeAreAllApcsDisabled());
    KeEnterCriticalRegion();
    CHECK(KeAreApcsDisabled() && !KeAreAllApcsDisabled());
    KeEnterGuardedRegion();
    CHECK(KeAreAllApcsDisabled());
    KeLeaveGuardedRegion();
    CHECK(!KeAreAllApcsDisabled() && KeAreApcsDisabled());
    KeLeaveCriticalRegion();
    CHECK(!KeAreApcsDisabled());
    NtKfRaiseIrql(APC_LEVEL);
    CHECK(KeAreAllApcsDisabled()); /* at APC_LEVEL no APC is delivered either */
    NtKeLowerIrql(PASSIVE_LEVEL);
    return 0;
}

/* Asks for one lock of each kind without waiting, from a thread of its own. */
typedef struct _RIVAL {
    PFAST_MUTEX Fast;
    PKGUARDED_MUTEX Guarded;
    BOOLEAN GotFast;
    BOOLEAN GotGuarded;
} RIVAL;

static VOID NTAPI Rival(PVOID Context)
{
    RIVAL *Rival = Context;

    Rival->GotFast = ExTryToAcquireFastMutex(Rival->Fast);
    if (Rival->GotFast) {
        ExReleaseFastMutex(Rival->Fast);
    }
    Rival->GotGuarded = KeTryToAcquireGuardedMutex(Rival->Guarded);
    if (Rival->GotGuarded) {
        KeReleaseGuardedMutex(Rival->Guarded);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG Compete(RIVAL *With)
{
    PVOID Thread;

    CHECK(NT_SUCCESS(StartThread(Rival, With, &Thread)));
    CHECK(Join(Thread) == STATUS_SUCCESS);
    return 0;
}

static ULONG FastMutexes(VOID)
{
    KGUARDED_MUTEX Guarded;
    FAST_MUTEX Fast;
    RIVAL With = {&Fast, &Guarded, TRUE, TRUE};
    KIRQL Held;

    ExInitializeFastMutex(&Fast);
    KeInitializeGuardedMutex(&Guarded);
    ExAcquireFastMutex(&Fast);
    Held = NtKeGetCurrentIrql();
    CHECK(Held == APC_LEVEL);
    ExReleaseFastMutex(&Fast);
    CHECK(NtKeGetCurrentIrql() == PASSIVE_LEVEL);
    CHECK(ExTryToAcquireFastMutex(&Fast));
    ExReleaseFastMutex(&Fast);

    KeEnterCriticalRegion();
    ExAcquireFastMutexUnsafe(&Fast);
    CHECK(NtKeGetCurrentIrql() == PASSIVE_LEVEL);
    KeAcquireGuardedMutex(&Guarded);
    CHECK(KeAreAllApcsDisabled() && NtKeGetCurrentIrql() == PASSIVE_LEVEL);
    CHECK_ALL(Compete(&With));
    CHECK(!With.GotFast && !With.GotGuarded);
    KeReleaseGuardedMutex(&Guarded);
    ExReleaseFastMutexUnsafe(&Fast);
    KeLeaveCriticalRegion();

    KeEnterGuardedRegion();
    KeAcquireGuardedMutexUnsafe(&Guarded);
    CHECK_ALL(Compete(&With));
    CHECK(With.GotFast && !With.GotGuarded);
    KeReleaseGuardedMutexUnsafe(&Guarded);
    CHECK(KeAreAllApcsDisabled()); /* the region is the caller's */
    KeLeaveGuardedRegion();

    CHECK_ALL(Compete(&With));
    CHECK(With.GotFast && With.GotGuarded);
    return 0;
}

/* A thread that wants a resource for itself. */
typedef struct _WRITER {
    PERESOURCE Resource;
    BOOLEAN AtOnce; /* whether it had it without waiting */
    BOOLEAN Waits;
} WRITER;

static VOID NTAPI Writer(PVOID Context)
{
    WRITER *Writer = Context;

    KeEnterCriticalRegion();
    Writer->AtOnce = ExAcquireResourceExclusiveLite(Writer->Resource, FALSE);
    if (Writer->AtOnce || (Writer->Waits && ExAcquireResourceExclusiveLite(Writer->Resource, TRUE))) {
        ExReleaseResourceLite(Writer->Resource);
    }
    KeLeaveCriticalRegion();
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG Exclusive(PERESOURCE Resource)
{
    WRITER Rival = {Resource, TRUE, FALSE};
    PVOID Thread;

    KeEnterCriticalRegion();
    CHECK(ExAcquireResourceExclusiveLite(Resource, TRUE));
    CHECK(ExAcquireResourceExclusiveLite(Resource, FALSE)); /* its owner may take it again */
    CHECK(ExIsResourceAcquiredExclusiveLite(Resource));
    CHECK(ExIsResourceAcquiredSharedLite(Resource) == 2);
    CHECK(NT_SUCCESS(StartThread(Writer, &Rival, &Thread)));
    CHECK(Join(Thread) == STATUS_SUCCESS);
    CHECK(!Rival.AtOnce);
    ExReleaseResourceLite(Resource);
    ExConvertExclusiveToSharedLite(Resource);
    CHECK(!ExIsResourceAcquiredExclusiveLite(Resource));
    CHECK(ExIsResourceAcquiredSharedLite(Resource) == 1);
    ExReleaseResourceForThreadLite(Resource, (ERESOURCE_THREAD)NtPsGetCurrentThread());
    CHECK(ExIsResourceAcquiredSharedLite(Resource) == 0);
    KeLeaveCriticalRegion();
    return 0;
}

/* While a thread waits to have it alone: who may share it still. */
static ULONG Shared(PERESOURCE Resource)
{
    WRITER Waiting = {Resource, TRUE, TRUE};
    LARGE_INTEGER Interval = After(MILLISECONDS(2));
    PVOID Thread;

    KeEnterCriticalRegion();
    CHECK(ExAcquireResourceSharedLite(Resource, TRUE));
    CHECK(NT_SUCCESS(StartThread(Writer, &Waiting, &Thread)));
    KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    CHECK(ExGetExclusiveWaiterCount(Resource) == 1);
    CHECK(ExGetSharedWaiterCount(Resource) == 0);
    CHECK(ExAcquireSharedStarveExclusive(Resource, FALSE));
    ExReleaseResourceLite(Resource);
    CHECK(!ExAcquireSharedWaitForExclusive(Resource, FALSE));
    ExReleaseResourceLite(Resource);
    KeLeaveCriticalRegion();
    CHECK(Join(Thread) == STATUS_SUCCESS);
    CHECK(!Waiting.AtOnce && ExGetExclusiveWaiterCount(Resource) == 0);
    return 0;
}

static ULONG Resources(VOID)
{
    PERESOURCE Resource = ExAllocatePoolWithTag(NonPagedPool, sizeof(ERESOURCE), SERVICES_TAG);
    PVOID Owner = (PVOID)((ULONG_PTR)Resource | 3); /* as documented: its two lowest bits are set */

    CHECK(Resource != NULL);
    CHECK(NT_SUCCESS(ExInitializeResourceLite(Resource)));
    CHECK_ALL(Exclusive(Resource));
    CHECK_ALL(Shared(Resource));

    ExEnterCriticalRegionAndAcquireResourceExclusive(Resource);
    CHECK(KeAreApcsDisabled() && ExIsResourceAcquiredExclusiveLite(Resource));
    ExReleaseResourceAndLeaveCriticalRegion(Resource);
    CHECK(!KeAreApcsDisabled());
    ExEnterCriticalRegionAndAcquireResourceShared(Resource);
    CHECK(ExIsResourceAcquiredSharedLite(Resource) == 1 && !ExIsResourceAcquiredExclusiveLite(Resource));
    ExSetResourceOwnerPointer(Resource, Owner);
    ExReleaseResourceForThreadLite(Resource, (ERESOURCE_THREAD)Owner);
    KeLeaveCriticalRegion();

    Resource->ContentionCount = 9;
    CHECK(NT_SUCCESS(ExReinitializeResourceLite(Resource)) && Resource->ContentionCount == 0);
    KeEnterCriticalRegion();
    CHECK(ExAcquireSharedWaitForExclusive(Resource, FALSE) && ExIsResourceAcquiredSharedLite(Resource) == 1);
    ExReleaseResourceLite(Resource);
    CHECK(ExAcquireResourceExclusiveLite(Resource, FALSE));
    ExReleaseResourceLite(Resource);
    KeLeaveCriticalRegion();
    CHECK(NT_SUCCESS(ExDeleteResourceLite(Resource)));
    ExFreePoolWithTag(Resource, SERVICES_TAG);
    return 0;
}
