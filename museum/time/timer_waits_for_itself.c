/*
 * A lamp that blinks so many times as it is asked to (IOCTL_LAMP_BLINK), once in 5 ms, by a periodic timer; IOCTL_LAMP_LEFT tells how many times are
 * left. A client of KMDF.
 *
 * The bug: the timer's routine stops the timer behind the last blink and asks for the stop to be waited for, that is until the timer's routine has
 * returned, which is the one that waits. It shows when a lamp has blinked for the last time.
 *
 * Device: Root\BlinkingLamp
 * Framework: KMDF
 * Rule: kmdf-waits
 * Needs: ioctl
 */
#include "../include/client.h"

#define IOCTL_LAMP_BLINK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB30, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LAMP_LEFT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB31, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PERIOD 5 /* ms */
#define MOST 100

#ifdef FIXED
#define WAIT FALSE
#else
#define WAIT TRUE
#endif

typedef struct _LAMP {
    WDFTIMER Timer;
    WDFSPINLOCK Lock; /* of what follows, and of starting and stopping the timer */
    ULONG Left;
    BOOLEAN Lit;
} LAMP;

CONTEXT_TYPE(LAMP, LampOf)

static const GUID LampInterface = CLIENT_GUID(0x10d5e004);

static VOID OnTimer(WDFTIMER Timer)
{
    LAMP *Lamp = LampOf(CALL(WdfTimerGetParentObject, Timer));

    CALL(WdfSpinLockAcquire, Lamp->Lock);
    Lamp->Lit = !Lamp->Lit;
    if (Lamp->Left > 0 && !Lamp->Lit) {
        Lamp->Left--;
    }
    if (Lamp->Left == 0) {
        Lamp->Lit = FALSE;
        CALL(WdfTimerStop, Timer, WAIT);
    }
    CALL(WdfSpinLockRelease, Lamp->Lock);
}

static NTSTATUS Blink(LAMP *Lamp, WDFREQUEST Request)
{
    PULONG Times;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, sizeof(ULONG), (PVOID *)&Times, NULL);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    if (*Times == 0 || *Times > MOST) {
        return STATUS_INVALID_PARAMETER;
    }
    CALL(WdfSpinLockAcquire, Lamp->Lock);
    if (Lamp->Left == 0) {
        CALL(WdfTimerStart, Lamp->Timer, -10000LL * PERIOD);
    }
    Lamp->Left = *Times;
    CALL(WdfSpinLockRelease, Lamp->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS TellLeft(LAMP *Lamp, WDFREQUEST Request, PSIZE_T Length)
{
    PULONG Output;
    NTSTATUS Status = CALL(WdfRequestRetrieveOutputBuffer, Request, sizeof(ULONG), (PVOID *)&Output, NULL);

    if (NT_SUCCESS(Status)) {
        CALL(WdfSpinLockAcquire, Lamp->Lock);
        *Output = Lamp->Left;
        CALL(WdfSpinLockRelease, Lamp->Lock);
        *Length = sizeof(ULONG);
    }
    return Status;
}

static VOID OnControl(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    LAMP *Lamp = LampOf(CALL(WdfIoQueueGetDevice, Queue));
    NTSTATUS Status = STATUS_INVALID_DEVICE_REQUEST;
    SIZE_T Length = 0;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL_LAMP_BLINK) {
        Status = Blink(Lamp, Request);
    } else if (Code == IOCTL_LAMP_LEFT) {
        Status = TellLeft(Lamp, Request, &Length);
    }
    CALL(WdfRequestCompleteWithInformation, Request, Status, Length);
}

static NTSTATUS OnDeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_IO_QUEUE_CONFIG Config;
    WDFDEVICE Device;
    LAMP *Lamp;
    NTSTATUS Status = ClientDevice(Init, &TypeOfLAMP, &Device);

    UNREFERENCED_PARAMETER(Driver);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Lamp = LampOf(Device);
    Status = ClientSpinLock(Device, &Lamp->Lock);
    if (NT_SUCCESS(Status)) {
        Status = ClientTimer(Device, OnTimer, PERIOD, &Lamp->Timer);
    }
    if (NT_SUCCESS(Status)) {
        InitializeQueue(&Config, WdfIoQueueDispatchParallel, WdfUseDefault);
        Config.DefaultQueue = TRUE;
        Config.EvtIoDeviceControl = OnControl;
        Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    }
    return NT_SUCCESS(Status) ? CALL(WdfDeviceCreateDeviceInterface, Device, &LampInterface, NULL) : Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return ClientDriver(Driver, RegistryPath, OnDeviceAdd);
}
