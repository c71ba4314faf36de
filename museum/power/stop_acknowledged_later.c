/*
 * A scanner that takes a picture line by line, one in a millisecond: IOCTL_SCANNER_SCAN ends with as many lines as its input says. While the computer
 * sleeps a picture waits, and goes on afterwards. A client of KMDF.
 *
 * The bug: that the picture waits is acknowledged by the timer's routine, and not in EvtIoStop, where alone it may be: the framework looks at the
 * answer when EvtIoStop returns. It shows when the computer goes to sleep amid a picture.
 *
 * Device: Root\LineScanner
 * Framework: KMDF
 * Rule: kmdf-stops
 * Needs: ioctl, power
 */
#include "../include/client.h"

#define IOCTL_SCANNER_SCAN CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB40, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST 200
#define A_LINE (-10000LL)

typedef struct _SCANNER {
    WDFTIMER Timer;
    WDFSPINLOCK Lock; /* of what follows */
    WDFREQUEST Current;
    ULONG Lines; /* that are left */
    BOOLEAN Waits;
} SCANNER;

CONTEXT_TYPE(SCANNER, ScannerOf)

static const GUID ScannerInterface = CLIENT_GUID(0x10d5e005);

static SCANNER *ScannerOfQueue(WDFQUEUE Queue)
{
    return ScannerOf(CALL(WdfIoQueueGetDevice, Queue));
}

static VOID OnTimer(WDFTIMER Timer)
{
    SCANNER *Scanner = ScannerOf(CALL(WdfTimerGetParentObject, Timer));
    WDFREQUEST Done = NULL;

    CALL(WdfSpinLockAcquire, Scanner->Lock);
    if (Scanner->Current != NULL && Scanner->Waits) {
#ifndef FIXED
        CALL(WdfRequestStopAcknowledge, Scanner->Current, FALSE);
#endif
    } else if (Scanner->Current != NULL && --Scanner->Lines > 0) {
        CALL(WdfTimerStart, Timer, A_LINE);
    } else if (Scanner->Current != NULL && CALL(WdfRequestUnmarkCancelable, Scanner->Current) != STATUS_CANCELLED) {
        Done = Scanner->Current; /* else OnCancel ends it */
        Scanner->Current = NULL;
    }
    CALL(WdfSpinLockRelease, Scanner->Lock);
    if (Done != NULL) {
        CALL(WdfRequestComplete, Done, STATUS_SUCCESS);
    }
}

static VOID OnCancel(WDFREQUEST Request)
{
    SCANNER *Scanner = ScannerOfQueue(CALL(WdfRequestGetIoQueue, Request));

    CALL(WdfSpinLockAcquire, Scanner->Lock);
    Scanner->Current = NULL;
    CALL(WdfSpinLockRelease, Scanner->Lock);
    CALL(WdfTimerStop, Scanner->Timer, FALSE);
    CALL(WdfRequestComplete, Request, STATUS_CANCELLED);
}

static NTSTATUS Scan(SCANNER *Scanner, WDFREQUEST Request)
{
    PULONG Lines;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, sizeof(ULONG), (PVOID *)&Lines, NULL);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    if (*Lines == 0 || *Lines > MOST) {
        return STATUS_INVALID_PARAMETER;
    }
    CALL(WdfSpinLockAcquire, Scanner->Lock);
    Status = CALL(WdfRequestMarkCancelableEx, Request, OnCancel);
    if (NT_SUCCESS(Status)) {
        Scanner->Current = Request;
        Scanner->Lines = *Lines;
        Scanner->Waits = FALSE;
        CALL(WdfTimerStart, Scanner->Timer, A_LINE);
    }
    CALL(WdfSpinLockRelease, Scanner->Lock);
    return Status;
}

static VOID OnControl(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    NTSTATUS Status = Code == IOCTL_SCANNER_SCAN ? Scan(ScannerOfQueue(Queue), Request) : STATUS_INVALID_DEVICE_REQUEST;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
    }
}

/* The device is about to lose its power, or to go. */
static VOID OnStop(WDFQUEUE Queue, WDFREQUEST Request, ULONG Action)
{
    SCANNER *Scanner = ScannerOfQueue(Queue);
    WDFREQUEST Done = NULL;

    CALL(WdfSpinLockAcquire, Scanner->Lock);
    if (Scanner->Current != Request) {
        /* it is about to end, or to begin: then it ends in time */
    } else if (Action & WdfRequestStopActionSuspend) {
        Scanner->Waits = TRUE;
#ifdef FIXED
        CALL(WdfRequestStopAcknowledge, Request, FALSE);
#endif
    } else if (CALL(WdfRequestUnmarkCancelable, Request) != STATUS_CANCELLED) {
        Done = Request; /* else OnCancel ends it */
        Scanner->Current = NULL;
    }
    CALL(WdfSpinLockRelease, Scanner->Lock);
    if (Done != NULL) {
        CALL(WdfTimerStop, Scanner->Timer, FALSE);
        CALL(WdfRequestComplete, Done, STATUS_DEVICE_REMOVED);
    }
}

static VOID OnResume(WDFQUEUE Queue, WDFREQUEST Request)
{
    SCANNER *Scanner = ScannerOfQueue(Queue);

    CALL(WdfSpinLockAcquire, Scanner->Lock);
    if (Scanner->Current == Request) {
        Scanner->Waits = FALSE;
        CALL(WdfTimerStart, Scanner->Timer, A_LINE);
    }
    CALL(WdfSpinLockRelease, Scanner->Lock);
}

static NTSTATUS OnDeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_IO_QUEUE_CONFIG Config;
    WDFDEVICE Device;
    SCANNER *Scanner;
    NTSTATUS Status = ClientDevice(Init, &TypeOfSCANNER, &Device);

    UNREFERENCED_PARAMETER(Driver);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Scanner = ScannerOf(Device);
    Status = ClientSpinLock(Device, &Scanner->Lock);
    if (NT_SUCCESS(Status)) {
        Status = ClientTimer(Device, OnTimer, 0, &Scanner->Timer);
    }
    if (NT_SUCCESS(Status)) {
        InitializeQueue(&Config, WdfIoQueueDispatchSequential, WdfUseDefault);
        Config.DefaultQueue = TRUE;
        Config.EvtIoDeviceControl = OnControl;
        Config.EvtIoStop = OnStop;
        Config.EvtIoResume = OnResume;
        Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    }
    return NT_SUCCESS(Status) ? CALL(WdfDeviceCreateDeviceInterface, Device, &ScannerInterface, NULL) : Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return ClientDriver(Driver, RegistryPath, OnDeviceAdd);
}
