/* Pairs of device objects, device queues, cancel-safe queues, I/O timers, work items and the error log. */
#ifndef PAIRS_DEVICES_H
#define PAIRS_DEVICES_H

#include "pairs.h"

static PDEVICE_OBJECT NewDevice(VOID)
{
    PDEVICE_OBJECT Device;

    if (!NT_SUCCESS(IoCreateDevice(TheDriver, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Device))) {
        return NULL;
    }
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return Device;
}

static VOID DeleteDevices(PDEVICE_OBJECT First, PDEVICE_OBJECT Second)
{
    IoDeleteDevice(First);
    IoDeleteDevice(Second);
}

/* Two devices, or none. */
static BOOLEAN NewDevices(PDEVICE_OBJECT *First, PDEVICE_OBJECT *Second)
{
    *First = NewDevice();
    if (*First == NULL) {
        return FALSE;
    }
    *Second = NewDevice();
    if (*Second == NULL) {
        IoDeleteDevice(*First);
        return FALSE;
    }
    return TRUE;
}

/* Two devices, the first attached to the second, or none. */
static BOOLEAN NewDeviceStack(PDEVICE_OBJECT *Upper, PDEVICE_OBJECT *Lower)
{
    if (!NewDevices(Upper, Lower)) {
        return FALSE;
    }
    if (IoAttachDeviceToDeviceStack(*Upper, *Lower) == NULL) {
        DeleteDevices(*Upper, *Lower);
        return FALSE;
    }
    return TRUE;
}

static VOID DeviceLeak(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device = NewDevice();

    if (!Wrong && Device != NULL) {
        IoDeleteDevice(Device);
    }
}

static VOID DeviceDeletedTwice(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device = NewDevice();

    if (Device == NULL) {
        return;
    }
    IoDeleteDevice(Device);
    if (!Wrong) {
        Device = NewDevice();
    }
    if (Device != NULL) {
        IoDeleteDevice(Device);
    }
}

static VOID DeviceAttachedTwice(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Upper, Lower;

    if (!NewDeviceStack(&Upper, &Lower)) {
        return;
    }
    if (!Wrong) {
        IoDetachDevice(Lower);
    }
    if (IoAttachDeviceToDeviceStack(Upper, Lower) != NULL) {
        IoDetachDevice(Lower);
    }
    DeleteDevices(Upper, Lower);
}

static VOID DeviceNotAttached(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Upper, Lower;

    if (!NewDeviceStack(&Upper, &Lower)) {
        return;
    }
    IoDetachDevice(Wrong ? Upper : Lower);
    DeleteDevices(Upper, Lower);
}

static VOID ListCycle(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Upper, Lower;

    if (!NewDeviceStack(&Upper, &Lower)) {
        return;
    }
    if (Wrong) {
        Upper->AttachedDevice = Lower;
    }
    ObDereferenceObject(IoGetAttachedDeviceReference(Lower));
    IoDetachDevice(Lower);
    DeleteDevices(Upper, Lower);
}

static VOID DeviceObjectDamaged(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device = NewDevice();

    if (Device == NULL) {
        return;
    }
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

    if (NT_SUCCESS(IoCreateSymbolicLink(&Link, &Name)) && !Wrong) {
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

/* The last removal finds no entry: the queue is not busy any more. */
static VOID EmptyQueue(QUEUE *Queue, ULONG Removals)
{
    while (Removals-- > 0) {
        KeRemoveDeviceQueue(&Queue->Queue);
    }
}

static VOID DeviceQueueNotInitialized(BOOLEAN Wrong)
{
    QUEUE *Queue = NewQueue(!Wrong);
    KIRQL Old;

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    KeInsertDeviceQueue(&Queue->Queue, &Queue->First);
    EmptyQueue(Queue, 1);
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
    EmptyQueue(Queue, 3);
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
    EmptyQueue(Queue, 2);
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

    KeInitializeSpinLock(&CsqLock);
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

    if (Device == NULL) {
        return;
    }
    if (Wrong || NT_SUCCESS(IoInitializeTimer(Device, EachSecond, NULL))) {
        IoStartTimer(Device);
        IoStopTimer(Device);
    }
    IoDeleteDevice(Device);
}

static VOID IoTimerInitializedAgain(BOOLEAN Wrong)
{
    PDEVICE_OBJECT Device, Other;

    if (!NewDevices(&Device, &Other)) {
        return;
    }
    if (NT_SUCCESS(IoInitializeTimer(Device, EachSecond, NULL))) {
        IoInitializeTimer(Wrong ? Device : Other, EachSecond, NULL);
    }
    DeleteDevices(Device, Other);
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

    if (Item == NULL) {
        return;
    }
    IoFreeWorkItem(Item);
    if (!Wrong) {
        Item = IoAllocateWorkItem(TheDevice);
    }
    if (Item != NULL) {
        IoFreeWorkItem(Item);
    }
}

static VOID WorkItemLeak(BOOLEAN Wrong)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(TheDevice);

    if (!Wrong && Item != NULL) {
        IoFreeWorkItem(Item);
    }
}

static VOID WorkItemQueued(BOOLEAN Wrong)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(TheDevice);
    KIRQL Old;

    if (Item == NULL) {
        return;
    }
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

    if (Entry == NULL) {
        return;
    }
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

    if (Timer == NULL) {
        return;
    }
    ExDeleteTimer(Timer, TRUE, TRUE, NULL);
    if (!Wrong) {
        Timer = ExAllocateTimer(ExTimerFires, NULL, 0);
    }
    if (Timer != NULL) {
        ExDeleteTimer(Timer, TRUE, TRUE, NULL);
    }
}

static VOID ExTimerLeak(BOOLEAN Wrong)
{
    struct _EX_TIMER *Timer = ExAllocateTimer(ExTimerFires, NULL, 0);

    if (!Wrong && Timer != NULL) {
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

    if (Device == NULL) {
        return;
    }
    KeInitializeEvent(&IoTimerCalled, NotificationEvent, FALSE);
    if (NT_SUCCESS(IoInitializeTimer(Device, StopsItself, Wrong ? Device : NULL))) {
        IoStartTimer(Device);
        WaitFor(&IoTimerCalled);
        IoStopTimer(Device);
        KeFlushQueuedDpcs();
    }
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
