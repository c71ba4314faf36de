/*
 * kmdf_edu.sys: a client of KMDF for QEMU's educational device (docs/specs/edu.rst there), of the version KMDF_MINOR; its device is \\.\KmdfEdu.
 * IOCTL_EDU_FACTORIAL has the card compute a factorial, which ends by its interrupt and DPC: one at a time, by a sequential queue. IOCTL_EDU_STATE
 * tells what has happened, by a queue of its own that takes requests without power too.
 * With POLICY_OWNER it says whether it owns the device's power policy.
 *
 * Pages: EvtDevicePrepareHardware, EvtInterruptIsr, EvtInterruptDpc, EvtInterruptEnable, EvtIoStop, EvtDeviceSurpriseRemoval, WdfInterruptSynchronize.
 */
#include <ddk/wdm.h>

#include "edu.h"
#include "framework/client.h"

/* Input: a ULONG. Output: its factorial, 32 bits of it. */
#define IOCTL_EDU_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC00, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: an EDU_STATE. */
#define IOCTL_EDU_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC01, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _EDU_STATE {
    ULONG Liveness;   /* 00 the card's answer to 0x12345678 */
    ULONG Interrupts; /* 04 that were the card's */
    ULONG Passed;     /* 08 that were not */
    ULONG Prepared;   /* 0C so often */
    ULONG Entries;    /* 10 of D0 */
    ULONG Kept;       /* 14 interrupts before the device slept last */
} EDU_STATE;

#define EDU_IDENTIFICATION 0x00
#define EDU_LIVENESS 0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_STATUS_INTERRUPT 0x80

typedef struct _EDU {
    PUCHAR Registers; /* NULL: the hardware is not prepared */
    ULONG Length;
    WDFINTERRUPT Interrupt;
    WDFQUEUE States;
    WDFSPINLOCK Lock;
    WDFREQUEST Current; /* which the card works for */
    volatile BOOLEAN Removed;
    EDU_STATE State;
} EDU;

CONTEXT_TYPE(EDU, EduOf)

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\KmdfEdu");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\KmdfEdu");

static ULONG Read(EDU *Edu, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Edu->Registers + Offset));
}

static VOID Write(EDU *Edu, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Edu->Registers + Offset), Value);
}

static EDU *EduOfQueue(WDFQUEUE Queue)
{
    return EduOf(CALL(WdfIoQueueGetDevice, Queue));
}

/* The request that the card works for is the caller's to end; NULL: there is none. */
static WDFREQUEST TakeCurrent(EDU *Edu)
{
    WDFREQUEST Request;

    CALL(WdfSpinLockAcquire, Edu->Lock);
    Request = Edu->Current;
    Edu->Current = NULL;
    CALL(WdfSpinLockRelease, Edu->Lock);
    return Request;
}

static VOID Compute(EDU *Edu, WDFREQUEST Request)
{
    PVOID Input, Output;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, sizeof(ULONG), &Input, NULL);

    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfRequestRetrieveOutputBuffer, Request, sizeof(ULONG), &Output, NULL);
    }
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    /* OnStop may be called already, and if it takes the request, the registers go. */
    CALL(WdfSpinLockAcquire, Edu->Lock);
    if (Edu->Removed) {
        Status = STATUS_NO_SUCH_DEVICE;
    } else {
        Edu->Current = Request;
        Write(Edu, EDU_STATUS, EDU_STATUS_INTERRUPT);
        Write(Edu, EDU_FACTORIAL, *(PULONG)Input);
    }
    CALL(WdfSpinLockRelease, Edu->Lock);
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
    }
}

static VOID OnControl(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    EDU *Edu = EduOfQueue(Queue);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    switch (Code) {
    case IOCTL_EDU_FACTORIAL:
        Compute(Edu, Request);
        break;
    case IOCTL_EDU_STATE:
        Status = CALL(WdfRequestForwardToIoQueue, Request, Edu->States);
        if (!NT_SUCCESS(Status)) {
            CALL(WdfRequestComplete, Request, Status);
        }
        break;
    default:
        CALL(WdfRequestComplete, Request, STATUS_INVALID_DEVICE_REQUEST);
        break;
    }
}

static VOID OnState(WDFQUEUE Queue, WDFREQUEST Request)
{
    EDU *Edu = EduOfQueue(Queue);
    PVOID Output;
    NTSTATUS Status = CALL(WdfRequestRetrieveOutputBuffer, Request, sizeof(EDU_STATE), &Output, NULL);

    if (NT_SUCCESS(Status)) {
        *(EDU_STATE *)Output = Edu->State;
    }
    CALL(WdfRequestCompleteWithInformation, Request, Status, NT_SUCCESS(Status) ? sizeof(EDU_STATE) : 0);
}

/* A card that is gone does not end what it was asked for. */
static VOID OnStop(WDFQUEUE Queue, WDFREQUEST Request, ULONG Action)
{
    EDU *Edu = EduOfQueue(Queue);

    UNREFERENCED_PARAMETER(Request);
    UNREFERENCED_PARAMETER(Action); /* of a card that is gone, first WdfRequestStopActionSuspend */
    if (!Edu->Removed) {
        return; /* the card's interrupt ends it soon */
    }
    Request = TakeCurrent(Edu);
    if (Request != NULL) {
        CALL(WdfRequestComplete, Request, STATUS_NO_SUCH_DEVICE);
    }
}

static BOOLEAN OnInterrupt(WDFINTERRUPT Interrupt, ULONG MessageId)
{
    EDU *Edu = EduOf(CALL(WdfInterruptGetDevice, Interrupt));
    ULONG Status = Read(Edu, EDU_INTERRUPT_STATUS);

    UNREFERENCED_PARAMETER(MessageId);
    if (Status == 0) {
        Edu->State.Passed++;
        return FALSE;
    }
    Write(Edu, EDU_INTERRUPT_ACKNOWLEDGE, Status);
    Edu->State.Interrupts++;
    CALL(WdfInterruptQueueDpcForIsr, Interrupt);
    return TRUE;
}

static VOID OnDpc(WDFINTERRUPT Interrupt, WDFOBJECT Device)
{
    EDU *Edu = EduOf(Device);
    WDFREQUEST Request = TakeCurrent(Edu);
    PVOID Output;

    UNREFERENCED_PARAMETER(Interrupt);
    if (Request == NULL) {
        return;
    }
    if (NT_SUCCESS(CALL(WdfRequestRetrieveOutputBuffer, Request, sizeof(ULONG), &Output, NULL))) {
        *(PULONG)Output = Read(Edu, EDU_FACTORIAL);
    }
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS OnEnable(WDFINTERRUPT Interrupt, WDFDEVICE Device)
{
    UNREFERENCED_PARAMETER(Interrupt);
    Write(EduOf(Device), EDU_STATUS, EDU_STATUS_INTERRUPT);
    return STATUS_SUCCESS;
}

static NTSTATUS OnDisable(WDFINTERRUPT Interrupt, WDFDEVICE Device)
{
    EDU *Edu = EduOf(Device);

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Edu->Removed) {
        Write(Edu, EDU_STATUS, 0);
        Write(Edu, EDU_INTERRUPT_ACKNOWLEDGE, MAXULONG);
    }
    return STATUS_SUCCESS;
}

static BOOLEAN ClearCounts(WDFINTERRUPT Interrupt, WDFCONTEXT Context)
{
    EDU_STATE *State = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    State->Interrupts = 0;
    State->Passed = 0;
    return TRUE;
}

static NTSTATUS OnPrepare(WDFDEVICE Device, WDFCMRESLIST Raw, WDFCMRESLIST Translated)
{
    EDU *Edu = EduOf(Device);
    ULONG Count = CALL(WdfCmResourceListGetCount, Translated), Index;

    if (Count != CALL(WdfCmResourceListGetCount, Raw)) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    for (Index = 0; Index < Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Own = CALL(WdfCmResourceListGetDescriptor, Translated, Index);

        if (Own->Type == CmResourceTypeMemory && Edu->Registers == NULL) {
            Edu->Length = Own->u.Memory.Length;
            Edu->Registers = MmMapIoSpace(Own->u.Memory.Start, Edu->Length, MmNonCached);
        }
    }
    Edu->State.Prepared++;
    if (Edu->Registers == NULL || (Read(Edu, EDU_IDENTIFICATION) & 0xFFFF) != 0x00ED) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS OnRelease(WDFDEVICE Device, WDFCMRESLIST Translated)
{
    EDU *Edu = EduOf(Device);

    UNREFERENCED_PARAMETER(Translated);
    if (Edu->Registers != NULL) {
        MmUnmapIoSpace(Edu->Registers, Edu->Length);
        Edu->Registers = NULL;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS OnD0Entry(WDFDEVICE Device, WDF_POWER_DEVICE_STATE From)
{
    EDU *Edu = EduOf(Device);

    UNREFERENCED_PARAMETER(From);
    Write(Edu, EDU_LIVENESS, 0x12345678);
    Edu->State.Liveness = Read(Edu, EDU_LIVENESS);
    Edu->State.Entries++;
    return STATUS_SUCCESS;
}

/* The interrupts are counted from the device's start, or else what was counted stays; the service routine may run already. */
static NTSTATUS OnD0EntryConnected(WDFDEVICE Device, WDF_POWER_DEVICE_STATE From)
{
    EDU *Edu = EduOf(Device);

    CALL(WdfInterruptDisable, Edu->Interrupt);
    if (CALL(WdfInterruptWdmGetInterrupt, Edu->Interrupt) != NULL) {
        return STATUS_DRIVER_INTERNAL_ERROR;
    }
    CALL(WdfInterruptEnable, Edu->Interrupt);
    if (CALL(WdfInterruptWdmGetInterrupt, Edu->Interrupt) == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (From == WdfPowerDeviceD3Final) {
        CALL(WdfInterruptSynchronize, Edu->Interrupt, ClearCounts, &Edu->State);
    } else {
        CALL(WdfInterruptAcquireLock, Edu->Interrupt);
        Edu->State.Kept = Edu->State.Interrupts;
        CALL(WdfInterruptReleaseLock, Edu->Interrupt);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS OnD0Exit(WDFDEVICE Device, WDF_POWER_DEVICE_STATE To)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(To);
    return STATUS_SUCCESS;
}

static VOID OnSurprise(WDFDEVICE Device)
{
    EDU *Edu = EduOf(Device);

    CALL(WdfSpinLockAcquire, Edu->Lock);
    Edu->Removed = TRUE;
    CALL(WdfSpinLockRelease, Edu->Lock);
}

static NTSTATUS CreateQueues(WDFDEVICE Device, EDU *Edu)
{
    WDF_IO_QUEUE_CONFIG Config;
    NTSTATUS Status;

    InitializeQueue(&Config, WdfIoQueueDispatchSequential, WdfUseDefault);
    Config.DefaultQueue = TRUE;
    Config.EvtIoDeviceControl = OnControl;
    Config.EvtIoStop = OnStop;
    Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    InitializeQueue(&Config, WdfIoQueueDispatchParallel, WdfFalse);
    Config.EvtIoDefault = OnState;
    return CALL(WdfIoQueueCreate, Device, &Config, NULL, &Edu->States);
}

static NTSTATUS CreateInterrupt(WDFDEVICE Device, EDU *Edu)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDF_INTERRUPT_CONFIG Config;
    NTSTATUS Status;

    InitializeAttributes(&Attributes, NULL, Device);
    Status = CALL(WdfSpinLockCreate, &Attributes, &Edu->Lock);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    INITIALIZE(WDF_INTERRUPT_CONFIG, &Config);
    Config.ShareVector = WdfUseDefault;
    Config.EvtInterruptIsr = OnInterrupt;
    Config.EvtInterruptDpc = OnDpc;
    Config.EvtInterruptEnable = OnEnable;
    Config.EvtInterruptDisable = OnDisable;
#if KMDF_MINOR >= 11
    Config.ReportInactiveOnPowerDown = WdfUseDefault;
#endif
    return CALL(WdfInterruptCreate, Device, &Config, NULL, &Edu->Interrupt);
}

static NTSTATUS OnDeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_PNPPOWER_EVENT_CALLBACKS Callbacks;
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDFDEVICE Device;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Driver);
    INITIALIZE(WDF_PNPPOWER_EVENT_CALLBACKS, &Callbacks);
    Callbacks.EvtDevicePrepareHardware = OnPrepare;
    Callbacks.EvtDeviceReleaseHardware = OnRelease;
    Callbacks.EvtDeviceD0Entry = OnD0Entry;
    Callbacks.EvtDeviceD0EntryPostInterruptsEnabled = OnD0EntryConnected;
    Callbacks.EvtDeviceD0Exit = OnD0Exit;
    Callbacks.EvtDeviceSurpriseRemoval = OnSurprise;
    CALL(WdfDeviceInitSetPnpPowerEventCallbacks, Init, &Callbacks);
#ifdef POLICY_OWNER
    CALL(WdfDeviceInitSetPowerPolicyOwnership, Init, POLICY_OWNER);
#endif
    Status = CALL(WdfDeviceInitAssignName, Init, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    InitializeAttributes(&Attributes, &TypeOfEDU, NULL);
    Status = CALL(WdfDeviceCreate, &Init, &Attributes, &Device);
    if (NT_SUCCESS(Status)) {
        Status = CreateInterrupt(Device, EduOf(Device));
    }
    if (NT_SUCCESS(Status)) {
        Status = CreateQueues(Device, EduOf(Device));
    }
    return NT_SUCCESS(Status) ? CALL(WdfDeviceCreateSymbolicLink, Device, &LinkName) : Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    WDF_DRIVER_CONFIG Config;

    INITIALIZE(WDF_DRIVER_CONFIG, &Config);
    Config.EvtDriverDeviceAdd = OnDeviceAdd;
    return CALL(WdfDriverCreate, Driver, RegistryPath, NULL, &Config, NULL);
}
