/* Pairs of device objects, device queues, cancel-safe queues, I/O timers, work items and the error log. */
#ifndef PAIRS_DEVICES_H
#define PAIRS_DEVICES_H

#include "pairs.h"


static PDEVICE_OBJECT NewDevice(VOID)
{
    PDEVICE_OBJECT Device = NULL;

    IoCreateDevice(TheDriver, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Device);
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return Device;
}

static VOID DeviceLeak(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device = NewDevice();

    if (!Wrong) {
        IoDeleteDevice(Device);
    }
}

static VOID DeviceDeletedTwice(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device = NewDevice();

    IoDeleteDevice(Device);
    if (!Wrong) {
        Device = NewDevice();
    }
    IoDeleteDevice(Device);
}

static VOID DeviceAttachedTwice(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Upper = NewDevice(), Lower = NewDevice();

    IoAttachDeviceToDeviceStack(Upper, Lower);
    if (!Wrong) {
        IoDetachDevice(Lower);
    }
    IoAttachDeviceToDeviceStack(Upper, Lower);
    IoDetachDevice(Lower);
    IoDeleteDevice(Upper);
    IoDeleteDevice(Lower);
}

static VOID DeviceNotAttached(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Upper = NewDevice(), Lower = NewDevice();

    IoAttachDeviceToDeviceStack(Upper, Lower);
    IoDetachDevice(Wrong ? Upper : Lower);
    IoDeleteDevice(Upper);
    IoDeleteDevice(Lower);
}

static VOID ListCycle(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Upper = NewDevice(), Lower = NewDevice();

    IoAttachDeviceToDeviceStack(Upper, Lower);
    if (Wrong) {
        Upper->AttachedDevice = Lower;
    }
    ObDereferenceObject(IoGetAttachedDeviceReference(Lower));
    IoDetachDevice(Lower);
    IoDeleteDevice(Upper);
    IoDeleteDevice(Lower);
}

static VOID DeviceObjectDamaged(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device = NewDevice();

    if (Wrong) {
        Device->Type = 0x7777;
    }
    IoDeleteDevice(Device);
}

static VOID DriverObjectDamaged(BOOLEAN Wrong)
{
    if (Wrong) {
        TheDriver->Type = 0x7777;
    }
}

static VOID SymbolicLinkLeak(BOOLEAN Wrong)
{
    UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlPairsToo");
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\DirqlPairs");

    IoCreateSymbolicLink(&Link, &Name);
    if (!Wrong) {
        IoDeleteSymbolicLink(&Link);
    }
}

typedef struct _QUEUE {
    KDEVICE_QUEUE Queue;
    KDEVICE_QUEUE_ENTRY First, Second, Third;
} QUEUE;

static QUEUE *NewQueue(BOOLEAN Initialized)
{
    static QUEUE Queue;

    if (Initialized) {
        KeInitializeDeviceQueue(&Queue.Queue);
    }
    return &Queue;
}

static VOID DeviceQueueNotInitialized(BOOLEAN Wrong)
{
    QUEUE *Queue = NewQueue(!Wrong);
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeInsertDeviceQueue(&Queue->Queue, &Queue->First);
    KeLowerIrql(Old);
}

static VOID DeviceQueueNotBusy(BOOLEAN Wrong)
{
    QUEUE *Queue = NewQueue(TRUE);
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    if (!Wrong) {
        KeInsertDeviceQueue(&Queue->Queue, &Queue->First);
    }
    KeRemoveDeviceQueue(&Queue->Queue);
    KeLowerIrql(Old);
}

static VOID DeviceQueueEntryTwice(BOOLEAN Wrong)
{
    QUEUE *Queue = NewQueue(TRUE);
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeInsertDeviceQueue(&Queue->Queue, &Queue->First);
    KeInsertDeviceQueue(&Queue->Queue, &Queue->Second);
    KeInsertDeviceQueue(&Queue->Queue, Wrong ? &Queue->Second : &Queue->Third);
    KeLowerIrql(Old);
}

static VOID ListDamaged(BOOLEAN Wrong)
{
    QUEUE *Queue = NewQueue(TRUE);
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeInsertDeviceQueue(&Queue->Queue, &Queue->First);
    KeInsertDeviceQueue(&Queue->Queue, &Queue->Second);
    if (Wrong) {
        Queue->Second.DeviceListEntry.Blink = &Queue->Second.DeviceListEntry;
    }
    KeRemoveDeviceQueue(&Queue->Queue);
    KeLowerIrql(Old);
}

static VOID NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Irp);
}

static VOID NTAPI CsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Irp);
}

static PIRP NTAPI CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    return NULL;
}

static KSPIN_LOCK CsqLock;

static VOID NTAPI CsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    UNREFERENCED_PARAMETER(Csq);
    KeAcquireSpinLock(&CsqLock, Irql);
}

static VOID NTAPI CsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    UNREFERENCED_PARAMETER(Csq);
    KeReleaseSpinLock(&CsqLock, Irql);
}

static VOID NTAPI CsqCanceled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    UNREFERENCED_PARAMETER(Irp);
}

static VOID CsqNotInitialized(BOOLEAN Wrong)
{
    static IO_CSQ Csq;

    if (!Wrong) {
        IoCsqInitialize(&Csq, CsqInsert, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqCanceled);
    }
    IoCsqRemoveNextIrp(&Csq, NULL);
}

static VOID NTAPI EachSecond(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
}

static VOID IoTimer(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device = NewDevice();

    if (!Wrong) {
        IoInitializeTimer(Device, EachSecond, NULL);
    }
    IoStartTimer(Device);
    IoStopTimer(Device);
    IoDeleteDevice(Device);
}

static VOID IoTimerInitializedAgain(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device = NewDevice(), Other = NewDevice();

    IoInitializeTimer(Device, EachSecond, NULL);
    IoInitializeTimer(Wrong ? Device : Other, EachSecond, NULL);
    IoDeleteDevice(Device);
    IoDeleteDevice(Other);
}

static KEVENT ItemRan;

static VOID NTAPI ItemRuns(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    KeSetEvent(&ItemRan, IO_NO_INCREMENT, FALSE);
}

static VOID WorkItem(BOOLEAN Wrong)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(TheDevice);

    IoFreeWorkItem(Item);
    if (!Wrong) {
        Item = IoAllocateWorkItem(TheDevice);
    }
    IoFreeWorkItem(Item);
}

static VOID WorkItemLeak(BOOLEAN Wrong)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(TheDevice);

    if (!Wrong) {
        IoFreeWorkItem(Item);
    }
}

static VOID WorkItemQueued(BOOLEAN Wrong)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(TheDevice);
    KIRQL Old;

    KeInitializeEvent(&ItemRan, SynchronizationEvent, FALSE);
    KeRaiseIrql(DISPATCH_LEVEL, &Old); /* so that it does not run in between, on one processor */
    IoQueueWorkItem(Item, ItemRuns, DelayedWorkQueue, NULL);
    if (Wrong) {
        IoQueueWorkItem(Item, ItemRuns, DelayedWorkQueue, NULL);
    }
    KeLowerIrql(Old);
    WaitFor(&ItemRan);
    Delay(1);
    IoFreeWorkItem(Item);
}

static VOID ErrorLogEntry(BOOLEAN Wrong)
{
    PIO_ERROR_LOG_PACKET Entry = IoAllocateErrorLogEntry(TheDevice, ERROR_LOG_MAXIMUM_SIZE);

    RtlZeroMemory(Entry, sizeof(*Entry));
    IoWriteErrorLogEntry(Entry);
    if (Wrong) {
        IoWriteErrorLogEntry(Entry);
    }
}

static VOID NTAPI ExTimerFires(struct _EX_TIMER *Timer, PVOID Context)
{
    UNREFERENCED_PARAMETER(Timer);
    UNREFERENCED_PARAMETER(Context);
}

static VOID ExTimer(BOOLEAN Wrong)
{
    struct _EX_TIMER *Timer = ExAllocateTimer(ExTimerFires, NULL, 0);

    ExDeleteTimer(Timer, TRUE, TRUE, NULL);
    if (!Wrong) {
        Timer = ExAllocateTimer(ExTimerFires, NULL, 0);
    }
    ExDeleteTimer(Timer, TRUE, TRUE, NULL);
}

static VOID ExTimerLeak(BOOLEAN Wrong)
{
    struct _EX_TIMER *Timer = ExAllocateTimer(ExTimerFires, NULL, 0);

    if (!Wrong) {
        ExDeleteTimer(Timer, TRUE, TRUE, NULL);
    }
}

static VOID NTAPI LateDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
}

/* The first time, the routine may be wrong. */
static KEVENT IoTimerCalled;

static VOID NTAPI StopsItself(PDEVICE_OBJECT Device, PVOID Context)
{
    if (KeReadStateEvent(&IoTimerCalled) == 0 && Context != NULL) {
        IoStopTimer(Device);
    }
    KeSetEvent(&IoTimerCalled, IO_NO_INCREMENT, FALSE);
}

static VOID IoTimerStoppedInRoutine(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device = NewDevice();

    KeInitializeEvent(&IoTimerCalled, NotificationEvent, FALSE);
    IoInitializeTimer(Device, StopsItself, Wrong ? Device : NULL);
    IoStartTimer(Device);
    WaitFor(&IoTimerCalled);
    IoStopTimer(Device);
    KeFlushQueuedDpcs();
    IoDeleteDevice(Device);
}

/* The timer is still set when Unload returns. */
static VOID UnloadStillCalled(BOOLEAN Wrong)
{
    static KTIMER Timer;
    static KDPC Dpc;

    KeInitializeTimer(&Timer);
    KeInitializeDpc(&Dpc, LateDpc, NULL);
    KeSetTimer(&Timer, After(MILLISECONDS(3600000)), &Dpc);
    if (!Wrong) {
        KeCancelTimer(&Timer);
        KeFlushQueuedDpcs();
    }
}

static VOID DeviceNotSecureOpen(BOOLEAN Wrong)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\DirqlPairsOpen");
    PDEVICE_OBJECT Device;

    if (NT_SUCCESS(IoCreateDevice(TheDriver, 0, &Name, FILE_DEVICE_UNKNOWN, Wrong ? 0 : FILE_DEVICE_SECURE_OPEN, FALSE,
                                  &Device))) {
        IoDeleteDevice(Device);
    }
}

#define DEVICE_PAIRS                                                                                                   \
    PAIR("csq-not-initialized", CsqNotInitialized)                                                                     \
    PAIR("device-attached-twice", DeviceAttachedTwice)                                                                 \
    PAIR("device-deleted-twice", DeviceDeletedTwice)                                                                   \
    PAIR("device-leak", DeviceLeak)                                                                                    \
    PAIR("device-not-attached", DeviceNotAttached)                                                                     \
    PAIR("device-not-secure-open", DeviceNotSecureOpen)                                                                \
    PAIR("device-object-damaged", DeviceObjectDamaged)                                                                 \
    PAIR("device-queue-entry-twice", DeviceQueueEntryTwice)                                                            \
    PAIR("device-queue-not-busy", DeviceQueueNotBusy)                                                                  \
    PAIR("device-queue-not-initialized", DeviceQueueNotInitialized)                                                    \
    PAIR("driver-object-damaged", DriverObjectDamaged)                                                                 \
    PAIR("error-log-entry", ErrorLogEntry)                                                                             \
    PAIR("ex-timer", ExTimer)                                                                                          \
    PAIR("ex-timer-leak", ExTimerLeak)                                                                                 \
    PAIR("io-timer", IoTimer)                                                                                          \
    PAIR("io-timer-initialized-again", IoTimerInitializedAgain)                                                        \
    PAIR("io-timer-stopped-in-routine", IoTimerStoppedInRoutine)                                                       \
    PAIR("list-cycle", ListCycle)                                                                                      \
    PAIR("list-damaged", ListDamaged)                                                                                  \
    PAIR("symbolic-link-leak", SymbolicLinkLeak)                                                                       \
    PAIR("unload-still-called", UnloadStillCalled)                                                                     \
    PAIR("work-item", WorkItem)                                                                                        \
    PAIR("work-item-leak", WorkItemLeak)                                                                               \
    PAIR("work-item-queued", WorkItemQueued)

#endif
