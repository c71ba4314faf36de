/*
 * posted.sys: a Plug and Play function driver for the card `bench` that shows what a write on its way to the card means (`--platform posted=2us`).
 * Each request says whether the driver reads a register back behind the write that matters, as drivers do that depend on it:
 *   IOCTL_POSTED_RAISE has the card interrupt, and tells how often the service routine claimed the interrupt and how often it did not: a line
 *   may still be asserted when the acknowledging write has not arrived.
 *   IOCTL_POSTED_DATA has the card write 4 bytes to memory at once, and tells what is there behind the command.
 *   IOCTL_POSTED_ORDER writes words to the card's FIFO and tells what reads of it yield: they never pass writes.
 *   IOCTL_POSTED_REFUSED writes one byte of a register of four, which the card does not take.
 *   IOCTL_POSTED_LEAVE has the driver read nothing back where it stops its card, and tells what a register holds that is written last then: the bus
 *   driver brings writes home as it disables the card.
 */
#include <ddk/wdm.h>

#define CONTROL_WITHOUT_DEVICE
#include "control.h"
#include "function.h"
#include "bus_master.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\DirqlPosted");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlPosted");

#define IOCTL_POSTED_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE10, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_POSTED_DATA CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE11, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_POSTED_ORDER CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE12, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_POSTED_REFUSED CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE13, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_POSTED_LEAVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE14, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define BENCH_RAISE 0x08
#define BENCH_STATUS 0x0C
#define BENCH_ENABLE 0x14
#define BENCH_FIFO 0x24
#define BENCH_DMA_ADDRESS_LOW 0x30
#define BENCH_DMA_ADDRESS_HIGH 0x34
#define BENCH_DMA_LENGTH 0x38
#define BENCH_DMA_OFFSET 0x3C
#define BENCH_DMA_COMMAND 0x40
#define BENCH_DMA_STATUS 0x44
#define BENCH_DMA_DELAY 0x4C
#define DMA_START 1
#define DMA_TO_MEMORY 2

#define NOT_THERE 0xEEEEEEEE
#define LAST_WORD 0x40

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    SHARED_PAGE Page;
    KEVENT Served;
    KDPC Dpc;
    BOOLEAN ReadsBack, Leaves;
    volatile LONG Claimed, NotClaimed;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static VOID NTAPI Serve(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    KeSetEvent(&Extension->Served, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Status = Read(&Extension->Function, BENCH_STATUS);

    if (Status == 0) {
        Extension->NotClaimed++;
        return FALSE;
    }
    Write(&Extension->Function, BENCH_STATUS, Status);
    if (Extension->ReadsBack) {
        Read(&Extension->Function, BENCH_STATUS);
    }
    Extension->Claimed++;
    KeInsertQueueDpc(&Extension->Dpc, NULL, NULL);
    return TRUE;
}

static VOID Raise(PDEVICE_EXTENSION Extension, BOOLEAN ReadsBack, PULONG Output)
{
    Extension->ReadsBack = ReadsBack;
    Extension->Claimed = Extension->NotClaimed = 0;
    Write(&Extension->Function, BENCH_RAISE, 1);
    KeWaitForSingleObject(&Extension->Served, Executive, KernelMode, FALSE, NULL);
    Output[0] = (ULONG)Extension->Claimed;
    Output[1] = (ULONG)Extension->NotClaimed;
}

static VOID Data(PDEVICE_EXTENSION Extension, BOOLEAN ReadsBack, PULONG Output)
{
    PFUNCTION Function = &Extension->Function;

    *Extension->Page.Words = NOT_THERE;
    Write(Function, BENCH_DMA_ADDRESS_LOW, Extension->Page.Address.LowPart);
    Write(Function, BENCH_DMA_ADDRESS_HIGH, (ULONG)Extension->Page.Address.HighPart);
    Write(Function, BENCH_DMA_LENGTH, sizeof(ULONG));
    Write(Function, BENCH_DMA_OFFSET, 0);
    Write(Function, BENCH_DMA_DELAY, 0);
    Write(Function, BENCH_DMA_COMMAND, DMA_START | DMA_TO_MEMORY);
    if (ReadsBack) {
        Read(Function, BENCH_DMA_STATUS);
    }
    Output[0] = *Extension->Page.Words;
    Read(Function, BENCH_DMA_STATUS); /* The card is at rest before the next request. */
    Output[1] = *Extension->Page.Words;
}

static VOID Order(PFUNCTION Function, PULONG Output)
{
    Write(Function, BENCH_FIFO, 0x11);
    Write(Function, BENCH_FIFO, 0x22);
    Output[0] = Read(Function, BENCH_FIFO);
    Output[1] = Read(Function, BENCH_FIFO);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Output = Irp->AssociatedIrp.SystemBuffer;
    BOOLEAN ReadsBack;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG) || Extension->Page.Adapter == NULL) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    ReadsBack = Output[0] != 0;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_POSTED_RAISE:
        Raise(Extension, ReadsBack, Output);
        break;
    case IOCTL_POSTED_DATA:
        Data(Extension, ReadsBack, Output);
        break;
    case IOCTL_POSTED_ORDER:
        Order(&Extension->Function, Output);
        break;
    case IOCTL_POSTED_REFUSED:
        WRITE_REGISTER_UCHAR(Extension->Function.Registers + BENCH_ENABLE, 1);
        KeStallExecutionProcessor(50);
        Output[0] = Read(&Extension->Function, BENCH_ENABLE);
        break;
    case IOCTL_POSTED_LEAVE:
        Extension->Leaves = TRUE;
        Output[0] = Read(&Extension->Function, BENCH_DMA_OFFSET);
        Output[1] = 0;
        break;
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    KeInitializeEvent(&Extension->Served, SynchronizationEvent, FALSE);
    KeInitializeDpc(&Extension->Dpc, Serve, Extension);
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    FreeSharedPage(&Extension->Page);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = MakeSharedPage(&Extension->Function, &Extension->Page);

    if (NT_SUCCESS(Status)) {
        Status = Connect(&Extension->Function);
    }
    if (NT_SUCCESS(Status)) {
        Write(&Extension->Function, BENCH_ENABLE, 1);
    }
    return Status;
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    Write(&Extension->Function, BENCH_ENABLE, On ? 1 : 0);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Present) {
        Write(&Extension->Function, BENCH_ENABLE, 0);
        if (Extension->Leaves) {
            Write(&Extension->Function, BENCH_DMA_OFFSET, LAST_WORD);
        } else {
            Read(&Extension->Function, BENCH_ENABLE);
        }
    }
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}
