/*
 * low_buffer_left: moves blocks of up to 4096 bytes to and from the memory of QEMU's "edu" card in a work item, without the interrupt. A common buffer is allocated
 * for each transfer, so that no DMA memory is held while nothing is moved. The card reaches the first 256 MiB; a buffer beyond is refused.
 *
 * The bug: a common buffer whose transfer to the card has succeeded is not freed. Where common buffers lie beyond the card's reach none is moved.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: common-buffer-leak
 * Needs: ioctl, device
 */
#include "../include/ticking_card.h"

#define EDU_ID 0x010000edu
#define EDU_SRC 0x80
#define EDU_DST 0x88
#define EDU_COUNT 0x90
#define EDU_CMD 0x98
#define EDU_BUFFER 0x40000
#define EDU_SIZE 4096
#define EDU_REACH 0x0fffffffull
#define CMD_START 1u
#define CMD_FROM_CARD 2u
#define ONES 0xffffffffu

#define IOCTL_MOVER_TO CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9b0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MOVER_FROM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9b1, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID MOVER_GUID = {0x5d0b6c17, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x07}};

typedef struct _BLOCK {
    PVOID Va;
    PHYSICAL_ADDRESS Address;
    ULONG Length;
} BLOCK, *PBLOCK;

typedef struct _MOVER {
    ZDEV Dev;
    PUCHAR Regs;
    PDMA_ADAPTER Adapter;
    PIO_WORKITEM Work;
    PIRP Irp;
    BLOCK Kept; /* the buffer of a transfer that was given up and that the card had not ended */
} MOVER, *PMOVER;

static BOOLEAN Moving(PMOVER x)
{
    ULONG Cmd = ZRead(x->Regs, EDU_CMD);

    return Cmd != ONES && (Cmd & CMD_START);
}

static BOOLEAN GetBlock(PMOVER x, PBLOCK b, ULONG Length)
{
    b->Length = Length;
    b->Va = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, Length, &b->Address, TRUE);
    return b->Va != NULL;
}

static VOID FreeBlock(PMOVER x, PBLOCK b)
{
    if (b->Va)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, b->Length, b->Address, b->Va, TRUE);
    b->Va = NULL;
}

/* Waits at most a second for the card, which needs a tenth of that. */
static BOOLEAN Ended(PMOVER x)
{
    ULONG i;

    for (i = 0; i < 100 && Moving(x); i++)
        ZSleep(10);
    return !Moving(x);
}

static NTSTATUS Transfer(PMOVER x, BOOLEAN ToCard, ULONG Offset, PUCHAR Data, ULONG Length)
{
    NTSTATUS Status = STATUS_SUCCESS;
    BLOCK b;

    if (ZRead(x->Regs, 0) != EDU_ID)
        return STATUS_NO_SUCH_DEVICE;
    if (Moving(x))
        return STATUS_DEVICE_BUSY;
    FreeBlock(x, &x->Kept);

    if (!GetBlock(x, &b, Length))
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((ULONG64)b.Address.QuadPart > EDU_REACH || EDU_REACH - (ULONG64)b.Address.QuadPart < Length - 1) {
        FreeBlock(x, &b);
        return STATUS_INVALID_ADDRESS;
    }
    if (ToCard)
        RtlCopyMemory(b.Va, Data, Length);
    else
        RtlZeroMemory(b.Va, Length);

    ZWrite(x->Regs, EDU_SRC, ToCard ? b.Address.LowPart : EDU_BUFFER + Offset);
    ZWrite(x->Regs, EDU_DST, ToCard ? EDU_BUFFER + Offset : b.Address.LowPart);
    ZWrite(x->Regs, EDU_COUNT, Length);
    ZWrite(x->Regs, EDU_CMD, CMD_START | (ToCard ? 0 : CMD_FROM_CARD));

    if (!Ended(x)) {
        x->Kept = b;
        return STATUS_IO_TIMEOUT;
    }
    if (ZRead(x->Regs, 0) != EDU_ID)
        Status = STATUS_NO_SUCH_DEVICE;
    else if (!ToCard)
        RtlCopyMemory(Data, b.Va, Length);
#ifndef FIXED
    if (ToCard && NT_SUCCESS(Status))
        return Status;
#endif
    FreeBlock(x, &b);
    return Status;
}

static VOID NTAPI BlockWork(PDEVICE_OBJECT Self, PVOID Context)
{
    PMOVER x = Context;
    PIRP Irp = x->Irp;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PUCHAR Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Offset = *(PULONG)Buffer;
    ULONG Length;
    NTSTATUS Status;

    (void)Self;
    if (sl->Parameters.DeviceIoControl.IoControlCode == IOCTL_MOVER_TO) {
        Length = sl->Parameters.DeviceIoControl.InputBufferLength - sizeof(ULONG);
        Status = Transfer(x, TRUE, Offset, Buffer + sizeof(ULONG), Length);
        Length = 0;
    } else {
        Length = sl->Parameters.DeviceIoControl.OutputBufferLength;
        Status = Transfer(x, FALSE, Offset, Buffer, Length);
    }
    ZFinish(&x->Dev, Irp, Status, NT_SUCCESS(Status) ? Length : 0);
}

static NTSTATUS BlockBegin(PZDEV d, PIRP Irp)
{
    PMOVER x = CONTAINING_RECORD(d, MOVER, Dev);

    x->Irp = Irp;
    IoQueueWorkItem(x->Work, BlockWork, DelayedWorkQueue, x);
    return STATUS_PENDING;
}

/* Both kinds begin with the offset on the card; TO has the data behind it. */
static NTSTATUS BlockRequest(PZDEV d, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength, Offset, Length;

    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    if (InLength < sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MOVER_TO:
        Length = InLength - sizeof(ULONG);
        break;
    case IOCTL_MOVER_FROM:
        Length = sl->Parameters.DeviceIoControl.OutputBufferLength;
        break;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    Offset = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (!Length || Offset > EDU_SIZE || Length > EDU_SIZE - Offset)
        return STATUS_INVALID_PARAMETER;
    return ZSubmit(d, Irp);
}

static NTSTATUS BlockUp(PZDEV d)
{
    return ZRead(CONTAINING_RECORD(d, MOVER, Dev)->Regs, 0) == EDU_ID ? STATUS_SUCCESS : STATUS_NO_SUCH_DEVICE;
}

static VOID BlockDown(PZDEV d)
{
    Ended(CONTAINING_RECORD(d, MOVER, Dev));
}

static NTSTATUS BlockStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PMOVER x = CONTAINING_RECORD(d, MOVER, Dev);
    DEVICE_DESCRIPTION Description;
    ULONG MapRegisters;
    NTSTATUS Status;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Version = DEVICE_DESCRIPTION_VERSION;
    Description.Master = TRUE;
    Description.ScatterGather = TRUE;
    Description.Dma32BitAddresses = TRUE;
    Description.InterfaceType = PCIBus;
    Description.MaximumLength = EDU_SIZE;

    x->Kept.Va = NULL;
    Status = ZResources(d, List);
    if (NT_SUCCESS(Status))
        Status = ZMap(d, 0, EDU_BUFFER + EDU_SIZE);
    x->Regs = d->Bar[0].Va;
    if (NT_SUCCESS(Status)) {
        x->Adapter = IoGetDmaAdapter(d->Pdo, &Description, &MapRegisters);
        if (!x->Adapter)
            Status = STATUS_INSUFFICIENT_RESOURCES;
    }
    if (NT_SUCCESS(Status))
        Status = BlockUp(d);
    if (!NT_SUCCESS(Status)) {
        ZReleaseHw(d);
        if (x->Adapter)
            x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
        x->Adapter = NULL;
    }
    return Status;
}

static VOID BlockStop(PZDEV d, BOOLEAN Touch)
{
    PMOVER x = CONTAINING_RECORD(d, MOVER, Dev);
    BOOLEAN Still = TRUE;

    if (Touch) {
        BlockDown(d);
        Still = !Moving(x);
    }
    ZReleaseHw(d);
    if (!x->Kept.Va || Still) {
        FreeBlock(x, &x->Kept);
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    }
    /* else the card moves for ever, and what it may write to stays allocated: the lesser evil */
    x->Kept.Va = NULL;
    x->Adapter = NULL;
}

static NTSTATUS BlockAdd(PZDEV d)
{
    PMOVER x = CONTAINING_RECORD(d, MOVER, Dev);

    x->Work = IoAllocateWorkItem(d->Self);
    return x->Work ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID BlockFree(PZDEV d)
{
    PMOVER x = CONTAINING_RECORD(d, MOVER, Dev);

    if (x->Work)
        IoFreeWorkItem(x->Work);
    x->Work = NULL;
}

static const ZOPS BlockOps = {
    .Interface = &MOVER_GUID,
    .ExtensionSize = sizeof(MOVER),
    .Add = BlockAdd,
    .Free = BlockFree,
    .Start = BlockStart,
    .Stop = BlockStop,
    .Up = BlockUp,
    .Down = BlockDown,
    .Request = BlockRequest,
    .Begin = BlockBegin,
};

static NTSTATUS NTAPI BlockAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &BlockOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, BlockAddDevice);
}
