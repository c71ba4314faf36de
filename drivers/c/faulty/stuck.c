/*
 * stuck.sys: a driver without hardware that keeps requests while something of its own stays alive. \\.\DirqlStuck,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Activities below.
 *
 * Input: a ULONG, after how many seconds the activity ends the request: 0 is never, which is the bug. With any other number the
 * driver is correct, and slow. The request can be cancelled, unless its code is 0x800 + UNCANCELLABLE + N. All activities end with
 * IRP_MJ_CLEANUP.
 *
 *   0x900 + N  deadlock N, which no time ends (Deadlocks below); they are for one run each
 */
#include <ddk/wdm.h>
#include "../control.h"

#define SECOND 10000000LL
#define MILLISECOND 10000LL
#define FIRST_ACTIVITY 0x800
#define UNCANCELLABLE 0x40
#define FIRST_DEADLOCK 0x900

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlStuck");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlStuck");
static PDEVICE_OBJECT Itself;

static KSPIN_LOCK Lock;      /* of Held */
static PIRP Held;            /* the request that is kept; NULL if it was ended or cancelled */
static ULONGLONG Until;      /* when it is to be ended; 0: never */
static volatile LONG Stop;   /* activities end */
static volatile LONG Rounds; /* of activities, as a driver's statistics would have it */

static ULONGLONG Now(VOID)
{
    return KeQueryInterruptTime();
}

/* ---- the request ------------------------------------------------------------------------------------------------ */

static VOID NTAPI CancelHeld(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL Old;

    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Lock, &Old);
    if (Held == Irp) {
        Held = NULL;
    }
    KeReleaseSpinLock(&Lock, Old);
    Complete(Irp, STATUS_CANCELLED, 0);
}

/* Pends a request, which EndIfDue or its cancel routine ends. */
static NTSTATUS Keep(PIRP Irp, ULONG Seconds, BOOLEAN Cancellable)
{
    KIRQL Old;
    BOOLEAN Cancelled = FALSE;

    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&Lock, &Old);
    Until = Seconds == 0 ? 0 : Now() + Seconds * SECOND;
    Held = Irp;
    if (Cancellable) {
        IoSetCancelRoutine(Irp, CancelHeld);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Cancelled = TRUE;
            Held = NULL;
        }
    }
    KeReleaseSpinLock(&Lock, Old);
    if (Cancelled) {
        Complete(Irp, STATUS_CANCELLED, 0);
    }
    return STATUS_PENDING;
}

/* One round of an activity: counts, and ends the request if its time has come. Up to DISPATCH_LEVEL. Whether the request is gone. */
static BOOLEAN EndIfDue(VOID)
{
    PIRP Irp = NULL;
    KIRQL Old;

    InterlockedIncrement(&Rounds);
    if (Until == 0 || Now() < Until) {
        return Stop != 0 || Held == NULL;
    }
    KeAcquireSpinLock(&Lock, &Old);
    if (Held != NULL && (Held->CancelRoutine == NULL || IoSetCancelRoutine(Held, NULL) != NULL)) {
        Irp = Held;
        Held = NULL;
    }
    KeReleaseSpinLock(&Lock, Old);
    if (Irp != NULL) {
        Complete(Irp, STATUS_SUCCESS, 0);
    }
    return TRUE;
}

/* ---- timers and DPCs -------------------------------------------------------------------------------------------- */

static KTIMER Timer;
static KDPC Dpc;
static KEVENT Pulse, Echo; /* synchronization events that are set by timers and threads */
static KEVENT Never;       /* that is set only when all ends */

static VOID Every(LONG Milliseconds, PKDPC Deferred)
{
    LARGE_INTEGER Due = {.QuadPart = -Milliseconds * MILLISECOND};

    KeSetTimerEx(&Timer, Due, Milliseconds, Deferred);
}

static VOID NTAPI OnTick(PKDPC Deferred, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Deferred);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    EndIfDue();
}

/* 0: a periodic timer with a DPC. */
static VOID PeriodicTimer(VOID)
{
    KeInitializeDpc(&Dpc, OnTick, NULL);
    Every(10, &Dpc);
}

/* 1: the same at the clock's finest. */
static VOID FastTimer(VOID)
{
    KeInitializeDpc(&Dpc, OnTick, NULL);
    Every(1, &Dpc);
}

static VOID NTAPI OnTickAgain(PKDPC Deferred, PVOID Context, PVOID First, PVOID Second)
{
    LARGE_INTEGER Due = {.QuadPart = -20 * MILLISECOND};

    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    if (!EndIfDue()) {
        KeSetTimer(&Timer, Due, Deferred);
    }
}

/* 2: a timer that its DPC sets again. */
static VOID RearmedTimer(VOID)
{
    LARGE_INTEGER Due = {.QuadPart = -20 * MILLISECOND};

    KeInitializeDpc(&Dpc, OnTickAgain, NULL);
    KeSetTimer(&Timer, Due, &Dpc);
}

static VOID NTAPI QueueItself(PKDPC Deferred, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    if (!EndIfDue()) {
        KeInsertQueueDpc(Deferred, NULL, NULL);
    }
}

/* 3: a DPC that queues itself. */
static VOID RequeuedDpc(VOID)
{
    KeInitializeDpc(&Dpc, QueueItself, NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
}

/* 4: a threaded one. */
static VOID RequeuedThreadedDpc(VOID)
{
    KeInitializeThreadedDpc(&Dpc, QueueItself, NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
}

static VOID NTAPI PrintTick(PKDPC Deferred, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Deferred);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    DbgPrint("stuck: still waiting, round %d\n", Rounds);
    EndIfDue();
}

/* 5: a periodic timer whose DPC prints. */
static VOID PrintingTimer(VOID)
{
    KeInitializeDpc(&Dpc, PrintTick, NULL);
    Every(10, &Dpc);
}

static PEX_TIMER Allocated;

static VOID NTAPI OnExTick(PEX_TIMER Object, PVOID Context)
{
    UNREFERENCED_PARAMETER(Object);
    UNREFERENCED_PARAMETER(Context);
    EndIfDue();
}

/* 6: a timer of ExAllocateTimer. */
static VOID ExTimer(VOID)
{
    Allocated = ExAllocateTimer(OnExTick, NULL, 0);
    if (Allocated != NULL) {
        ExSetTimer(Allocated, -10 * MILLISECOND, 10 * MILLISECOND, NULL);
    }
}

static VOID NTAPI OnSecond(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    EndIfDue();
}

/* 7: the device's timer, once a second. */
static VOID DeviceTimer(VOID)
{
    IoStartTimer(Itself);
}

/* ---- threads and work items ------------------------------------------------------------------------------------- */

static PKTHREAD Threads[2];

static VOID NTAPI Watchdog(PVOID Context)
{
    LARGE_INTEGER Interval = {.QuadPart = -100 * MILLISECOND};

    UNREFERENCED_PARAMETER(Context);
    while (!EndIfDue() || Stop == 0) {
        KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI WaitingWatchdog(PVOID Context)
{
    LARGE_INTEGER Timeout = {.QuadPart = -3 * SECOND};

    UNREFERENCED_PARAMETER(Context);
    while (KeWaitForSingleObject(&Never, Executive, KernelMode, FALSE, &Timeout) == STATUS_TIMEOUT) {
        EndIfDue();
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI WakesWithTimer(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    while (Stop == 0) {
        KeWaitForSingleObject(&Timer, Executive, KernelMode, FALSE, NULL);
        EndIfDue();
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI Ping(PVOID Context)
{
    PKEVENT Mine = Context, Other = Mine == &Pulse ? &Echo : &Pulse;

    do {
        KeWaitForSingleObject(Mine, Executive, KernelMode, FALSE, NULL);
        EndIfDue();
        KeSetEvent(Other, IO_NO_INCREMENT, FALSE);
    } while (Stop == 0);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID NTAPI YieldingThread(PVOID Context)
{
    LARGE_INTEGER None = {.QuadPart = 0};

    UNREFERENCED_PARAMETER(Context);
    while (!EndIfDue() || Stop == 0) {
        KeDelayExecutionThread(KernelMode, FALSE, &None);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID Start(ULONG Index, PKSTART_ROUTINE Routine, PVOID Context)
{
    HANDLE Handle;

    if (NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Routine, Context))) {
        ObReferenceObjectByHandle(Handle, SYNCHRONIZE, *PsThreadType, KernelMode, (PVOID *)&Threads[Index], NULL);
        ZwClose(Handle);
    }
}

/* 8: a thread that sleeps and looks. */
static VOID SleepingThread(VOID)
{
    Start(0, Watchdog, NULL);
}

/* 9: a thread that waits with a time-out, and looks. */
static VOID TimedThread(VOID)
{
    Start(0, WaitingWatchdog, NULL);
}

/* 10: a periodic timer without a DPC, and the thread that it wakes. */
static VOID TimerAndThread(VOID)
{
    Every(10, NULL);
    Start(0, WakesWithTimer, NULL);
}

/* 11: two threads that wake each other. */
static VOID PingPong(VOID)
{
    Start(0, Ping, &Pulse);
    Start(1, Ping, &Echo);
    KeSetEvent(&Pulse, IO_NO_INCREMENT, FALSE);
}

static PIO_WORKITEM WorkItem;
static volatile LONG Working;

static VOID NTAPI WorkAgain(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    if (EndIfDue()) {
        InterlockedExchange(&Working, 0);
    } else {
        IoQueueWorkItem(WorkItem, WorkAgain, DelayedWorkQueue, NULL);
    }
}

/* 12: a work item that queues itself. */
static VOID RequeuedWorkItem(VOID)
{
    WorkItem = IoAllocateWorkItem(Itself);
    if (WorkItem != NULL) {
        InterlockedExchange(&Working, 1);
        IoQueueWorkItem(WorkItem, WorkAgain, DelayedWorkQueue, NULL);
    }
}

static WORK_QUEUE_ITEM OldItem;

static VOID NTAPI OldWork(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    EndIfDue();
    InterlockedExchange(&Working, 0);
}

static VOID NTAPI QueueWork(PKDPC Deferred, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Deferred);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    if (InterlockedCompareExchange(&Working, 1, 0) == 0) {
        ExQueueWorkItem(&OldItem, DelayedWorkQueue);
    }
}

/* 13: a periodic timer whose DPC queues work. */
static VOID TimerAndWork(VOID)
{
    ExInitializeWorkItem(&OldItem, OldWork, NULL);
    KeInitializeDpc(&Dpc, QueueWork, NULL);
    Every(50, &Dpc);
}

/* 14: a thread that only lets others go first. */
static VOID Yielding(VOID)
{
    Start(0, YieldingThread, NULL);
}

/* 15: nothing at all is alive; a timer that is set once ends the request, or none does. */
static VOID Quiet(VOID)
{
    LARGE_INTEGER Due = {.QuadPart = -(LONGLONG)(Until - Now()) - MILLISECOND};

    if (Until != 0) {
        KeInitializeDpc(&Dpc, OnTick, NULL);
        KeSetTimer(&Timer, Due, &Dpc);
    }
}

/* ---- the request's own thread looks ------------------------------------------------------------------------------ */

/* 16: it sleeps and looks. */
static VOID PollSleeping(VOID)
{
    LARGE_INTEGER Interval = {.QuadPart = -5 * MILLISECOND};

    while (!EndIfDue()) {
        KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    }
}

/* 17: it stalls and looks. */
static VOID PollStalling(VOID)
{
    while (!EndIfDue()) {
        KeStallExecutionProcessor(1000);
    }
}

/* 18: it only looks. */
static VOID PollState(VOID)
{
    while (!EndIfDue()) {
        (void)KeReadStateEvent(&Never);
    }
}

static volatile LONG Flag;

static VOID NTAPI SetFlag(PKDPC Deferred, PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Deferred);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    if (EndIfDue()) {
        Flag = 1;
    }
}

/* 19: it looks at memory, which a timer's DPC changes. */
static VOID PollMemory(VOID)
{
    Flag = 0;
    KeInitializeDpc(&Dpc, SetFlag, NULL);
    Every(10, &Dpc);
    while (Flag == 0) {
        YieldProcessor();
    }
}

typedef VOID (*ACTIVITY)(VOID);

static const ACTIVITY Activities[] = {
    PeriodicTimer, FastTimer,      RearmedTimer, RequeuedDpc, RequeuedThreadedDpc, PrintingTimer,    ExTimer,
    DeviceTimer,   SleepingThread, TimedThread,  TimerAndThread, PingPong,         RequeuedWorkItem, TimerAndWork,
    Yielding,      Quiet,          PollSleeping, PollStalling,   PollState,        PollMemory,
};

/* ---- deadlocks -------------------------------------------------------------------------------------------------- */

typedef struct _EXTENSION {
    ULONG Unused[3];
    KEVENT Done; /* for the message: an event in the device extension */
    FAST_MUTEX First, Second;
    IO_REMOVE_LOCK RemoveLock;
    KMUTEX Mutex;
} EXTENSION;

static KEVENT Ready;

/* 0: waits for an event in the device extension that no code sets. */
static NTSTATUS WaitsForEvent(EXTENSION *Extension)
{
    return KeWaitForSingleObject(&Extension->Done, Executive, KernelMode, FALSE, NULL);
}

static VOID NTAPI TakesBackwards(PVOID Context)
{
    EXTENSION *Extension = Context;

    ExAcquireFastMutex(&Extension->Second);
    KeSetEvent(&Ready, IO_NO_INCREMENT, FALSE);
    ExAcquireFastMutex(&Extension->First);
    ExReleaseFastMutex(&Extension->First);
    ExReleaseFastMutex(&Extension->Second);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* 1: two threads take two fast mutexes in opposite order. */
static NTSTATUS Inverts(EXTENSION *Extension)
{
    Start(0, TakesBackwards, Extension);
    ExAcquireFastMutex(&Extension->First);
    KeWaitForSingleObject(&Ready, Executive, KernelMode, FALSE, NULL);
    ExAcquireFastMutex(&Extension->Second);
    ExReleaseFastMutex(&Extension->Second);
    ExReleaseFastMutex(&Extension->First);
    return STATUS_SUCCESS;
}

/* 2: waits for the remove lock, which an earlier request still has. */
static NTSTATUS WaitsForRemoval(EXTENSION *Extension)
{
    IoAcquireRemoveLock(&Extension->RemoveLock, (PVOID)0x1234);
    IoAcquireRemoveLock(&Extension->RemoveLock, &Ready);
    IoReleaseRemoveLockAndWait(&Extension->RemoveLock, &Ready);
    return STATUS_SUCCESS;
}

/* 3: sends itself a request that it keeps, and waits for its end. */
static NTSTATUS WaitsForRequest(EXTENSION *Extension)
{
    ULONG Never = 0;
    IO_STATUS_BLOCK Block;
    PIRP Irp;

    KeClearEvent(&Extension->Done);
    Irp = IoBuildDeviceIoControlRequest(CTL_CODE(FILE_DEVICE_UNKNOWN, FIRST_ACTIVITY + UNCANCELLABLE + 15, METHOD_BUFFERED,
                                                 FILE_ANY_ACCESS),
                                        Itself, &Never, sizeof(Never), NULL, 0, FALSE, &Extension->Done, &Block);
    if (Irp == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (IoCallDriver(Itself, Irp) == STATUS_PENDING) {
        KeWaitForSingleObject(&Extension->Done, Executive, KernelMode, FALSE, NULL);
    }
    return Block.Status;
}

static VOID NTAPI KeepsMutex(PVOID Context)
{
    EXTENSION *Extension = Context;

    KeWaitForSingleObject(&Extension->Mutex, Executive, KernelMode, FALSE, NULL);
    KeSetEvent(&Ready, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(&Extension->Done, Executive, KernelMode, FALSE, NULL);
    KeReleaseMutex(&Extension->Mutex, FALSE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* 4: waits for a mutex whose owner waits for an event that this thread would set afterwards. */
static NTSTATUS WaitsForMutex(EXTENSION *Extension)
{
    Start(0, KeepsMutex, Extension);
    KeWaitForSingleObject(&Ready, Executive, KernelMode, FALSE, NULL);
    KeWaitForSingleObject(&Extension->Mutex, Executive, KernelMode, FALSE, NULL);
    KeSetEvent(&Extension->Done, IO_NO_INCREMENT, FALSE);
    KeReleaseMutex(&Extension->Mutex, FALSE);
    return STATUS_SUCCESS;
}

typedef NTSTATUS (*DEADLOCK)(EXTENSION *Extension);

static const DEADLOCK Deadlocks[] = {WaitsForEvent, Inverts, WaitsForRemoval, WaitsForRequest, WaitsForMutex};

/* ---- the driver around them ------------------------------------------------------------------------------------- */

/* All activities end. */
static VOID EndAll(VOID)
{
    LARGE_INTEGER Interval = {.QuadPart = -MILLISECOND};
    ULONG Index;

    InterlockedExchange(&Stop, 1);
    KeCancelTimer(&Timer);
    if (Allocated != NULL) {
        ExDeleteTimer(Allocated, TRUE, TRUE, NULL);
        Allocated = NULL;
    }
    IoStopTimer(Itself);
    KeSetEvent(&Never, IO_NO_INCREMENT, FALSE);
    for (Index = 0; Index < RTL_NUMBER_OF(Threads); Index++) {
        KeSetTimer(&Timer, Interval, NULL);
        KeSetEvent(&Pulse, IO_NO_INCREMENT, FALSE);
        KeSetEvent(&Echo, IO_NO_INCREMENT, FALSE);
        if (Threads[Index] != NULL) {
            KeWaitForSingleObject(Threads[Index], Executive, KernelMode, FALSE, NULL);
            ObDereferenceObject(Threads[Index]);
            Threads[Index] = NULL;
        }
    }
    KeCancelTimer(&Timer);
    KeFlushQueuedDpcs();
    while (Working != 0) {
        KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    }
    if (WorkItem != NULL) {
        IoFreeWorkItem(WorkItem);
        WorkItem = NULL;
    }
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    EndAll();
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Number = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_ACTIVITY;
    BOOLEAN Cancellable = (Number & UNCANCELLABLE) == 0;
    NTSTATUS Status;

    if (Number >= FIRST_DEADLOCK - FIRST_ACTIVITY) {
        Number -= FIRST_DEADLOCK - FIRST_ACTIVITY;
        if (Number >= RTL_NUMBER_OF(Deadlocks)) {
            return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        }
        return Complete(Irp, Deadlocks[Number](Device->DeviceExtension), 0);
    }
    Number &= ~UNCANCELLABLE;
    if (Number >= RTL_NUMBER_OF(Activities) || Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Status = Keep(Irp, *(PULONG)Irp->AssociatedIrp.SystemBuffer, Cancellable);
    Activities[Number]();
    return Status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    EXTENSION *Extension;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(EXTENSION), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN,
                                     FALSE, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Itself = Device;
    Extension = Device->DeviceExtension;
    KeInitializeSpinLock(&Lock);
    KeInitializeTimerEx(&Timer, SynchronizationTimer);
    KeInitializeEvent(&Pulse, SynchronizationEvent, FALSE);
    KeInitializeEvent(&Echo, SynchronizationEvent, FALSE);
    KeInitializeEvent(&Never, NotificationEvent, FALSE);
    KeInitializeEvent(&Ready, NotificationEvent, FALSE);
    KeInitializeEvent(&Extension->Done, NotificationEvent, FALSE);
    ExInitializeFastMutex(&Extension->First);
    ExInitializeFastMutex(&Extension->Second);
    IoInitializeRemoveLock(&Extension->RemoveLock, 0, 0, 0);
    KeInitializeMutex(&Extension->Mutex, 0);
    IoInitializeTimer(Device, OnSecond, NULL);
    ControlLink = &LinkName;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->DriverUnload = ControlUnload;
    return STATUS_SUCCESS;
}
