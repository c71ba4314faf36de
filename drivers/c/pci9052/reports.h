/*
 * What an administrator sees of a card: counters, a setting, a method and an event by WMI (drivers/pci9052/pci9052.mof describes them), and
 * entries of the event log. Pages: WMILIB_CONTEXT structure, WmiFireEvent function, IoWriteErrorLogEntry function.
 */
#ifndef PCI9052_REPORTS_H
#define PCI9052_REPORTS_H

#include <ntiologc.h>
#include <wmistr.h>
#include <ddk/wmilib.h>
#include "hardware.h"

enum { STATISTICS, TIMED_OUT, BLOCKS };

#define STATISTICS_STOP_TIMEOUT 7 /* the item that can be set */
#define STATISTICS_ITEMS 8
#define STATISTICS_RESET 1 /* the method */
#define LONGEST 60000      /* milliseconds that a stop waits at most */

/* Pci9052_Statistics. */
typedef struct _STATISTICS_BLOCK {
    ULONG64 BytesRead, BytesWritten;
    ULONG Transfers, Interrupts, Passed, TimeOuts, StopTimeout, LocalBytes;
} STATISTICS_BLOCK;

/* Why the card was to be at rest. */
typedef enum _CAUSE { CauseStop, CausePowerDown } CAUSE;

static const GUID Blocks[BLOCKS] = {
    {0x8F2D4B61, 0x2C3E, 0x4A7D, {0x9B, 0x15, 0x6E, 0x0C, 0xD3, 0x8A, 0x7F, 0x42}},
    {0x8F2D4B62, 0x2C3E, 0x4A7D, {0x9B, 0x15, 0x6E, 0x0C, 0xD3, 0x8A, 0x7F, 0x42}},
};
static WMIGUIDREGINFO BlockList[BLOCKS] = {
    {&Blocks[STATISTICS], 1, 0},
    {&Blocks[TIMED_OUT], 1, WMIREG_FLAG_EVENT_ONLY_GUID},
};
static UNICODE_STRING RegistryKey; /* the service's key as DriverEntry was given it, in pool */

static NTSTATUS NTAPI QueryRegInfo(PDEVICE_OBJECT Device, PULONG Flags, PUNICODE_STRING Name, PUNICODE_STRING *Path,
                                   PUNICODE_STRING Resource, PDEVICE_OBJECT *Pdo)
{
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Resource);
    *Flags = WMIREG_FLAG_INSTANCE_PDO;
    *Path = &RegistryKey;
    *Pdo = ((PDEVICE_EXTENSION)Device->DeviceExtension)->Pdo;
    return STATUS_SUCCESS;
}

static NTSTATUS Ended(PDEVICE_OBJECT Device, PIRP Irp, NTSTATUS Status, ULONG Used)
{
    return WmiCompleteRequest(Device, Irp, Status, Used, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI QueryDataBlock(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Count, PULONG Lengths,
                                     ULONG Available, PUCHAR Buffer)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    STATISTICS_BLOCK *Statistics = (STATISTICS_BLOCK *)Buffer;

    UNREFERENCED_PARAMETER(Instance);
    UNREFERENCED_PARAMETER(Count);
    if (Block != STATISTICS) {
        return Ended(Device, Irp, STATUS_WMI_GUID_NOT_FOUND, 0);
    }
    if (Lengths == NULL || Available < sizeof(*Statistics)) {
        return Ended(Device, Irp, STATUS_BUFFER_TOO_SMALL, sizeof(*Statistics));
    }
    RtlZeroMemory(Statistics, sizeof(*Statistics));
    Statistics->BytesRead = (ULONG64)Extension->Counters.BytesRead;
    Statistics->BytesWritten = (ULONG64)Extension->Counters.BytesWritten;
    Statistics->Transfers = (ULONG)Extension->Counters.Transfers;
    Statistics->Interrupts = (ULONG)Extension->Counters.Interrupts;
    Statistics->Passed = (ULONG)Extension->Counters.Passed;
    Statistics->TimeOuts = (ULONG)Extension->Counters.TimeOuts;
    Statistics->StopTimeout = (ULONG)Extension->StopTimeout;
    if (Enter(Extension)) {
        Statistics->LocalBytes = Extension->LocalLength;
        Leave(Extension);
    }
    *Lengths = sizeof(*Statistics);
    return Ended(Device, Irp, STATUS_SUCCESS, sizeof(*Statistics));
}

static NTSTATUS SetStopTimeout(PDEVICE_EXTENSION Extension, ULONG Milliseconds)
{
    if (Milliseconds > LONGEST) {
        return STATUS_WMI_SET_FAILURE;
    }
    InterlockedExchange(&Extension->StopTimeout, (LONG)Milliseconds);
    return STATUS_SUCCESS;
}

/* Of a whole instance only StopTimeout is taken: the others are counted here. */
static NTSTATUS NTAPI SetDataBlock(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Size, PUCHAR Buffer)
{
    NTSTATUS Status = STATUS_WMI_SET_FAILURE;

    UNREFERENCED_PARAMETER(Instance);
    if (Block != STATISTICS) {
        Status = STATUS_WMI_GUID_NOT_FOUND;
    } else if (Size == sizeof(STATISTICS_BLOCK)) {
        Status = SetStopTimeout(Device->DeviceExtension, ((STATISTICS_BLOCK *)Buffer)->StopTimeout);
    }
    return Ended(Device, Irp, Status, 0);
}

static NTSTATUS NTAPI SetDataItem(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Item, ULONG Size,
                                  PUCHAR Buffer)
{
    NTSTATUS Status = STATUS_WMI_READ_ONLY;

    UNREFERENCED_PARAMETER(Instance);
    if (Block != STATISTICS) {
        Status = STATUS_WMI_GUID_NOT_FOUND;
    } else if (Item == 0 || Item > STATISTICS_ITEMS) {
        Status = STATUS_WMI_ITEMID_NOT_FOUND;
    } else if (Item == STATISTICS_STOP_TIMEOUT) {
        Status = Size == sizeof(ULONG) ? SetStopTimeout(Device->DeviceExtension, *(PULONG)Buffer) : STATUS_WMI_SET_FAILURE;
    }
    return Ended(Device, Irp, Status, 0);
}

/* The room is looked at first: a method that changes something must not be run again because its output was too long. */
static NTSTATUS NTAPI ExecuteMethod(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Method, ULONG Input,
                                    ULONG Output, PUCHAR Buffer)
{
    COUNTERS *Counters = &((PDEVICE_EXTENSION)Device->DeviceExtension)->Counters;

    UNREFERENCED_PARAMETER(Instance);
    UNREFERENCED_PARAMETER(Input);
    if (Block != STATISTICS) {
        return Ended(Device, Irp, STATUS_WMI_GUID_NOT_FOUND, 0);
    }
    if (Method != STATISTICS_RESET) {
        return Ended(Device, Irp, STATUS_WMI_ITEMID_NOT_FOUND, 0);
    }
    if (Output < sizeof(ULONG)) {
        return Ended(Device, Irp, STATUS_BUFFER_TOO_SMALL, sizeof(ULONG));
    }
    *(PULONG)Buffer = (ULONG)InterlockedExchange(&Counters->Transfers, 0);
    InterlockedExchange64(&Counters->BytesRead, 0);
    InterlockedExchange64(&Counters->BytesWritten, 0);
    InterlockedExchange(&Counters->Interrupts, 0);
    InterlockedExchange(&Counters->Passed, 0);
    InterlockedExchange(&Counters->TimeOuts, 0);
    return Ended(Device, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI FunctionControl(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, WMIENABLEDISABLECONTROL Function, BOOLEAN On)
{
    UNREFERENCED_PARAMETER(Block);
    UNREFERENCED_PARAMETER(Function);
    UNREFERENCED_PARAMETER(On);
    return Ended(Device, Irp, STATUS_SUCCESS, 0);
}

static WMILIB_CONTEXT Library = {
    BLOCKS, BlockList, QueryRegInfo, QueryDataBlock, SetDataBlock, SetDataItem, ExecuteMethod, FunctionControl,
};

/* Where it fails the device works all the same, and offers nothing. */
static VOID RegisterProvider(PDEVICE_EXTENSION Extension)
{
    if (!Extension->IsProvider) {
        Extension->IsProvider = NT_SUCCESS(IoWMIRegistrationControl(Extension->Self, WMIREG_ACTION_REGISTER));
    }
}

/* Waits for the requests that are under way. */
static VOID DeregisterProvider(PDEVICE_EXTENSION Extension)
{
    if (Extension->IsProvider) {
        Extension->IsProvider = FALSE;
        IoWMIRegistrationControl(Extension->Self, WMIREG_ACTION_DEREGISTER);
    }
}

/* An entry of the event log; it is lost where there is no memory for it. Its text is the system's own: IoLogMsg.dll, as the INF says. */
static VOID Log(PDEVICE_EXTENSION Extension, NTSTATUS Code, ULONG Unique, NTSTATUS Final, const ULONG *Data, ULONG Count)
{
    UCHAR Size = (UCHAR)(sizeof(IO_ERROR_LOG_PACKET) + Count * sizeof(ULONG));
    PIO_ERROR_LOG_PACKET Packet = IoAllocateErrorLogEntry(Extension->Self, Size);

    if (Packet == NULL) {
        return;
    }
    RtlZeroMemory(Packet, Size);
    Packet->ErrorCode = Code;
    Packet->UniqueErrorValue = Unique;
    Packet->FinalStatus = Final;
    Packet->DumpDataSize = (USHORT)(Count * sizeof(ULONG));
    if (Count > 0) {
        RtlCopyMemory(Packet->DumpData, Data, Count * sizeof(ULONG));
    }
    IoWriteErrorLogEntry(Packet);
}

/* The card has not ended what it had: that is counted, fired as a WMI event, and put into the event log. At PASSIVE_LEVEL. */
static VOID ReportTimeOut(PDEVICE_EXTENSION Extension, ULONG Milliseconds, CAUSE Cause)
{
    ULONG Data[3] = {Milliseconds, (ULONG)InterlockedIncrement(&Extension->Counters.TimeOuts), Cause};
    PVOID Event = Extension->IsProvider ? ExAllocatePoolWithTag(NonPagedPool, sizeof(Data), PCI9052_TAG) : NULL;

    if (Event != NULL) {
        RtlCopyMemory(Event, Data, sizeof(Data)); /* WmiFireEvent has it freed, whatever it answers */
        WmiFireEvent(Extension->Self, (LPGUID)&Blocks[TIMED_OUT], 0, sizeof(Data), Event);
    }
    Log(Extension, IO_ERR_TIMEOUT, 1, STATUS_IO_TIMEOUT, Data, RTL_NUMBER_OF(Data));
}

#endif
