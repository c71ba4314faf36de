/*
 * Steps with the locks whose takers wait as threads (mutexes, synchronization events, a semaphore, fast and guarded mutexes, a
 * resource), with a queued spin lock, and with a list that a spin lock keeps. Each lock keeps an area of its own.
 */
#include "locks.h"

/* What a lock keeps: each owner counts itself in and out. */
typedef struct _AREA {
    volatile LONG Inside, Sharing;
    volatile LONG Count, Written; /* the same whenever no thread is inside */
} AREA;

static VOID EnterAlone(AREA *Area)
{
    EXPECT(InterlockedIncrement(&Area->Inside) == 1 && Area->Sharing == 0);
    LONG Seen = Area->Count;
    InterlockedIncrement(&Area->Written);
    Area->Count = Seen + 1;
    EXPECT(InterlockedDecrement(&Area->Inside) == 0 && Area->Sharing == 0);
}

static VOID EnterSharing(AREA *Area)
{
    InterlockedIncrement(&Area->Sharing);
    EXPECT(Area->Inside == 0);
    InterlockedExchangeAdd(&Area->Count, 0); /* where another could come between */
    EXPECT(Area->Inside == 0 && Area->Count == Area->Written);
    InterlockedDecrement(&Area->Sharing);
}

static VOID ExpectQuiet(const AREA *Area)
{
    EXPECT(Area->Inside == 0 && Area->Sharing == 0 && Area->Count == Area->Written);
}

static AREA ByMutex, ByEvents[2], ByFast, ByGuarded, ByResource, ByQueued;
static KMUTEX Mutex;
static KEVENT Events[2];
static FAST_MUTEX Fast;
static KGUARDED_MUTEX Guarded;
static ERESOURCE Resource;
static KSPIN_LOCK QueuedLock;

static NTSTATUS Wait(PVOID Object)
{
    return KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
}

/* ---- mutexes ---- */

/* Twice: it is its owner's as often as he likes. */
static NTSTATUS OwnMutex(VOID)
{
    EXPECT(Wait(&Mutex) == STATUS_SUCCESS);
    EXPECT(Wait(&Mutex) == STATUS_SUCCESS);
    EXPECT(KeAreApcsDisabled());
    EXPECT(KeReleaseMutex(&Mutex, FALSE) != 0);
    EnterAlone(&ByMutex);
    EXPECT(KeReleaseMutex(&Mutex, FALSE) == 0);
    return STATUS_SUCCESS;
}

static NTSTATUS OwnFast(VOID)
{
    ExAcquireFastMutex(&Fast);
    EXPECT(LevelNow() == APC_LEVEL);
    EnterAlone(&ByFast);
    ExReleaseFastMutex(&Fast);
    EXPECT(LevelNow() == PASSIVE_LEVEL);
    return STATUS_SUCCESS;
}

static NTSTATUS TryFast(VOID)
{
    if (ExTryToAcquireFastMutex(&Fast)) {
        EnterAlone(&ByFast);
        ExReleaseFastMutex(&Fast);
    }
    EXPECT(LevelNow() == PASSIVE_LEVEL);
    return STATUS_SUCCESS;
}

static NTSTATUS OwnGuarded(VOID)
{
    KeAcquireGuardedMutex(&Guarded);
    EXPECT(KeAreAllApcsDisabled() && LevelNow() == PASSIVE_LEVEL);
    EnterAlone(&ByGuarded);
    KeReleaseGuardedMutex(&Guarded);
    EXPECT(!KeAreAllApcsDisabled());
    return STATUS_SUCCESS;
}

/* ---- events, and several objects at once ---- */

static NTSTATUS TakeEvent(VOID)
{
    EXPECT(Wait(&Events[0]) == STATUS_SUCCESS);
    EnterAlone(&ByEvents[0]);
    EXPECT(KeSetEvent(&Events[0], IO_NO_INCREMENT, FALSE) == 0);
    return STATUS_SUCCESS;
}

/* Whichever it is: the answer says which, and the other is not touched. */
static NTSTATUS TakeAny(VOID)
{
    PVOID Objects[] = {&Events[0], &Events[1]};
    NTSTATUS Status =
        KeWaitForMultipleObjects(2, Objects, WaitAny, Executive, KernelMode, FALSE, NULL, NULL);

    EXPECT(Status == STATUS_WAIT_0 || Status == STATUS_WAIT_1);
    if (Status == STATUS_WAIT_0 || Status == STATUS_WAIT_1) {
        EnterAlone(&ByEvents[Status - STATUS_WAIT_0]);
        EXPECT(KeSetEvent(&Events[Status - STATUS_WAIT_0], IO_NO_INCREMENT, FALSE) == 0);
    }
    return STATUS_SUCCESS;
}

/* All or none: who waits for all keeps none from others meanwhile. */
static NTSTATUS TakeAll(VOID)
{
    PVOID Objects[] = {&Events[0], &Mutex, &Events[1]};
    NTSTATUS Status =
        KeWaitForMultipleObjects(3, Objects, WaitAll, Executive, KernelMode, FALSE, NULL, NULL);

    EXPECT(Status == STATUS_SUCCESS);
    EnterAlone(&ByEvents[0]);
    EnterAlone(&ByMutex);
    EnterAlone(&ByEvents[1]);
    EXPECT(KeReleaseMutex(&Mutex, FALSE) == 0);
    EXPECT(KeSetEvent(&Events[1], IO_NO_INCREMENT, FALSE) == 0);
    EXPECT(KeSetEvent(&Events[0], IO_NO_INCREMENT, FALSE) == 0);
    return STATUS_SUCCESS;
}

/* ---- a semaphore ---- */

#define PLACES 2

static KSEMAPHORE Places;
static volatile LONG Placed;

static NTSTATUS TakePlace(VOID)
{
    EXPECT(Wait(&Places) == STATUS_SUCCESS);
    EXPECT(InterlockedIncrement(&Placed) <= PLACES);
    EXPECT(InterlockedDecrement(&Placed) < PLACES);
    EXPECT(KeReleaseSemaphore(&Places, IO_NO_INCREMENT, 1, FALSE) < PLACES);
    return STATUS_SUCCESS;
}

/* ---- a resource ---- */

static NTSTATUS ShareResource(VOID)
{
    KeEnterCriticalRegion();
    EXPECT(ExAcquireResourceSharedLite(&Resource, TRUE));
    EnterSharing(&ByResource);
    ExReleaseResourceLite(&Resource);
    KeLeaveCriticalRegion();
    return STATUS_SUCCESS;
}

/* Comes before a thread that waits to have it alone. */
static NTSTATUS ShareFirst(VOID)
{
    KeEnterCriticalRegion();
    EXPECT(ExAcquireSharedStarveExclusive(&Resource, TRUE));
    EnterSharing(&ByResource);
    ExReleaseResourceLite(&Resource);
    KeLeaveCriticalRegion();
    return STATUS_SUCCESS;
}

static NTSTATUS OwnResource(VOID)
{
    KeEnterCriticalRegion();
    EXPECT(ExAcquireResourceExclusiveLite(&Resource, TRUE));
    EnterAlone(&ByResource);
    ExConvertExclusiveToSharedLite(&Resource);
    EnterSharing(&ByResource);
    ExReleaseResourceLite(&Resource);
    KeLeaveCriticalRegion();
    return STATUS_SUCCESS;
}

/* ---- a queued spin lock, and a list ---- */

static NTSTATUS OwnQueued(VOID)
{
    KLOCK_QUEUE_HANDLE Handle;

    KeAcquireInStackQueuedSpinLock(&QueuedLock, &Handle);
    EnterAlone(&ByQueued);
    KeReleaseInStackQueuedSpinLock(&Handle);
    return STATUS_SUCCESS;
}

#define ITEMS 3

typedef struct _ITEM {
    LIST_ENTRY Link;
    volatile LONG Owners;
} ITEM;

static LIST_ENTRY Items;
static KSPIN_LOCK ItemsLock;
static ITEM AllItems[ITEMS];

/* Takes two from the head, and puts one to each end. */
static NTSTATUS MoveItems(VOID)
{
    ULONG Round;

    for (Round = 0; Round < 2; Round++) {
        PLIST_ENTRY Link = ExInterlockedRemoveHeadList(&Items, &ItemsLock);
        ITEM *Item = CONTAINING_RECORD(Link, ITEM, Link);

        if (Link == NULL) {
            continue;
        }
        EXPECT(InterlockedIncrement(&Item->Owners) == 1);
        EXPECT(InterlockedDecrement(&Item->Owners) == 0);
        if (Round == 0) {
            ExInterlockedInsertTailList(&Items, Link, &ItemsLock);
        } else {
            ExInterlockedInsertHeadList(&Items, Link, &ItemsLock);
        }
    }
    return STATUS_SUCCESS;
}

/* ---- all of them ---- */

/* When no step is under way: all is free, and nothing is lost. */
static VOID ExpectFree(VOID)
{
    PLIST_ENTRY Link;
    ULONG Count = 0;

    ExpectQuiet(&ByMutex);
    ExpectQuiet(&ByEvents[0]);
    ExpectQuiet(&ByEvents[1]);
    ExpectQuiet(&ByFast);
    ExpectQuiet(&ByGuarded);
    ExpectQuiet(&ByResource);
    ExpectQuiet(&ByQueued);
    EXPECT(KeReadStateMutex(&Mutex) == 1);
    EXPECT(KeReadStateEvent(&Events[0]) != 0 && KeReadStateEvent(&Events[1]) != 0);
    EXPECT(KeReadStateSemaphore(&Places) == PLACES && Placed == 0);
    EXPECT(!ExIsResourceAcquiredSharedLite(&Resource));
    for (Link = Items.Flink; Link != &Items && Count <= ITEMS; Link = Link->Flink) {
        EXPECT(Link->Flink->Blink == Link);
        Count++;
    }
    EXPECT(Count == ITEMS);
}

static VOID MakeLocks(VOID)
{
    ULONG Index;

    KeInitializeMutex(&Mutex, 0);
    KeInitializeEvent(&Events[0], SynchronizationEvent, TRUE);
    KeInitializeEvent(&Events[1], SynchronizationEvent, TRUE);
    KeInitializeSemaphore(&Places, PLACES, PLACES);
    ExInitializeFastMutex(&Fast);
    KeInitializeGuardedMutex(&Guarded);
    ExInitializeResourceLite(&Resource);
    KeInitializeSpinLock(&QueuedLock);
    KeInitializeSpinLock(&ItemsLock);
    InitializeListHead(&Items);
    for (Index = 0; Index < ITEMS; Index++) {
        InsertTailList(&Items, &AllItems[Index].Link);
    }
}
