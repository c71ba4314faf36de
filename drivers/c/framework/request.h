/*
 * Requests: what a driver asks about one that it owns, how it ends it, and lets it be cancelled meanwhile.
 *
 * Pages: WdfRequestCompleteWithInformation, WdfRequestRetrieveInputBuffer, WdfRequestRetrieveOutputBuffer, WdfRequestMarkCancelableEx,
 * WdfRequestUnmarkCancelable, Canceling I/O Requests, Accessing Data Buffers in WDF Drivers. A request that can still be cancelled is completed as it
 * is, with its cancel routine, for the I/O manager to see.
 *
 * The memory of a request that has ended is kept for the next one, as Microsoft's framework has lookaside lists for them. It is freed where Driver
 * Verifier watches the client, and those of devices without Plug and Play, which have few.
 */
#ifndef FRAMEWORK_REQUEST_H
#define FRAMEWORK_REQUEST_H

static REQUEST *RequestMemory(DEVICE *Device)
{
    CLIENT *Client = Device->Object.Client;
    REQUEST *Kept = Device->KeepsRequests ? InterlockedExchangePointer(&Client->Kept, NULL) : NULL;

    return Kept != NULL ? Kept : ObjectMemory(Client, sizeof(*Kept));
}

/* A request for an IRP that came to a device. Its memory is returned with the last reference. */
static inline REQUEST *NewRequest(DEVICE *Device, PIRP Irp)
{
    PWDF_OBJECT_ATTRIBUTES Attributes = &Device->Settings.RequestAttributes;
    REQUEST *Request = RequestMemory(Device);

    if (Request == NULL) {
        return NULL;
    }
    InitializeObject(&Request->Object, Device->Object.Client, RequestKind, &Device->Object);
    Request->Object.IsKept = Device->KeepsRequests;
    Request->Irp = Irp;
    Request->Device = Device;
    Request->Queue = NULL;
    InitializeListHead(&Request->Entry);
    Request->EvtCancel = NULL;
    Request->File = NULL;
    Request->Owned = FALSE;
    Request->Delivered = FALSE;
    Request->Asked = FALSE;
    Request->Acknowledged = FALSE;
    Request->Ending = FALSE;
    if (Attributes->Size != 0 && !NT_SUCCESS(AddContext(&Request->Object, Attributes, NULL))) {
        Request->Object.Deleted = TRUE;
        Release(&Request->Object);
        return NULL;
    }
    return Request;
}

/* A request that the driver owns: one with an IRP. */
static inline REQUEST *RequestOf(WDFREQUEST Handle)
{
    REQUEST *Request = ObjectOf(Handle, RequestKind);

    if (Request->Irp == NULL || (Request->Queue != NULL && !Request->Owned)) {
        Violation(WRONG_HANDLE, (ULONG_PTR)Handle, 0);
    }
    return Request;
}

static VOID RequestComplete(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Globals);
    Finish(RequestOf(Handle), Status);
}

static VOID RequestSetInformation(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, ULONG_PTR Information)
{
    UNREFERENCED_PARAMETER(Globals);
    RequestOf(Handle)->Irp->IoStatus.Information = Information;
}

static VOID RequestCompleteWithInformation(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, NTSTATUS Status, ULONG_PTR Information)
{
    REQUEST *Request = RequestOf(Handle);

    UNREFERENCED_PARAMETER(Globals);
    Request->Irp->IoStatus.Information = Information;
    Finish(Request, Status);
}

static ULONG_PTR RequestGetInformation(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle)
{
    UNREFERENCED_PARAMETER(Globals);
    return RequestOf(Handle)->Irp->IoStatus.Information;
}

static NTSTATUS RequestGetStatus(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle)
{
    UNREFERENCED_PARAMETER(Globals);
    return RequestOf(Handle)->Irp->IoStatus.Status;
}

static VOID RequestGetParameters(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, WDF_REQUEST_PARAMETERS *Parameters)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(RequestOf(Handle)->Irp);

    UNREFERENCED_PARAMETER(Globals);
    if (Parameters->Size != sizeof(*Parameters)) {
        Violation(NULL_PARAMETER, 0, (ULONG_PTR)__builtin_return_address(0));
    }
    Parameters->MinorFunction = Stack->MinorFunction;
    Parameters->Type = Stack->MajorFunction;
    RtlZeroMemory(&Parameters->Parameters, sizeof(Parameters->Parameters));
    switch (Stack->MajorFunction) {
    case IRP_MJ_READ: /* reads and writes have their members at the same places */
    case IRP_MJ_WRITE:
        Parameters->Parameters.Read.Length = Stack->Parameters.Read.Length;
        Parameters->Parameters.Read.Key = Stack->Parameters.Read.Key;
        Parameters->Parameters.Read.DeviceOffset = Stack->Parameters.Read.ByteOffset.QuadPart;
        break;
    case IRP_MJ_DEVICE_CONTROL:
    case IRP_MJ_INTERNAL_DEVICE_CONTROL:
        Parameters->Parameters.DeviceIoControl.OutputBufferLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
        Parameters->Parameters.DeviceIoControl.InputBufferLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
        Parameters->Parameters.DeviceIoControl.IoControlCode = Stack->Parameters.DeviceIoControl.IoControlCode;
        Parameters->Parameters.DeviceIoControl.Type3InputBuffer = Stack->Parameters.DeviceIoControl.Type3InputBuffer;
        break;
    default:
        RtlCopyMemory(Parameters->Parameters.Others, &Stack->Parameters.Others, 4 * sizeof(PVOID));
        break;
    }
}

/* A buffer and its length, if it has so many bytes, and one at least. */
static NTSTATUS Give(PVOID Found, SIZE_T Has, SIZE_T Least, PVOID *Buffer, SIZE_T *Length)
{
    *Buffer = NULL;
    if (Length != NULL) {
        *Length = 0;
    }
    if (Has == 0 || Has < Least) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    if (Found == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    *Buffer = Found;
    if (Length != NULL) {
        *Length = Has;
    }
    return STATUS_SUCCESS;
}

static PVOID Mapped(PIRP Irp)
{
    return Irp->MdlAddress == NULL ? NULL : MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
}

/* Of a read or a write, by the kind of buffers that the device has. */
static NTSTATUS Transferred(REQUEST *Request, SIZE_T Has, SIZE_T Least, PVOID *Buffer, SIZE_T *Length)
{
    PIRP Irp = Request->Irp;

    if (Request->Device->Wdm->Flags & DO_DIRECT_IO) {
        return Give(Mapped(Irp), Has, Least, Buffer, Length);
    }
    if (Request->Device->Wdm->Flags & DO_BUFFERED_IO) {
        return Give(Irp->AssociatedIrp.SystemBuffer, Has, Least, Buffer, Length);
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS RequestRetrieveInputBuffer(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, SIZE_T Least, PVOID *Buffer, SIZE_T *Length)
{
    REQUEST *Request = RequestOf(Handle);
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Request->Irp);

    UNREFERENCED_PARAMETER(Globals);
    switch (Stack->MajorFunction) {
    case IRP_MJ_WRITE:
        return Transferred(Request, Stack->Parameters.Write.Length, Least, Buffer, Length);
    case IRP_MJ_DEVICE_CONTROL:
    case IRP_MJ_INTERNAL_DEVICE_CONTROL:
        if ((Stack->Parameters.DeviceIoControl.IoControlCode & 3) == METHOD_NEITHER) {
            return STATUS_INVALID_DEVICE_REQUEST;
        }
        return Give(Request->Irp->AssociatedIrp.SystemBuffer, Stack->Parameters.DeviceIoControl.InputBufferLength, Least, Buffer, Length);
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS RequestRetrieveOutputBuffer(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, SIZE_T Least, PVOID *Buffer, SIZE_T *Length)
{
    REQUEST *Request = RequestOf(Handle);
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Request->Irp);

    UNREFERENCED_PARAMETER(Globals);
    switch (Stack->MajorFunction) {
    case IRP_MJ_READ:
        return Transferred(Request, Stack->Parameters.Read.Length, Least, Buffer, Length);
    case IRP_MJ_DEVICE_CONTROL:
    case IRP_MJ_INTERNAL_DEVICE_CONTROL:
        switch (Stack->Parameters.DeviceIoControl.IoControlCode & 3) {
        case METHOD_BUFFERED:
            return Give(Request->Irp->AssociatedIrp.SystemBuffer, Stack->Parameters.DeviceIoControl.OutputBufferLength, Least, Buffer,
                        Length);
        case METHOD_NEITHER:
            return STATUS_INVALID_DEVICE_REQUEST;
        default:
            return Give(Mapped(Request->Irp), Stack->Parameters.DeviceIoControl.OutputBufferLength, Least, Buffer, Length);
        }
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID NTAPI CancelOwned(PDEVICE_OBJECT Device, PIRP Irp)
{
    REQUEST *Request = Irp->Tail.Overlay.DriverContext[0];

    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    Request->EvtCancel(RequestHandle(Request));
}

/* STATUS_CANCELLED if it is cancelled already; then the callback will not be called. */
static NTSTATUS RequestMarkCancelableEx(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, VOID (*EvtCancel)(WDFREQUEST Request))
{
    REQUEST *Request = RequestOf(Handle);

    UNREFERENCED_PARAMETER(Globals);
    Request->EvtCancel = EvtCancel;
    Request->Irp->Tail.Overlay.DriverContext[0] = Request;
    IoSetCancelRoutine(Request->Irp, CancelOwned);
    if (Request->Irp->Cancel && IoSetCancelRoutine(Request->Irp, NULL) != NULL) {
        Request->EvtCancel = NULL;
        return STATUS_CANCELLED;
    }
    return STATUS_SUCCESS;
}

static VOID RequestMarkCancelable(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, VOID (*EvtCancel)(WDFREQUEST Request))
{
    if (!NT_SUCCESS(RequestMarkCancelableEx(Globals, Handle, EvtCancel))) {
        EvtCancel(Handle);
    }
}

/* STATUS_CANCELLED if its cancellation has begun: then the callback completes it. */
static NTSTATUS RequestUnmarkCancelable(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle)
{
    REQUEST *Request = RequestOf(Handle);

    UNREFERENCED_PARAMETER(Globals);
    if (Request->EvtCancel == NULL) {
        return STATUS_INVALID_PARAMETER;
    }
    if (IoSetCancelRoutine(Request->Irp, NULL) == NULL) {
        return STATUS_CANCELLED;
    }
    Request->EvtCancel = NULL;
    return STATUS_SUCCESS;
}

static BOOLEAN RequestIsCanceled(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle)
{
    UNREFERENCED_PARAMETER(Globals);
    return RequestOf(Handle)->Irp->Cancel;
}

static NTSTATUS RequestForwardToIoQueue(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, WDFQUEUE To)
{
    REQUEST *Request = RequestOf(Handle);
    QUEUE *Queue = ObjectOf(To, QueueKind);

    UNREFERENCED_PARAMETER(Globals);
    if (Request->Queue == NULL || Request->Queue == Queue || Queue->Device != Request->Device || Request->EvtCancel != NULL) {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (Queue->Purged) {
        return STATUS_WDF_BUSY;
    }
    Move(Request, Queue, FALSE);
    return STATUS_SUCCESS;
}

static NTSTATUS RequestRequeue(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle)
{
    REQUEST *Request = RequestOf(Handle);

    UNREFERENCED_PARAMETER(Globals);
    if (Request->Queue == NULL || Request->Queue->Config.DispatchType != WdfIoQueueDispatchManual) {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    Move(Request, Request->Queue, TRUE);
    return STATUS_SUCCESS;
}

/* Sends and forgets: the request ends, and its IRP goes on as it is. */
static BOOLEAN RequestSend(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, WDFIOTARGET To, WDF_REQUEST_SEND_OPTIONS *Options)
{
    REQUEST *Request = RequestOf(Handle);
    DEVICE *Device = CONTAINING_RECORD(ObjectOf(To, TargetKind), DEVICE, Target);
    QUEUE *Queue = Request->Queue;
    PIRP Irp = Request->Irp;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Globals);
    if (Options == NULL || Options->Flags != WDF_REQUEST_SEND_OPTION_SEND_AND_FORGET || Queue == NULL || Device->Lower == NULL) {
        Missing("WdfRequestSend, but to send a queue's request to the device below and forget it");
    }
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Disown(Queue, Request);
    KeReleaseSpinLock(&Queue->Lock, Irql);
    Request->Object.Deleted = TRUE;
    CleanUp(&Request->Object);
    Request->Irp = NULL;
    IoSkipCurrentIrpStackLocation(Irp);
    IoCallDriver(Device->Lower, Irp);
    Release(&Request->Object);
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Queue->Count--;
    Queue->OwnedCount--;
    Settle(Queue, Irql);
    return TRUE;
}

static VOID RequestStopAcknowledge(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle, BOOLEAN Requeue)
{
    REQUEST *Request = RequestOf(Handle);
    QUEUE *Queue = Request->Queue;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Globals);
    if (Requeue) {
        Move(Request, Queue, TRUE);
        return;
    }
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    if (!Request->Acknowledged) {
        Request->Acknowledged = TRUE;
        Queue->AcknowledgedCount++;
    }
    Settle(Queue, Irql);
}

static WDFQUEUE RequestGetIoQueue(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle)
{
    REQUEST *Request = RequestOf(Handle);

    UNREFERENCED_PARAMETER(Globals);
    return Request->Queue == NULL ? NULL : QueueHandle(Request->Queue);
}

static WDFFILEOBJECT RequestGetFileObject(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle)
{
    REQUEST *Request = RequestOf(Handle);

    UNREFERENCED_PARAMETER(Globals);
    return Request->File == NULL ? NULL : HandleOf(Request->File);
}

static PIRP RequestWdmGetIrp(PWDF_DRIVER_GLOBALS Globals, WDFREQUEST Handle)
{
    UNREFERENCED_PARAMETER(Globals);
    return RequestOf(Handle)->Irp;
}

#endif
