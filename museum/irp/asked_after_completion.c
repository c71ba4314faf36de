/*
 * A stock of bytes for tests, which look random: a read gets some, and IOCTL_STOCK_SERVED tells how many bytes all reads together have had. A client
 * of KMDF.
 *
 * The bug: how many bytes a read has had is asked of its request when that has been completed: the request is gone with that, and its handle stands
 * for nothing, or for the next request. It shows with any read.
 *
 * Device: Root\ByteStock
 * Framework: KMDF
 * Rule: kmdf-requests
 * Needs: nothing
 */
#include "../include/client.h"

#define IOCTL_STOCK_SERVED CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB10, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _STOCK {
    LONG64 volatile Served;
    LONG volatile Seed;
} STOCK;

CONTEXT_TYPE(STOCK, StockOf)

static const GUID StockInterface = CLIENT_GUID(0x10d5e002);

static VOID Fill(STOCK *Stock, PUCHAR Bytes, SIZE_T Length)
{
    SIZE_T Index;

    for (Index = 0; Index < Length; Index++) {
        Bytes[Index] = (UCHAR)((ULONG)InterlockedExchangeAdd(&Stock->Seed, 0x61c88647) >> 24);
    }
}

static VOID OnRead(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    STOCK *Stock = StockOf(CALL(WdfIoQueueGetDevice, Queue));
    PVOID Buffer;
    NTSTATUS Status = CALL(WdfRequestRetrieveOutputBuffer, Request, 1, &Buffer, &Length);

    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    Fill(Stock, Buffer, Length);
#ifdef FIXED
    InterlockedExchangeAdd64(&Stock->Served, (LONG64)Length);
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, Length);
#else
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, Length);
    InterlockedExchangeAdd64(&Stock->Served, (LONG64)CALL(WdfRequestGetInformation, Request));
#endif
}

static VOID OnControl(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T OutputLength, SIZE_T InputLength, ULONG Code)
{
    STOCK *Stock = StockOf(CALL(WdfIoQueueGetDevice, Queue));
    PVOID Output;
    NTSTATUS Status = STATUS_INVALID_DEVICE_REQUEST;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL_STOCK_SERVED) {
        Status = CALL(WdfRequestRetrieveOutputBuffer, Request, sizeof(LONG64), &Output, NULL);
    }
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    *(LONG64 *)Output = Stock->Served;
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, sizeof(LONG64));
}

static NTSTATUS OnDeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_IO_QUEUE_CONFIG Config;
    WDFDEVICE Device;
    NTSTATUS Status = ClientDevice(Init, &TypeOfSTOCK, &Device);

    UNREFERENCED_PARAMETER(Driver);
    if (NT_SUCCESS(Status)) {
        InitializeQueue(&Config, WdfIoQueueDispatchParallel, WdfUseDefault);
        Config.DefaultQueue = TRUE;
        Config.EvtIoRead = OnRead;
        Config.EvtIoDeviceControl = OnControl;
        Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    }
    return NT_SUCCESS(Status) ? CALL(WdfDeviceCreateDeviceInterface, Device, &StockInterface, NULL) : Status;
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return ClientDriver(Driver, RegistryPath, OnDeviceAdd);
}
