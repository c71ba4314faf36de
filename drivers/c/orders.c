/*
 * orders.sys: a driver without hardware that acquires locks in orders that could end in a deadlock, and never does: one thread does one
 * thing after another. \\.\DirqlOrders, IOCTL_TELL_STORY of control.h. What is in Orders by BUG inverts an order; what is a STORY may look
 * like it, and does not.
 */
#include <ddk/wdm.h>

#define STORIES "orders"
#include "control.h"
#include "waits.h"

#define TAG 0x72644F44u /* "DOdr" */

typedef ULONG_PTR PUSH_LOCK; /* EX_PUSH_LOCK */
typedef volatile LONG READER_WRITER; /* EX_SPIN_LOCK */
NTKERNELAPI VOID NTAPI ExInitializePushLock(PUSH_LOCK *Lock);
NTKERNELAPI VOID NTAPI ExAcquirePushLockExclusiveEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI VOID NTAPI ExAcquirePushLockSharedEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI VOID NTAPI ExReleasePushLockEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI KIRQL NTAPI ExAcquireSpinLockShared(READER_WRITER *Lock);
NTKERNELAPI VOID NTAPI ExAcquireSpinLockExclusiveAtDpcLevel(READER_WRITER *Lock);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockExclusiveFromDpcLevel(READER_WRITER *Lock);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockShared(READER_WRITER *Lock, KIRQL Old);
NTKERNELAPI BOOLEAN FASTCALL KeTryToAcquireSpinLockAtDpcLevel(PKSPIN_LOCK Lock);

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlOrders");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlOrders");

static KSPIN_LOCK SpinA, SpinB, SpinC;
static READER_WRITER WriterA, WriterB;
static FAST_MUTEX FastA, FastB;
static KGUARDED_MUTEX GuardedA, GuardedB;
static KMUTEX MutexA, MutexB;
static PUSH_LOCK PushA, PushB;
static ERESOURCE ResourceA, ResourceB;

/* ---- spin locks ------------------------------------------------------------------------------------------------- */

static VOID Both(PKSPIN_LOCK First, PKSPIN_LOCK Second)
{
    KIRQL Old, Inner;

    KeAcquireSpinLock(First, &Old);
    KeAcquireSpinLock(Second, &Inner);
    KeReleaseSpinLock(Second, Inner);
    KeReleaseSpinLock(First, Old);
}

static VOID SpinLocks(VOID)
{
    Both(&SpinA, &SpinB);
    Both(&SpinB, &SpinA);
}

static VOID ThreeSpinLocks(VOID)
{
    Both(&SpinA, &SpinB);
    Both(&SpinB, &SpinC);
    Both(&SpinC, &SpinA);
}

static VOID BothQueued(PKSPIN_LOCK First, PKSPIN_LOCK Second)
{
    KLOCK_QUEUE_HANDLE Outer, Inner;

    KeAcquireInStackQueuedSpinLock(First, &Outer);
    KeAcquireInStackQueuedSpinLockAtDpcLevel(Second, &Inner);
    KeReleaseInStackQueuedSpinLockFromDpcLevel(&Inner);
    KeReleaseInStackQueuedSpinLock(&Outer);
}

static VOID QueuedSpinLocks(VOID)
{
    BothQueued(&SpinA, &SpinB);
    BothQueued(&SpinB, &SpinA);
}

static VOID SpinLocksAtDispatch(VOID)
{
    KIRQL Old = KeRaiseIrqlToDpcLevel();

    KeAcquireSpinLockAtDpcLevel(&SpinA);
    KeAcquireSpinLockAtDpcLevel(&SpinB);
    KeReleaseSpinLockFromDpcLevel(&SpinA);
    KeAcquireSpinLockAtDpcLevel(&SpinA); /* which was first before */
    KeReleaseSpinLockFromDpcLevel(&SpinA);
    KeReleaseSpinLockFromDpcLevel(&SpinB);
    KeLowerIrql(Old);
}

static VOID NTAPI Backwards(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    KeAcquireSpinLockAtDpcLevel(&SpinB);
    KeAcquireSpinLockAtDpcLevel(&SpinA);
    KeReleaseSpinLockFromDpcLevel(&SpinA);
    KeReleaseSpinLockFromDpcLevel(&SpinB);
    KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
}

static VOID SpinLocksInDpc(VOID)
{
    KEVENT Done;
    KDPC Dpc;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    KeInitializeDpc(&Dpc, Backwards, &Done);
    Both(&SpinA, &SpinB);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    WaitFor(&Done);
    KeFlushQueuedDpcs();
}

static VOID CancelSpinLock(VOID)
{
    KIRQL Old, Inner;

    IoAcquireCancelSpinLock(&Old);
    KeAcquireSpinLock(&SpinA, &Inner);
    KeReleaseSpinLock(&SpinA, Inner);
    IoReleaseCancelSpinLock(Old);
    KeAcquireSpinLock(&SpinA, &Old);
    IoAcquireCancelSpinLock(&Inner);
    IoReleaseCancelSpinLock(Inner);
    KeReleaseSpinLock(&SpinA, Old);
}

/* What was had without waiting is held like any other. */
static VOID AfterTrying(VOID)
{
    KIRQL Old = KeRaiseIrqlToDpcLevel();

    if (KeTryToAcquireSpinLockAtDpcLevel(&SpinA)) {
        KeAcquireSpinLockAtDpcLevel(&SpinB);
        KeReleaseSpinLockFromDpcLevel(&SpinB);
        KeReleaseSpinLockFromDpcLevel(&SpinA);
    }
    KeLowerIrql(Old);
    Both(&SpinB, &SpinA);
}

static VOID Rewrite(READER_WRITER *Shared, READER_WRITER *Alone)
{
    KIRQL Old = ExAcquireSpinLockShared(Shared);

    ExAcquireSpinLockExclusiveAtDpcLevel(Alone);
    ExReleaseSpinLockExclusiveFromDpcLevel(Alone);
    ExReleaseSpinLockShared(Shared, Old);
}

static VOID ReaderWriterSpinLocks(VOID)
{
    Rewrite(&WriterA, &WriterB);
    Rewrite(&WriterB, &WriterA);
}

/* ---- locks of threads ------------------------------------------------------------------------------------------- */

static VOID FastMutexes(VOID)
{
    ExAcquireFastMutex(&FastA);
    ExAcquireFastMutex(&FastB);
    ExReleaseFastMutex(&FastB);
    ExReleaseFastMutex(&FastA);
    ExAcquireFastMutex(&FastB);
    ExAcquireFastMutex(&FastA);
    ExReleaseFastMutex(&FastA);
    ExReleaseFastMutex(&FastB);
}

static VOID BothGuarded(PKGUARDED_MUTEX First, PKGUARDED_MUTEX Second)
{
    KeAcquireGuardedMutex(First);
    KeAcquireGuardedMutex(Second);
    KeReleaseGuardedMutex(Second);
    KeReleaseGuardedMutex(First);
}

static VOID GuardedMutexes(VOID)
{
    BothGuarded(&GuardedA, &GuardedB);
    BothGuarded(&GuardedB, &GuardedA);
}

static VOID BothMutexes(PKMUTEX First, PKMUTEX Second)
{
    WaitFor(First);
    WaitFor(Second);
    KeReleaseMutex(Second, FALSE);
    KeReleaseMutex(First, FALSE);
}

static VOID Mutexes(VOID)
{
    BothMutexes(&MutexA, &MutexB);
    BothMutexes(&MutexB, &MutexA);
}

static VOID MutexAndFastMutex(VOID)
{
    WaitFor(&MutexA);
    KeAcquireGuardedMutex(&GuardedA);
    KeReleaseGuardedMutex(&GuardedA);
    KeReleaseMutex(&MutexA, FALSE);
    KeAcquireGuardedMutex(&GuardedA);
    WaitFor(&MutexA);
    KeReleaseMutex(&MutexA, FALSE);
    KeReleaseGuardedMutex(&GuardedA);
}

static VOID PushLocks(VOID)
{
    KeEnterCriticalRegion();
    ExAcquirePushLockSharedEx(&PushA, 0);
    ExAcquirePushLockExclusiveEx(&PushB, 0);
    ExReleasePushLockEx(&PushB, 0);
    ExReleasePushLockEx(&PushA, 0);
    ExAcquirePushLockSharedEx(&PushB, 0);
    ExAcquirePushLockExclusiveEx(&PushA, 0);
    ExReleasePushLockEx(&PushA, 0);
    ExReleasePushLockEx(&PushB, 0);
    KeLeaveCriticalRegion();
}

static VOID Resources(VOID)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&ResourceA, TRUE);
    ExAcquireResourceSharedLite(&ResourceB, TRUE);
    ExReleaseResourceLite(&ResourceB);
    ExReleaseResourceLite(&ResourceA);
    ExAcquireResourceExclusiveLite(&ResourceB, TRUE);
    ExAcquireResourceExclusiveLite(&ResourceA, TRUE);
    ExReleaseResourceLite(&ResourceA);
    ExReleaseResourceLite(&ResourceB);
    KeLeaveCriticalRegion();
}

static VOID ResourceAndMutex(VOID)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&ResourceA, TRUE);
    WaitFor(&MutexA);
    ExReleaseResourceLite(&ResourceA);
    ExAcquireResourceExclusiveLite(&ResourceA, TRUE);
    KeReleaseMutex(&MutexA, FALSE);
    ExReleaseResourceLite(&ResourceA);
    KeLeaveCriticalRegion();
}

/* ---- what is no inversion --------------------------------------------------------------------------------------- */

static ULONG OneOrder(VOID)
{
    Both(&SpinA, &SpinB);
    Both(&SpinB, &SpinC);
    Both(&SpinA, &SpinC);
    BothMutexes(&MutexA, &MutexB);
    BothMutexes(&MutexA, &MutexB);
    CHECK(SpinA == 0 && SpinB == 0 && SpinC == 0);
    return 0;
}

/* One who does not get the lock goes on without it. */
static ULONG TriedLast(VOID)
{
    LARGE_INTEGER None = {0}, Soon = After(MILLISECONDS(1));
    KIRQL Old;

    Both(&SpinA, &SpinB);
    KeAcquireSpinLock(&SpinB, &Old);
    CHECK(KeTryToAcquireSpinLockAtDpcLevel(&SpinA));
    KeReleaseSpinLockFromDpcLevel(&SpinA);
    KeReleaseSpinLock(&SpinB, Old);
    BothMutexes(&MutexA, &MutexB);
    WaitFor(&MutexB);
    CHECK(KeWaitForSingleObject(&MutexA, Executive, KernelMode, FALSE, &None) == STATUS_SUCCESS);
    KeReleaseMutex(&MutexA, FALSE);
    CHECK(KeWaitForSingleObject(&MutexA, Executive, KernelMode, FALSE, &Soon) == STATUS_SUCCESS);
    KeReleaseMutex(&MutexA, FALSE);
    KeReleaseMutex(&MutexB, FALSE);
    BothGuarded(&GuardedA, &GuardedB);
    KeAcquireGuardedMutex(&GuardedB);
    CHECK(KeTryToAcquireGuardedMutex(&GuardedA));
    KeReleaseGuardedMutex(&GuardedA);
    KeReleaseGuardedMutex(&GuardedB);
    ExAcquireFastMutex(&FastB);
    CHECK(ExTryToAcquireFastMutex(&FastA));
    ExReleaseFastMutex(&FastA);
    ExReleaseFastMutex(&FastB);
    ExAcquireFastMutex(&FastA);
    ExAcquireFastMutex(&FastB);
    ExReleaseFastMutex(&FastB);
    ExReleaseFastMutex(&FastA);
    return 0;
}

/* Every flow of control that takes the two holds the third, so that no two do so at once. */
static ULONG UnderAGate(VOID)
{
    KIRQL Old;

    KeAcquireSpinLock(&SpinC, &Old);
    Both(&SpinA, &SpinB);
    KeReleaseSpinLock(&SpinC, Old);
    KeAcquireSpinLock(&SpinC, &Old);
    Both(&SpinB, &SpinA);
    KeReleaseSpinLock(&SpinC, Old);
    KeAcquireGuardedMutex(&GuardedA);
    Both(&SpinC, &SpinA);
    BothMutexes(&MutexA, &MutexB);
    KeReleaseGuardedMutex(&GuardedA);
    KeAcquireGuardedMutex(&GuardedA);
    BothMutexes(&MutexB, &MutexA);
    KeReleaseGuardedMutex(&GuardedA);
    CHECK(SpinC == 0);
    return 0;
}

static ULONG OnlyShared(VOID)
{
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&ResourceA, TRUE);
    ExAcquireResourceSharedLite(&ResourceB, TRUE);
    ExReleaseResourceLite(&ResourceB);
    ExReleaseResourceLite(&ResourceA);
    ExAcquireResourceSharedLite(&ResourceB, TRUE);
    ExAcquireResourceSharedLite(&ResourceA, TRUE);
    ExReleaseResourceLite(&ResourceA);
    ExReleaseResourceLite(&ResourceB);
    CHECK(!ExIsResourceAcquiredExclusiveLite(&ResourceA));
    /* Nor does one who owns a resource wait for it. */
    ExAcquireResourceExclusiveLite(&ResourceA, TRUE);
    ExAcquireResourceExclusiveLite(&ResourceB, TRUE);
    ExAcquireResourceExclusiveLite(&ResourceA, TRUE);
    ExReleaseResourceLite(&ResourceA);
    ExReleaseResourceLite(&ResourceB);
    ExReleaseResourceLite(&ResourceA);
    KeLeaveCriticalRegion();
    return 0;
}

typedef struct _OBJECT {
    KSPIN_LOCK Outer, Inner;
    KMUTEX Mutex;
} OBJECT;

/* Locks of objects that come and go, and of two objects of a kind. */
static ULONG OtherLocks(VOID)
{
    OBJECT *One = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(OBJECT), TAG), *Two = NULL;

    for (ULONG Turn = 0; One != NULL && Turn < 64; Turn++) {
        KeInitializeSpinLock(&One->Outer);
        KeInitializeSpinLock(&One->Inner);
        KeInitializeMutex(&One->Mutex, 0);
        Both(&One->Outer, &One->Inner);
        BothMutexes(&One->Mutex, &MutexA);
        if (Two != NULL) {
            Both(&Two->Outer, &One->Inner);
            ExFreePoolWithTag(Two, TAG);
        }
        Two = One;
        One = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(OBJECT), TAG);
    }
    CHECK(One != NULL && Two != NULL);
    ExFreePoolWithTag(One, TAG);
    /* Initialised again it is another mutex. */
    KeInitializeMutex(&Two->Mutex, 0);
    BothMutexes(&MutexA, &Two->Mutex);
    ExFreePoolWithTag(Two, TAG);
    return 0;
}

static ULONG HandOverHand(VOID)
{
    KIRQL Old = KeRaiseIrqlToDpcLevel();

    KeAcquireSpinLockAtDpcLevel(&SpinA);
    KeAcquireSpinLockAtDpcLevel(&SpinB);
    KeReleaseSpinLockFromDpcLevel(&SpinA);
    KeAcquireSpinLockAtDpcLevel(&SpinC);
    KeReleaseSpinLockFromDpcLevel(&SpinB);
    KeReleaseSpinLockFromDpcLevel(&SpinC);
    KeAcquireSpinLockAtDpcLevel(&SpinA);
    KeReleaseSpinLockFromDpcLevel(&SpinA);
    KeLowerIrql(Old);
    CHECK(SpinA == 0 && SpinB == 0 && SpinC == 0);
    return 0;
}

static const STORY Orders[] = {
    BUG(SpinLocks), BUG(ThreeSpinLocks), BUG(QueuedSpinLocks), BUG(SpinLocksAtDispatch), BUG(SpinLocksInDpc),
    BUG(CancelSpinLock), BUG(AfterTrying), BUG(ReaderWriterSpinLocks), BUG(FastMutexes), BUG(GuardedMutexes), BUG(Mutexes),
    BUG(MutexAndFastMutex), BUG(PushLocks), BUG(Resources), BUG(ResourceAndMutex),
    STORY(OneOrder), STORY(TriedLast), STORY(UnderAGate), STORY(OnlyShared), STORY(OtherLocks), STORY(HandOverHand),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Orders, RTL_NUMBER_OF(Orders));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExDeleteResourceLite(&ResourceA);
    ExDeleteResourceLite(&ResourceB);
    ControlUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    ExInitializeFastMutex(&FastA);
    ExInitializeFastMutex(&FastB);
    KeInitializeGuardedMutex(&GuardedA);
    KeInitializeGuardedMutex(&GuardedB);
    KeInitializeMutex(&MutexA, 0);
    KeInitializeMutex(&MutexB, 0);
    ExInitializePushLock(&PushA);
    ExInitializePushLock(&PushB);
    ExInitializeResourceLite(&ResourceA);
    ExInitializeResourceLite(&ResourceB);
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
