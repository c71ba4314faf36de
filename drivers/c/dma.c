/*
 * dma.sys: a Plug and Play function driver for QEMU's educational device that does DMA as Windows has it: reads and writes of \\.\DirqlDma
 * are direct, and go between the application's pages and the card's buffer (which is 4096 bytes, gone through from its beginning again and
 * again) by one of the ways of SETUP. IOCTL_DMA_MISUSE has the next transfer make a mistake; IOCTL_TELL_STORY (control.h) tells a story
 * of the folder dma by its name; they check themselves and need no transfer.
 */
#include "dma/dma.h"
#include "dma/adapters.h"
#include "dma/lists.h"
#include "dma/registers.h"
#include "dma/transfer.h"
#include "dma/version3.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\DirqlDma");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlDma");

static const STORY Stories[] = {
    STORY(Adapters), STORY(CommonBuffers), STORY(InOrder), STORY(Channels), STORY(Lists), STORY(Chained),
    STORY(OldNames), STORY(Extended), STORY(Domains), STORY(Bounds), STORY(Parts), STORY(FromMdl),
};

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Function.Registers == NULL || Extension->Adapter == NULL) {
        return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    }
    if (Irp->MdlAddress == NULL) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    IoMarkIrpPending(Irp);
    IoStartPacket(Device, Irp, NULL, NULL);
    return STATUS_PENDING;
}

static NTSTATUS Configure(PDEVICE_EXTENSION Extension, const SETUP *Setup)
{
    if (Extension->Adapter != NULL) {
        LetGo(Extension);
    }
    Extension->Setup = *Setup;
    Extension->Adapter = Get(Extension->Function.Pdo, Setup, &Extension->MapRegisters);
    if (Extension->Adapter == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (Setup->How == COMMON) {
        Extension->Common = Extension->Adapter->DmaOperations->AllocateCommonBuffer(
            Extension->Adapter, EDU_BUFFER_LENGTH, &Extension->CommonAddress, FALSE);
        if (Extension->Common == NULL) {
            LetGo(Extension);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG Input = Stack->Parameters.DeviceIoControl.InputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;

    switch (Code) {
    case IOCTL_DMA_SETUP:
        return Input < sizeof(SETUP) ? Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0)
                                     : Complete(Irp, Configure(Extension, Buffer), 0);
    case IOCTL_DMA_MISUSE:
        if (Input < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        Extension->Misuse = *(PULONG)Buffer;
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    Pdo = Extension->Function.Pdo;
    TheDriver = Device->DriverObject;
    Card = &Extension->Function;
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    IoInitializeDpcRequest(Device, DpcForIsr);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    Device->Flags = (Device->Flags & ~DO_BUFFERED_IO) | DO_DIRECT_IO;
    return Connect(&Extension->Function);
}

/* Each request programs the card anew. */
static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(On);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Present) {
        Write(&Extension->Function, EDU_INTERRUPT_ACKNOWLEDGE, 0xFFFFFFFF);
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Adapter != NULL) {
        LetGo(Extension);
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
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->DriverStartIo = StartIo;
    return STATUS_SUCCESS;
}
