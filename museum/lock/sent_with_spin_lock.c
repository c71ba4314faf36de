/*
 * A driver that counts what a program asks of the device below: each control code goes there, and IOCTL_TALLY_COUNT tells how many went. A client of
 * KMDF.
 *
 * The bug: the request is sent with the spin lock held that guards the count: the driver below may complete it in the call, and the queue then has
 * the driver handle its next request, which wants the lock on the thread that has it. It shows with any request that goes down.
 *
 * Device: Root\Tally
 * Framework: KMDF
 * Rule: kmdf-locks
 * Needs: ioctl
 */
#include "../include/client.h"

#define IOCTL_TALLY_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB20, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _TALLY {
    WDFSPINLOCK Lock; /* of what follows */
    ULONG Sent;
    ULONG LastCode;
} TALLY;

CONTEXT_TYPE(TALLY, TallyOf)

static const GUID TallyInterface = CLIENT_GUID(0x10d5e003);

static VOID SendDown(WDFDEVICE Device, WDFREQUEST Request, ULONG Code)
{
    WDF_REQUEST_SEND_OPTIONS Options = {sizeof(Options), WDF_REQUEST_SEND_OPTION_SEND_AND_FORGET, 0};
    WDFIOTARGET Below = CALL(WdfDeviceGetIoTarget, Device);
    TALLY *Tally = TallyOf(Device);
    BOOLEAN Sent;

    CALL(WdfSpinLockAcquire, Tally->Lock);
    Tally->Sent++;
    Tally->LastCode = Code;
#ifdef FIXED
    CALL(WdfSpinLockRelease, Tally->Lock);
    Sent = CALL(WdfRequestSend, Request, Below, &Options);
#else
    Sent = CALL(WdfRequestSend, Request, Below, &Options);
    CALL(WdfSpinLockRelease, Tally->Lock);
#endif
    if (!Sent) {
        NTSTATUS Status = CALL(WdfRequestGetStatus, Request);

        CALL(WdfRequestComplete, Request, Status);
    }
}

static VOID TellCount(TALLY *Tally, WDFREQUEST Request)
{
    PULONG Output;
    NTSTATUS Status = CALL(WdfRequestRetrieveOutputBuffer, Request, 2 * sizeof(ULONG), (PVOID *)&Output, NULL);

    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    CALL(WdfSpinLockAcquire, Tally->Lock);
    Output[0] = Tally->Sent;
    Output[1] = Tally->LastCode;
    CALL(WdfSpinLockRelease, Tally->Lock);
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, 2 * sizeof(ULONG));
}

static VOID OnControl(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    WDFDEVICE Device = CALL(WdfIoQueueGetDevice, Queue);

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL_TALLY_COUNT) {
        TellCount(TallyOf(Device), Request);
    } else {
        SendDown(Device, Request, Code);
    }
}

static NTSTATUS OnDeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_IO_QUEUE_CONFIG Config;
    WDFDEVICE Device;
    NTSTATUS Status = ClientDevice(Init, &TypeOfTALLY, &Device);

    UNREFERENCED_PARAMETER(Driver);
    if (NT_SUCCESS(Status)) {
        Status = ClientSpinLock(Device, &TallyOf(Device)->Lock);
    }
    if (NT_SUCCESS(Status)) {
        InitializeQueue(&Config, WdfIoQueueDispatchSequential, WdfUseDefault);
        Config.DefaultQueue = TRUE;
        Config.EvtIoDeviceControl = OnControl;
        Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    }
    return NT_SUCCESS(Status) ? CALL(WdfDeviceCreateDeviceInterface, Device, &TallyInterface, NULL) : Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return ClientDriver(Driver, RegistryPath, OnDeviceAdd);
}
