/*
 * A driver for the bench card whose memory of 64 KiB is read and written by its bus master, straight from and to the application's buffer, one request at a time.
 *
 * The bug: the card is programmed with the whole rest of a transfer, not with the length that MapTransfer says is mapped in one piece, so that it goes on into memory that is not the buffer's.
 * Shows by: a transfer of more than one page, whose pages do not lie behind each other in physical memory.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: dma-behind-mapping
 * Needs: ioctl, device
 */
#include "../include/hold_card.h"

#define DMA_TAG 'amdB'
#define BEN_DMA_LOW     0x30
#define BEN_DMA_HIGH    0x34
#define BEN_DMA_LENGTH  0x38
#define BEN_DMA_OFFSET  0x3c
#define BEN_DMA_COMMAND 0x40
#define BEN_DMA_STATUS  0x44
#define BEN_BYTES       0x70u
#define COMMAND_START   0x01u
#define COMMAND_READ    0x02u                   /* from the card to memory */
#define STATUS_DONE     0x01u
#define STATUS_FAILED   0x02u
#define DMA_MEMORY      0x10000u                /* on the card */
#define DMA_TRIES       20u                     /* of 1 ms or a tick of the clock, which is longer */

typedef struct _DMA {
    KIT Kit;
    PUCHAR Registers;
    BUS_INTERFACE_STANDARD Bus;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    FAST_MUTEX Mutex;                           /* one transfer at a time; the rest */
    KEVENT Granted;
    PVOID MapBase;
    BOOLEAN Failed;                             /* a transfer has not ended, and the card is no bus master any more */
} DMA, *PDMA;

DRIVER_INITIALIZE DriverEntry;

static const GUID DmaInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x16 } };
static const GUID DmaBusInterface = { 0x496b8280, 0x6f25, 0x11d0, { 0xbe, 0xaf, 0x08, 0x00, 0x2b, 0xe2, 0x09, 0x2f } };      /* GUID_BUS_INTERFACE_STANDARD */

static ULONG DmaRead(PDMA Dma, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Dma->Registers + Offset));
}

static void DmaWrite(PDMA Dma, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Dma->Registers + Offset), Value);
}

static NTSTATUS DmaQueryBus(PDMA Dma)
{
    PIO_STACK_LOCATION sp;
    IO_STATUS_BLOCK result;
    NTSTATUS status;
    KEVENT event;
    PIRP irp;

    RtlZeroMemory(&Dma->Bus, sizeof(Dma->Bus));
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Dma->Kit.Lower, NULL, 0, NULL, &event, &result);
    if (irp == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    sp = IoGetNextIrpStackLocation(irp);
    sp->MinorFunction = IRP_MN_QUERY_INTERFACE;
    sp->Parameters.QueryInterface.InterfaceType = &DmaBusInterface;
    sp->Parameters.QueryInterface.Size = sizeof(BUS_INTERFACE_STANDARD);
    sp->Parameters.QueryInterface.Version = 1;
    sp->Parameters.QueryInterface.Interface = (PINTERFACE)&Dma->Bus;
    sp->Parameters.QueryInterface.InterfaceSpecificData = NULL;
    status = IoCallDriver(Dma->Kit.Lower, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = result.Status;
    }
    return status;
}

static void DmaBusMaster(PDMA Dma, BOOLEAN On)
{
    USHORT command = 0;

    if (Dma->Bus.GetBusData(Dma->Bus.Context, PCI_WHICHSPACE_CONFIG, &command, FIELD_OFFSET(PCI_COMMON_CONFIG, Command), sizeof(command)) != sizeof(command))
        return;
    command = On ? command | PCI_ENABLE_BUS_MASTER : command & ~PCI_ENABLE_BUS_MASTER;
    Dma->Bus.SetBusData(Dma->Bus.Context, PCI_WHICHSPACE_CONFIG, &command, FIELD_OFFSET(PCI_COMMON_CONFIG, Command), sizeof(command));
}

static IO_ALLOCATION_ACTION NTAPI DmaGranted(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapBase, PVOID Context)
{
    PDMA dma = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    dma->MapBase = MapBase;
    KeSetEvent(&dma->Granted, IO_NO_INCREMENT, FALSE);
    return DeallocateObjectKeepRegisters;
}

/* Moves one piece. The card is not at work when it returns. */
static NTSTATUS DmaPiece(PDMA Dma, PHYSICAL_ADDRESS Address, ULONG Length, ULONG Offset, BOOLEAN ToCard)
{
    LARGE_INTEGER pause;
    ULONG tries, status;

    pause.QuadPart = -10000;
    DmaWrite(Dma, BEN_DMA_STATUS, STATUS_DONE | STATUS_FAILED);
    DmaWrite(Dma, BEN_DMA_LOW, Address.LowPart);
    DmaWrite(Dma, BEN_DMA_HIGH, (ULONG)Address.HighPart);
    DmaWrite(Dma, BEN_DMA_LENGTH, Length);
    DmaWrite(Dma, BEN_DMA_OFFSET, Offset);
    DmaWrite(Dma, BEN_DMA_COMMAND, COMMAND_START | (ToCard ? 0 : COMMAND_READ));
    (void)DmaRead(Dma, BEN_DMA_STATUS);         /* the writes have arrived */
    KeStallExecutionProcessor(5);               /* mostly enough */
    for (tries = 0; tries < DMA_TRIES; tries++) {
        status = DmaRead(Dma, BEN_DMA_STATUS);
        if (status == 0xffffffff)
            break;
        if (status & STATUS_FAILED)
            return STATUS_IO_DEVICE_ERROR;
        if (status & STATUS_DONE)
            return STATUS_SUCCESS;
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    DmaBusMaster(Dma, FALSE);                   /* it must not get at the buffer later */
    Dma->Failed = TRUE;
    return tries == DMA_TRIES ? STATUS_IO_TIMEOUT : STATUS_DEVICE_DOES_NOT_EXIST;
}

/* Mutex held. */
static NTSTATUS DmaMove(PDMA Dma, PMDL Mdl, ULONG Length, ULONG Offset, BOOLEAN ToCard)
{
    PUCHAR va = MmGetMdlVirtualAddress(Mdl);
    ULONG pages = ADDRESS_AND_SIZE_TO_SPAN_PAGES(va, Length), mapped, piece;
    PHYSICAL_ADDRESS address;
    NTSTATUS status;
    KIRQL irql;

    if (Dma->Failed)
        return STATUS_DEVICE_NOT_READY;
    if (pages > Dma->MapRegisters)
        return STATUS_INVALID_PARAMETER;
    KeClearEvent(&Dma->Granted);
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    status = Dma->Adapter->DmaOperations->AllocateAdapterChannel(Dma->Adapter, Dma->Kit.Self, pages, DmaGranted, Dma);
    KeLowerIrql(irql);
    if (!NT_SUCCESS(status))
        return status;
    KeWaitForSingleObject(&Dma->Granted, Executive, KernelMode, FALSE, NULL);
    KeFlushIoBuffers(Mdl, !ToCard, TRUE);
    while (NT_SUCCESS(status) && Length != 0) {
        mapped = Length;
        address = Dma->Adapter->DmaOperations->MapTransfer(Dma->Adapter, Mdl, Dma->MapBase, va, &mapped, ToCard);
#ifdef FIXED
        piece = mapped;
#else
        piece = Length;
#endif
        status = DmaPiece(Dma, address, piece, Offset, ToCard);
        if (!Dma->Adapter->DmaOperations->FlushAdapterBuffers(Dma->Adapter, Mdl, Dma->MapBase, va, mapped, ToCard) && NT_SUCCESS(status))
            status = STATUS_IO_DEVICE_ERROR;
        va += piece;
        Offset += piece;
        Length -= piece;
    }
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    Dma->Adapter->DmaOperations->FreeMapRegisters(Dma->Adapter, Dma->MapBase, pages);
    KeLowerIrql(irql);
    return status;
}

static NTSTATUS NTAPI DmaTransfer(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDMA dma = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = sp->MajorFunction == IRP_MJ_WRITE;
    LONGLONG at = write ? sp->Parameters.Write.ByteOffset.QuadPart : sp->Parameters.Read.ByteOffset.QuadPart;
    ULONG length = write ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
    NTSTATUS status;

    status = KitEnter(&dma->Kit, Irp);
    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (length == 0)
        return KitFinish(&dma->Kit, Irp, STATUS_SUCCESS, 0);
    if (at < 0 || at >= DMA_MEMORY || length > DMA_MEMORY - (ULONG)at)
        return KitFinish(&dma->Kit, Irp, STATUS_INVALID_PARAMETER, 0);
    ExAcquireFastMutex(&dma->Mutex);
    status = DmaMove(dma, Irp->MdlAddress, length, (ULONG)at, write);
    ExReleaseFastMutex(&dma->Mutex);
    return KitFinish(&dma->Kit, Irp, status, NT_SUCCESS(status) ? length : 0);
}

static void KitStop(PKIT Kit)
{
    PDMA dma = CONTAINING_RECORD(Kit, DMA, Kit);

    if (dma->Adapter != NULL)
        dma->Adapter->DmaOperations->PutDmaAdapter(dma->Adapter);
    dma->Adapter = NULL;
    if (dma->Bus.InterfaceDereference != NULL)
        dma->Bus.InterfaceDereference(dma->Bus.Context);
    RtlZeroMemory(&dma->Bus, sizeof(dma->Bus));
    if (dma->Registers != NULL)
        MmUnmapIoSpace(dma->Registers, BEN_BYTES);
    dma->Registers = NULL;
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    PDMA dma = CONTAINING_RECORD(Kit, DMA, Kit);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR window = HwWindow(Translated, 0, BEN_BYTES);
    DEVICE_DESCRIPTION description;
    NTSTATUS status;

    if (window == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    dma->Registers = MmMapIoSpace(window->u.Memory.Start, BEN_BYTES, MmNonCached);
    if (dma->Registers == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = DmaQueryBus(dma);
    if (!NT_SUCCESS(status)) {
        RtlZeroMemory(&dma->Bus, sizeof(dma->Bus));
        KitStop(Kit);
        return status;
    }
    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = DMA_MEMORY;
    dma->Adapter = IoGetDmaAdapter(Kit->Pdo, &description, &dma->MapRegisters);
    if (dma->Adapter == NULL) {
        KitStop(Kit);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    dma->Failed = FALSE;
    DmaBusMaster(dma, TRUE);
    return STATUS_SUCCESS;
}

static void KitDrain(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);                /* transfers end in their dispatch routine */
}

static void KitSuspend(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitResume(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);                /* each transfer programs the card anew */
}

static NTSTATUS NTAPI DmaAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PDMA dma;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(DMA), DMA_TAG, &DmaInterface, &device);

    if (!NT_SUCCESS(status))
        return status;
    dma = device->DeviceExtension;
    ExInitializeFastMutex(&dma->Mutex);
    KeInitializeEvent(&dma->Granted, NotificationEvent, FALSE);
    device->Flags |= DO_DIRECT_IO;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DmaUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, DmaAddDevice, DmaUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_READ] = DmaTransfer;
    Driver->MajorFunction[IRP_MJ_WRITE] = DmaTransfer;
    return STATUS_SUCCESS;
}
