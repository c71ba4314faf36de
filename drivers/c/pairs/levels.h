/* Pairs of IRQL, spin locks, and critical and guarded regions. */
#ifndef PAIRS_LEVELS_H
#define PAIRS_LEVELS_H

#include "pairs.h"

static KSPIN_LOCK Lock;
static EX_SPIN_LOCK Shared;

static VOID IrqlTooHigh(BOOLEAN Wrong)
{
    KEVENT Event;
    KIRQL Old;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    KeRaiseIrql(Wrong ? DISPATCH_LEVEL + 3 : DISPATCH_LEVEL, &Old);
    KeSetEvent(&Event, IO_NO_INCREMENT, FALSE);
    KeLowerIrql(Old);
}

static VOID IrqlTooLow(BOOLEAN Wrong)
{
    KIRQL Old;

    KeInitializeSpinLock(&Lock);
    KeRaiseIrql(Wrong ? APC_LEVEL : DISPATCH_LEVEL, &Old);
    KeAcquireSpinLockAtDpcLevel(&Lock);
    KeReleaseSpinLockFromDpcLevel(&Lock);
    KeLowerIrql(Old);
}

static VOID IrqlInvalid(BOOLEAN Wrong)
{
    ULONG64 Old = __readcr8();

    __writecr8(Wrong ? 16 : 15);
    __writecr8(Old);
}

static VOID NTAPI LowerInDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    KIRQL Old;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeRaiseIrql(DISPATCH_LEVEL + 1, &Old);
    Old = Context != NULL ? PASSIVE_LEVEL : DISPATCH_LEVEL;
    KeLowerIrql(Old);
}

static VOID IrqlLoweredInCallback(BOOLEAN Wrong)
{
    static KDPC Dpc;

    KeInitializeDpc(&Dpc, LowerInDpc, Wrong ? &Dpc : NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

static VOID SpinLockRecursion(BOOLEAN Wrong)
{
    KIRQL Old;

    KeInitializeSpinLock(&Lock);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeAcquireSpinLockAtDpcLevel(&Lock);
    if (!Wrong) {
        KeReleaseSpinLockFromDpcLevel(&Lock);
    }
    KeAcquireSpinLockAtDpcLevel(&Lock);
    KeReleaseSpinLockFromDpcLevel(&Lock);
    KeLowerIrql(Old);
}

static VOID SpinLockNotHeld(BOOLEAN Wrong)
{
    KIRQL Old;

    KeInitializeSpinLock(&Lock);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeAcquireSpinLockAtDpcLevel(&Lock);
    KeReleaseSpinLockFromDpcLevel(&Lock);
    if (!Wrong) {
        KeAcquireSpinLockAtDpcLevel(&Lock);
    }
    KeReleaseSpinLockFromDpcLevel(&Lock);
    KeLowerIrql(Old);
}

static VOID SpinLockDamaged(BOOLEAN Wrong)
{
    KIRQL Old;

    KeInitializeSpinLock(&Lock);
    if (Wrong) {
        Lock = 0x41414141;
    }
    KeAcquireSpinLock(&Lock, &Old);
    KeReleaseSpinLock(&Lock, Old);
}

/* mingw's header has it inline. */
extern VOID(NTAPI *const InitializeByCall)(PKSPIN_LOCK Own) __asm__("__imp_KeInitializeSpinLock");

static VOID SpinLockInitializedWhileHeld(BOOLEAN Wrong)
{
    KIRQL Old;

    KeInitializeSpinLock(&Lock);
    KeAcquireSpinLock(&Lock, &Old);
    if (!Wrong) {
        KeReleaseSpinLock(&Lock, Old);
    }
    InitializeByCall(&Lock);
}

static VOID SpinLockHeldBelowDispatch(BOOLEAN Wrong)
{
    KIRQL Old;

    KeInitializeSpinLock(&Lock);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeAcquireSpinLockAtDpcLevel(&Lock);
    if (!Wrong) {
        KeReleaseSpinLockFromDpcLevel(&Lock);
    }
    KeLowerIrql(Old);
}

static VOID SpinLockAlreadyOwned(BOOLEAN Wrong)
{
    static LIST_ENTRY Head, Entry;
    KIRQL Old;

    InitializeListHead(&Head);
    KeInitializeSpinLock(&Lock);
    KeAcquireSpinLock(&Lock, &Old);
    if (!Wrong) {
        KeReleaseSpinLock(&Lock, Old);
    }
    ExInterlockedInsertTailList(&Head, &Entry, &Lock);
}

static VOID SpinLockSharedTwice(BOOLEAN Wrong)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    ExAcquireSpinLockSharedAtDpcLevel(&Shared);
    if (!Wrong) {
        ExReleaseSpinLockSharedFromDpcLevel(&Shared);
    }
    ExAcquireSpinLockSharedAtDpcLevel(&Shared);
    if (Wrong) {
        ExReleaseSpinLockSharedFromDpcLevel(&Shared);
    }
    ExReleaseSpinLockSharedFromDpcLevel(&Shared);
    KeLowerIrql(Old);
}

static VOID SpinLockHeldOnReturn(BOOLEAN Wrong)
{
    KIRQL Old;

    KeInitializeSpinLock(&Lock);
    KeAcquireSpinLock(&Lock, &Old);
    if (!Wrong) {
        KeReleaseSpinLock(&Lock, Old);
    }
}

static VOID FreedHeldLock(BOOLEAN Wrong)
{
    PKSPIN_LOCK Own = Nonpaged(sizeof(*Own));
    KIRQL Old;

    if (Own == NULL) {
        return;
    }
    KeInitializeSpinLock(Own);
    KeAcquireSpinLock(Own, &Old);
    if (!Wrong) {
        KeReleaseSpinLock(Own, Old);
    }
    Free(Own);
    KeLowerIrql(Old);
}

static VOID CriticalRegionUnpaired(BOOLEAN Wrong)
{
    if (!Wrong) {
        KeEnterCriticalRegion();
    }
    KeLeaveCriticalRegion();
}

static VOID GuardedRegionUnpaired(BOOLEAN Wrong)
{
    if (!Wrong) {
        KeEnterGuardedRegion();
    }
    KeLeaveGuardedRegion();
}

static VOID CriticalRegionAtDispatch(BOOLEAN Wrong)
{
    KIRQL Old;

    KeRaiseIrql(Wrong ? DISPATCH_LEVEL : APC_LEVEL, &Old);
    KeEnterCriticalRegion();
    KeLeaveCriticalRegion();
    KeLowerIrql(Old);
}

/* KeRaiseIrql and KeLowerIrql are instructions in a driver for x64, unless they are called by name. */
extern KIRQL(NTAPI *const RaiseByCall)(KIRQL Level) __asm__("__imp_KfRaiseIrql");
extern VOID(NTAPI *const LowerByCall)(KIRQL Level) __asm__("__imp_KeLowerIrql");

static VOID IrqlRaiseLowers(BOOLEAN Wrong)
{
    KIRQL Old = RaiseByCall(DISPATCH_LEVEL);

    RaiseByCall(Wrong ? APC_LEVEL : DISPATCH_LEVEL + 1);
    LowerByCall(Old);
}

static VOID IrqlLowerRaises(BOOLEAN Wrong)
{
    KIRQL Old = RaiseByCall(APC_LEVEL);

    LowerByCall(Wrong ? DISPATCH_LEVEL : Old);
    LowerByCall(Old);
}

#define LEVEL_PAIRS                                                                                                    \
    PAIR("critical-region-at-dispatch", CriticalRegionAtDispatch)                                                      \
    PAIR("critical-region-unpaired", CriticalRegionUnpaired)                                                           \
    PAIR("freed-held-lock", FreedHeldLock)                                                                             \
    PAIR("guarded-region-unpaired", GuardedRegionUnpaired)                                                             \
    PAIR("irql-invalid", IrqlInvalid)                                                                                  \
    PAIR("irql-lower-raises", IrqlLowerRaises)                                                                         \
    PAIR("irql-lowered-in-callback", IrqlLoweredInCallback)                                                            \
    PAIR("irql-raise-lowers", IrqlRaiseLowers)                                                                         \
    PAIR("irql-too-high", IrqlTooHigh)                                                                                 \
    PAIR("irql-too-low", IrqlTooLow)                                                                                   \
    PAIR("spin-lock-already-owned", SpinLockAlreadyOwned)                                                              \
    PAIR("spin-lock-damaged", SpinLockDamaged)                                                                         \
    PAIR("spin-lock-held-below-dispatch", SpinLockHeldBelowDispatch)                                                   \
    PAIR("spin-lock-held-on-return", SpinLockHeldOnReturn)                                                             \
    PAIR("spin-lock-initialized-while-held", SpinLockInitializedWhileHeld)                                             \
    PAIR("spin-lock-not-held", SpinLockNotHeld)                                                                        \
    PAIR("spin-lock-recursion", SpinLockRecursion)                                                                     \
    PAIR("spin-lock-shared-twice", SpinLockSharedTwice)

#endif
