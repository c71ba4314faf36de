/* Pairs of mutexes, resources, push locks, run-down protection and remove locks. */
#ifndef PAIRS_EXCLUSION_H
#define PAIRS_EXCLUSION_H

#include "pairs.h"

typedef ULONG_PTR PUSH_LOCK; /* EX_PUSH_LOCK */
NTKERNELAPI VOID NTAPI ExInitializePushLock(PUSH_LOCK *Lock);
NTKERNELAPI VOID NTAPI ExAcquirePushLockExclusiveEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI VOID NTAPI ExReleasePushLockExclusiveEx(PUSH_LOCK *Lock, ULONG Flags);

static FAST_MUTEX Fast;
static KGUARDED_MUTEX Guarded;
static PUSH_LOCK Push;
static ERESOURCE Resource;
static EX_RUNDOWN_REF Rundown;

static VOID FastMutexApcs(BOOLEAN Wrong)
{
    ExInitializeFastMutex(&Fast);
    if (!Wrong) {
        KeEnterCriticalRegion();
    }
    ExAcquireFastMutexUnsafe(&Fast);
    ExReleaseFastMutexUnsafe(&Fast);
    if (!Wrong) {
        KeLeaveCriticalRegion();
    }
}

static VOID FastMutexNotOwned(BOOLEAN Wrong)
{
    KIRQL Old;

    ExInitializeFastMutex(&Fast);
    if (Wrong) {
        KeRaiseIrql(APC_LEVEL, &Old);
    } else {
        ExAcquireFastMutex(&Fast);
    }
    ExReleaseFastMutex(&Fast);
}

static VOID FastMutexRecursive(BOOLEAN Wrong)
{
    ExInitializeFastMutex(&Fast);
    ExAcquireFastMutex(&Fast);
    if (!Wrong) {
        ExReleaseFastMutex(&Fast);
    }
    ExAcquireFastMutex(&Fast);
    ExReleaseFastMutex(&Fast);
}

static VOID FastMutexUninitialized(BOOLEAN Wrong)
{
    static FAST_MUTEX Own;

    if (!Wrong) {
        ExInitializeFastMutex(&Own);
    }
    ExAcquireFastMutex(&Own);
    ExReleaseFastMutex(&Own);
}

static VOID GuardedMutexApcs(BOOLEAN Wrong)
{
    KeInitializeGuardedMutex(&Guarded);
    if (!Wrong) {
        KeEnterGuardedRegion();
    }
    KeAcquireGuardedMutexUnsafe(&Guarded);
    KeReleaseGuardedMutexUnsafe(&Guarded);
    if (!Wrong) {
        KeLeaveGuardedRegion();
    }
}

/* Nothing waits for anything, and never will in one thread. */
static VOID LockOrderInversion(BOOLEAN Wrong)
{
    static KSPIN_LOCK First, Second;
    KIRQL Old;

    KeInitializeSpinLock(&First);
    KeInitializeSpinLock(&Second);
    KeAcquireSpinLock(&First, &Old);
    KeAcquireSpinLockAtDpcLevel(&Second);
    KeReleaseSpinLockFromDpcLevel(&Second);
    KeReleaseSpinLock(&First, Old);
    KeAcquireSpinLock(Wrong ? &Second : &First, &Old);
    KeAcquireSpinLockAtDpcLevel(Wrong ? &First : &Second);
    KeReleaseSpinLockFromDpcLevel(Wrong ? &First : &Second);
    KeReleaseSpinLock(Wrong ? &Second : &First, Old);
}

static VOID PushLockApcs(BOOLEAN Wrong)
{
    ExInitializePushLock(&Push);
    if (!Wrong) {
        KeEnterCriticalRegion();
    }
    ExAcquirePushLockExclusiveEx(&Push, 0);
    ExReleasePushLockExclusiveEx(&Push, 0);
    if (!Wrong) {
        KeLeaveCriticalRegion();
    }
}

static VOID PushLockDamaged(BOOLEAN Wrong)
{
    ExInitializePushLock(&Push);
    if (Wrong) {
        Push = 0x4141414141414141;
    }
    KeEnterCriticalRegion();
    ExAcquirePushLockExclusiveEx(&Push, 0);
    ExReleasePushLockExclusiveEx(&Push, 0);
    KeLeaveCriticalRegion();
}

static VOID PushLockInitializedWhileHeld(BOOLEAN Wrong)
{
    ExInitializePushLock(&Push);
    KeEnterCriticalRegion();
    ExAcquirePushLockExclusiveEx(&Push, 0);
    if (!Wrong) {
        ExReleasePushLockExclusiveEx(&Push, 0);
    }
    ExInitializePushLock(&Push);
    KeLeaveCriticalRegion();
}

static VOID PushLockNotHeld(BOOLEAN Wrong)
{
    ExInitializePushLock(&Push);
    KeEnterCriticalRegion();
    if (!Wrong) {
        ExAcquirePushLockExclusiveEx(&Push, 0);
    }
    ExReleasePushLockExclusiveEx(&Push, 0);
    KeLeaveCriticalRegion();
}

static VOID PushLockRecursion(BOOLEAN Wrong)
{
    ExInitializePushLock(&Push);
    KeEnterCriticalRegion();
    ExAcquirePushLockExclusiveEx(&Push, 0);
    if (!Wrong) {
        ExReleasePushLockExclusiveEx(&Push, 0);
    }
    ExAcquirePushLockExclusiveEx(&Push, 0);
    ExReleasePushLockExclusiveEx(&Push, 0);
    KeLeaveCriticalRegion();
}

static VOID ResourceApcsEnabled(BOOLEAN Wrong)
{
    ExInitializeResourceLite(&Resource);
    if (!Wrong) {
        KeEnterCriticalRegion();
    }
    ExAcquireResourceExclusiveLite(&Resource, TRUE);
    ExReleaseResourceLite(&Resource);
    if (!Wrong) {
        KeLeaveCriticalRegion();
    }
    ExDeleteResourceLite(&Resource);
}

static VOID ResourceDeletedWhileOwned(BOOLEAN Wrong)
{
    ExInitializeResourceLite(&Resource);
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Resource, TRUE);
    if (!Wrong) {
        ExReleaseResourceLite(&Resource);
    }
    ExDeleteResourceLite(&Resource);
    KeLeaveCriticalRegion();
}

static VOID ResourceInitializedTwice(BOOLEAN Wrong)
{
    ExInitializeResourceLite(&Resource);
    if (!Wrong) {
        ExDeleteResourceLite(&Resource);
    }
    ExInitializeResourceLite(&Resource);
    ExDeleteResourceLite(&Resource);
}

static VOID ResourceLeak(BOOLEAN Wrong)
{
    ExInitializeResourceLite(&Resource);
    if (!Wrong) {
        ExDeleteResourceLite(&Resource);
    }
}

static VOID ResourceNotOwned(BOOLEAN Wrong)
{
    ExInitializeResourceLite(&Resource);
    KeEnterCriticalRegion();
    if (!Wrong) {
        ExAcquireResourceExclusiveLite(&Resource, TRUE);
    }
    ExReleaseResourceLite(&Resource);
    KeLeaveCriticalRegion();
    ExDeleteResourceLite(&Resource);
}

static VOID ResourceSelfDeadlock(BOOLEAN Wrong)
{
    ExInitializeResourceLite(&Resource);
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Resource, TRUE);
    if (!Wrong) {
        ExReleaseResourceLite(&Resource);
    }
    ExAcquireResourceExclusiveLite(&Resource, TRUE);
    ExReleaseResourceLite(&Resource);
    KeLeaveCriticalRegion();
    ExDeleteResourceLite(&Resource);
}

static VOID ResourceUnaligned(BOOLEAN Wrong)
{
    static UCHAR Room[sizeof(ERESOURCE) + 16] __attribute__((aligned(16)));
    PERESOURCE Own = (PERESOURCE)(Room + (Wrong ? 4 : 8));

    ExInitializeResourceLite(Own);
    ExDeleteResourceLite(Own);
}

static VOID ResourceUninitialized(BOOLEAN Wrong)
{
    static ERESOURCE Own;

    if (!Wrong) {
        ExInitializeResourceLite(&Own);
    }
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Own, TRUE);
    ExReleaseResourceLite(&Own);
    KeLeaveCriticalRegion();
    ExDeleteResourceLite(&Own);
}

static VOID RundownNotComplete(BOOLEAN Wrong)
{
    ExInitializeRundownProtection(&Rundown);
    ExAcquireRundownProtection(&Rundown);
    if (!Wrong) {
        ExReleaseRundownProtection(&Rundown);
        ExWaitForRundownProtectionRelease(&Rundown);
    }
    ExReInitializeRundownProtection(&Rundown);
}

static VOID RundownNotHeld(BOOLEAN Wrong)
{
    ExInitializeRundownProtection(&Rundown);
    if (!Wrong) {
        ExAcquireRundownProtection(&Rundown);
    }
    ExReleaseRundownProtection(&Rundown);
}

static VOID RundownOfSize(BOOLEAN TooSmall, BOOLEAN NotInitialized)
{
    SIZE_T Bytes = ExSizeOfRundownProtectionCacheAware();
    PEX_RUNDOWN_REF_CACHE_AWARE Own = Nonpaged(Bytes);

    if (Own == NULL) {
        return;
    }
    if (!NotInitialized) {
        ExInitializeRundownProtectionCacheAware(Own, TooSmall ? Bytes - 1 : Bytes);
    }
    ExAcquireRundownProtectionCacheAware(Own);
    ExReleaseRundownProtectionCacheAware(Own);
    ExWaitForRundownProtectionReleaseCacheAware(Own);
    Free(Own);
}

static VOID RundownTooSmall(BOOLEAN Wrong)
{
    RundownOfSize(Wrong, FALSE);
}

static VOID RundownNotInitialized(BOOLEAN Wrong)
{
    RundownOfSize(FALSE, Wrong);
}

static VOID RemoveLockTag(BOOLEAN Wrong)
{
    static IO_REMOVE_LOCK Own;

    IoInitializeRemoveLock(&Own, TAG, 0, 0);
    IoAcquireRemoveLock(&Own, &Own);
    IoReleaseRemoveLock(&Own, Wrong ? NULL : &Own);
}

static VOID RemoveLockInitializedAgain(BOOLEAN Wrong)
{
    static IO_REMOVE_LOCK Own;

    IoInitializeRemoveLock(&Own, TAG, 0, 0);
    IoAcquireRemoveLock(&Own, NULL);
    if (!Wrong) {
        IoReleaseRemoveLock(&Own, NULL);
    }
    IoInitializeRemoveLock(&Own, TAG, 0, 0);
}

static VOID RemoveLockNotInitialized(BOOLEAN Wrong)
{
    static IO_REMOVE_LOCK Own;

    if (!Wrong) {
        IoInitializeRemoveLock(&Own, TAG, 0, 0);
    }
    IoAcquireRemoveLock(&Own, NULL);
    IoReleaseRemoveLock(&Own, NULL);
}

#define EXCLUSION_PAIRS                                                                                                \
    PAIR("fast-mutex-apcs", FastMutexApcs)                                                                             \
    PAIR("fast-mutex-not-owned", FastMutexNotOwned)                                                                    \
    PAIR("fast-mutex-recursive", FastMutexRecursive)                                                                   \
    PAIR("fast-mutex-uninitialized", FastMutexUninitialized)                                                           \
    PAIR("guarded-mutex-apcs", GuardedMutexApcs)                                                                       \
    PAIR("lock-order-inversion", LockOrderInversion)                                                                   \
    PAIR("push-lock-apcs", PushLockApcs)                                                                               \
    PAIR("push-lock-damaged", PushLockDamaged)                                                                         \
    PAIR("push-lock-initialized-while-held", PushLockInitializedWhileHeld)                                             \
    PAIR("push-lock-not-held", PushLockNotHeld)                                                                        \
    PAIR("push-lock-recursion", PushLockRecursion)                                                                     \
    PAIR("remove-lock-initialized-again", RemoveLockInitializedAgain)                                                  \
    PAIR("remove-lock-not-initialized", RemoveLockNotInitialized)                                                      \
    PAIR("remove-lock-tag", RemoveLockTag)                                                                             \
    PAIR("resource-apcs-enabled", ResourceApcsEnabled)                                                                 \
    PAIR("resource-deleted-while-owned", ResourceDeletedWhileOwned)                                                    \
    PAIR("resource-initialized-twice", ResourceInitializedTwice)                                                       \
    PAIR("resource-leak", ResourceLeak)                                                                                \
    PAIR("resource-not-owned", ResourceNotOwned)                                                                       \
    PAIR("resource-self-deadlock", ResourceSelfDeadlock)                                                               \
    PAIR("resource-unaligned", ResourceUnaligned)                                                                      \
    PAIR("resource-uninitialized", ResourceUninitialized)                                                              \
    PAIR("rundown-not-complete", RundownNotComplete)                                                                   \
    PAIR("rundown-not-held", RundownNotHeld)                                                                           \
    PAIR("rundown-not-initialized", RundownNotInitialized)                                                             \
    PAIR("rundown-too-small", RundownTooSmall)

#endif
