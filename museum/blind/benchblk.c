/*
 * The memory of the bench card as a slow medium: a read or write of up to 4 KiB is one DMA transfer through a common buffer, and can be cancelled.
 *
 * The bug: whether a new transfer may begin is decided by the request under way, not by the card, so behind a cancelled request the card's registers and the common buffer are used while it still works, and the old transfer's interrupt ends the new request, whose own transfer was never made.
 * Shows by: cancelling a read and making a write within the 20 ms that the read's transfer takes (the write succeeds and has no effect), or the other way round.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: dma-after-unmap, output-never-stored
 * Needs: ioctl, cancel, device
 */
#include <ddk/wdm.h>
#include "../include/pnp_frame.h"
#include "../include/card_window.h"

#define BENCH_STATUS      0x0C
#define BENCH_ENABLE      0x14
#define BENCH_DMA_LOW     0x30
#define BENCH_DMA_HIGH    0x34
#define BENCH_DMA_LENGTH  0x38
#define BENCH_DMA_OFFSET  0x3C
#define BENCH_DMA_COMMAND 0x40
#define BENCH_DMA_STATUS  0x44
#define BENCH_DMA_DELAY   0x4C
#define BENCH_BYTES       0x70

#define DMA_START     0x01
#define DMA_TO_MEMORY 0x02
#define DMA_RAISE     0x08
#define DMA_DONE      0x01
#define DMA_FAILED    0x02

#define BUFFER_BYTES  4096
#define CARD_BYTES    65536
#define PACE_NS       20000000  /* the medium behind the card is a slow one */
#define IDLE_LIMIT_MS 1000

static const GUID BlkInterface = { 0x61b30e9f, 0xc8d4, 0x45f7, { 0x8f, 0x02, 0xad, 0x36, 0x75, 0x1b, 0xe9, 0x40 } };

typedef struct _DEVICE {
    FDO Fdo;
    HW_BAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN IrqOn;              /* the interrupt's lock */
    ULONG Result;               /* of the last transfer: the service routine's until its DPC runs */
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS Logical;
    KEVENT Idle;                /* set while the device has no transfer to do */
    KSPIN_LOCK Lock;            /* what follows */
    BOOLEAN Busy;
    BOOLEAN Gone;
    PIRP Current;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH BlkTransfer, BlkCleanup;
static DRIVER_CANCEL BlkCancel;
static DRIVER_ADD_DEVICE BlkAddDevice;
static DRIVER_UNLOAD BlkUnload;
static KSERVICE_ROUTINE BlkIsr;
static KDEFERRED_ROUTINE BlkDpc;
DRIVER_INITIALIZE DriverEntry;

static VOID BlkEnd(PDEVICE Dev, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    FdoComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Dev->Fdo.RemoveLock, Irp);
}

/* The request under way, unless it is being cancelled; File limits it to one handle's. */
static PIRP BlkTake(PDEVICE Dev, PFILE_OBJECT File)
{
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&Dev->Lock, &irql);
    irp = Dev->Current;
    if (irp && File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
        irp = NULL;
    if (irp && IoSetCancelRoutine(irp, NULL))
        Dev->Current = NULL;
    else
        irp = NULL;
    KeReleaseSpinLock(&Dev->Lock, irql);
    return irp;
}

static VOID NTAPI BlkCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&dev->Lock, &irql);
    if (dev->Current == Irp)
        dev->Current = NULL;
    KeReleaseSpinLock(&dev->Lock, irql);
    BlkEnd(dev, Irp, STATUS_CANCELLED, 0);
}

static BOOLEAN NTAPI BlkIsr(PKINTERRUPT Interrupt, PVOID Context)
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
    dev->Result = HwRead(&dev->Regs, BENCH_DMA_STATUS);
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI BlkDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE dev = Context;
    PIRP irp;
    ULONG length = 0;
    NTSTATUS status = (dev->Result & DMA_FAILED) ? STATUS_IO_DEVICE_ERROR : STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    irp = BlkTake(dev, NULL);
    if (irp) {
        PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
        if (!NT_SUCCESS(status)) {
            length = 0;
        } else if (sp->MajorFunction == IRP_MJ_READ) {
            length = sp->Parameters.Read.Length;
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, dev->Buffer, length);
        } else {
            length = sp->Parameters.Write.Length;
        }
    }
    KeAcquireSpinLockAtDpcLevel(&dev->Lock);
    dev->Busy = FALSE;
    KeSetEvent(&dev->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLockFromDpcLevel(&dev->Lock);
    if (irp)
        BlkEnd(dev, irp, status, length);
}

static BOOLEAN NTAPI BlkIrqOn(PVOID Context)
{
    PDEVICE dev = Context;

    dev->IrqOn = TRUE;
    HwWrite(&dev->Regs, BENCH_STATUS, 0xFFFFFFFF);
    HwWrite(&dev->Regs, BENCH_ENABLE, 1);
    return TRUE;
}

static BOOLEAN NTAPI BlkIrqOff(PVOID Context)
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
    ULONG registers;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    status = HwMapBar(Translated, 0, BENCH_BYTES, &dev->Regs);
    if (!NT_SUCCESS(status))
        return status;

    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = BUFFER_BYTES;
    status = STATUS_INSUFFICIENT_RESOURCES;
    dev->Adapter = IoGetDmaAdapter(F->Pdo, &description, &registers);
    if (!dev->Adapter)
        goto unmap;
    dev->Buffer = dev->Adapter->DmaOperations->AllocateCommonBuffer(dev->Adapter, BUFFER_BYTES, &dev->Logical, FALSE);
    if (!dev->Buffer)
        goto adapter;

    HwWrite(&dev->Regs, BENCH_ENABLE, 0);
    dev->IrqOn = FALSE;
    status = HwConnect(Translated, BlkIsr, dev, &dev->Interrupt);
    if (NT_SUCCESS(status))
        return status;

    dev->Adapter->DmaOperations->FreeCommonBuffer(dev->Adapter, BUFFER_BYTES, dev->Logical, dev->Buffer, FALSE);
    dev->Buffer = NULL;
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
    dev->Adapter->DmaOperations->FreeCommonBuffer(dev->Adapter, BUFFER_BYTES, dev->Logical, dev->Buffer, FALSE);
    dev->Buffer = NULL;
    dev->Adapter->DmaOperations->PutDmaAdapter(dev->Adapter);
    dev->Adapter = NULL;
    HwUnmapBar(&dev->Regs);
}

static VOID HwUp(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);

    HwWrite(&dev->Regs, BENCH_DMA_DELAY, PACE_NS);
    KeSynchronizeExecution(dev->Interrupt, BlkIrqOn, dev);
}

static BOOLEAN BlkUnderWay(PDEVICE Dev)
{
    BOOLEAN busy;
    KIRQL irql;

    KeAcquireSpinLock(&Dev->Lock, &irql);
    busy = Dev->Busy;
    KeReleaseSpinLock(&Dev->Lock, irql);
    return busy;
}

static VOID HwDown(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    LARGE_INTEGER limit;
    ULONG command;
    PIRP irp;
    KIRQL irql;

    if (BlkUnderWay(dev)) {
        limit.QuadPart = -10000LL * IDLE_LIMIT_MS;
        if (KeWaitForSingleObject(&dev->Idle, Executive, KernelMode, FALSE, &limit) == STATUS_TIMEOUT) {
            /* No interrupt: the device itself says when it is done, unless it is gone. */
            limit.QuadPart = -10000LL;
            for (;;) {
                command = HwRead(&dev->Regs, BENCH_DMA_COMMAND);
                if (command == 0xFFFFFFFF || !(command & DMA_START))
                    break;
                KeDelayExecutionThread(KernelMode, FALSE, &limit);
            }
        }
    }
    KeSynchronizeExecution(dev->Interrupt, BlkIrqOff, dev);

    /* Whatever is left lost its interrupt. */
    irp = BlkTake(dev, NULL);
    KeAcquireSpinLock(&dev->Lock, &irql);
    dev->Busy = FALSE;
    KeSetEvent(&dev->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&dev->Lock, irql);
    if (irp)
        BlkEnd(dev, irp, STATUS_IO_DEVICE_ERROR, 0);
}

static VOID HwFlush(PFDO F)
{
    PDEVICE dev = CONTAINING_RECORD(F, DEVICE, Fdo);
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&dev->Lock, &irql);
    dev->Gone = TRUE;
    KeReleaseSpinLock(&dev->Lock, irql);
    irp = BlkTake(dev, NULL);
    if (irp)
        BlkEnd(dev, irp, STATUS_DELETE_PENDING, 0);
}

/* Under Gate, in D0. The request may end as soon as it is Current. */
static NTSTATUS BlkBegin(PDEVICE Dev, PIRP Irp, ULONG Offset, ULONG Length, BOOLEAN Write)
{
    NTSTATUS status = STATUS_PENDING;
    KIRQL irql;

    KeAcquireSpinLock(&Dev->Lock, &irql);
    if (Dev->Gone) {
        status = STATUS_DELETE_PENDING;
#ifdef FIXED
    } else if (Dev->Busy || Dev->Current) {
#else
    } else if (Dev->Current) {
#endif
        status = STATUS_DEVICE_BUSY;
    } else {
        if (Write)
            RtlCopyMemory(Dev->Buffer, Irp->AssociatedIrp.SystemBuffer, Length);
        IoSetCancelRoutine(Irp, BlkCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
            status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            Dev->Current = Irp;
            Dev->Busy = TRUE;
            KeClearEvent(&Dev->Idle);
        }
    }
    KeReleaseSpinLock(&Dev->Lock, irql);
    if (status != STATUS_PENDING)
        return status;

    HwWrite(&Dev->Regs, BENCH_DMA_STATUS, DMA_DONE | DMA_FAILED);
    HwWrite(&Dev->Regs, BENCH_DMA_LOW, Dev->Logical.LowPart);
    HwWrite(&Dev->Regs, BENCH_DMA_HIGH, (ULONG)Dev->Logical.HighPart);
    HwWrite(&Dev->Regs, BENCH_DMA_LENGTH, Length);
    HwWrite(&Dev->Regs, BENCH_DMA_OFFSET, Offset);
    HwWrite(&Dev->Regs, BENCH_DMA_COMMAND, DMA_START | DMA_RAISE | (Write ? 0 : DMA_TO_MEMORY));
    return STATUS_PENDING;
}

static NTSTATUS NTAPI BlkTransfer(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = sp->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
    LONGLONG offset = write ? sp->Parameters.Write.ByteOffset.QuadPart : sp->Parameters.Read.ByteOffset.QuadPart;
    NTSTATUS status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return FdoComplete(Irp, status, 0);
    /* The request's reference goes when it ends, which may be before the end of this routine. */
    status = IoAcquireRemoveLock(&dev->Fdo.RemoveLock, BlkTransfer);
    if (!NT_SUCCESS(status)) {
        BlkEnd(dev, Irp, status, 0);
        return status;
    }
    if (length == 0) {
        status = STATUS_SUCCESS;
    } else if (offset < 0 || offset >= CARD_BYTES || length > BUFFER_BYTES || length > CARD_BYTES - (ULONG)offset) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        ExAcquireFastMutex(&dev->Fdo.Gate);
        status = dev->Fdo.Up ? BlkBegin(dev, Irp, (ULONG)offset, length, write) : STATUS_DEVICE_NOT_READY;
        ExReleaseFastMutex(&dev->Fdo.Gate);
    }
    if (status != STATUS_PENDING)
        BlkEnd(dev, Irp, status, 0);
    IoReleaseRemoveLock(&dev->Fdo.RemoveLock, BlkTransfer);
    return status;
}

static NTSTATUS NTAPI BlkCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIRP irp = BlkTake(dev, IoGetCurrentIrpStackLocation(Irp)->FileObject);

    if (irp)
        BlkEnd(dev, irp, STATUS_CANCELLED, 0);
    return FdoComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BlkAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO f;
    PDEVICE dev;
    NTSTATUS status = FdoCreate(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO, &BlkInterface, &f);

    if (!NT_SUCCESS(status))
        return status;
    dev = CONTAINING_RECORD(f, DEVICE, Fdo);
    KeInitializeDpc(&dev->Dpc, BlkDpc, dev);
    KeInitializeSpinLock(&dev->Lock);
    KeInitializeEvent(&dev->Idle, NotificationEvent, TRUE);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI BlkUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoTable(Driver);
    Driver->MajorFunction[IRP_MJ_READ] = BlkTransfer;
    Driver->MajorFunction[IRP_MJ_WRITE] = BlkTransfer;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BlkCleanup;
    Driver->DriverExtension->AddDevice = BlkAddDevice;
    Driver->DriverUnload = BlkUnload;
    return STATUS_SUCCESS;
}
