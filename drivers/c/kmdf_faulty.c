/*
 * kmdf_faulty.sys: a client of KMDF without Plug and Play, whose control device \\.\KmdfFaulty makes mistakes: each control code is one (Mistakes),
 * made if its input is 1, and done right by the same calls if it is 0.
 *
 * A read or a write of one byte is done right; of more, it is asked for the buffer that it does not have.
 *
 * Pages: Using Control Device Objects, Using Framework Locks, WdfRequestUnmarkCancelable, WdfObjectDelete, Bug Check 0x10D: WDF_VIOLATION.
 */
#include <ddk/wdm.h>

#include "framework/client.h"
#include "framework/control.h"

/* Not a function of the framework's stand-in. */
DDI(NTSTATUS, WdfCollectionCreate, PWDF_OBJECT_ATTRIBUTES Attributes, PVOID *Created);

typedef struct _NUMBER {
    ULONG Value;
} NUMBER;

CONTEXT_TYPE(NUMBER, NumberOf)

static WDFSPINLOCK SpinLock;
static WDFWAITLOCK WaitLock;
static WDFTIMER Timer;
static WDFWORKITEM Work;
static WDFQUEUE Manual;
/* What OnTimer or OnWork ends, and whether it makes its mistake. */
static PVOID volatile Pending;
static BOOLEAN PendingWrong;
/* A function that ends with a call would jump there, and not be on the stack. */
static volatile ULONG Completed;

static VOID CompletesTwice(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
    if (Wrong) {
        CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
        Completed++;
    }
}

static VOID NeverCompletes(WDFREQUEST Request, BOOLEAN Wrong)
{
    if (!Wrong) {
        CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
    }
}

static VOID OnCancel(WDFREQUEST Request)
{
    CALL(WdfRequestComplete, Request, STATUS_CANCELLED);
}

static VOID CompletesWhileCancelable(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfRequestMarkCancelable, Request, OnCancel);
    if (!Wrong && CALL(WdfRequestUnmarkCancelable, Request) == STATUS_CANCELLED) {
        return; /* OnCancel completes it */
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
    Completed++;
}

static VOID WaitsAtDispatchLevel(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfSpinLockAcquire, SpinLock);
    if (!Wrong) {
        CALL(WdfSpinLockRelease, SpinLock);
    }
    CALL(WdfWaitLockAcquire, WaitLock, NULL);
    CALL(WdfWaitLockRelease, WaitLock);
    if (Wrong) {
        CALL(WdfSpinLockRelease, SpinLock);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID UsesDeletedHandle(WDFREQUEST Request, BOOLEAN Wrong)
{
    WDFSPINLOCK Lock;

    if (NT_SUCCESS(CALL(WdfSpinLockCreate, NULL, &Lock))) {
        if (Wrong) {
            CALL(WdfObjectDelete, Lock);
        }
        CALL(WdfSpinLockAcquire, Lock);
        CALL(WdfSpinLockRelease, Lock);
        CALL(WdfObjectDelete, Lock);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID UsesWrongHandle(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfSpinLockAcquire, Wrong ? (WDFSPINLOCK)WaitLock : SpinLock);
    CALL(WdfSpinLockRelease, SpinLock);
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID CallsWhatIsMissing(WDFREQUEST Request, BOOLEAN Wrong)
{
    PVOID Collection;

    if (Wrong) {
        CALL(WdfCollectionCreate, NULL, &Collection);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID ReturnsWithSpinLock(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfSpinLockAcquire, SpinLock);
    if (!Wrong) {
        CALL(WdfSpinLockRelease, SpinLock);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID SaysTooMuch(WDFREQUEST Request, BOOLEAN Wrong)
{
    PVOID Output;
    SIZE_T Length;

    if (!NT_SUCCESS(CALL(WdfRequestRetrieveOutputBuffer, Request, 1, &Output, &Length))) {
        CALL(WdfRequestComplete, Request, STATUS_BUFFER_TOO_SMALL);
        return;
    }
    RtlZeroMemory(Output, Length);
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, Wrong ? Length + 1 : Length);
}

static VOID OnTimer(WDFTIMER Handle)
{
    WDFREQUEST Request = InterlockedExchangePointer(&Pending, NULL);

    if (Request != NULL) {
        CALL(WdfTimerStop, Handle, PendingWrong);
        CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
    }
}

static VOID OnWork(WDFWORKITEM Handle)
{
    WDFREQUEST Request = InterlockedExchangePointer(&Pending, NULL);

    if (PendingWrong) {
        CALL(WdfWorkItemFlush, Handle);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID StopsTimerAtDispatchLevel(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfTimerStart, Timer, -10000);
    CALL(WdfSpinLockAcquire, SpinLock);
    if (!Wrong) {
        CALL(WdfSpinLockRelease, SpinLock);
    }
    CALL(WdfTimerStop, Timer, TRUE);
    if (Wrong) {
        CALL(WdfSpinLockRelease, SpinLock);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID AcquiresTwice(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfSpinLockAcquire, SpinLock);
    if (Wrong) {
        CALL(WdfSpinLockAcquire, SpinLock);
    }
    CALL(WdfSpinLockRelease, SpinLock);
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID CompletesNull(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfRequestComplete, Wrong ? NULL : Request, STATUS_SUCCESS);
}

static VOID WritesFreedContext(WDFREQUEST Request, BOOLEAN Wrong)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDFOBJECT Object;

    InitializeAttributes(&Attributes, &TypeOfNUMBER, NULL);
    if (NT_SUCCESS(CALL(WdfObjectCreate, &Attributes, &Object))) {
        NUMBER *Number = NumberOf(Object);

        if (Wrong) {
            CALL(WdfObjectDelete, Object);
            *(volatile ULONG *)&Number->Value = 1;
        } else {
            *(volatile ULONG *)&Number->Value = 1;
            CALL(WdfObjectDelete, Object);
        }
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID DereferencesLast(WDFREQUEST Request, BOOLEAN Wrong)
{
    WDFOBJECT Object;

    if (NT_SUCCESS(CALL(WdfObjectCreate, NULL, &Object))) {
        CALL(WdfObjectReferenceActual, Object, NULL, __LINE__, __FILE_NAME__);
        CALL(WdfObjectDereferenceActual, Object, NULL, __LINE__, __FILE_NAME__);
        if (Wrong) {
            CALL(WdfObjectDereferenceActual, Object, NULL, __LINE__, __FILE_NAME__);
        }
        CALL(WdfObjectDelete, Object);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID ReleasesWhatItDoesNotHold(WDFREQUEST Request, BOOLEAN Wrong)
{
    WDFSPINLOCK Other;

    if (NT_SUCCESS(CALL(WdfSpinLockCreate, NULL, &Other))) {
        CALL(WdfSpinLockAcquire, Other);
        if (!Wrong) {
            CALL(WdfSpinLockAcquire, SpinLock);
        }
        CALL(WdfSpinLockRelease, SpinLock);
        CALL(WdfSpinLockRelease, Other);
        CALL(WdfObjectDelete, Other);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID WaitsForItself(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfWaitLockAcquire, WaitLock, NULL);
    if (!Wrong) {
        CALL(WdfWaitLockRelease, WaitLock);
    }
    CALL(WdfWaitLockAcquire, WaitLock, NULL);
    CALL(WdfWaitLockRelease, WaitLock);
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID BreaksIntoDebugger(WDFREQUEST Request, BOOLEAN Wrong)
{
    if (Wrong) {
        CALL(WdfVerifierDbgBreakPoint);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID StopsTheSystem(WDFREQUEST Request, BOOLEAN Wrong)
{
    if (Wrong) {
        CALL(WdfVerifierKeBugCheck, 0xE1, 2, 3, 4, 5);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

#if KMDF_MINOR >= 11
static NTSTATUS OnUsage(WDFDEVICE Device, ULONG Type, BOOLEAN InPath)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Type);
    UNREFERENCED_PARAMETER(InPath);
    return STATUS_SUCCESS;
}

static VOID WantsMissingCallback(WDFREQUEST Request, BOOLEAN Wrong)
{
    PWDFDEVICE_INIT Init = CALL(WdfControlDeviceInitAllocate, WdfDriverGlobals->Driver, &ForAdministrators);
    WDF_PNPPOWER_EVENT_CALLBACKS Callbacks;

    if (Init != NULL) {
        INITIALIZE(WDF_PNPPOWER_EVENT_CALLBACKS, &Callbacks);
        Callbacks.EvtDeviceUsageNotificationEx = Wrong ? OnUsage : NULL;
        CALL(WdfDeviceInitSetPnpPowerEventCallbacks, Init, &Callbacks);
        CALL(WdfDeviceInitFree, Init);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}
#endif

static VOID UsesCompletedRequest(WDFREQUEST Request, BOOLEAN Wrong)
{
    if (!Wrong) {
        CALL(WdfRequestGetInformation, Request);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
    if (Wrong) {
        CALL(WdfRequestGetInformation, Request);
        Completed++;
    }
}

/* Lets it be canceled, and no more if that is done right. False: OnCancel completes it. */
static inline BOOLEAN MarkAndUnmark(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfRequestMarkCancelable, Request, OnCancel);
    return Wrong || CALL(WdfRequestUnmarkCancelable, Request) != STATUS_CANCELLED;
}

static VOID MarksTwice(WDFREQUEST Request, BOOLEAN Wrong)
{
    if (!MarkAndUnmark(Request, Wrong)) {
        return;
    }
    CALL(WdfRequestMarkCancelable, Request, OnCancel);
    if (CALL(WdfRequestUnmarkCancelable, Request) != STATUS_CANCELLED) {
        CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
    }
}

static VOID ForwardsWhileCancelable(WDFREQUEST Request, BOOLEAN Wrong)
{
    NTSTATUS Status;

    if (!MarkAndUnmark(Request, Wrong)) {
        return;
    }
    Status = CALL(WdfRequestForwardToIoQueue, Request, Manual);
    if (NT_SUCCESS(Status) && !NT_SUCCESS(CALL(WdfIoQueueRetrieveNextRequest, Manual, &Request))) {
        return; /* canceled meanwhile */
    }
    CALL(WdfRequestComplete, Request, Status);
}

static VOID AsksWhetherCanceled(WDFREQUEST Request, BOOLEAN Wrong)
{
    BOOLEAN Canceled;

    if (!MarkAndUnmark(Request, Wrong)) {
        return;
    }
    Canceled = CALL(WdfRequestIsCanceled, Request);
    if (!Wrong || CALL(WdfRequestUnmarkCancelable, Request) != STATUS_CANCELLED) {
        CALL(WdfRequestComplete, Request, Canceled ? STATUS_CANCELLED : STATUS_SUCCESS);
    }
}

static VOID AcknowledgesNoStop(WDFREQUEST Request, BOOLEAN Wrong)
{
    if (Wrong) {
        CALL(WdfRequestStopAcknowledge, Request, FALSE);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID WaitsForQueue(WDFREQUEST Request, BOOLEAN Wrong)
{
    if (Wrong) {
        CALL(WdfIoQueueStopSynchronously, Manual);
    } else {
        CALL(WdfIoQueueStop, Manual, NULL, NULL);
    }
    CALL(WdfIoQueueStart, Manual);
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID StopsTimerInItsCallback(WDFREQUEST Request, BOOLEAN Wrong)
{
    PendingWrong = Wrong;
    Pending = Request;
    CALL(WdfTimerStart, Timer, -10000);
}

static VOID FlushesWorkInItsCallback(WDFREQUEST Request, BOOLEAN Wrong)
{
    PendingWrong = Wrong;
    Pending = Request;
    CALL(WdfWorkItemEnqueue, Work);
}

static VOID AsksForFile(WDFREQUEST Request, BOOLEAN Wrong)
{
    if (Wrong) {
        CALL(WdfRequestGetFileObject, Request);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID UsesFreedInit(WDFREQUEST Request, BOOLEAN Wrong)
{
    PWDFDEVICE_INIT Init = CALL(WdfControlDeviceInitAllocate, WdfDriverGlobals->Driver, &ForAdministrators);

    if (Init != NULL) {
        if (!Wrong) {
            CALL(WdfDeviceInitSetExclusive, Init, TRUE);
        }
        CALL(WdfDeviceInitFree, Init);
        if (Wrong) {
            CALL(WdfDeviceInitSetExclusive, Init, TRUE);
        }
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID FreesInitTwice(WDFREQUEST Request, BOOLEAN Wrong)
{
    PWDFDEVICE_INIT Init = CALL(WdfControlDeviceInitAllocate, WdfDriverGlobals->Driver, &ForAdministrators);

    if (Init != NULL) {
        CALL(WdfDeviceInitFree, Init);
        if (Wrong) {
            CALL(WdfDeviceInitFree, Init);
        }
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID LeavesDeviceUnfinished(WDFREQUEST Request, BOOLEAN Wrong)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\KmdfFaultyToo");
    WDFDEVICE Device;
    NTSTATUS Status = CreateControlDevice(WdfDriverGlobals->Driver, &Name, NULL, &Device);

    if (NT_SUCCESS(Status) && !Wrong) {
        CALL(WdfControlFinishInitializing, Device);
    }
    CALL(WdfRequestComplete, Request, Status);
}

static VOID ReadsBufferOfCompleted(WDFREQUEST Request, BOOLEAN Wrong)
{
    volatile ULONG *Input;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, sizeof(ULONG), (PVOID *)&Input, NULL);

    if (!Wrong) {
        Completed += *Input;
    }
    CALL(WdfRequestComplete, Request, Status);
    if (Wrong) {
        Completed += *Input;
    }
}

static VOID ReturnsWithWaitLock(WDFREQUEST Request, BOOLEAN Wrong)
{
    CALL(WdfWaitLockAcquire, WaitLock, NULL);
    if (!Wrong) {
        CALL(WdfWaitLockRelease, WaitLock);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID SetsUpNothing(WDFREQUEST Request, BOOLEAN Wrong)
{
    if (Wrong) {
        CALL(WdfDeviceInitFree, NULL);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID LeaksInit(WDFREQUEST Request, BOOLEAN Wrong)
{
    PWDFDEVICE_INIT Init = CALL(WdfControlDeviceInitAllocate, WdfDriverGlobals->Driver, &ForAdministrators);

    if (Init != NULL && !Wrong) {
        CALL(WdfDeviceInitFree, Init);
    }
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

static VOID CreatesBareDevice(WDFREQUEST Request, BOOLEAN Wrong)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\KmdfFaultyToo");
    WDFDRIVER Driver = WdfDriverGlobals->Driver;
    PDEVICE_OBJECT Bare;
    WDFDEVICE Device;
    NTSTATUS Status;

    if (Wrong) {
        Status = IoCreateDevice(CALL(WdfDriverWdmGetDriverObject, Driver), 0, &Name, FILE_DEVICE_UNKNOWN,
                                FILE_DEVICE_SECURE_OPEN, FALSE, &Bare);
        if (NT_SUCCESS(Status)) {
            IoDeleteDevice(Bare);
        }
    } else {
        Status = CreateControlDevice(Driver, &Name, NULL, &Device);
        if (NT_SUCCESS(Status)) {
            CALL(WdfControlFinishInitializing, Device);
            CALL(WdfObjectDelete, Device);
        }
    }
    CALL(WdfRequestComplete, Request, Status);
}

static VOID OnRead(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    PVOID Buffer;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Queue);
    if (Length > 1) {
        Status = CALL(WdfRequestRetrieveInputBuffer, Request, 1, &Buffer, NULL);
    } else {
        Status = CALL(WdfRequestRetrieveOutputBuffer, Request, 1, &Buffer, NULL);
    }
    CALL(WdfRequestComplete, Request, Status);
}

static VOID OnWrite(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    PVOID Buffer;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Queue);
    if (Length > 1) {
        Status = CALL(WdfRequestRetrieveOutputBuffer, Request, 1, &Buffer, NULL);
    } else {
        Status = CALL(WdfRequestRetrieveInputBuffer, Request, 1, &Buffer, NULL);
    }
    CALL(WdfRequestComplete, Request, Status);
}

/* By the function of the control code, from 0x800. */
static VOID (*const Mistakes[])(WDFREQUEST Request, BOOLEAN Wrong) = {
    CompletesTwice,      /* 222000 */
    NeverCompletes,      /* 222004 */
    CompletesWhileCancelable,
    WaitsAtDispatchLevel, /* 22200C */
    UsesDeletedHandle,   /* 222010 */
    UsesWrongHandle,     /* 222014 */
    CallsWhatIsMissing,  /* 222018 */
    ReturnsWithSpinLock, /* 22201C */
    SaysTooMuch,         /* 222020 */
    StopsTimerAtDispatchLevel,
    AcquiresTwice,       /* 222028 */
    CompletesNull,       /* 22202C */
    WritesFreedContext,  /* 222030 */
    DereferencesLast,    /* 222034 */
    ReleasesWhatItDoesNotHold,
    WaitsForItself,      /* 22203C */
    BreaksIntoDebugger,  /* 222040 */
    StopsTheSystem,      /* 222044 */
#if KMDF_MINOR >= 11
    WantsMissingCallback, /* 222048 */
#else
    NULL,
#endif
    UsesCompletedRequest, /* 22204C */
    MarksTwice,           /* 222050 */
    ForwardsWhileCancelable,
    AsksWhetherCanceled,  /* 222058 */
    AcknowledgesNoStop,   /* 22205C */
    WaitsForQueue,        /* 222060 */
    StopsTimerInItsCallback,
    FlushesWorkInItsCallback,
    AsksForFile,          /* 22206C */
    UsesFreedInit,        /* 222070 */
    FreesInitTwice,       /* 222074 */
    LeavesDeviceUnfinished,
    ReadsBufferOfCompleted, /* 22207C */
    ReturnsWithWaitLock,  /* 222080 */
    SetsUpNothing,        /* 222084 */
    LeaksInit,            /* 222088 */
    CreatesBareDevice,    /* 22208C */
};

static VOID OnControl(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    ULONG Number = (Code - CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)) / 4;
    PVOID Input;

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Number >= RTL_NUMBER_OF(Mistakes) || Mistakes[Number] == NULL ||
        !NT_SUCCESS(CALL(WdfRequestRetrieveInputBuffer, Request, sizeof(ULONG), &Input, NULL))) {
        CALL(WdfRequestComplete, Request, STATUS_INVALID_PARAMETER);
        return;
    }
    Mistakes[Number](Request, *(PULONG)Input != 0);
}

static NTSTATUS CreateObjects(WDFDEVICE Device)
{
    WDF_IO_QUEUE_CONFIG Queue;
    WDF_TIMER_CONFIG Config;
    WDF_WORKITEM_CONFIG WorkConfig;
    WDF_OBJECT_ATTRIBUTES Attributes;
    NTSTATUS Status;

    InitializeQueue(&Queue, WdfIoQueueDispatchParallel, WdfUseDefault);
    Queue.DefaultQueue = TRUE;
    Queue.EvtIoDeviceControl = OnControl;
    Queue.EvtIoRead = OnRead;
    Queue.EvtIoWrite = OnWrite;
    Status = CALL(WdfIoQueueCreate, Device, &Queue, NULL, NULL);
    if (NT_SUCCESS(Status)) {
        InitializeQueue(&Queue, WdfIoQueueDispatchManual, WdfUseDefault);
        Status = CALL(WdfIoQueueCreate, Device, &Queue, NULL, &Manual);
    }
    InitializeAttributes(&Attributes, NULL, Device);
    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfSpinLockCreate, &Attributes, &SpinLock);
    }
    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfWaitLockCreate, &Attributes, &WaitLock);
    }
    if (NT_SUCCESS(Status)) {
        INITIALIZE(WDF_TIMER_CONFIG, &Config);
        Config.EvtTimerFunc = OnTimer;
        Status = CALL(WdfTimerCreate, &Config, &Attributes, &Timer);
    }
    if (NT_SUCCESS(Status)) {
        INITIALIZE(WDF_WORKITEM_CONFIG, &WorkConfig);
        WorkConfig.EvtWorkItemFunc = OnWork;
        Status = CALL(WdfWorkItemCreate, &WorkConfig, &Attributes, &Work);
    }
    return Status;
}

static VOID OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static NTSTATUS FinishDevice(WDFDEVICE Device)
{
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\KmdfFaulty");
    NTSTATUS Status = CALL(WdfDeviceCreateSymbolicLink, Device, &Link);

    if (NT_SUCCESS(Status)) {
        Status = CreateObjects(Device);
    }
    if (NT_SUCCESS(Status)) {
        CALL(WdfControlFinishInitializing, Device);
    }
    return Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\KmdfFaulty");
    WDFDRIVER Handle;
    WDFDEVICE Device;
    NTSTATUS Status = CreateDriver(Driver, RegistryPath, OnUnload, &Handle);

    if (NT_SUCCESS(Status)) {
        Status = CreateControlDevice(Handle, &Name, NULL, &Device);
    }
    return NT_SUCCESS(Status) ? FinishDevice(Device) : Status;
}
