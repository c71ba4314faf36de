/*
 * kmdf_stories.sys: a client of KMDF without Plug and Play, whose control device \\.\KmdfStories tells stories by their names: what functions of the
 * framework answer. At most three files are open at a time in its life, and the fourth is refused.
 *
 * Pages: those of the functions that the stories call.
 */
#include <ddk/wdm.h>

#include "framework/client.h"
#include "framework/control.h"

typedef struct _STORY_RESULT {
    ULONG Failed; /* the line of the first check that failed, 0 if all held */
    ULONG Held;
} STORY_RESULT;

/* Input: a story's name. Output: a STORY_RESULT. */
#define IOCTL_TELL_STORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xFFE, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Waits in a queue until a story takes it. */
#define IOCTL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

static ULONG Held;

#define CHECK(Condition)                                                                                                               \
    do {                                                                                                                               \
        if (!(Condition)) {                                                                                                            \
            DbgPrint("kmdf_stories: %s:%u: %s\n", __FILE_NAME__, __LINE__, #Condition);                                                \
            return __LINE__;                                                                                                           \
        }                                                                                                                              \
        Held++;                                                                                                                        \
    } while (0)

typedef struct _FIRST {
    ULONG Value;
    WDFREQUEST Request;
} FIRST;

typedef struct _SECOND {
    ULONG64 Values[3];
} SECOND;

CONTEXT_TYPE(FIRST, FirstOf)
CONTEXT_TYPE(SECOND, SecondOf)

static PDRIVER_OBJECT DriverObject;
static WDFDRIVER Driver;
static WDFDEVICE Device;
static WDFQUEUE Waiting;
static WDFREQUEST Teller; /* the request that names the story */
static LONG Cleaned, Destroyed, Ran;
static LONG FilesOpen, FilesClosed, FilesCleaned;

static VOID OnCleanup(WDFOBJECT Object)
{
    UNREFERENCED_PARAMETER(Object);
    InterlockedIncrement(&Cleaned);
}

static VOID OnDestroy(WDFOBJECT Object)
{
    UNREFERENCED_PARAMETER(Object);
    InterlockedIncrement(&Destroyed);
}

static NTSTATUS Create(WDFOBJECT Parent, WDFOBJECT *Created)
{
    WDF_OBJECT_ATTRIBUTES Attributes;

    InitializeAttributes(&Attributes, &TypeOfFIRST, Parent);
    Attributes.EvtCleanupCallback = OnCleanup;
    Attributes.EvtDestroyCallback = OnDestroy;
    return CALL(WdfObjectCreate, &Attributes, Created);
}

/* Contexts are zeroed, found by their type, and lead back to their object. */
static ULONG ContextsAreFoundByTheirTypes(VOID)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDFOBJECT Object;
    SECOND *Second;

    CHECK(NT_SUCCESS(Create(NULL, &Object)));
    CHECK(FirstOf(Object) != NULL && FirstOf(Object)->Value == 0);
    CHECK(SecondOf(Object) == NULL);
    InitializeAttributes(&Attributes, &TypeOfSECOND, NULL);
    CHECK(CALL(WdfObjectAllocateContext, Object, &Attributes, (PVOID *)&Second) == STATUS_SUCCESS);
    CHECK(SecondOf(Object) == Second && Second->Values[2] == 0);
    CHECK(CALL(WdfObjectAllocateContext, Object, &Attributes, (PVOID *)&Second) == STATUS_OBJECT_NAME_EXISTS);
    CHECK(SecondOf(Object) == Second);
    CHECK(CALL(WdfObjectContextGetObject, Second) == Object);
    CHECK(CALL(WdfObjectContextGetObject, FirstOf(Object)) == Object);
    Attributes.Size--;
    CHECK(CALL(WdfObjectAllocateContext, Object, &Attributes, (PVOID *)&Second) == STATUS_INFO_LENGTH_MISMATCH);
    CALL(WdfObjectDelete, Object);
    return 0;
}

/* A parent takes its children along; who has a reference keeps the context, but not from being cleaned up. */
static ULONG ChildrenGoWithTheirParentAndReferencesKeepMemory(VOID)
{
    WDFOBJECT Parent, Child, Grandchild;

    Cleaned = Destroyed = 0;
    CHECK(NT_SUCCESS(Create(NULL, &Parent)));
    CHECK(NT_SUCCESS(Create(Parent, &Child)));
    CHECK(NT_SUCCESS(Create(Child, &Grandchild)));
    CALL(WdfObjectReferenceActual, Child, NULL, __LINE__, __FILE_NAME__);
    FirstOf(Child)->Value = 5;
    CALL(WdfObjectDelete, Parent);
    CHECK(Cleaned == 3 && Destroyed == 2);
    CHECK(FirstOf(Child)->Value == 5);
    CALL(WdfObjectDereferenceActual, Child, NULL, __LINE__, __FILE_NAME__);
    CHECK(Destroyed == 3);
    return 0;
}

static ULONG DriverAndDeviceKnowEachOther(VOID)
{
    PDEVICE_OBJECT Wdm = CALL(WdfDeviceWdmGetDeviceObject, Device);
    WDFQUEUE Default = CALL(WdfDeviceGetDefaultQueue, Device);
    UNICODE_STRING Said;

    CHECK(WdfDriverGlobals->Driver == Driver);
    CHECK(CALL(WdfDriverWdmGetDriverObject, Driver) == DriverObject);
    CHECK(CALL(WdfDeviceGetDriver, Device) == Driver);
    CHECK(Wdm->DriverObject == DriverObject);
    CHECK(Wdm->DeviceType == FILE_DEVICE_UNKNOWN + 0x8000);
    CHECK(CALL(WdfWdmDeviceGetWdfDeviceHandle, Wdm) == Device);
    CHECK(CALL(WdfDeviceWdmGetAttachedDevice, Device) == NULL);
    CHECK(CALL(WdfDeviceWdmGetPhysicalDevice, Device) == NULL);
    CHECK(CALL(WdfIoQueueGetDevice, Default) == Device);
    RtlInitUnicodeString(&Said, CALL(WdfDriverGetRegistryPath, Driver));
    CHECK(RtlEqualUnicodeString(&Said, &Path, FALSE));
    CHECK(WdfDriverGlobals->DriverName[0] == 'k' && WdfDriverGlobals->DriverName[11] == 's');
    return 0;
}

static VOID OnDpc(WDFDPC Dpc)
{
    UNREFERENCED_PARAMETER(Dpc);
    if (KeGetCurrentIrql() == DISPATCH_LEVEL) {
        InterlockedIncrement(&Ran);
    }
}

static ULONG DpcsRunOnceForEachQueuing(VOID)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDF_DPC_CONFIG Config;
    WDFDPC Dpc;
    KIRQL Irql;

    Ran = 0;
    INITIALIZE(WDF_DPC_CONFIG, &Config);
    Config.EvtDpcFunc = OnDpc;
    CHECK(CALL(WdfDpcCreate, &Config, NULL, &Dpc) == STATUS_WDF_PARENT_NOT_SPECIFIED);
    InitializeAttributes(&Attributes, NULL, Device);
    CHECK(NT_SUCCESS(CALL(WdfDpcCreate, &Config, &Attributes, &Dpc)));
    CHECK(CALL(WdfDpcGetParentObject, Dpc) == Device && CALL(WdfDpcWdmGetDpc, Dpc) != NULL);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    BOOLEAN First = CALL(WdfDpcEnqueue, Dpc), Second = CALL(WdfDpcEnqueue, Dpc);
    BOOLEAN Cancelled = CALL(WdfDpcCancel, Dpc, FALSE), Third = CALL(WdfDpcEnqueue, Dpc);
    KeLowerIrql(Irql);
    CHECK(First && !Second && Cancelled && Third);
    CALL(WdfDpcCancel, Dpc, TRUE);
    CHECK(Ran == 1);
    CALL(WdfObjectDelete, Dpc);
    return 0;
}

static VOID OnTimer(WDFTIMER Timer)
{
    UNREFERENCED_PARAMETER(Timer);
    InterlockedIncrement(&Ran);
}

static VOID Sleep(LONG Milliseconds)
{
    LARGE_INTEGER Time;

    Time.QuadPart = -10000LL * Milliseconds;
    KeDelayExecutionThread(KernelMode, FALSE, &Time);
}

static ULONG TimersRunOnceOrPeriodicallyUntilTheyAreStopped(VOID)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDF_TIMER_CONFIG Config;
    WDFTIMER Timer, Periodic;

    Ran = 0;
    INITIALIZE(WDF_TIMER_CONFIG, &Config);
    Config.EvtTimerFunc = OnTimer;
    InitializeAttributes(&Attributes, NULL, Device);
    CHECK(NT_SUCCESS(CALL(WdfTimerCreate, &Config, &Attributes, &Timer)));
    CHECK(CALL(WdfTimerGetParentObject, Timer) == Device);
    CHECK(!CALL(WdfTimerStart, Timer, -10000000)); /* a second */
    CHECK(CALL(WdfTimerStart, Timer, -10000));
    Sleep(40);
    CHECK(Ran == 1);
    CHECK(!CALL(WdfTimerStop, Timer, TRUE));
    Config.Period = 20;
#if KMDF_MINOR >= 9
    Config.TolerableDelay = 5;
#endif
    CHECK(NT_SUCCESS(CALL(WdfTimerCreate, &Config, &Attributes, &Periodic)));
    CALL(WdfTimerStart, Periodic, -10000);
    Sleep(200);
    CHECK(CALL(WdfTimerStop, Periodic, TRUE));
    CHECK(Ran >= 4);
    CALL(WdfTimerStart, Periodic, -10000); /* runs when it is deleted */
    CALL(WdfObjectDelete, Periodic);
    CALL(WdfObjectDelete, Timer);
    Config.Size += 8;
    CHECK(CALL(WdfTimerCreate, &Config, &Attributes, &Timer) == STATUS_INFO_LENGTH_MISMATCH);
    return 0;
}

static VOID OnWork(WDFWORKITEM Work)
{
    if (InterlockedIncrement(&Ran) == 1) {
        CALL(WdfWorkItemEnqueue, Work); /* once more */
    }
}

static ULONG WorkItemsRunAtPassiveLevelAndAreWaitedFor(VOID)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDF_WORKITEM_CONFIG Config;
    WDFWORKITEM Work;

    Ran = 0;
    INITIALIZE(WDF_WORKITEM_CONFIG, &Config);
    Config.EvtWorkItemFunc = OnWork;
    InitializeAttributes(&Attributes, NULL, Driver);
    CHECK(CALL(WdfWorkItemCreate, &Config, &Attributes, &Work) == STATUS_INVALID_DEVICE_REQUEST); /* of no device */
    InitializeAttributes(&Attributes, NULL, Device);
    CHECK(NT_SUCCESS(CALL(WdfWorkItemCreate, &Config, &Attributes, &Work)));
    CHECK(CALL(WdfWorkItemGetParentObject, Work) == Device);
    CALL(WdfWorkItemFlush, Work);
    CHECK(Ran == 0);
    CALL(WdfWorkItemEnqueue, Work);
    CALL(WdfWorkItemFlush, Work);
    CHECK(Ran == 2);
    CALL(WdfWorkItemEnqueue, Work);
    CALL(WdfObjectDelete, Work);
    CHECK(Ran == 3);
    return 0;
}

static ULONG WaitLocksAreWaitedForAsLongAsIsSaid(VOID)
{
    LONGLONG Now = 0;
    WDFWAITLOCK Lock;
    WDFSPINLOCK Spin;

    CHECK(NT_SUCCESS(CALL(WdfWaitLockCreate, NULL, &Lock)));
    CHECK(CALL(WdfWaitLockAcquire, Lock, NULL) == STATUS_SUCCESS);
    CHECK(KeAreApcsDisabled());
    CHECK(CALL(WdfWaitLockAcquire, Lock, &Now) == STATUS_TIMEOUT);
    CALL(WdfWaitLockRelease, Lock);
    CHECK(!KeAreApcsDisabled());
    CHECK(CALL(WdfWaitLockAcquire, Lock, &Now) == STATUS_SUCCESS);
    CALL(WdfWaitLockRelease, Lock);
    CALL(WdfObjectDelete, Lock);
    CHECK(NT_SUCCESS(CALL(WdfSpinLockCreate, NULL, &Spin)));
    CALL(WdfSpinLockAcquire, Spin);
    KIRQL Level = KeGetCurrentIrql();
    CALL(WdfSpinLockRelease, Spin);
    CHECK(Level == DISPATCH_LEVEL && KeGetCurrentIrql() == PASSIVE_LEVEL);
    CALL(WdfObjectDelete, Spin);
    return 0;
}

/* Of the request that tells the story. */
static ULONG ARequestSaysWhatItIs(VOID)
{
    WDF_REQUEST_PARAMETERS Parameters;
    PVOID Input, Output;
    SIZE_T Length;
    WDFFILEOBJECT File = CALL(WdfRequestGetFileObject, Teller);
    PIRP Irp = CALL(WdfRequestWdmGetIrp, Teller);

    Parameters.Size = sizeof(Parameters);
    CALL(WdfRequestGetParameters, Teller, &Parameters);
    CHECK(Parameters.Type == IRP_MJ_DEVICE_CONTROL && Parameters.Parameters.DeviceIoControl.IoControlCode == IOCTL_TELL_STORY);
    CHECK(Parameters.Parameters.DeviceIoControl.OutputBufferLength == sizeof(STORY_RESULT));
    CHECK(NT_SUCCESS(CALL(WdfRequestRetrieveInputBuffer, Teller, 1, &Input, &Length)));
    CHECK(Length == Parameters.Parameters.DeviceIoControl.InputBufferLength);
    CHECK(CALL(WdfRequestRetrieveInputBuffer, Teller, Length + 1, &Output, NULL) == STATUS_BUFFER_TOO_SMALL && Output == NULL);
    CHECK(NT_SUCCESS(CALL(WdfRequestRetrieveOutputBuffer, Teller, 1, &Output, &Length)) && Output == Input && Length == sizeof(STORY_RESULT));
    CHECK(CALL(WdfRequestGetIoQueue, Teller) == CALL(WdfDeviceGetDefaultQueue, Device));
    CHECK(!CALL(WdfRequestIsCanceled, Teller) && CALL(WdfRequestGetInformation, Teller) == 0);
    CALL(WdfRequestSetInformation, Teller, 3);
    CHECK(CALL(WdfRequestGetInformation, Teller) == 3 && Irp->IoStatus.Information == 3);
    CHECK(FirstOf(Teller) != NULL && FirstOf(Teller)->Request == NULL); /* WdfDeviceInitSetRequestAttributes */
    CHECK(CALL(WdfFileObjectWdmGetFileObject, File) == IoGetCurrentIrpStackLocation(Irp)->FileObject);
    CHECK(CALL(WdfFileObjectGetDevice, File) == Device && FirstOf(File)->Value == 77);
#if KMDF_MINOR >= 9 /* older frameworks do not look whether it is */
    CHECK(CALL(WdfRequestUnmarkCancelable, Teller) == STATUS_INVALID_PARAMETER);
#endif
    CHECK(CALL(WdfRequestRequeue, Teller) == STATUS_INVALID_DEVICE_REQUEST); /* its queue is no manual one */
    return 0;
}

static VOID OnStopped(WDFQUEUE Queue, WDFCONTEXT Context)
{
    *(WDFQUEUE *)Context = Queue;
}

/* With one request that waits. */
static ULONG AManualQueueIsStoppedStartedAndRefilled(VOID)
{
    WDFQUEUE Stopped = NULL;
    WDFREQUEST Request, Again;

    CALL(WdfIoQueueStop, Waiting, OnStopped, &Stopped);
    CHECK(Stopped == Waiting);
    CHECK(CALL(WdfIoQueueRetrieveNextRequest, Waiting, &Request) == STATUS_WDF_PAUSED);
    CALL(WdfIoQueueStart, Waiting);
    CHECK(CALL(WdfIoQueueRetrieveNextRequest, Waiting, &Request) == STATUS_SUCCESS);
    CHECK(CALL(WdfRequestGetIoQueue, Request) == Waiting);
    CHECK(CALL(WdfIoQueueRetrieveNextRequest, Waiting, &Again) == STATUS_NO_MORE_ENTRIES);
    CHECK(CALL(WdfRequestRequeue, Request) == STATUS_SUCCESS);
    CHECK(CALL(WdfIoQueueRetrieveNextRequest, Waiting, &Again) == STATUS_SUCCESS && Again == Request);
#if KMDF_MINOR >= 9 /* older frameworks do it */
    CHECK(CALL(WdfRequestForwardToIoQueue, Again, Waiting) == STATUS_INVALID_DEVICE_REQUEST); /* it is of that queue */
#endif
    CALL(WdfRequestCompleteWithInformation, Again, STATUS_SUCCESS, 0);
    CALL(WdfIoQueueStopSynchronously, Waiting);
    CALL(WdfIoQueueStart, Waiting);
    return 0;
}

static VOID OnIo(WDFQUEUE Queue, WDFREQUEST Request)
{
    UNREFERENCED_PARAMETER(Queue);
    CALL(WdfRequestComplete, Request, STATUS_NOT_SUPPORTED);
}

static ULONG QueuesThatCannotBeAreRefused(VOID)
{
    WDF_IO_QUEUE_CONFIG Config;
    WDFQUEUE Queue;

    InitializeQueue(&Config, WdfIoQueueDispatchManual, WdfFalse);
    Config.EvtIoDefault = OnIo;
    CHECK(CALL(WdfIoQueueCreate, Device, &Config, NULL, &Queue) == STATUS_INVALID_PARAMETER);
    Config.DispatchType = WdfIoQueueDispatchSequential;
    Config.EvtIoDefault = NULL;
    CHECK(CALL(WdfIoQueueCreate, Device, &Config, NULL, &Queue) == STATUS_WDF_NO_CALLBACK);
    Config.EvtIoDefault = OnIo;
    Config.DefaultQueue = TRUE;
    CHECK(CALL(WdfIoQueueCreate, Device, &Config, NULL, &Queue) == STATUS_INVALID_DEVICE_STATE); /* there is one */
    Config.DefaultQueue = FALSE;
    Config.Size -= 8;
    CHECK(CALL(WdfIoQueueCreate, Device, &Config, NULL, &Queue) == STATUS_INFO_LENGTH_MISMATCH);
    Config.Size += 8;
    CHECK(NT_SUCCESS(CALL(WdfIoQueueCreate, Device, &Config, NULL, &Queue)));
    CALL(WdfObjectDelete, Queue);
    return 0;
}

/* By who opened the device: this file is one of them, the other was closed. */
static ULONG FilesAreOpenedCleanedUpAndClosed(VOID)
{
    CHECK(FilesOpen == 2 && FilesCleaned == 1 && FilesClosed == 1);
    return 0;
}

static const struct {
    PCSTR Name;
    ULONG (*Tell)(VOID);
} Stories[] = {
#define STORY(Function) {#Function, Function}
    STORY(ContextsAreFoundByTheirTypes),
    STORY(ChildrenGoWithTheirParentAndReferencesKeepMemory),
    STORY(DriverAndDeviceKnowEachOther),
    STORY(DpcsRunOnceForEachQueuing),
    STORY(TimersRunOnceOrPeriodicallyUntilTheyAreStopped),
    STORY(WorkItemsRunAtPassiveLevelAndAreWaitedFor),
    STORY(WaitLocksAreWaitedForAsLongAsIsSaid),
    STORY(ARequestSaysWhatItIs),
    STORY(AManualQueueIsStoppedStartedAndRefilled),
    STORY(QueuesThatCannotBeAreRefused),
    STORY(FilesAreOpenedCleanedUpAndClosed),
};

static BOOLEAN IsName(PCSTR Name, PCSTR Input, SIZE_T Length)
{
    SIZE_T Index;

    for (Index = 0; Index < Length && Name[Index] == Input[Index] && Name[Index] != '\0'; Index++) {
    }
    return Index == Length && Name[Index] == '\0';
}

static NTSTATUS Tell(PCSTR Name, SIZE_T Length, STORY_RESULT *Result)
{
    ULONG Index;

    for (Index = 0; Index < RTL_NUMBER_OF(Stories); Index++) {
        if (IsName(Stories[Index].Name, Name, Length)) {
            Held = 0;
            Result->Failed = Stories[Index].Tell();
            Result->Held = Held;
            return STATUS_SUCCESS;
        }
    }
    return STATUS_NOT_FOUND;
}

static VOID OnControl(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    STORY_RESULT *Result;
    PCSTR Name;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    if (Code == IOCTL_WAIT) {
        Status = CALL(WdfRequestForwardToIoQueue, Request, Waiting);
        if (NT_SUCCESS(Status)) {
            return;
        }
    } else {
        Status = CALL(WdfRequestRetrieveInputBuffer, Request, 1, (PVOID *)&Name, &InputLength);
        if (NT_SUCCESS(Status)) {
            Status = CALL(WdfRequestRetrieveOutputBuffer, Request, sizeof(*Result), (PVOID *)&Result, NULL);
        }
        if (NT_SUCCESS(Status)) {
            Teller = Request;
            Status = Tell(Name, InputLength, Result);
        }
    }
    CALL(WdfRequestCompleteWithInformation, Request, Status, NT_SUCCESS(Status) ? sizeof(*Result) : 0);
}

static VOID OnFileCreate(WDFDEVICE Handle, WDFREQUEST Request, WDFFILEOBJECT File)
{
    UNREFERENCED_PARAMETER(Handle);
    FirstOf(File)->Value = 77;
    InterlockedIncrement(&FilesOpen);
    CALL(WdfRequestComplete, Request, FilesOpen > 3 ? STATUS_TOO_MANY_OPENED_FILES : STATUS_SUCCESS);
}

static VOID OnFileCleanup(WDFFILEOBJECT File)
{
    UNREFERENCED_PARAMETER(File);
    InterlockedIncrement(&FilesCleaned);
}

static VOID OnFileClose(WDFFILEOBJECT File)
{
    UNREFERENCED_PARAMETER(File);
    InterlockedIncrement(&FilesClosed);
}

static NTSTATUS CreateQueues(VOID)
{
    WDF_IO_QUEUE_CONFIG Config;
    NTSTATUS Status;

    InitializeQueue(&Config, WdfIoQueueDispatchParallel, WdfUseDefault);
#if KMDF_MINOR >= 9
    Config.NumberOfPresentedRequests = 3;
#endif
    Config.DefaultQueue = TRUE;
    Config.EvtIoDeviceControl = OnControl;
    Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    InitializeQueue(&Config, WdfIoQueueDispatchManual, WdfUseDefault);
    return CALL(WdfIoQueueCreate, Device, &Config, NULL, &Waiting);
}

static VOID Configure(PWDFDEVICE_INIT Init)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDF_FILEOBJECT_CONFIG Files;

    INITIALIZE(WDF_FILEOBJECT_CONFIG, &Files);
    Files.EvtDeviceFileCreate = OnFileCreate;
    Files.EvtFileCleanup = OnFileCleanup;
    Files.EvtFileClose = OnFileClose;
    Files.AutoForwardCleanupClose = WdfUseDefault;
    Files.FileObjectClass = 2; /* the context is in FsContext */
    InitializeAttributes(&Attributes, &TypeOfFIRST, NULL);
    CALL(WdfDeviceInitSetFileObjectConfig, Init, &Files, &Attributes);
    CALL(WdfDeviceInitSetRequestAttributes, Init, &Attributes);
    CALL(WdfDeviceInitSetExclusive, Init, FALSE);
    CALL(WdfDeviceInitSetDeviceType, Init, FILE_DEVICE_UNKNOWN + 0x8000);
}

static VOID OnUnload(WDFDRIVER Handle)
{
    UNREFERENCED_PARAMETER(Handle);
}

static NTSTATUS FinishDevice(VOID)
{
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\KmdfStories");
    NTSTATUS Status = CALL(WdfDeviceCreateSymbolicLink, Device, &Link);

    if (NT_SUCCESS(Status)) {
        Status = CreateQueues();
    }
    if (NT_SUCCESS(Status)) {
        CALL(WdfControlFinishInitializing, Device);
    }
    return Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Wdm, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\KmdfStories");
    NTSTATUS Status = CreateDriver(Wdm, RegistryPath, OnUnload, &Driver);

    DriverObject = Wdm;
    if (NT_SUCCESS(Status)) {
        Status = CreateControlDevice(Driver, &Name, Configure, &Device);
    }
    return NT_SUCCESS(Status) ? FinishDevice() : Status;
}
