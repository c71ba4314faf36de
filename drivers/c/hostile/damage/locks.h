/* Locks and queues. */
#include "damage.h"

NTKERNELAPI BOOLEAN NTAPI KeInsertByKeyDeviceQueue(PKDEVICE_QUEUE Queue, PKDEVICE_QUEUE_ENTRY Entry, ULONG Key);
NTKERNELAPI PKDEVICE_QUEUE_ENTRY NTAPI KeRemoveByKeyDeviceQueue(PKDEVICE_QUEUE Queue, ULONG Key);
NTKERNELAPI PKDEVICE_QUEUE_ENTRY NTAPI KeRemoveByKeyDeviceQueueIfBusy(PKDEVICE_QUEUE Queue, ULONG Key);

static PKDEVICE_QUEUE TheQueue;
static PKDEVICE_QUEUE_ENTRY TheEntry;

static PVOID PrepareDeviceQueue(VOID)
{
    TheQueue = Fresh(sizeof(*TheQueue));
    TheEntry = Fresh(sizeof(*TheEntry));
    KeInitializeDeviceQueue(TheQueue);
    KeInsertDeviceQueue(TheQueue, TheEntry); /* makes it busy */
    KeInsertDeviceQueue(TheQueue, TheEntry);
    KeInsertByKeyDeviceQueue(TheQueue, Fresh(sizeof(*TheEntry)), 5);
    return TheQueue;
}
static PVOID PrepareDeviceQueueEntry(VOID) { PrepareDeviceQueue(); return TheEntry; }
static VOID QueueEntry(PVOID At) { UNREFERENCED_PARAMETER(At); KeInsertDeviceQueue(TheQueue, Fresh(sizeof(*TheEntry))); }
static VOID QueueByKey(PVOID At) { UNREFERENCED_PARAMETER(At); KeInsertByKeyDeviceQueue(TheQueue, Fresh(sizeof(*TheEntry)), 3); }
static VOID TakeFirst(PVOID At) { UNREFERENCED_PARAMETER(At); KeRemoveDeviceQueue(TheQueue); }
static VOID TakeByKey(PVOID At) { UNREFERENCED_PARAMETER(At); KeRemoveByKeyDeviceQueue(TheQueue, 4); }
static VOID TakeIfBusy(PVOID At) { UNREFERENCED_PARAMETER(At); KeRemoveByKeyDeviceQueueIfBusy(TheQueue, 9); }
static VOID TakeEntry(PVOID At) { UNREFERENCED_PARAMETER(At); KeRemoveEntryDeviceQueue(TheQueue, TheEntry); }
static const USE DeviceQueueUses[] = {QueueEntry, QueueByKey, TakeFirst, TakeByKey, TakeIfBusy, TakeEntry, NULL};

static PVOID PrepareFastMutex(VOID)
{
    PFAST_MUTEX Mutex = Fresh(sizeof(*Mutex));

    ExInitializeFastMutex(Mutex);
    return Mutex;
}
static PVOID PrepareOwnedFastMutex(VOID)
{
    PFAST_MUTEX Mutex = PrepareFastMutex();

    ExAcquireFastMutex(Mutex);
    return Mutex;
}
static VOID TryFast(PVOID At)
{
    if (ExTryToAcquireFastMutex(At)) {
        ExReleaseFastMutex(At);
    }
}
static VOID LeaveFast(PVOID At) { ExReleaseFastMutex(At); }
static VOID TakeFast(PVOID At)
{
    if (KeGetCurrentIrql() == PASSIVE_LEVEL) {
        ExAcquireFastMutex(At);
    }
    ExReleaseFastMutex(At);
}
static const USE FastMutexUses[] = {TryFast, LeaveFast, TakeFast, NULL};

static PVOID PrepareResource(VOID)
{
    PERESOURCE Resource = Fresh(sizeof(*Resource));

    ExInitializeResourceLite(Resource);
    KeEnterCriticalRegion();
    return Resource;
}
static PVOID PrepareOwnedResource(VOID)
{
    PERESOURCE Resource = PrepareResource();

    ExAcquireResourceExclusiveLite(Resource, TRUE);
    return Resource;
}
static VOID TakeExclusive(PVOID At)
{
    if (ExAcquireResourceExclusiveLite(At, FALSE)) {
        ExReleaseResourceLite(At);
    }
    KeLeaveCriticalRegion();
}
static VOID TakeShared(PVOID At)
{
    if (ExAcquireResourceSharedLite(At, FALSE)) {
        ExReleaseResourceLite(At);
    }
    if (ExAcquireSharedStarveExclusive(At, FALSE)) {
        ExReleaseResourceLite(At);
    }
    KeLeaveCriticalRegion();
}
static VOID LeaveResource(PVOID At) { ExReleaseResourceLite(At); KeLeaveCriticalRegion(); }
static VOID ConvertResource(PVOID At) { ExConvertExclusiveToSharedLite(At); LeaveResource(At); }
static VOID AskResource(PVOID At)
{
    ExIsResourceAcquiredExclusiveLite(At);
    ExIsResourceAcquiredSharedLite(At);
    ExGetExclusiveWaiterCount(At);
    ExGetSharedWaiterCount(At);
    KeLeaveCriticalRegion();
}
static VOID DeleteResource(PVOID At) { ExDeleteResourceLite(At); KeLeaveCriticalRegion(); }
static VOID AgainResource(PVOID At) { ExReinitializeResourceLite(At); ExDeleteResourceLite(At); KeLeaveCriticalRegion(); }
static const USE ResourceUses[] = {TakeExclusive, TakeShared, LeaveResource, ConvertResource, AskResource,
                                   DeleteResource, AgainResource, NULL};

static PVOID PrepareRemoveLock(VOID)
{
    PIO_REMOVE_LOCK Lock = Fresh(sizeof(*Lock));

    IoInitializeRemoveLock(Lock, DAMAGE_TAG, 1, 10);
    IoAcquireRemoveLock(Lock, Lock);
    return Lock;
}
static VOID HoldIt(PVOID At)
{
    if (IoAcquireRemoveLock((PIO_REMOVE_LOCK)At, TheDriver) == STATUS_SUCCESS) {
        IoReleaseRemoveLock((PIO_REMOVE_LOCK)At, TheDriver);
    }
}
static VOID LetItGo(PVOID At) { IoReleaseRemoveLock((PIO_REMOVE_LOCK)At, At); }
static VOID RemoveIt(PVOID At) { IoReleaseRemoveLockAndWait((PIO_REMOVE_LOCK)At, At); }
static const USE RemoveLockUses[] = {HoldIt, LetItGo, RemoveIt, NULL};

static PVOID PrepareRundown(VOID)
{
    PEX_RUNDOWN_REF Rundown = Fresh(sizeof(*Rundown));

    ExInitializeRundownProtection(Rundown);
    return Rundown;
}
static VOID HoldRundown(PVOID At)
{
    if (ExAcquireRundownProtection(At)) {
        ExReleaseRundownProtection(At);
    }
}
static VOID DropRundown(PVOID At) { ExReleaseRundownProtection(At); }
static VOID AgainRundown(PVOID At) { ExReInitializeRundownProtection(At); }
static VOID EndRundown(PVOID At) { ExRundownCompleted(At); HoldRundown(At); }
static const USE RundownUses[] = {HoldRundown, DropRundown, AgainRundown, EndRundown, NULL};

/* A word, damaged in one piece. */
static PVOID PrepareSpinLock(VOID)
{
    PKSPIN_LOCK Lock = Fresh(sizeof(*Lock));

    KeInitializeSpinLock(Lock);
    return Lock;
}
static VOID TakeSpin(PVOID At)
{
    KIRQL Old;

    KeAcquireSpinLock((PKSPIN_LOCK)At, &Old);
    KeReleaseSpinLock((PKSPIN_LOCK)At, Old);
}
static VOID TakeQueuedSpin(PVOID At)
{
    KLOCK_QUEUE_HANDLE Handle;

    KeAcquireInStackQueuedSpinLock(At, &Handle);
    KeReleaseInStackQueuedSpinLock(&Handle);
}
static VOID DropSpin(PVOID At)
{
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeReleaseSpinLockFromDpcLevel(At);
    KeLowerIrql(Old);
}
static const USE SpinLockUses[] = {TakeSpin, TakeQueuedSpin, DropSpin, NULL};

static PLIST_ENTRY ListHead;
static KSPIN_LOCK ListLock;
static PVOID PrepareList(VOID)
{
    PLIST_ENTRY First = Fresh(sizeof(*First));

    ListHead = Fresh(sizeof(*ListHead));
    InitializeListHead(ListHead);
    InsertTailList(ListHead, First);
    InsertTailList(ListHead, (PLIST_ENTRY)Fresh(sizeof(*First)));
    return First;
}
static VOID TakeHead(PVOID At) { UNREFERENCED_PARAMETER(At); ExInterlockedRemoveHeadList(ListHead, &ListLock); }
static VOID PutHead(PVOID At) { UNREFERENCED_PARAMETER(At); ExInterlockedInsertHeadList(ListHead, Fresh(16), &ListLock); }
static VOID PutTail(PVOID At) { ExInterlockedInsertTailList(At, Fresh(16), &ListLock); }
static VOID TakeOwn(PVOID At) { ExInterlockedRemoveHeadList(At, &ListLock); }
static const USE ListUses[] = {TakeHead, PutHead, PutTail, TakeOwn, NULL};
