/*
 * A gate's bell: IOCTL_BELL_AWAIT waits until IOCTL_BELL_RING rings it. One waits at a time, the others in its queue. A client of KMDF.
 *
 * The bug: what rings the bell completes the request that waits without taking back that it can be canceled: the framework may call its cancel
 * callback at that moment, which completes it too. It shows when a bell rings for a request that waits.
 *
 * Device: none
 * Framework: KMDF
 * Rule: kmdf-cancelable
 * Needs: ioctl
 */
#include "../include/client.h"
#include "../../drivers/c/framework/control.h"

#define IOCTL_BELL_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB50, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB51, METHOD_BUFFERED, FILE_ANY_ACCESS)

static WDFQUEUE Waits;    /* sequential */
static WDFSPINLOCK Lock; /* of what follows */
static WDFREQUEST Waiter;
static BOOLEAN CanceledEarly; /* the request that is about to be the waiter: OnAwait ends it */

static VOID OnCancel(WDFREQUEST Request)
{
    BOOLEAN Ends;

    CALL(WdfSpinLockAcquire, Lock);
    Ends = Waiter == Request;
    if (Ends) {
        Waiter = NULL;
    } else {
        CanceledEarly = TRUE;
    }
    CALL(WdfSpinLockRelease, Lock);
    if (Ends) {
        CALL(WdfRequestComplete, Request, STATUS_CANCELLED);
    }
}

static VOID OnAwait(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    BOOLEAN Canceled;

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    CALL(WdfRequestMarkCancelable, Request, OnCancel); /* which this may call */
    CALL(WdfSpinLockAcquire, Lock);
    Canceled = CanceledEarly;
    CanceledEarly = FALSE;
    if (!Canceled) {
        Waiter = Request;
    }
    CALL(WdfSpinLockRelease, Lock);
    if (Canceled) {
        CALL(WdfRequestComplete, Request, STATUS_CANCELLED);
    }
}

static VOID Ring(VOID)
{
    WDFREQUEST Request;

    CALL(WdfSpinLockAcquire, Lock);
    Request = Waiter;
#ifdef FIXED
    if (Request != NULL && CALL(WdfRequestUnmarkCancelable, Request) == STATUS_CANCELLED) {
        Request = NULL; /* OnCancel ends it */
    }
#endif
    if (Request != NULL) {
        Waiter = NULL;
    }
    CALL(WdfSpinLockRelease, Lock);
    if (Request != NULL) {
        CALL(WdfRequestComplete, Request, STATUS_SUCCESS);
    }
}

static VOID OnControl(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    NTSTATUS Status = STATUS_INVALID_DEVICE_REQUEST;

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL_BELL_AWAIT) {
        Status = CALL(WdfRequestForwardToIoQueue, Request, Waits);
        if (NT_SUCCESS(Status)) {
            return;
        }
    } else if (Code == IOCTL_BELL_RING) {
        Ring();
        Status = STATUS_SUCCESS;
    }
    CALL(WdfRequestComplete, Request, Status);
}

static NTSTATUS CreateQueues(WDFDEVICE Device)
{
    WDF_IO_QUEUE_CONFIG Config;
    NTSTATUS Status;

    InitializeQueue(&Config, WdfIoQueueDispatchSequential, WdfFalse);
    Config.EvtIoDeviceControl = OnAwait;
    Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, &Waits);
    if (NT_SUCCESS(Status)) {
        InitializeQueue(&Config, WdfIoQueueDispatchParallel, WdfFalse);
        Config.DefaultQueue = TRUE;
        Config.EvtIoDeviceControl = OnControl;
        Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    }
    return Status;
}

static VOID OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\GateBell");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\GateBell");
    WDFDRIVER Handle;
    WDFDEVICE Device;
    NTSTATUS Status = CreateDriver(Driver, RegistryPath, OnUnload, &Handle);

    if (NT_SUCCESS(Status)) {
        Status = CreateControlDevice(Handle, &Name, NULL, &Device);
    }
    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfDeviceCreateSymbolicLink, Device, &Link);
    }
    if (NT_SUCCESS(Status)) {
        Status = ClientSpinLock(Device, &Lock);
    }
    if (NT_SUCCESS(Status)) {
        Status = CreateQueues(Device);
    }
    if (NT_SUCCESS(Status)) {
        CALL(WdfControlFinishInitializing, Device);
    }
    return Status;
}
