/*
 * A board that shows a text: a write sets it, a read gets it. A client of KMDF.
 *
 * The bug: a read is asked for its input buffer, as a write is, because the system has one buffer for both: but a read has no input, and the
 * framework refuses, so that no read succeeds. It shows with any read.
 *
 * Device: Root\TextBoard
 * Framework: KMDF
 * Rule: kmdf-buffers
 * Needs: nothing
 */
#include "../include/client.h"

#define MOST 64

typedef struct _BOARD {
    WDFSPINLOCK Lock; /* of what follows */
    SIZE_T Length;
    UCHAR Text[MOST];
} BOARD;

CONTEXT_TYPE(BOARD, BoardOf)

static const GUID BoardInterface = CLIENT_GUID(0x10d5e001);

static BOARD *BoardOfQueue(WDFQUEUE Queue)
{
    return BoardOf(CALL(WdfIoQueueGetDevice, Queue));
}

static VOID OnWrite(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    BOARD *Board = BoardOfQueue(Queue);
    PVOID Buffer;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, 1, &Buffer, &Length);

    if (NT_SUCCESS(Status) && Length > MOST) {
        Status = STATUS_INVALID_BUFFER_SIZE;
    }
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    CALL(WdfSpinLockAcquire, Board->Lock);
    RtlCopyMemory(Board->Text, Buffer, Length);
    Board->Length = Length;
    CALL(WdfSpinLockRelease, Board->Lock);
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, Length);
}

static VOID OnRead(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    BOARD *Board = BoardOfQueue(Queue);
    PVOID Buffer;
    NTSTATUS Status;

#ifdef FIXED
    Status = CALL(WdfRequestRetrieveOutputBuffer, Request, 1, &Buffer, &Length);
#else
    Status = CALL(WdfRequestRetrieveInputBuffer, Request, 1, &Buffer, &Length);
#endif
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    CALL(WdfSpinLockAcquire, Board->Lock);
    Length = min(Length, Board->Length);
    RtlCopyMemory(Buffer, Board->Text, Length);
    CALL(WdfSpinLockRelease, Board->Lock);
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, Length);
}

static NTSTATUS OnDeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_IO_QUEUE_CONFIG Config;
    WDFDEVICE Device;
    NTSTATUS Status = ClientDevice(Init, &TypeOfBOARD, &Device);

    UNREFERENCED_PARAMETER(Driver);
    if (NT_SUCCESS(Status)) {
        Status = ClientSpinLock(Device, &BoardOf(Device)->Lock);
    }
    if (NT_SUCCESS(Status)) {
        InitializeQueue(&Config, WdfIoQueueDispatchParallel, WdfUseDefault);
        Config.DefaultQueue = TRUE;
        Config.EvtIoRead = OnRead;
        Config.EvtIoWrite = OnWrite;
        Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    }
    return NT_SUCCESS(Status) ? CALL(WdfDeviceCreateDeviceInterface, Device, &BoardInterface, NULL) : Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return ClientDriver(Driver, RegistryPath, OnDeviceAdd);
}
