/*
 * apcs.sys: a driver without hardware for what APCs do: special kernel ones tell a thread that its request has ended, user ones
 * interrupt waits. \\.\DirqlApcs,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, N, METHOD_BUFFERED, FILE_ANY_ACCESS):
 *
 *   IOCTL_TELL_STORY of control.h: a story of Stories below, by its name; requests come one at a time
 *   0x8F0  a request of the driver's own that ends LATER in a DPC; input and output: a ULONG, and the same plus one
 *   0x8F1  waits; input: a ULONG, WAIT_…; the answer's status is the wait's
 *   0x8F2  lets go who waits so
 *
 * Each story sends itself such requests by IoBuildDeviceIoControlRequest, whose end sets an event and fills a status block.
 */
#include <ddk/wdm.h>
#define STORIES "apcs"
#include "control.h"

#define IOCTL_LATER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define WAIT 0x8F1
#define LET_GO 0x8F2
#define WAIT_USER 1      /* UserMode */
#define WAIT_ALERTABLE 2
#define WAIT_CRITICAL 4  /* in a critical region */
#define WAIT_DELAY 8     /* for a second, not for the event */
#define LATER 100 /* microseconds */
#define SLOTS 4

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlApcs");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlApcs");
static PDEVICE_OBJECT Itself;

/* ---- requests that end later ------------------------------------------------------------------------------------ */

static struct {
    KTIMER Timer;
    KDPC Dpc;
    PIRP Irp;
    LONG Used;
} Slots[SLOTS];

static LONG Ended; /* requests that IoCompleteRequest has returned for */

static VOID NTAPI EndOfRequest(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    ULONG Slot = (ULONG)(ULONG_PTR)Context;
    PIRP Irp = Slots[Slot].Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    ++*(PULONG)Irp->AssociatedIrp.SystemBuffer;
    InterlockedExchange(&Slots[Slot].Used, 0);
    Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    InterlockedIncrement(&Ended);
}

static NTSTATUS EndLater(PIRP Irp)
{
    LARGE_INTEGER Due;
    ULONG Slot;

    for (Slot = 0; Slot < SLOTS; Slot++) {
        if (InterlockedCompareExchange(&Slots[Slot].Used, 1, 0) == 0) {
            break;
        }
    }
    if (Slot == SLOTS) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    IoMarkIrpPending(Irp);
    Slots[Slot].Irp = Irp;
    KeInitializeTimer(&Slots[Slot].Timer);
    KeInitializeDpc(&Slots[Slot].Dpc, EndOfRequest, (PVOID)(ULONG_PTR)Slot);
    Due.QuadPart = -10 * LATER;
    KeSetTimer(&Slots[Slot].Timer, Due, &Slots[Slot].Dpc);
    return STATUS_PENDING;
}

/* A request of this thread's, with the event and the status block of its end. */
typedef struct _REQUEST {
    KEVENT Event;
    IO_STATUS_BLOCK Block;
    ULONG Value;
    LONG Before; /* Ended when it was sent */
} REQUEST;

static NTSTATUS Send(REQUEST *Request, ULONG Value)
{
    PIRP Irp;

    KeInitializeEvent(&Request->Event, NotificationEvent, FALSE);
    Request->Block.Status = STATUS_PENDING;
    Request->Block.Information = 0;
    Request->Value = Value;
    Request->Before = Ended;
    Irp = IoBuildDeviceIoControlRequest(IOCTL_LATER, Itself, &Request->Value, sizeof(Request->Value), &Request->Value,
                                        sizeof(Request->Value), FALSE, &Request->Event, &Request->Block);
    return Irp == NULL ? STATUS_INSUFFICIENT_RESOURCES : IoCallDriver(Itself, Irp);
}

static BOOLEAN IsTold(REQUEST *Request)
{
    return *(NTSTATUS volatile *)&Request->Block.Status != STATUS_PENDING;
}

/* The event, the status block and the output at the request's end. */
static BOOLEAN Is(REQUEST *Request, ULONG Value)
{
    return Request->Block.Status == STATUS_SUCCESS && Request->Block.Information == sizeof(ULONG) &&
           *(ULONG volatile *)&Request->Value == Value && KeReadStateEvent(&Request->Event) != 0;
}

static VOID Wait(REQUEST *Request)
{
    KeWaitForSingleObject(&Request->Event, Executive, KernelMode, FALSE, NULL);
}

static VOID Sleep(LONGLONG Microseconds)
{
    LARGE_INTEGER Interval;

    Interval.QuadPart = -10 * Microseconds;
    KeDelayExecutionThread(KernelMode, FALSE, &Interval);
}

/* Until the request has been completed, whether its thread knows or not; 20 clock ticks at most. */
static BOOLEAN Completed(REQUEST *Request)
{
    ULONG Round;

    for (Round = 0; Round < 20 && *(LONG volatile *)&Ended == Request->Before; Round++) {
        Sleep(1000);
    }
    return *(LONG volatile *)&Ended != Request->Before;
}

/* ---- stories ---------------------------------------------------------------------------------------------------- */

static ULONG Waited(VOID)
{
    REQUEST Request;

    CHECK(Send(&Request, 7) == STATUS_PENDING);
    Wait(&Request);
    CHECK(Is(&Request, 8));
    return 0;
}

/* What holds back normal APCs holds back none of these: a critical region, a mutex. */
static ULONG InCriticalRegion(VOID)
{
    REQUEST Request;
    KMUTEX Mutex;

    KeEnterCriticalRegion();
    CHECK(KeAreApcsDisabled() && !KeAreAllApcsDisabled());
    CHECK(Send(&Request, 1) == STATUS_PENDING);
    Wait(&Request);
    CHECK(Is(&Request, 2));
    KeLeaveCriticalRegion();
    KeInitializeMutex(&Mutex, 0);
    KeWaitForSingleObject(&Mutex, Executive, KernelMode, FALSE, NULL);
    CHECK(KeAreApcsDisabled() && !KeAreAllApcsDisabled());
    CHECK(Send(&Request, 3) == STATUS_PENDING);
    Wait(&Request);
    CHECK(Is(&Request, 4));
    KeReleaseMutex(&Mutex, FALSE);
    return 0;
}

/* As Microsoft says: a fast mutex without APC_LEVEL, in a critical region. */
static ULONG FastMutexUnsafe(VOID)
{
    REQUEST Request;
    FAST_MUTEX Mutex;

    ExInitializeFastMutex(&Mutex);
    KeEnterCriticalRegion();
    ExAcquireFastMutexUnsafe(&Mutex);
    CHECK(Send(&Request, 1) == STATUS_PENDING);
    Wait(&Request);
    CHECK(Is(&Request, 2));
    ExReleaseFastMutexUnsafe(&Mutex);
    KeLeaveCriticalRegion();
    return 0;
}

/* It comes between two instructions of a thread that computes. */
static ULONG WhileItComputes(VOID)
{
    REQUEST Request;
    ULONG Rounds = 0;

    CHECK(Send(&Request, 10) == STATUS_PENDING);
    while (!IsTold(&Request) && Rounds < 20000000) /* past the next clock tick */ {
        Rounds++;
    }
    CHECK(IsTold(&Request) && Is(&Request, 11));
    return 0;
}

/* Not at APC_LEVEL; at once when the level falls. */
static ULONG AtApcLevel(VOID)
{
    REQUEST Request;
    KIRQL OldIrql;

    CHECK(Send(&Request, 20) == STATUS_PENDING);
    KeRaiseIrql(APC_LEVEL, &OldIrql);
    CHECK(KeAreAllApcsDisabled());
    if (!IsTold(&Request)) { /* it had not come before */
        CHECK(Completed(&Request));
        CHECK(!IsTold(&Request) && KeReadStateEvent(&Request.Event) == 0 && Request.Value == 20);
    }
    KeLowerIrql(OldIrql);
    CHECK(Is(&Request, 21));
    return 0;
}

/* Not in a guarded region, however deep, running or waiting for something else; at once behind the last. */
static ULONG InGuardedRegion(VOID)
{
    REQUEST Request;

    KeEnterGuardedRegion();
    KeEnterGuardedRegion();
    CHECK(Send(&Request, 30) == STATUS_PENDING);
    CHECK(Completed(&Request));
    Sleep(1000);
    CHECK(!IsTold(&Request) && KeReadStateEvent(&Request.Event) == 0 && Request.Value == 30);
    KeLeaveGuardedRegion();
    CHECK(KeAreAllApcsDisabled() && !IsTold(&Request));
    KeLeaveGuardedRegion();
    CHECK(!KeAreAllApcsDisabled() && Is(&Request, 31));
    return 0;
}

/* A wait for something else goes on behind it, for as long as it was to take. */
static ULONG WhileItWaits(VOID)
{
    LARGE_INTEGER Timeout;
    REQUEST Request;
    KEVENT Never;
    PVOID Both[2] = { &Never, &Request.Event };
    ULONGLONG Begun;

    KeInitializeEvent(&Never, SynchronizationEvent, FALSE);
    Timeout.QuadPart = -10 * 50000;
    CHECK(Send(&Request, 40) == STATUS_PENDING);
    Begun = KeQueryInterruptTime();
    CHECK(KeWaitForSingleObject(&Never, Executive, KernelMode, FALSE, &Timeout) == STATUS_TIMEOUT);
    CHECK(KeQueryInterruptTime() - Begun >= 10 * 49000 && Is(&Request, 41));
    CHECK(Send(&Request, 42) == STATUS_PENDING);
    Begun = KeQueryInterruptTime();
    Sleep(50000);
    CHECK(KeQueryInterruptTime() - Begun >= 10 * 49000 && Is(&Request, 43));
    CHECK(Send(&Request, 44) == STATUS_PENDING);
    CHECK(KeWaitForMultipleObjects(2, Both, WaitAll, Executive, KernelMode, FALSE, &Timeout, NULL) == STATUS_TIMEOUT);
    CHECK(Is(&Request, 45));
    CHECK(Send(&Request, 46) == STATUS_PENDING);
    CHECK(KeWaitForMultipleObjects(2, Both, WaitAny, Executive, KernelMode, FALSE, &Timeout, NULL) == STATUS_WAIT_1);
    CHECK(Is(&Request, 47));
    return 0;
}

/* Several: each ends with its event and status block. */
static ULONG Several(VOID)
{
    REQUEST Requests[3];
    ULONG Index;

    KeEnterGuardedRegion();
    for (Index = 0; Index < 3; Index++) {
        CHECK(Send(&Requests[Index], 100 * Index) == STATUS_PENDING);
    }
    Sleep(1000);
    KeLeaveGuardedRegion();
    for (Index = 0; Index < 3; Index++) {
        Wait(&Requests[Index]);
        CHECK(Is(&Requests[Index], 100 * Index + 1));
    }
    return 0;
}

static REQUEST Shared;
static KEVENT Sent;
static LONG Woken;

static VOID NTAPI WaitForAnothers(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    KeWaitForSingleObject(&Sent, Executive, KernelMode, FALSE, NULL);
    Wait(&Shared);
    InterlockedIncrement(&Woken);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Another thread that waits for the event wakes no sooner than the thread whose request it is. */
static ULONG ForAnotherThread(VOID)
{
    HANDLE Handle;
    PVOID Thread;

    Woken = 0;
    KeInitializeEvent(&Sent, NotificationEvent, FALSE);
    CHECK(NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, WaitForAnothers, NULL)));
    CHECK(NT_SUCCESS(ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, &Thread, NULL)));
    ZwClose(Handle);
    KeEnterGuardedRegion();
    CHECK(Send(&Shared, 50) == STATUS_PENDING);
    KeSetEvent(&Sent, IO_NO_INCREMENT, FALSE);
    CHECK(Completed(&Shared));
    Sleep(1000);
    CHECK(Woken == 0 && !IsTold(&Shared));
    KeLeaveGuardedRegion();
    KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
    CHECK(Woken == 1 && Is(&Shared, 51));
    ObDereferenceObject(Thread);
    return 0;
}

/* ---- waits that an application may interrupt -------------------------------------------------------------------- */

static KEVENT Gate;

static NTSTATUS WaitAsAsked(PIRP Irp)
{
    ULONG How = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    KPROCESSOR_MODE Mode = How & WAIT_USER ? UserMode : KernelMode;
    BOOLEAN Alertable = (How & WAIT_ALERTABLE) != 0;
    LARGE_INTEGER Interval;
    NTSTATUS Status;

    if (How & WAIT_CRITICAL) {
        KeEnterCriticalRegion();
    }
    Interval.QuadPart = -10 * 1000000;
    Status = How & WAIT_DELAY ? KeDelayExecutionThread(Mode, Alertable, &Interval)
                              : KeWaitForSingleObject(&Gate, UserRequest, Mode, Alertable, NULL);
    if (How & WAIT_CRITICAL) {
        KeLeaveCriticalRegion();
    }
    DbgPrint("apcs: wait %u ended with %08x\n", How, Status);
    return Complete(Irp, Status, 0);
}

/* ---- mistakes --------------------------------------------------------------------------------------------------- */

static VOID WaitsInGuardedRegion(VOID)
{
    REQUEST Request;

    KeEnterGuardedRegion();
    Send(&Request, 1);
    Wait(&Request);
    KeLeaveGuardedRegion();
}

static VOID WaitsWithFastMutex(VOID)
{
    REQUEST Request;
    FAST_MUTEX Mutex;

    ExInitializeFastMutex(&Mutex);
    ExAcquireFastMutex(&Mutex);
    Send(&Request, 1);
    Wait(&Request);
    ExReleaseFastMutex(&Mutex);
}

/* ---- the driver ------------------------------------------------------------------------------------------------- */

static const STORY Stories[] = {
    STORY(Waited), STORY(InCriticalRegion), STORY(FastMutexUnsafe), STORY(WhileItComputes), STORY(AtApcLevel),
    STORY(InGuardedRegion), STORY(WhileItWaits), STORY(Several), STORY(ForAnotherThread),
    /* What ends the run. */
    BUG(WaitsInGuardedRegion), BUG(WaitsWithFastMutex),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Code = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode;
    ULONG Function = (Code >> 2) & 0xFFF;

    UNREFERENCED_PARAMETER(Device);
    switch (Function) {
    case (IOCTL_LATER >> 2) & 0xFFF:
        return EndLater(Irp);
    case WAIT:
        return WaitAsAsked(Irp);
    case LET_GO:
        KeSetEvent(&Gate, IO_NO_INCREMENT, FALSE);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

/* A DPC that has completed a request may still be on its way back. */
static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeFlushQueuedDpcs();
    ControlUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverUnload = Unload;
    KeInitializeEvent(&Gate, SynchronizationEvent, FALSE);
    Itself = Driver->DeviceObject;
    return Status;
}
