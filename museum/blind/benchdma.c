/*
 * The bench card's memory as a file: reads and writes are scatter/gather transfers of the card's bus master, one at a time.
 *
 * The bug: a transfer that the card reports as failed ends without giving its scatter/gather list back, so the list and its map registers are lost.
 * Shows by: a read or write beyond the card's 64 KiB (the driver leaves it to the card to refuse it).
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: scatter-gather-list-leak
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/pnp_frame.h"
#include "../include/card_window.h"

#define BENCH_STATUS      0x0C
#define BENCH_ENABLE      0x14
#define BENCH_DMA_LOW     0x30
#define BENCH_DMA_HIGH    0x34
#define BENCH_DMA_OFFSET  0x3C
#define BENCH_DMA_COMMAND 0x40
#define BENCH_DMA_STATUS  0x44
#define BENCH_BYTES       0x70

#define DMA_START      0x01
#define DMA_TO_MEMORY  0x02
#define DMA_LIST       0x04
#define DMA_RAISE      0x08
#define DMA_DONE       0x01
#define DMA_FAILED     0x02

#define MAX_TRANSFER 65536
#define MAX_PIECES   64
#define LIMIT_MS     1000

static const GUID DmaInterface = { 0x3be6f0a7, 0x52c4, 0x4c1d, { 0x85, 0x30, 0xf7, 0x0d, 0x69, 0x14, 0xba, 0x92 } };

typedef struct _PIECE {
    ULONGLONG Address;
    ULONG Length;
    ULONG Flags;
} PIECE, *PPIECE;

typedef struct _DEVICE {
    FDO Fdo;
    HW_BAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN IrqOn;              /* the interrupt's lock */
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    PPIECE Pieces;
    PHYSICAL_ADDRESS PiecesLogical;
    PSCATTER_GATHER_LIST List;
    KEVENT Listed;
    KEVENT Done;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH DmaTransfer;
static DRIVER_ADD_DEVICE DmaAddDevice;
static DRIVER_UNLOAD DmaUnload;
static DRIVER_LIST_CONTROL DmaListed;
static KSERVICE_ROUTINE DmaIsr;
static KDEFERRED_ROUTINE DmaDpc;
DRIVER_INITIALIZE DriverEntry;

static BOOLEAN NTAPI DmaIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEVICE dev = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->IrqOn)
        return FALSE;
    causes = HwRead(&dev->Regs, BENCH_STATUS);
    if (causes == 0xFFFFFFFF || !(causes & 1))
        return FALSE;
    HwWrite(&dev->Regs, BENCH_STATUS, 1);
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI DmaDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeSetEvent(&((PDEVICE)Context)->Done, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN NTAPI DmaIrqOn(PVOID Context)
{
    PDEVICE dev = Context;

    dev->IrqOn = TRUE;
    HwWrite(&dev->Regs, BENCH_STATUS, 0xFFFFFFFF);
    HwWrite(&dev->Regs, BENCH_ENABLE, 1);
    return TRUE;
}

static BOOLEAN NTAPI DmaIrqOff(PVOID Context)
{
    PDEVICE dev = Context;

    dev->IrqOn = FALSE;
    HwWrite(&dev->Regs, BENCH_ENABLE, 0);
    HwRead(&dev->Regs, BENCH_ENABLE);
    return TRUE;
}

static NTSTATUS HwStart(PFDO F, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    DEVICE_DESCRIPTION description;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    status = HwMapBar(Translated, 0, BENCH_BYTES, &dev->Regs);
    if (!NT_SUCCESS(status))
        return status;

    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = MAX_TRANSFER;
    status = STATUS_INSUFFICIENT_RESOURCES;
    dev->Adapter = IoGetDmaAdapter(F->Pdo, &description, &dev->MapRegisters);
    if (!dev->Adapter)
        goto unmap;
    dev->Pieces = dev->Adapter->DmaOperations->AllocateCommonBuffer(dev->Adapter, MAX_PIECES * sizeof(PIECE), &dev->PiecesLogical, FALSE);
    if (!dev->Pieces)
        goto adapter;

    HwWrite(&dev->Regs, BENCH_ENABLE, 0);
    dev->IrqOn = FALSE;
    status = HwConnect(Translated, DmaIsr, dev, &dev->Interrupt);
    if (NT_SUCCESS(status))
        return status;

    dev->Adapter->DmaOperations->FreeCommonBuffer(dev->Adapter, MAX_PIECES * sizeof(PIECE), dev->PiecesLogical, dev->Pieces, FALSE);
    dev->Pieces = NULL;
adapter:
    dev->Adapter->DmaOperations->PutDmaAdapter(dev->Adapter);
    dev->Adapter = NULL;
unmap:
    HwUnmapBar(&dev->Regs);
    return status;
}

static VOID HwStop(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    dev->Adapter->DmaOperations->FreeCommonBuffer(dev->Adapter, MAX_PIECES * sizeof(PIECE), dev->PiecesLogical, dev->Pieces, FALSE);
    dev->Pieces = NULL;
    dev->Adapter->DmaOperations->PutDmaAdapter(dev->Adapter);
    dev->Adapter = NULL;
    HwUnmapBar(&dev->Regs);
}

static VOID HwUp(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    KeSynchronizeExecution(dev->Interrupt, DmaIrqOn, dev);
}

static VOID HwDown(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    KeSynchronizeExecution(dev->Interrupt, DmaIrqOff, dev);
}

static VOID HwFlush(PFDO F) { UNREFERENCED_PARAMETER(F); }

static VOID NTAPI DmaListed(PDEVICE_OBJECT DeviceObject, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    PDEVICE dev = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    dev->List = List;
    KeSetEvent(&dev->Listed, IO_NO_INCREMENT, FALSE);
}

/* Runs the card over the list. The card does not touch memory any more when this returns. */
static NTSTATUS DmaRun(PDEVICE Dev, ULONG Offset, BOOLEAN Write)
{
    PSCATTER_GATHER_LIST list = Dev->List;
    LARGE_INTEGER limit;
    ULONG i, status;

    if (list->NumberOfElements > MAX_PIECES)
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < list->NumberOfElements; i++) {
        Dev->Pieces[i].Address = list->Elements[i].Address.QuadPart;
        Dev->Pieces[i].Length = list->Elements[i].Length;
        Dev->Pieces[i].Flags = i + 1 == list->NumberOfElements;
    }
    KeClearEvent(&Dev->Done);
    HwWrite(&Dev->Regs, BENCH_DMA_STATUS, DMA_DONE | DMA_FAILED);
    HwWrite(&Dev->Regs, BENCH_DMA_LOW, Dev->PiecesLogical.LowPart);
    HwWrite(&Dev->Regs, BENCH_DMA_HIGH, (ULONG)Dev->PiecesLogical.HighPart);
    HwWrite(&Dev->Regs, BENCH_DMA_OFFSET, Offset);
    HwWrite(&Dev->Regs, BENCH_DMA_COMMAND, DMA_START | DMA_LIST | DMA_RAISE | (Write ? 0 : DMA_TO_MEMORY));

    limit.QuadPart = -10000LL * LIMIT_MS;
    KeWaitForSingleObject(&Dev->Done, Executive, KernelMode, FALSE, &limit);
    /* Whether the interrupt came or not: the buffer is ours only when the card is done with it. */
    limit.QuadPart = -10000LL;
    for (;;) {
        status = HwRead(&Dev->Regs, BENCH_DMA_COMMAND);
        if (status == 0xFFFFFFFF)
            return STATUS_NO_SUCH_DEVICE;
        if (!(status & DMA_START))
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &limit);
    }
    status = HwRead(&Dev->Regs, BENCH_DMA_STATUS);
    return (status & DMA_DONE) && !(status & DMA_FAILED) ? STATUS_SUCCESS : STATUS_IO_DEVICE_ERROR;
}

/* Under Gate, in D0 */
static NTSTATUS DmaMove(PDEVICE Dev, PIRP Irp, ULONG Offset, ULONG Length, BOOLEAN Write)
{
    PDMA_OPERATIONS ops = Dev->Adapter->DmaOperations;
    NTSTATUS status;
    KIRQL irql;

    KeFlushIoBuffers(Irp->MdlAddress, !Write, TRUE);
    KeClearEvent(&Dev->Listed);
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    status = ops->GetScatterGatherList(Dev->Adapter, Dev->Fdo.Self, Irp->MdlAddress, MmGetMdlVirtualAddress(Irp->MdlAddress), Length, DmaListed, Dev, Write);
    KeLowerIrql(irql);
    if (!NT_SUCCESS(status))
        return status;
    KeWaitForSingleObject(&Dev->Listed, Executive, KernelMode, FALSE, NULL);

    status = DmaRun(Dev, Offset, Write);
#ifndef FIXED
    if (!NT_SUCCESS(status))
        return status;
#endif
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    ops->PutScatterGatherList(Dev->Adapter, Dev->List, Write);
    KeLowerIrql(irql);
    return status;
}

static NTSTATUS NTAPI DmaTransfer(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = sp->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
    LONGLONG offset = write ? sp->Parameters.Write.ByteOffset.QuadPart : sp->Parameters.Read.ByteOffset.QuadPart;
    NTSTATUS status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    if (length == 0) {
        status = STATUS_SUCCESS;
    } else if (!Irp->MdlAddress || length > MAX_TRANSFER || offset < 0 || offset > 0x7FFFFFFF) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        ExAcquireFastMutex(&dev->Fdo.Gate);
        if (!dev->Fdo.Up)
            status = STATUS_DEVICE_NOT_READY;
        else if (ADDRESS_AND_SIZE_TO_SPAN_PAGES(MmGetMdlVirtualAddress(Irp->MdlAddress), length) > dev->MapRegisters)
            status = STATUS_INVALID_PARAMETER;
        else
            status = DmaMove(dev, Irp, (ULONG)offset, length, write);
        ExReleaseFastMutex(&dev->Fdo.Gate);
    }
    FdoComplete(Irp, status, NT_SUCCESS(status) ? length : 0);
    IoReleaseRemoveLock(&dev->Fdo.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DmaAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO f;
    PDEVICE dev;
    NTSTATUS status = FdoCreate(Driver, Pdo, sizeof(DEVICE), DO_DIRECT_IO, &DmaInterface, &f);

    if (!NT_SUCCESS(status))
        return status;
    dev = CONTAINING_RECORD(f, DEVICE, Fdo);
    KeInitializeDpc(&dev->Dpc, DmaDpc, dev);
    KeInitializeEvent(&dev->Listed, NotificationEvent, FALSE);
    KeInitializeEvent(&dev->Done, NotificationEvent, FALSE);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DmaUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoTable(Driver);
    Driver->MajorFunction[IRP_MJ_READ] = DmaTransfer;
    Driver->MajorFunction[IRP_MJ_WRITE] = DmaTransfer;
    Driver->DriverExtension->AddDevice = DmaAddDevice;
    Driver->DriverUnload = DmaUnload;
    return STATUS_SUCCESS;
}
