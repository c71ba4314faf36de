/* What a driver must not do with these locks; each ends in a verdict or, where it says so, in a warning. */
#include "locks.h"

static EX_SPIN_LOCK Bad, BadToo;
static KSPIN_LOCK BadPlain;
static PUSH_LOCK BadPush;
static volatile LONG Ready;

static VOID AloneTwice(VOID)
{
    KIRQL Old = ExAcquireSpinLockExclusive(&Bad);

    ExAcquireSpinLockExclusiveAtDpcLevel(&Bad);
    ExReleaseSpinLockExclusive(&Bad, Old);
}

static VOID SharedThenAlone(VOID)
{
    KIRQL Old = ExAcquireSpinLockShared(&Bad);

    ExAcquireSpinLockExclusiveAtDpcLevel(&Bad);
    ExReleaseSpinLockShared(&Bad, Old);
}

static VOID AloneThenShared(VOID)
{
    KIRQL Old = ExAcquireSpinLockExclusive(&Bad);

    ExAcquireSpinLockSharedAtDpcLevel(&Bad);
    ExReleaseSpinLockExclusive(&Bad, Old);
}

/* A warning: it goes well until a thread waits to have the lock alone. */
static VOID SharedTwice(VOID)
{
    KIRQL Old = ExAcquireSpinLockShared(&Bad);

    ExAcquireSpinLockSharedAtDpcLevel(&Bad);
    ExReleaseSpinLockSharedFromDpcLevel(&Bad);
    ExReleaseSpinLockShared(&Bad, Old);
}

static VOID ReleaseNotHeld(VOID)
{
    KIRQL Old = KeRaiseIrqlToDpcLevel();

    ExReleaseSpinLockShared(&Bad, Old);
}

static VOID ReleaseOtherwise(VOID)
{
    KIRQL Old = ExAcquireSpinLockShared(&Bad);

    ExReleaseSpinLockExclusive(&Bad, Old);
}

static VOID ConvertNotShared(VOID)
{
    KIRQL Old = ExAcquireSpinLockExclusive(&Bad);

    ExTryConvertSharedSpinLockExclusive(&Bad);
    ExReleaseSpinLockExclusive(&Bad, Old);
}

static VOID NotZeroed(VOID)
{
    EX_SPIN_LOCK Lock = 0x12345678;

    ExReleaseSpinLockShared(&Lock, ExAcquireSpinLockShared(&Lock));
}

static VOID ReturnSharing(VOID)
{
    ExAcquireSpinLockShared(&Bad);
}

static VOID LowerSharing(VOID)
{
    KIRQL Old = ExAcquireSpinLockShared(&Bad);

    KeLowerIrql(Old);
    EXPECT(Old == PASSIVE_LEVEL);
}

static VOID FreeHeld(VOID)
{
    PEX_SPIN_LOCK Lock = ExAllocatePoolWithTag(NonPagedPool, 64, LOCKS_TAG);
    KIRQL Old;

    *Lock = 0;
    Old = ExAcquireSpinLockShared(Lock);
    ExFreePoolWithTag((PVOID)Lock, LOCKS_TAG);
    KeLowerIrql(Old);
}

static VOID PlainAsShared(VOID)
{
    KIRQL Old;

    KeAcquireSpinLock(&BadPlain, &Old);
    ExAcquireSpinLockSharedAtDpcLevel((PEX_SPIN_LOCK)&BadPlain);
}

/* Each shares one lock and wants the other alone. */
static VOID NTAPI CrossedThread(PVOID Context)
{
    KIRQL Old;

    UNREFERENCED_PARAMETER(Context);
    KeSetSystemAffinityThread(2);
    Old = ExAcquireSpinLockShared(&BadToo);
    InterlockedIncrement(&Ready);
    while (Ready < 2) {
        YieldProcessor();
    }
    ExAcquireSpinLockExclusiveAtDpcLevel(&Bad);
    ExReleaseSpinLockShared(&BadToo, Old);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID Crossed(VOID)
{
    PVOID Thread;
    KIRQL Old;

    KeSetSystemAffinityThread(1);
    StartThread(CrossedThread, NULL, &Thread);
    Old = ExAcquireSpinLockShared(&Bad);
    InterlockedIncrement(&Ready);
    while (Ready < 2) {
        YieldProcessor();
    }
    ExAcquireSpinLockExclusiveAtDpcLevel(&BadToo);
    ExReleaseSpinLockShared(&Bad, Old);
}

/* ---- run-down ---- */

static VOID ReleaseUnheld(VOID)
{
    EX_RUNDOWN_REF Reference;

    ExInitializeRundownProtection(&Reference);
    ExReleaseRundownProtection(&Reference);
}

static VOID ReuseHeld(VOID)
{
    EX_RUNDOWN_REF Reference;

    ExInitializeRundownProtection(&Reference);
    ExAcquireRundownProtection(&Reference);
    ExReInitializeRundownProtection(&Reference);
}

/* A warning. */
static VOID ReuseNotRunDown(VOID)
{
    EX_RUNDOWN_REF Reference;

    ExInitializeRundownProtection(&Reference);
    ExReInitializeRundownProtection(&Reference);
}

static VOID WaitForItself(VOID)
{
    EX_RUNDOWN_REF Reference;

    ExInitializeRundownProtection(&Reference);
    ExAcquireRundownProtection(&Reference);
    ExWaitForRundownProtectionRelease(&Reference);
}

static VOID NoCacheAware(VOID)
{
    static ULONGLONG Memory[64];

    ExAcquireRundownProtectionCacheAware((PEX_RUNDOWN_REF_CACHE_AWARE)Memory);
}

static VOID WaitTooHigh(VOID)
{
    EX_RUNDOWN_REF Reference;
    KIRQL Old;

    ExInitializeRundownProtection(&Reference);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    ExWaitForRundownProtectionRelease(&Reference);
    KeLowerIrql(Old);
}

/* ---- push locks ---- */

static VOID PushTwice(VOID)
{
    ExInitializePushLock(&BadPush);
    KeEnterCriticalRegion();
    ExAcquirePushLockExclusiveEx(&BadPush, 0);
    ExAcquirePushLockExclusiveEx(&BadPush, 0);
}

static VOID PushSharedThenAlone(VOID)
{
    ExInitializePushLock(&BadPush);
    KeEnterCriticalRegion();
    ExAcquirePushLockSharedEx(&BadPush, 0);
    ExAcquirePushLockExclusiveEx(&BadPush, 0);
}

static VOID PushNotHeld(VOID)
{
    ExInitializePushLock(&BadPush);
    KeEnterCriticalRegion();
    ExReleasePushLockExclusiveEx(&BadPush, 0);
}

/* A warning. */
static VOID PushOutsideRegion(VOID)
{
    ExInitializePushLock(&BadPush);
    ExAcquirePushLockExclusiveEx(&BadPush, 0);
    ExReleasePushLockExclusiveEx(&BadPush, 0);
}

static VOID PushTooHigh(VOID)
{
    KIRQL Old;

    ExInitializePushLock(&BadPush);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    ExAcquirePushLockExclusiveEx(&BadPush, 0);
    KeLowerIrql(Old);
}

static VOID NTAPI PushHolder(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    KeEnterCriticalRegion();
    ExAcquirePushLockExclusiveEx(&BadPush, 0);
    Ready = 1;
    for (;;) {
        KEVENT Never;

        KeInitializeEvent(&Never, NotificationEvent, FALSE);
        KeWaitForSingleObject(&Never, Executive, KernelMode, FALSE, NULL);
    }
}

/* The owner never releases it. */
static VOID PushNeverGiven(VOID)
{
    PVOID Thread;

    ExInitializePushLock(&BadPush);
    StartThread(PushHolder, NULL, &Thread);
    while (!Ready) {
        Delay(1);
    }
    KeEnterCriticalRegion();
    ExAcquirePushLockSharedEx(&BadPush, 0);
}

/* ---- guarded mutexes ---- */

/* A warning: an APC may come while it is held. */
static VOID GuardedOutsideRegion(VOID)
{
    KGUARDED_MUTEX Mutex;

    KeInitializeGuardedMutex(&Mutex);
    KeAcquireGuardedMutexUnsafe(&Mutex);
    KeReleaseGuardedMutexUnsafe(&Mutex);
}

static VOID GuardedTwice(VOID)
{
    KGUARDED_MUTEX Mutex;

    KeInitializeGuardedMutex(&Mutex);
    KeAcquireGuardedMutex(&Mutex);
    KeAcquireGuardedMutex(&Mutex);
}

/* ---- KeIpiGenericCall ---- */

static ULONG_PTR NTAPI Nothing(ULONG_PTR Argument)
{
    return Argument;
}

static VOID IpiTooHigh(VOID)
{
    KIRQL Old;

    KeRaiseIrql(HIGH_LEVEL, &Old);
    KeIpiGenericCall(Nothing, 0);
    KeLowerIrql(Old);
}

static ULONG_PTR NTAPI Raises(ULONG_PTR Argument)
{
    KIRQL Old;

    KeRaiseIrql(HIGH_LEVEL, &Old);
    return Argument;
}

static VOID IpiRaises(VOID)
{
    KeIpiGenericCall(Raises, 0);
}

static ULONG_PTR NTAPI GoesLow(ULONG_PTR Argument)
{
    KeLowerIrql(DISPATCH_LEVEL);
    return Argument;
}

static VOID IpiLowers(VOID)
{
    KeIpiGenericCall(GoesLow, 0);
}

static ULONG_PTR NTAPI SetsEvent(ULONG_PTR Argument)
{
    KeSetEvent((PKEVENT)Argument, IO_NO_INCREMENT, FALSE);
    return 0;
}

static VOID IpiSetsEvent(VOID)
{
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    KeIpiGenericCall(SetsEvent, (ULONG_PTR)&Event);
}

/* At HIGH_LEVEL, where no interrupt comes in, wants what the initiator holds. */
static VOID NTAPI WantsAtHigh(PVOID Context)
{
    KIRQL Old;

    UNREFERENCED_PARAMETER(Context);
    KeSetSystemAffinityThread(2);
    KeRaiseIrql(HIGH_LEVEL, &Old);
    Ready = 1;
    KeAcquireSpinLockAtDpcLevel(&BadPlain);
    KeReleaseSpinLockFromDpcLevel(&BadPlain);
    KeLowerIrql(Old);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID IpiWithLock(VOID)
{
    PVOID Thread;
    KIRQL Old;

    KeSetSystemAffinityThread(1);
    KeAcquireSpinLock(&BadPlain, &Old);
    KeReleaseSpinLock(&BadPlain, Old);
    StartThread(WantsAtHigh, NULL, &Thread);
    KeAcquireSpinLock(&BadPlain, &Old);
    while (!Ready) {
        YieldProcessor();
    }
    KeIpiGenericCall(Nothing, 0);
    KeReleaseSpinLock(&BadPlain, Old);
}

/* On every processor but the initiator's wants what the initiator holds. */
static ULONG_PTR NTAPI WantsLock(ULONG_PTR Argument)
{
    if (HERE() != Argument) {
        KeAcquireSpinLockAtDpcLevel(&BadPlain);
        KeReleaseSpinLockFromDpcLevel(&BadPlain);
    }
    return 0;
}

static VOID IpiWantsLock(VOID)
{
    KIRQL Old;

    KeAcquireSpinLock(&BadPlain, &Old);
    KeIpiGenericCall(WantsLock, HERE());
    KeReleaseSpinLock(&BadPlain, Old);
}
