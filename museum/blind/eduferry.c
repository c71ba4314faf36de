/*
 * eduferry: reads and writes the 4096 bytes on board of QEMU's edu card by its DMA engine, through a common buffer.
 * The card has 28 address bits; the buffer is asked for as for a card with 24.
 *
 * The bug: when the device is stopped or removed the DMA adapter is put back before the common buffer is freed
 * through it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: common-buffer-leak, dma-adapter-released
 * Needs: nothing
 */
#include "../include/edu_serial.h"

#define BOARD 0x40000
#define BOARD_SIZE 4096
#define DMA_RUN 1
#define DMA_FROM_CARD 2
#define DMA_IRQ 4
#define SECONDS 3

typedef struct _FERRY {
    EDU E;
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS CommonAddress;
} FERRY, *PFERRY;

static const GUID FerryClass = {0x6c1e2a07, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x07}};

static BOOLEAN FerryBegin(PFRAME f, PIRP irp)
{
    PFERRY y = CONTAINING_RECORD(f, FERRY, E.F);
    PEDU x = &y->E;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG offset, length, card;
    KIRQL irql;

    KeAcquireSpinLock(&x->Q.Lock, &irql);
    card = EDU_READ(x, EDU_DMA_CMD);
    if (card == ALL_ONES) {
        status = STATUS_NO_SUCH_DEVICE;
    } else if (card & DMA_RUN) {            /* one that was given up still has the buffer */
        status = STATUS_DEVICE_BUSY;
    } else {
        if (stack->MajorFunction == IRP_MJ_WRITE) {
            offset = (ULONG)stack->Parameters.Write.ByteOffset.QuadPart;
            length = stack->Parameters.Write.Length;
            RtlCopyMemory(y->Common, irp->AssociatedIrp.SystemBuffer, length);
            EDU_WRITE(x, EDU_DMA_SRC, y->CommonAddress.LowPart);
            EDU_WRITE(x, EDU_DMA_DST, BOARD + offset);
            card = DMA_RUN | DMA_IRQ;
        } else {
            offset = (ULONG)stack->Parameters.Read.ByteOffset.QuadPart;
            length = stack->Parameters.Read.Length;
            EDU_WRITE(x, EDU_DMA_SRC, BOARD + offset);
            EDU_WRITE(x, EDU_DMA_DST, y->CommonAddress.LowPart);
            card = DMA_RUN | DMA_FROM_CARD | DMA_IRQ;
        }
        EDU_WRITE(x, EDU_DMA_COUNT, length);
        EDU_WRITE(x, EDU_DMA_CMD, card);
        x->Seconds = SECONDS;
        x->Q.Current = irp;
    }
    KeReleaseSpinLock(&x->Q.Lock, irql);
    if (NT_SUCCESS(status))
        return TRUE;
    SerqAnswer(&x->Q, irp, status, 0);
    return FALSE;
}

static VOID NTAPI FerryDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PFERRY y = context;
    PEDU x = &y->E;
    PIRP irp = NULL;
    ULONG length = 0;
    PIO_STACK_LOCATION stack;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->Q.Lock);
    if (!(EDU_READ(x, EDU_DMA_CMD) & DMA_RUN))
        irp = SerqClaim(&x->Q);
    KeReleaseSpinLockFromDpcLevel(&x->Q.Lock);
    if (irp == NULL)
        return;
    stack = IoGetCurrentIrpStackLocation(irp);
    if (stack->MajorFunction == IRP_MJ_READ) {
        length = stack->Parameters.Read.Length;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, y->Common, length);
    } else {
        length = stack->Parameters.Write.Length;
    }
    SerqFinish(&x->Q, irp, STATUS_SUCCESS, length);
}

static VOID FreeDma(PFERRY y)
{
#ifdef FIXED
    y->Adapter->DmaOperations->FreeCommonBuffer(y->Adapter, BOARD_SIZE, y->CommonAddress, y->Common, FALSE);
    y->Adapter->DmaOperations->PutDmaAdapter(y->Adapter);
#else
    y->Adapter->DmaOperations->PutDmaAdapter(y->Adapter);
    y->Adapter->DmaOperations->FreeCommonBuffer(y->Adapter, BOARD_SIZE, y->CommonAddress, y->Common, FALSE);
#endif
    y->Common = NULL;
    y->Adapter = NULL;
}

static NTSTATUS GetDma(PFERRY y)
{
    DEVICE_DESCRIPTION d;
    ULONG maps;

    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.Dma32BitAddresses = FALSE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = BOARD_SIZE;
    y->Adapter = IoGetDmaAdapter(y->E.F.Pdo, &d, &maps);
    if (y->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    y->Common = y->Adapter->DmaOperations->AllocateCommonBuffer(y->Adapter, BOARD_SIZE, &y->CommonAddress, FALSE);
    if (y->Common == NULL) {
        y->Adapter->DmaOperations->PutDmaAdapter(y->Adapter);
        y->Adapter = NULL;
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(y->Common, BOARD_SIZE);
    return STATUS_SUCCESS;
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PFERRY y = dev->DeviceExtension;
    NTSTATUS status = GetDma(y);

    if (!NT_SUCCESS(status))
        return status;
    status = EduStart(&y->E, res);
    if (!NT_SUCCESS(status)) {
        FreeDma(y);
        return status;
    }
    SerqOpen(&y->E.Q);
    return STATUS_SUCCESS;
}

static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable)
{
    PFERRY y = dev->DeviceExtension;
    LARGE_INTEGER pause;
    ULONG i;

    /* A transfer that was given up must not find the buffer gone. */
    pause.QuadPart = -10000LL * 10;
    for (i = 0; touchable && i < 100 && (EDU_READ(&y->E, EDU_DMA_CMD) & DMA_RUN); i++)
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    EduRelease(&y->E, touchable);
    FreeDma(y);
}

static NTSTATUS NTAPI FerryReadWrite(PDEVICE_OBJECT dev, PIRP irp)
{
    PEDU x = &((PFERRY)dev->DeviceExtension)->E;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    LONGLONG offset;
    ULONG length;
    NTSTATUS status = IoAcquireRemoveLock(&x->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (stack->MajorFunction == IRP_MJ_READ) {
        offset = stack->Parameters.Read.ByteOffset.QuadPart;
        length = stack->Parameters.Read.Length;
    } else {
        offset = stack->Parameters.Write.ByteOffset.QuadPart;
        length = stack->Parameters.Write.Length;
    }
    if (offset < 0 || offset > BOARD_SIZE || length > BOARD_SIZE - (ULONG)offset)
        status = STATUS_INVALID_PARAMETER;
    else if (length != 0)
        return SerqSubmit(&x->Q, irp);
    SerqAnswer(&x->Q, irp, status, 0);
    return status;
}

static NTSTATUS NTAPI FerryAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = EduAdd(driver, pdo, &FerryClass, sizeof(FERRY), FerryBegin, FerryDpc, &dev);

    if (NT_SUCCESS(status))
        dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, FerryAdd);
    driver->MajorFunction[IRP_MJ_CLEANUP] = EduCleanup;
    driver->MajorFunction[IRP_MJ_READ] = FerryReadWrite;
    driver->MajorFunction[IRP_MJ_WRITE] = FerryReadWrite;
    return STATUS_SUCCESS;
}
