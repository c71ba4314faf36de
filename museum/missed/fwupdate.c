/*
 * Updates a card's firmware: an application opens a session, writes the image and commits it; a work item then programs
 * the card's memory block by block, verifies each block, and the commit ends when all is done.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * The bug: an abort of a session frees the image at once, though the work item that programs it may be waiting for a block's transfer and compares the block with the image afterwards, so freed memory is read.
 * Shows by: a commit is in progress (its work item waits for the card), and the session is aborted by the abort request or by the closing of its handle.
 */
#include "../include/pci_kit.h"

#define FW_TAG              'dpWF'
#define FW_SOURCE           3
#define FW_CAUSE            (1u << FW_SOURCE)
#define FW_MEMORY           0x10000u
#define FW_BLOCK            4096u
#define FW_BLOCK_MS         1000

#define IOCTL_FW_BEGIN      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x990, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FW_COMMIT     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x991, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FW_ABORT      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x992, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FW_STATUS     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x993, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_FW_CRC        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x994, METHOD_BUFFERED, FILE_READ_ACCESS)

/* {C4D1E2B8-5F60-4A9E-9B7D-3E1A8C52E601} */
static const GUID FwInterface = { 0xc4d1e2b8, 0x5f60, 0x4a9e, { 0x9b, 0x7d, 0x3e, 0x1a, 0x8c, 0x52, 0xe6, 0x01 } };

typedef struct _FW_BEGIN { ULONG Size; ULONG Crc; } FW_BEGIN;
typedef struct _FW_STATUS { ULONG State; ULONG Size; ULONG Received; ULONG Programmed; ULONG Updates; LONG LastResult; } FW_STATUS;

typedef enum _FW_STATE { FwIdle, FwLoading, FwProgramming } FW_STATE;

typedef struct _FW {
    FDO_KIT Kit;
    PCI_HW Hw;
    PDMA_ADAPTER Adapter;
    PUCHAR Block;                       /* common buffer; the worker's own while it runs */
    PHYSICAL_ADDRESS BlockAddress;
    PIO_WORKITEM Worker;

    FAST_MUTEX Mutex;                   /* guards the session */
    FW_STATE State;
    PFILE_OBJECT Owner;
    PUCHAR Image;
    ULONG Size, Received, Crc, Programmed;
    ULONG Updates;
    NTSTATUS LastResult;
    PIRP Commit;                        /* the worker's while it runs */
    KEVENT Idle;                        /* the worker does not run */

    volatile LONG Abort;
    volatile LONG Gone;

    KSPIN_LOCK Lock;                    /* guards the card but for its interrupt's status */
    BOOLEAN Online;
    KEVENT BlockDone;
} FW, *PFW;

static BOOLEAN NTAPI FwInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    PFW fw = Context;
    ULONG status;
    UNREFERENCED_PARAMETER(Interrupt);

    if (!fw->Hw.Live) return FALSE;
    status = HwRead(&fw->Hw, BENCH_STATUS);
    if (status == ~0u || !(status & FW_CAUSE)) return FALSE;
    HwWrite(&fw->Hw, BENCH_STATUS, FW_CAUSE);
    IoRequestDpc(fw->Kit.Self, NULL, fw);
    return TRUE;
}

static VOID NTAPI FwDpc(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFW fw = Context;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(&fw->BlockDone, IO_NO_INCREMENT, FALSE);
}

static ULONG FwCrc(const UCHAR *Bytes, ULONG Length)
{
    ULONG crc = ~0u, i;

    while (Length--) {
        crc ^= *Bytes++;
        for (i = 0; i < 8; i++) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* Programming. At PASSIVE_LEVEL, by the worker only. */

/* Moves the block to the card or from it, and waits for that. */
static NTSTATUS FwTransfer(PFW Fw, ULONG Offset, ULONG Length, BOOLEAN FromCard)
{
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER limit;
    ULONG result;
    KIRQL irql;

    KeClearEvent(&Fw->BlockDone);
    KeAcquireSpinLock(&Fw->Lock, &irql);
    if (!Fw->Online) status = STATUS_DEVICE_NOT_READY;
    else if (HwRead(&Fw->Hw, BENCH_DMA(0) + BENCH_DMA_COMMAND) & BENCH_DMA_START) status = STATUS_DEVICE_BUSY;
    else {
        HwWrite(&Fw->Hw, BENCH_DMA(0) + BENCH_DMA_STATUS, BENCH_DMA_DONE | BENCH_DMA_FAILED);
        HwWrite(&Fw->Hw, BENCH_DMA(0) + BENCH_DMA_LOW, Fw->BlockAddress.LowPart);
        HwWrite(&Fw->Hw, BENCH_DMA(0) + BENCH_DMA_HIGH, Fw->BlockAddress.HighPart);
        HwWrite(&Fw->Hw, BENCH_DMA(0) + BENCH_DMA_LENGTH, Length);
        HwWrite(&Fw->Hw, BENCH_DMA(0) + BENCH_DMA_OFFSET, Offset);
        HwWrite(&Fw->Hw, BENCH_DMA(0) + BENCH_DMA_COMMAND,
                BENCH_DMA_START | BENCH_DMA_RAISE(FW_SOURCE) | (FromCard ? BENCH_DMA_TO_MEMORY : 0));
    }
    KeReleaseSpinLock(&Fw->Lock, irql);
    if (!NT_SUCCESS(status)) return status;

    limit.QuadPart = -(LONGLONG)FW_BLOCK_MS * 10000;
    status = KeWaitForSingleObject(&Fw->BlockDone, Executive, KernelMode, FALSE, &limit);
    if (status == STATUS_TIMEOUT) return STATUS_IO_TIMEOUT;
    KeAcquireSpinLock(&Fw->Lock, &irql);
    if (!Fw->Online) status = STATUS_DEVICE_NOT_READY;
    else {
        result = HwRead(&Fw->Hw, BENCH_DMA(0) + BENCH_DMA_STATUS);
        status = result != ~0u && (result & (BENCH_DMA_DONE | BENCH_DMA_FAILED)) == BENCH_DMA_DONE ? STATUS_SUCCESS : STATUS_IO_DEVICE_ERROR;
    }
    KeReleaseSpinLock(&Fw->Lock, irql);
    return status;
}

static NTSTATUS FwProgram(PFW Fw, const UCHAR *Image, ULONG Size)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG offset, length;

    for (offset = 0; offset < Size && NT_SUCCESS(status); offset += length) {
        length = Size - offset < FW_BLOCK ? Size - offset : FW_BLOCK;

        ExAcquireFastMutex(&Fw->Mutex);
        if (Fw->Abort) status = STATUS_CANCELLED;
        else if (Fw->Gone) status = STATUS_NO_SUCH_DEVICE;
        else RtlCopyMemory(Fw->Block, Image + offset, length);
        ExReleaseFastMutex(&Fw->Mutex);

        if (NT_SUCCESS(status)) status = FwTransfer(Fw, offset, length, FALSE);
        if (NT_SUCCESS(status)) {
            RtlZeroMemory(Fw->Block, length);
            status = FwTransfer(Fw, offset, length, TRUE);
        }
        if (NT_SUCCESS(status) && RtlCompareMemory(Fw->Block, Image + offset, length) != length) status = STATUS_CRC_ERROR;
        if (NT_SUCCESS(status)) {
            ExAcquireFastMutex(&Fw->Mutex);
            Fw->Programmed = offset + length;
            ExReleaseFastMutex(&Fw->Mutex);
        }
    }
    return status;
}

/* Forgets the session. With Mutex held. */
static VOID FwDiscard(PFW Fw)
{
    if (Fw->Image) ExFreePoolWithTag(Fw->Image, FW_TAG);
    Fw->Image = NULL;
    Fw->Size = Fw->Received = 0;
    Fw->Owner = NULL;
    Fw->State = FwIdle;
}

static VOID NTAPI FwWork(PDEVICE_OBJECT Device, PVOID Context)
{
    PFW fw = Context;
    NTSTATUS status;
    PUCHAR image;
    ULONG size;
    PIRP irp;
    KIRQL irql;
    UNREFERENCED_PARAMETER(Device);

    ExAcquireFastMutex(&fw->Mutex);
    image = fw->Image;
    size = fw->Size;
    irp = fw->Commit;
    ExReleaseFastMutex(&fw->Mutex);

    status = image ? FwProgram(fw, image, size) : STATUS_CANCELLED;

    ExAcquireFastMutex(&fw->Mutex);
    fw->Commit = NULL;
    fw->LastResult = status;
    if (NT_SUCCESS(status)) fw->Updates++;
    FwDiscard(fw);
    KeSetEvent(&fw->Idle, IO_NO_INCREMENT, FALSE);
    ExReleaseFastMutex(&fw->Mutex);

    IoAcquireCancelSpinLock(&irql);                 /* the cancel routine is over, or will not be called */
    IoSetCancelRoutine(irp, NULL);
    IoReleaseCancelSpinLock(irql);
    KitComplete(irp, status, 0);
    IoReleaseRemoveLock(&fw->Kit.RemoveLock, irp);
}

/* Requests */

static NTSTATUS FwBegin(PFW Fw, PFILE_OBJECT File, const FW_BEGIN *Begin)
{
    NTSTATUS status = STATUS_SUCCESS;
    PUCHAR image;

    if (Begin->Size == 0 || Begin->Size > FW_MEMORY) return STATUS_INVALID_PARAMETER;
    image = ExAllocatePoolWithTag(NonPagedPoolNx, Begin->Size, FW_TAG);
    if (!image) return STATUS_INSUFFICIENT_RESOURCES;
    ExAcquireFastMutex(&Fw->Mutex);
    if (Fw->Gone) status = STATUS_NO_SUCH_DEVICE;
    else if (Fw->State != FwIdle) status = STATUS_DEVICE_BUSY;
    else {
        Fw->Image = image;
        Fw->Size = Begin->Size;
        Fw->Crc = Begin->Crc;
        Fw->Received = Fw->Programmed = 0;
        Fw->Owner = File;
        Fw->State = FwLoading;
        InterlockedExchange(&Fw->Abort, FALSE);
        image = NULL;
    }
    ExReleaseFastMutex(&Fw->Mutex);
    if (image) ExFreePoolWithTag(image, FW_TAG);
    return status;
}

static NTSTATUS FwLoad(PFW Fw, PFILE_OBJECT File, const VOID *Bytes, ULONG Length)
{
    NTSTATUS status = STATUS_SUCCESS;

    ExAcquireFastMutex(&Fw->Mutex);
    if (Fw->State != FwLoading || Fw->Owner != File) status = STATUS_INVALID_DEVICE_STATE;
    else if (Length > Fw->Size - Fw->Received) status = STATUS_INVALID_PARAMETER;
    else if (Length) {
        RtlCopyMemory(Fw->Image + Fw->Received, Bytes, Length);
        Fw->Received += Length;
    }
    ExReleaseFastMutex(&Fw->Mutex);
    return status;
}

/* The worker sees it before the next block, and ends the commit. */
static VOID NTAPI FwCancelCommit(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFW fw = Device->DeviceExtension;
    InterlockedExchange(&fw->Abort, TRUE);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
}

static NTSTATUS FwCommit(PFW Fw, PFILE_OBJECT File, PIRP Irp)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    ExAcquireFastMutex(&Fw->Mutex);
    if (Fw->State != FwLoading || Fw->Owner != File || Fw->Received != Fw->Size) status = STATUS_INVALID_DEVICE_STATE;
    else if (FwCrc(Fw->Image, Fw->Size) != Fw->Crc) status = STATUS_CRC_ERROR;
    else {
        IoMarkIrpPending(Irp);
        Fw->State = FwProgramming;
        Fw->Commit = Irp;
        KeClearEvent(&Fw->Idle);
        IoAcquireCancelSpinLock(&irql);
        if (Irp->Cancel) InterlockedExchange(&Fw->Abort, TRUE);
        else IoSetCancelRoutine(Irp, FwCancelCommit);
        IoReleaseCancelSpinLock(irql);
        IoQueueWorkItem(Fw->Worker, FwWork, DelayedWorkQueue, Fw);
        status = STATUS_PENDING;
    }
    ExReleaseFastMutex(&Fw->Mutex);
    return status;
}

/* Ends a file's session, whatever it is doing. */
static NTSTATUS FwAbort(PFW Fw, PFILE_OBJECT File)
{
    ExAcquireFastMutex(&Fw->Mutex);
    if (Fw->State == FwIdle || Fw->Owner != File) {
        ExReleaseFastMutex(&Fw->Mutex);
        return STATUS_INVALID_DEVICE_STATE;
    }
    InterlockedExchange(&Fw->Abort, TRUE);
#ifdef FIXED
    if (Fw->State == FwProgramming) {
        ExReleaseFastMutex(&Fw->Mutex);
        KeWaitForSingleObject(&Fw->Idle, Executive, KernelMode, FALSE, NULL);
        return STATUS_SUCCESS;
    }
#endif
    FwDiscard(Fw);
    ExReleaseFastMutex(&Fw->Mutex);
    return STATUS_SUCCESS;
}

static VOID FwGetStatus(PFW Fw, FW_STATUS *Status)
{
    ExAcquireFastMutex(&Fw->Mutex);
    Status->State = Fw->State;
    Status->Size = Fw->Size;
    Status->Received = Fw->Received;
    Status->Programmed = Fw->Programmed;
    Status->Updates = Fw->Updates;
    Status->LastResult = Fw->LastResult;
    ExReleaseFastMutex(&Fw->Mutex);
}

static NTSTATUS NTAPI FwRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFW fw = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG information = 0;
    NTSTATUS status = KitEnter(&fw->Kit, Irp);

    if (!NT_SUCCESS(status)) return KitComplete(Irp, status, 0);
    if (sp->MajorFunction == IRP_MJ_WRITE) {
        status = FwLoad(fw, sp->FileObject, buffer, sp->Parameters.Write.Length);
        if (NT_SUCCESS(status)) information = sp->Parameters.Write.Length;
    } else switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FW_BEGIN:
        status = in < sizeof(FW_BEGIN) ? STATUS_INVALID_PARAMETER : FwBegin(fw, sp->FileObject, buffer);
        break;
    case IOCTL_FW_COMMIT:
        status = FwCommit(fw, sp->FileObject, Irp);
        if (status == STATUS_PENDING) return status;
        break;
    case IOCTL_FW_ABORT:
        status = FwAbort(fw, sp->FileObject);
        break;
    case IOCTL_FW_STATUS:
        if (out < sizeof(FW_STATUS)) status = STATUS_BUFFER_TOO_SMALL;
        else {
            FwGetStatus(fw, buffer);
            information = sizeof(FW_STATUS);
        }
        break;
    case IOCTL_FW_CRC:
        if (in == 0 || out < sizeof(ULONG)) status = STATUS_INVALID_PARAMETER;
        else {
            *(PULONG)buffer = FwCrc(buffer, in);
            information = sizeof(ULONG);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&fw->Kit.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI FwFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFW fw = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;

    if (sp->MajorFunction == IRP_MJ_CREATE) status = KitOpen(&fw->Kit);
    else {
        FwAbort(fw, sp->FileObject);        /* at close, too: a request may have come in between */
        if (sp->MajorFunction == IRP_MJ_CLOSE) KitClosed(&fw->Kit);
    }
    return KitComplete(Irp, status, 0);
}

/* The device */

static VOID FwFreeDma(PFW Fw)
{
    if (!Fw->Adapter) return;
    if (Fw->Block) Fw->Adapter->DmaOperations->FreeCommonBuffer(Fw->Adapter, FW_BLOCK, Fw->BlockAddress, Fw->Block, FALSE);
    Fw->Block = NULL;
    Fw->Adapter->DmaOperations->PutDmaAdapter(Fw->Adapter);
    Fw->Adapter = NULL;
}

static NTSTATUS FwMakeDma(PFW Fw)
{
    DEVICE_DESCRIPTION description;
    ULONG registers;

    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = FW_BLOCK;
    Fw->Adapter = IoGetDmaAdapter(Fw->Kit.Pdo, &description, &registers);
    if (!Fw->Adapter) return STATUS_INSUFFICIENT_RESOURCES;
    Fw->Block = Fw->Adapter->DmaOperations->AllocateCommonBuffer(Fw->Adapter, FW_BLOCK, &Fw->BlockAddress, FALSE);
    if (Fw->Block) return STATUS_SUCCESS;
    FwFreeDma(Fw);
    return STATUS_INSUFFICIENT_RESOURCES;
}

static VOID FwPowerUp(PVOID Ext)
{
    PFW fw = Ext;
    KIRQL irql;

    HwSetLive(&fw->Hw, TRUE);
    KeAcquireSpinLock(&fw->Lock, &irql);
    fw->Online = TRUE;
    HwWrite(&fw->Hw, BENCH_ENABLE, FW_CAUSE);
    KeReleaseSpinLock(&fw->Lock, irql);
}

/* A block that is on its way fails. */
static VOID FwOffline(PFW Fw, BOOLEAN Gone)
{
    KIRQL irql;

    KeAcquireSpinLock(&Fw->Lock, &irql);
    if (Fw->Online && !Gone) HwWrite(&Fw->Hw, BENCH_ENABLE, 0);
    Fw->Online = FALSE;
    KeReleaseSpinLock(&Fw->Lock, irql);
    if (Fw->Hw.Interrupt) HwSetLive(&Fw->Hw, FALSE);
    KeSetEvent(&Fw->BlockDone, IO_NO_INCREMENT, FALSE);
}

/* The update in progress fails, and the card is left in peace before its power goes. */
static VOID FwPowerDown(PVOID Ext)
{
    PFW fw = Ext;

    ExAcquireFastMutex(&fw->Mutex);
    if (fw->State == FwProgramming) InterlockedExchange(&fw->Abort, TRUE);
    ExReleaseFastMutex(&fw->Mutex);
    KeWaitForSingleObject(&fw->Idle, Executive, KernelMode, FALSE, NULL);
    FwOffline(fw, FALSE);
}

static NTSTATUS FwStart(PVOID Ext, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PFW fw = Ext;
    NTSTATUS status = FwMakeDma(fw);
    UNREFERENCED_PARAMETER(Raw);

    if (!NT_SUCCESS(status)) return status;
    status = HwAcquire(&fw->Hw, Translated, BENCH_WINDOW, FwInterrupt, fw);
    if (!NT_SUCCESS(status)) {
        FwFreeDma(fw);
        return status;
    }
    HwWrite(&fw->Hw, BENCH_STATUS, FW_CAUSE);
    FwPowerUp(fw);
    return STATUS_SUCCESS;
}

static VOID FwStop(PVOID Ext, BOOLEAN Gone)
{
    PFW fw = Ext;

    FwOffline(fw, Gone);
    HwDisconnect(&fw->Hw);
    HwUnmap(&fw->Hw);
    if (!Gone) FwFreeDma(fw);
}

static VOID FwFlush(PVOID Ext)
{
    InterlockedExchange(&((PFW)Ext)->Gone, TRUE);
}

static VOID FwDelete(PVOID Ext)
{
    PFW fw = Ext;

    ExAcquireFastMutex(&fw->Mutex);
    FwDiscard(fw);
    ExReleaseFastMutex(&fw->Mutex);
    FwFreeDma(fw);
    IoFreeWorkItem(fw->Worker);
}

static const FDO_HOOKS FwHooks = { FwStart, FwStop, FwFlush, FwPowerUp, FwPowerDown, FwDelete };

static NTSTATUS NTAPI FwAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO_KIT kit;
    PFW fw;
    NTSTATUS status = KitAdd(Driver, Pdo, sizeof(FW), &FwInterface, &FwHooks, FW_TAG, &kit);

    if (!NT_SUCCESS(status)) return status;
    fw = (PFW)kit;
    fw->Worker = IoAllocateWorkItem(kit->Self);
    if (!fw->Worker) {
        IoDetachDevice(kit->Lower);
        RtlFreeUnicodeString(&kit->Link);
        IoDeleteDevice(kit->Self);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ExInitializeFastMutex(&fw->Mutex);
    KeInitializeSpinLock(&fw->Lock);
    KeInitializeEvent(&fw->Idle, NotificationEvent, TRUE);
    KeInitializeEvent(&fw->BlockDone, NotificationEvent, FALSE);
    IoInitializeDpcRequest(kit->Self, FwDpc);
    kit->Self->Flags |= DO_BUFFERED_IO;
    kit->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI FwUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = FwAddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = FwFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FwFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FwFile;
    Driver->MajorFunction[IRP_MJ_WRITE] = FwRequest;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FwRequest;
    Driver->MajorFunction[IRP_MJ_PNP] = KitPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = KitPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KitSystemControl;
    Driver->DriverUnload = FwUnload;
    return STATUS_SUCCESS;
}
