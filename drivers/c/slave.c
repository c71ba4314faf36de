/*
 * slave.sys: a Plug and Play function driver for the card `slave`, which is no bus master: a channel of the PC's DMA controllers moves its
 * bytes (*Using Packet-Based System DMA*). Reads and writes of \\.\DirqlSlave are direct and begin at the beginning of the card's memory;
 * IOCTL_SLAVE_SETUP says by which names, and how much at a time. IOCTL_TELL_STORY (control.h) tells a story of the folder slave by its name.
 */
#include "slave/slave.h"
#include "slave/channel.h"
#include "slave/old.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\DirqlSlave");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSlave");

static const STORY Stories[] = {
    STORY(OldWay), STORY(Descriptions), STORY(Shared), STORY(RoundAndRound), STORY(Cancelled), STORY(Absent),
};

static VOID EndRequest(PDEVICE_OBJECT Device, NTSTATUS Status, ULONG Information)
{
    PIRP Irp = Device->CurrentIrp;

    IoStartNextPacket(Device, FALSE);
    Complete(Irp, Status, Information);
}

/* Maps what comes next, and has the card move it. */
static VOID NextPart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDMA_ADAPTER Adapter = Extension->Adapter;

    Extension->Part = min(Extension->Left, Extension->MapRegisters * PAGE_SIZE - (ULONG)(ULONG_PTR)Extension->Va % PAGE_SIZE);
    (Extension->How == OLD ? OldMapTransfer : Adapter->DmaOperations->MapTransfer)(
        Adapter, Device->CurrentIrp->MdlAddress, Extension->Base, Extension->Va, &Extension->Part, Extension->ToDevice);
    Write(&Extension->Function, SLAVE_COMMAND, SLAVE_START | SLAVE_INTERRUPT | (Extension->ToDevice ? 0 : SLAVE_TO_MEMORY));
}

static IO_ALLOCATION_ACTION NTAPI AdapterControl(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Irp);
    Extension->Base = MapRegisterBase;
    Write(&Extension->Function, SLAVE_OFFSET, 0);
    NextPart(Device);
    return KeepObject;
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDMA_ADAPTER Adapter = Extension->Adapter;
    ULONG Pages;
    NTSTATUS Status;

    Extension->Va = MmGetMdlVirtualAddress(Irp->MdlAddress);
    Extension->Left = MmGetMdlByteCount(Irp->MdlAddress);
    Extension->ToDevice = IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_WRITE;
    Pages = ADDRESS_AND_SIZE_TO_SPAN_PAGES(Extension->Va, Extension->Left);
    Status = (Extension->How == OLD ? OldAllocateAdapterChannel : Adapter->DmaOperations->AllocateAdapterChannel)(
        Adapter, Device, min(Pages, Extension->MapRegisters), AdapterControl, Extension);
    if (!NT_SUCCESS(Status)) {
        EndRequest(Device, Status, 0);
    }
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDMA_ADAPTER Adapter = Extension->Adapter;
    ULONG Left = (Extension->How == OLD ? OldReadDmaCounter : Adapter->DmaOperations->ReadDmaCounter)(Adapter);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    (Extension->How == OLD ? OldFlushAdapterBuffers : Adapter->DmaOperations->FlushAdapterBuffers)(
        Adapter, Irp->MdlAddress, Extension->Base, Extension->Va, Extension->Part, Extension->ToDevice);
    Extension->Va += Extension->Part;
    Extension->Left -= Extension->Part;
    if (Left == 0 && Extension->Left > 0) {
        NextPart(Device);
        return;
    }
    (Extension->How == OLD ? OldFreeAdapterChannel : Adapter->DmaOperations->FreeAdapterChannel)(Adapter);
    EndRequest(Device, Left == 0 ? STATUS_SUCCESS : STATUS_DEVICE_DATA_ERROR,
               Left == 0 ? MmGetMdlByteCount(Irp->MdlAddress) : 0);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (!(Read(&Extension->Function, SLAVE_STATUS) & SLAVE_TERMINAL_COUNT)) {
        return FALSE;
    }
    Write(&Extension->Function, SLAVE_STATUS, SLAVE_TERMINAL_COUNT);
    IoRequestDpc(Device, Device->CurrentIrp, NULL);
    return TRUE;
}

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

static VOID LetGo(PDEVICE_EXTENSION Extension)
{
    if (Extension->Adapter != NULL && Extension->How != OLD) { /* HalGetAdapter's is never released */
        Extension->Adapter->DmaOperations->PutDmaAdapter(Extension->Adapter);
    }
    Extension->Adapter = NULL;
}

static NTSTATUS Configure(PDEVICE_EXTENSION Extension, const SETUP *Setup)
{
    DESCRIPTION3 Description;

    LetGo(Extension);
    Extension->How = Setup->How;
    Describe(&Description.Old, DEVICE_DESCRIPTION_VERSION, Read(&Extension->Function, SLAVE_CHANNEL), Setup->MaximumLength);
    Extension->Adapter = Setup->How == OLD
                             ? OldGetAdapter(&Description.Old, &Extension->MapRegisters)
                             : IoGetDmaAdapter(Extension->Function.Pdo, &Description.Old, &Extension->MapRegisters);
    return Extension->Adapter == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;

    if (Extension->Function.Registers == NULL) {
        return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    }
    if (Code == IOCTL_SLAVE_SETUP) {
        return Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(SETUP)
                   ? Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0)
                   : Complete(Irp, Configure(Extension, Irp->AssociatedIrp.SystemBuffer), 0);
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
        Write(&Extension->Function, SLAVE_COMMAND, 0);
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    LetGo(Device->DeviceExtension);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT PhysicalDevice)
{
    return FunctionAdd(Driver, PhysicalDevice, sizeof(DEVICE_EXTENSION));
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
