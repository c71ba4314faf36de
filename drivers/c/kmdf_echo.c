/*
 * kmdf_echo.sys: a client of KMDF for a device without hardware (Root\DirqlKmdfEcho, interface {6D1C2B6E-7E0A-4C1B-9D37-3A54C0F2E815}), of the version
 * KMDF_MINOR. A write is kept, a read gives it back.
 *
 * Its default queue is sequential. IOCTL_ECHO_BACK gives the input back at once, IOCTL_ECHO_WORK by a work item. IOCTL_ECHO_LATER goes to a queue of its
 * own, whose request can be cancelled, and ends by a timer after as many milliseconds as its input says, or by IOCTL_ECHO_HURRY. IOCTL_ECHO_WAIT
 * waits in a manual queue until IOCTL_ECHO_NEXT lets the oldest go with the bytes of its input. IOCTL_ECHO_COUNTS tells what has happened.
 * IOCTL_ECHO_DOWN goes to the device below. With FAULTY it is sent with a spin lock held, and requests end in EvtDeviceSurpriseRemoval. With
 * POLICY_OWNER it says whether it owns the device's power policy.
 *
 * Pages: Framework Queue Objects, WdfRequestMarkCancelableEx, EvtRequestCancel, EvtIoStop, Using Timers, Using Framework Work Items.
 */
#include <ddk/wdm.h>

#include "framework/client.h"

#define IOCTL_ECHO_BACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ECHO_LATER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ECHO_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ECHO_NEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ECHO_WORK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ECHO_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ECHO_HURRY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define IOCTL_ECHO_DOWN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x807, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST 256

typedef struct _COUNTS {
    ULONG Entries; /* 00 of D0 */
    ULONG Exits;   /* 04 */
    ULONG Kept;    /* 08 requests that were kept while power was off */
    ULONG Resumed; /* 0C */
    ULONG Worked;  /* 10 work items */
} COUNTS;

typedef struct _ECHO {
    WDFQUEUE Slow;
    WDFQUEUE Manual;
    WDFTIMER Timer;
    WDFWORKITEM Work;
    WDFSPINLOCK Lock; /* of what follows */
    UCHAR Data[MOST];
    SIZE_T Length;
    WDFREQUEST Late;   /* waits for the timer */
#if KMDF_MINOR < 9
    BOOLEAN CancelledEarly; /* the request that is about to be the late one */
#endif
    WDFREQUEST Worked; /* waits for the work item */
    WDFWAITLOCK CountLock;
    COUNTS Counts;
} ECHO;

CONTEXT_TYPE(ECHO, EchoOf)

static const GUID InterfaceClass = {0x6D1C2B6E, 0x7E0A, 0x4C1B, {0x9D, 0x37, 0x3A, 0x54, 0xC0, 0xF2, 0xE8, 0x15}};

static ECHO *EchoOfQueue(WDFQUEUE Queue)
{
    return EchoOf(CALL(WdfIoQueueGetDevice, Queue));
}

static VOID OnWrite(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    ECHO *Echo = EchoOfQueue(Queue);
    PVOID Buffer;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, 1, &Buffer, &Length);

    if (!NT_SUCCESS(Status) || Length > MOST) {
        CALL(WdfRequestComplete, Request, NT_SUCCESS(Status) ? STATUS_INVALID_BUFFER_SIZE : Status);
        return;
    }
    CALL(WdfSpinLockAcquire, Echo->Lock);
    RtlCopyMemory(Echo->Data, Buffer, Length);
    Echo->Length = Length;
    CALL(WdfSpinLockRelease, Echo->Lock);
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, Length);
}

static VOID OnRead(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    ECHO *Echo = EchoOfQueue(Queue);
    PVOID Buffer;
    NTSTATUS Status = CALL(WdfRequestRetrieveOutputBuffer, Request, 1, &Buffer, &Length);

    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    CALL(WdfSpinLockAcquire, Echo->Lock);
    Length = min(Length, Echo->Length);
    RtlCopyMemory(Buffer, Echo->Data, Length);
    CALL(WdfSpinLockRelease, Echo->Lock);
    CALL(WdfRequestSetInformation, Request, Length);
    CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
}

/* Ends a request with its own input. */
static VOID GiveBack(WDFREQUEST Request)
{
    PVOID Input, Output;
    SIZE_T InputLength, OutputLength;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, 1, &Input, &InputLength);

    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfRequestRetrieveOutputBuffer, Request, InputLength, &Output, &OutputLength);
    }
    CALL(WdfRequestCompleteWithInformation, Request, Status, NT_SUCCESS(Status) ? InputLength : 0); /* in and out are one buffer */
}

static VOID LetNextGo(ECHO *Echo, WDFREQUEST Request)
{
    PVOID Input, Output;
    SIZE_T Length;
    WDFREQUEST Waiting;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, 1, &Input, &Length);

    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfIoQueueRetrieveNextRequest, Echo->Manual, &Waiting);
    }
    if (NT_SUCCESS(Status)) {
        NTSTATUS Fits = CALL(WdfRequestRetrieveOutputBuffer, Waiting, Length, &Output, NULL);

        if (NT_SUCCESS(Fits)) {
            RtlCopyMemory(Output, Input, Length);
        }
        CALL(WdfRequestCompleteWithInformation, Waiting, Fits, NT_SUCCESS(Fits) ? Length : 0);
    }
    CALL(WdfRequestComplete, Request, Status);
}

static VOID TellCounts(ECHO *Echo, WDFREQUEST Request)
{
    PVOID Output;
    NTSTATUS Status = CALL(WdfRequestRetrieveOutputBuffer, Request, sizeof(COUNTS), &Output, NULL);

    if (NT_SUCCESS(Status)) {
        *(COUNTS *)Output = Echo->Counts;
    }
    CALL(WdfRequestCompleteWithInformation, Request, Status, NT_SUCCESS(Status) ? sizeof(COUNTS) : 0);
}

static VOID Forward(WDFREQUEST Request, WDFQUEUE Queue)
{
    NTSTATUS Status = CALL(WdfRequestForwardToIoQueue, Request, Queue);

    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
    }
}

static VOID SendDown(ECHO *Echo, WDFDEVICE Device, WDFREQUEST Request)
{
    WDF_REQUEST_SEND_OPTIONS Options = {sizeof(Options), WDF_REQUEST_SEND_OPTION_SEND_AND_FORGET, 0};
    WDFIOTARGET Below = CALL(WdfDeviceGetIoTarget, Device);
    BOOLEAN Sent;

#ifdef FAULTY /* a mistake: who completes it at once would have the lock */
    CALL(WdfSpinLockAcquire, Echo->Lock);
    Sent = CALL(WdfRequestSend, Request, Below, &Options);
    CALL(WdfSpinLockRelease, Echo->Lock);
#else
    UNREFERENCED_PARAMETER(Echo);
    Sent = CALL(WdfRequestSend, Request, Below, &Options);
#endif
    if (!Sent) {
        NTSTATUS Status = CALL(WdfRequestGetStatus, Request);

        CALL(WdfRequestComplete, Request, Status);
    }
}

static VOID EndLate(ECHO *Echo);

static VOID OnControl(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    ECHO *Echo = EchoOfQueue(Queue);

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    switch (Code) {
    case IOCTL_ECHO_BACK:
        GiveBack(Request);
        break;
    case IOCTL_ECHO_LATER:
        Forward(Request, Echo->Slow);
        break;
    case IOCTL_ECHO_WAIT:
        Forward(Request, Echo->Manual);
        break;
    case IOCTL_ECHO_NEXT:
        LetNextGo(Echo, Request);
        break;
    case IOCTL_ECHO_WORK:
        Echo->Worked = Request; /* the only one: the queue is sequential */
        CALL(WdfWorkItemEnqueue, Echo->Work);
        break;
    case IOCTL_ECHO_HURRY:
        EndLate(Echo);
        CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
        break;
    case IOCTL_ECHO_COUNTS:
        TellCounts(Echo, Request);
        break;
    case IOCTL_ECHO_DOWN:
        SendDown(Echo, CALL(WdfIoQueueGetDevice, Queue), Request);
        break;
    default:
        CALL(WdfRequestComplete, Request, STATUS_INVALID_DEVICE_REQUEST);
        break;
    }
}

static VOID OnWork(WDFWORKITEM Work)
{
    ECHO *Echo = EchoOf(CALL(WdfWorkItemGetParentObject, Work));
    WDFREQUEST Request = Echo->Worked;

    CALL(WdfWaitLockAcquire, Echo->CountLock, NULL);
    Echo->Counts.Worked++;
    CALL(WdfWaitLockRelease, Echo->CountLock);
    GiveBack(Request);
}

static VOID OnCancel(WDFREQUEST Request)
{
    ECHO *Echo = EchoOfQueue(CALL(WdfRequestGetIoQueue, Request));

    CALL(WdfSpinLockAcquire, Echo->Lock);
#if KMDF_MINOR < 9
    if (Echo->Late != Request) { /* BeLate, which marks it, ends it */
        Echo->CancelledEarly = TRUE;
        CALL(WdfSpinLockRelease, Echo->Lock);
        return;
    }
#endif
    if (Echo->Late == Request) {
        Echo->Late = NULL;
    }
    CALL(WdfSpinLockRelease, Echo->Lock);
    CALL(WdfTimerStop, Echo->Timer, FALSE);
    CALL(WdfRequestComplete, Request, STATUS_CANCELLED);
}

/* The timer ends the request from now on, or OnCancel. If not successful, the caller does. */
static NTSTATUS BeLate(ECHO *Echo, WDFREQUEST Request, ULONG Milliseconds)
{
    NTSTATUS Status;

#if KMDF_MINOR < 9 /* this may call OnCancel, so that the lock must not be held */
    CALL(WdfRequestMarkCancelable, Request, OnCancel);
    CALL(WdfSpinLockAcquire, Echo->Lock);
    Status = Echo->CancelledEarly ? STATUS_CANCELLED : STATUS_SUCCESS;
    Echo->CancelledEarly = FALSE;
#else
    CALL(WdfSpinLockAcquire, Echo->Lock);
    Status = CALL(WdfRequestMarkCancelableEx, Request, OnCancel);
#endif
    if (NT_SUCCESS(Status)) {
        Echo->Late = Request;
        CALL(WdfTimerStart, Echo->Timer, -10000LL * Milliseconds);
    }
    CALL(WdfSpinLockRelease, Echo->Lock);
    return Status;
}

static VOID OnSlow(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    ECHO *Echo = EchoOfQueue(Queue);
    PVOID Input;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, sizeof(ULONG), &Input, NULL);

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    if (NT_SUCCESS(Status)) {
        Status = BeLate(Echo, Request, *(PULONG)Input);
    }
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
    }
}

/* Ends the late request, if there is one that is not being cancelled. */
static VOID EndLate(ECHO *Echo)
{
    WDFREQUEST Request;

    CALL(WdfSpinLockAcquire, Echo->Lock);
    Request = Echo->Late;
#ifdef RACES /* a mistake: ends a request too whose cancellation has begun */
    if (Request != NULL) {
        CALL(WdfRequestUnmarkCancelable, Request);
    }
#else
    if (Request != NULL && CALL(WdfRequestUnmarkCancelable, Request) == STATUS_CANCELLED) {
        Request = NULL; /* OnCancel ends it */
    }
#endif
    if (Request != NULL) {
        Echo->Late = NULL;
    }
    CALL(WdfSpinLockRelease, Echo->Lock);
    if (Request != NULL) {
        CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
    }
}

static VOID OnTimer(WDFTIMER Timer)
{
    EndLate(EchoOf(CALL(WdfTimerGetParentObject, Timer)));
}

/* The late request needs no power: it is kept, or else ended. */
static VOID OnSlowStop(WDFQUEUE Queue, WDFREQUEST Request, ULONG Action)
{
    ECHO *Echo = EchoOfQueue(Queue);

    CALL(WdfSpinLockAcquire, Echo->Lock);
    if (Action & WdfRequestStopActionSuspend) {
        if (Echo->Late == Request) { /* else it is about to end, or to begin */
            Echo->Counts.Kept++;
            CALL(WdfRequestStopAcknowledge, Request, FALSE);
        }
        Request = NULL;
    } else if (Echo->Late != Request || CALL(WdfRequestUnmarkCancelable, Request) == STATUS_CANCELLED) {
        Request = NULL; /* the timer or OnCancel ends it */
    } else {
        Echo->Late = NULL;
    }
    CALL(WdfSpinLockRelease, Echo->Lock);
    if (Request != NULL) {
        CALL(WdfTimerStop, Echo->Timer, FALSE);
        CALL(WdfRequestComplete, Request, STATUS_DEVICE_REMOVED);
    }
}

static VOID OnSlowResume(WDFQUEUE Queue, WDFREQUEST Request)
{
    UNREFERENCED_PARAMETER(Request);
    InterlockedIncrement((PLONG)&EchoOfQueue(Queue)->Counts.Resumed);
}

static NTSTATUS OnD0Entry(WDFDEVICE Device, WDF_POWER_DEVICE_STATE From)
{
    DbgPrint("echo: D0 from %d\n", From - WdfPowerDeviceD0);
    EchoOf(Device)->Counts.Entries++;
    return STATUS_SUCCESS;
}

static NTSTATUS OnD0Exit(WDFDEVICE Device, WDF_POWER_DEVICE_STATE To)
{
    DbgPrint("echo: to D%d\n", To - WdfPowerDeviceD0);
    EchoOf(Device)->Counts.Exits++;
    return STATUS_SUCCESS;
}

static VOID OnCleanup(WDFOBJECT Device)
{
    DbgPrint("echo: cleaned up after %u entries and %u exits\n", EchoOf(Device)->Counts.Entries, EchoOf(Device)->Counts.Exits);
}

#ifdef FAULTY /* a mistake: the framework does this when it takes the device out of power */
static VOID OnSurpriseRemoval(WDFDEVICE Device)
{
    WDFREQUEST Waiting;

    CALL(WdfIoQueueStop, EchoOf(Device)->Manual, NULL, NULL);
    CALL(WdfIoQueueStart, EchoOf(Device)->Manual);
    while (NT_SUCCESS(CALL(WdfIoQueueRetrieveNextRequest, EchoOf(Device)->Manual, &Waiting))) {
        CALL(WdfRequestComplete, Waiting, STATUS_DEVICE_REMOVED);
    }
}
#endif

static VOID OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DbgPrint("echo: unloaded\n");
}

static NTSTATUS CreateQueues(WDFDEVICE Device, ECHO *Echo)
{
    WDF_IO_QUEUE_CONFIG Config;
    NTSTATUS Status;

    InitializeQueue(&Config, WdfIoQueueDispatchSequential, WdfUseDefault);
    Config.DefaultQueue = TRUE;
    Config.EvtIoRead = OnRead;
    Config.EvtIoWrite = OnWrite;
    Config.EvtIoDeviceControl = OnControl;
    Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    InitializeQueue(&Config, WdfIoQueueDispatchSequential, WdfUseDefault);
    Config.EvtIoDeviceControl = OnSlow;
    Config.EvtIoStop = OnSlowStop;
    Config.EvtIoResume = OnSlowResume;
    Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, &Echo->Slow);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    InitializeQueue(&Config, WdfIoQueueDispatchManual, WdfFalse);
    return CALL(WdfIoQueueCreate, Device, &Config, NULL, &Echo->Manual);
}

static NTSTATUS CreateOthers(WDFDEVICE Device, ECHO *Echo)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDF_TIMER_CONFIG Timer;
    WDF_WORKITEM_CONFIG Work;
    NTSTATUS Status;

    InitializeAttributes(&Attributes, NULL, Device);
    INITIALIZE(WDF_TIMER_CONFIG, &Timer);
    Timer.EvtTimerFunc = OnTimer;
    Timer.AutomaticSerialization = TRUE;
    Status = CALL(WdfTimerCreate, &Timer, &Attributes, &Echo->Timer);
    if (NT_SUCCESS(Status)) {
        INITIALIZE(WDF_WORKITEM_CONFIG, &Work);
        Work.EvtWorkItemFunc = OnWork;
        Work.AutomaticSerialization = TRUE;
        Status = CALL(WdfWorkItemCreate, &Work, &Attributes, &Echo->Work);
    }
    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfSpinLockCreate, &Attributes, &Echo->Lock);
    }
    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfWaitLockCreate, &Attributes, &Echo->CountLock);
    }
    return Status;
}

static NTSTATUS OnDeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_PNPPOWER_EVENT_CALLBACKS Callbacks;
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDFDEVICE Device;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Driver);
    INITIALIZE(WDF_PNPPOWER_EVENT_CALLBACKS, &Callbacks);
    Callbacks.EvtDeviceD0Entry = OnD0Entry;
    Callbacks.EvtDeviceD0Exit = OnD0Exit;
#ifdef FAULTY
    Callbacks.EvtDeviceSurpriseRemoval = OnSurpriseRemoval;
#endif
    CALL(WdfDeviceInitSetPnpPowerEventCallbacks, Init, &Callbacks);
#ifdef POLICY_OWNER
    CALL(WdfDeviceInitSetPowerPolicyOwnership, Init, POLICY_OWNER);
#endif
    CALL(WdfDeviceInitSetIoType, Init, WdfDeviceIoBuffered);
    InitializeAttributes(&Attributes, &TypeOfECHO, NULL);
    Attributes.EvtCleanupCallback = OnCleanup;
    Status = CALL(WdfDeviceCreate, &Init, &Attributes, &Device);
    if (NT_SUCCESS(Status)) {
        Status = CreateOthers(Device, EchoOf(Device));
    }
    if (NT_SUCCESS(Status)) {
        Status = CreateQueues(Device, EchoOf(Device));
    }
    return NT_SUCCESS(Status) ? CALL(WdfDeviceCreateDeviceInterface, Device, &InterfaceClass, NULL) : Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    WDF_DRIVER_CONFIG Config;

    INITIALIZE(WDF_DRIVER_CONFIG, &Config);
    Config.EvtDriverDeviceAdd = OnDeviceAdd;
    Config.EvtDriverUnload = OnUnload;
    return CALL(WdfDriverCreate, Driver, RegistryPath, NULL, &Config, NULL);
}
