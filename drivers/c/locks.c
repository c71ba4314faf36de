/*
 * locks.sys: a driver without hardware for what keeps threads and processors apart or brings them together: reader/writer
 * spin locks, KeIpiGenericCall, run-down protection, push locks, queue objects, sequenced lists, and whatever threads wait for. \\.\DirqlLocks,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, N, METHOD_BUFFERED, FILE_ANY_ACCESS):
 *
 *   IOCTL_TELL_STORY of control.h: a story of Stories below, by its name; requests come one at a time
 *   0x900 + N  step N, for any number of threads at once; what goes wrong is counted
 *   0x9FF      a ULONG: how much went wrong since the driver was loaded, or was lost
 */
#include "locks/broadcast.h"
#include "locks/push.h"
#include "locks/queues.h"
#include "locks/rundown.h"
#include "locks/sequenced.h"
#include "locks/spin.h"
#include "locks/waiting.h"

#include "locks/misuse.h"

#define FIRST_STEP 0x900
#define WRONG 0x9FF

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlLocks");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlLocks");

static NTSTATUS (*const Steps[])(VOID) = {
    Read, Write, Convert, Try, /* from 0 on */
    QueueBoth, BroadcastOnce, BroadcastHolds, Move, /* from 4 on */
    Use, UseMany, RunDown, UseAware, /* from 8 on */
    RunDownAware, PushRead, PushWrite, Shuffle, /* from 12 on */
    OwnMutex, OwnFast, TryFast, OwnGuarded, /* from 16 on */
    TakeEvent, TakeAny, TakeAll, TakePlace, /* from 20 on */
    ShareResource, ShareFirst, OwnResource, OwnQueued, /* from 24 on */
    MoveItems, PutItem, TakeItem, /* from 28 on */
};

/* When no step is under way. */
static ULONG WrongUntilNow(VOID)
{
    EXPECT(Readers == 0 && Writers == 0 && Shared == 0);
    EXPECT(First == Second && First == Written);
    EXPECT(Users == 0);
    EXPECT(ItemsIn == ItemsOut && SharedQueue.Header.SignalState == 0);
    EXPECT(PushReaders == 0 && PushWriters == 0 && Push == 0 && PushCount == PushWritten);
    ExpectFull();
    ExpectFree();
    return Wrong;
}

static const STORY Stories[] = {
    STORY(OneProcessorsLock), STORY(WriterComesFirst), STORY(ThreadedDpcs), STORY(Broadcasts),
    STORY(BroadcastWaitsForHigh), STORY(Rundowns), STORY(CacheAwareRundowns), STORY(PushLocks),
    STORY(SequencedInline), STORY(QueueOrder), STORY(QueueWorkers), STORY(QueueLimit),
    /* What ends the run. */
    BUG(AloneTwice), BUG(SharedThenAlone), BUG(AloneThenShared), BUG(SharedTwice), BUG(ReleaseNotHeld),
    BUG(ReleaseOtherwise), BUG(ConvertNotShared), BUG(NotZeroed), BUG(ReturnSharing), BUG(LowerSharing),
    BUG(FreeHeld), BUG(PlainAsShared), BUG(Crossed), BUG(ReleaseUnheld), BUG(ReuseHeld), BUG(ReuseNotRunDown),
    BUG(WaitForItself), BUG(NoCacheAware), BUG(WaitTooHigh), BUG(PushTwice), BUG(PushSharedThenAlone),
    BUG(PushNotHeld), BUG(PushOutsideRegion), BUG(PushTooHigh), BUG(PushNeverGiven), BUG(IpiTooHigh), BUG(IpiRaises),
    BUG(IpiLowers), BUG(IpiSetsEvent), BUG(IpiWithLock), BUG(IpiWantsLock), BUG(GuardedOutsideRegion),
    BUG(GuardedTwice),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Function = (Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF;

    UNREFERENCED_PARAMETER(Device);
    if (Function == WRONG) {
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = WrongUntilNow();
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (Function >= FIRST_STEP && Function - FIRST_STEP < RTL_NUMBER_OF(Steps)) {
        return Complete(Irp, Steps[Function - FIRST_STEP](), 0);
    }
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeFlushQueuedDpcs();
    EXPECT(KeRundownQueue(&SharedQueue) == NULL);
    ExFreeCacheAwareRundownProtection(Aware);
    ExDeleteResourceLite(&Resource);
    ControlUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Aware = ExAllocateCacheAwareRundownProtection(NonPagedPool, LOCKS_TAG);
    if (Aware == NULL) {
        ControlUnload(Driver);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ExInitializeRundownProtection(&Object);
    ExInitializePushLock(&Push);
    KeInitializeQueue(&SharedQueue, 1);
    KeInitializeSpinLock(&BadPlain);
    KeInitializeDpc(&ReadDpc, ReadInDpc, NULL);
    KeInitializeDpc(&WriteDpc, WriteInDpc, NULL);
    KeSetTargetProcessorDpc(&WriteDpc, (CCHAR)(PROCESSORS() - 1));
    FillList();
    MakeLocks();
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
