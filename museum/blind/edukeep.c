/*
 * edukeep: uses the 4096 bytes of memory on QEMU's "edu" card as a small file: read and write at an offset, moved by the card's DMA by way of a buffer of the
 * driver's that lies where the card can reach it.
 *
 * The bug: the AdapterControl routine of this bus-master card returns KeepObject, but what is given back later are the map registers only. The adapter channel
 * stays allocated and the next transfer waits for it for ever, and with it everything that waits for the device to be idle.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed
 * Needs: nothing
 */
#include "../include/ticking_card.h"

#define EDU_ID 0x010000edu
#define EDU_STATUS 0x24
#define EDU_ACK 0x64
#define EDU_SRC 0x80
#define EDU_DST 0x88
#define EDU_COUNT 0x90
#define EDU_CMD 0x98
#define EDU_BUFFER 0x40000
#define EDU_SIZE 4096
#define EDU_REACH 0x0fffffffull
#define CMD_START 1u
#define CMD_FROM_CARD 2u
#define CMD_IRQ 4u
#define ONES 0xffffffffu

static const GUID KEEP_GUID = {0x5d0b6c16, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x06}};

typedef struct _KEEP {
    ZDEV Dev;
    PUCHAR Regs;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    PUCHAR Bounce;
    PMDL Mdl;
    KSPIN_LOCK HwLock; /* publishing and starting a transfer are one step for the DPC */

    PIRP Irp; /* of the request in flight */
    ULONG Offset, Length;
    BOOLEAN ToCard, Refused;
    PVOID MapBase;
    ULONG MapCount;
    BOOLEAN Mapped; /* also while the card has not ended a transfer that was given up */
} KEEP, *PKEEP;

/* A card that is gone reads all ones, and moves nothing any more. */
static BOOLEAN Moving(PKEEP x)
{
    ULONG Cmd = ZRead(x->Regs, EDU_CMD);

    return Cmd != ONES && (Cmd & CMD_START);
}

/* The card has ended the transfer. */
static BOOLEAN Unmap(PKEEP x)
{
    BOOLEAN Good = TRUE;

    if (x->Mapped) {
        Good = x->Adapter->DmaOperations->FlushAdapterBuffers(x->Adapter, x->Mdl, x->MapBase, MmGetMdlVirtualAddress(x->Mdl), x->Length, x->ToCard);
        x->Adapter->DmaOperations->FreeMapRegisters(x->Adapter, x->MapBase, x->MapCount);
        x->Mapped = FALSE;
    }
    return Good;
}

static VOID End(PKEEP x, PIRP Irp, NTSTATUS Status)
{
    if (!Unmap(x) && NT_SUCCESS(Status))
        Status = STATUS_IO_DEVICE_ERROR;
    if (NT_SUCCESS(Status) && ZRead(x->Regs, 0) == ONES)
        Status = STATUS_NO_SUCH_DEVICE;
    if (NT_SUCCESS(Status) && !x->ToCard)
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, x->Bounce, x->Length);
    ZFinish(&x->Dev, Irp, Status, NT_SUCCESS(Status) ? x->Length : 0);
}

static IO_ALLOCATION_ACTION NTAPI KeepControl(PDEVICE_OBJECT Self, PIRP Current, PVOID MapBase, PVOID Context)
{
    PKEEP x = Context;
    PHYSICAL_ADDRESS Address;
    ULONG Length = x->Length;
    KIRQL Irql;

    (void)Self, (void)Current;
    x->MapBase = MapBase;
    x->Mapped = TRUE;
    Address = x->Adapter->DmaOperations->MapTransfer(x->Adapter, x->Mdl, MapBase, MmGetMdlVirtualAddress(x->Mdl), &Length, x->ToCard);

    KeAcquireSpinLock(&x->HwLock, &Irql);
    if (Length < x->Length || (ULONG64)Address.QuadPart > EDU_REACH || EDU_REACH - (ULONG64)Address.QuadPart < x->Length - 1) {
        x->Refused = TRUE;
        ZPublish(&x->Dev, x->Irp, 20);
        KeInsertQueueDpc(&x->Dev.Dpc, NULL, NULL);
    } else {
        ZWrite(x->Regs, EDU_SRC, x->ToCard ? Address.LowPart : EDU_BUFFER + x->Offset);
        ZWrite(x->Regs, EDU_DST, x->ToCard ? EDU_BUFFER + x->Offset : Address.LowPart);
        ZWrite(x->Regs, EDU_COUNT, x->Length);
        ZPublish(&x->Dev, x->Irp, 20);
        ZWrite(x->Regs, EDU_CMD, CMD_START | CMD_IRQ | (x->ToCard ? 0 : CMD_FROM_CARD));
    }
    KeReleaseSpinLock(&x->HwLock, Irql);
#ifdef FIXED
    return DeallocateObjectKeepRegisters;
#else
    return KeepObject;
#endif
}

static NTSTATUS KeepBegin(PZDEV d, PIRP Irp)
{
    PKEEP x = CONTAINING_RECORD(d, KEEP, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);

    if (ZRead(x->Regs, 0) == ONES)
        return STATUS_NO_SUCH_DEVICE;
    if (Moving(x))
        return STATUS_DEVICE_BUSY; /* still with one that was given up */
    Unmap(x);

    x->Irp = Irp;
    x->Refused = FALSE;
    x->ToCard = sl->MajorFunction == IRP_MJ_WRITE;
    x->Length = x->ToCard ? sl->Parameters.Write.Length : sl->Parameters.Read.Length;
    x->Offset = x->ToCard ? sl->Parameters.Write.ByteOffset.LowPart : sl->Parameters.Read.ByteOffset.LowPart;
    if (x->ToCard)
        RtlCopyMemory(x->Bounce, Irp->AssociatedIrp.SystemBuffer, x->Length);
    x->MapCount = ADDRESS_AND_SIZE_TO_SPAN_PAGES(x->Bounce, x->Length);
    return x->Adapter->DmaOperations->AllocateAdapterChannel(x->Adapter, d->Self, x->MapCount, KeepControl, x) == STATUS_SUCCESS
               ? STATUS_PENDING
               : STATUS_INSUFFICIENT_RESOURCES;
}

static BOOLEAN KeepIsr(PZDEV d)
{
    PKEEP x = CONTAINING_RECORD(d, KEEP, Dev);
    ULONG Status = ZRead(x->Regs, EDU_STATUS);

    if (!Status || Status == ONES)
        return FALSE;
    ZWrite(x->Regs, EDU_ACK, Status);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static VOID KeepDpc(PZDEV d)
{
    PKEEP x = CONTAINING_RECORD(d, KEEP, Dev);
    PIRP Irp = NULL;
    BOOLEAN Refused;

    KeAcquireSpinLockAtDpcLevel(&x->HwLock);
    Refused = x->Refused;
    if (Refused || !Moving(x))
        Irp = ZTake(d);
    KeReleaseSpinLockFromDpcLevel(&x->HwLock);
    if (Irp)
        End(x, Irp, Refused ? STATUS_INVALID_ADDRESS : STATUS_SUCCESS);
}

static VOID KeepLimit(PZDEV d, PIRP Irp)
{
    PKEEP x = CONTAINING_RECORD(d, KEEP, Dev);

    if (x->Refused)
        End(x, Irp, STATUS_INVALID_ADDRESS);
    else if (!Moving(x))
        End(x, Irp, STATUS_SUCCESS); /* the interrupt was lost */
    else
        ZFinish(d, Irp, STATUS_IO_TIMEOUT, 0); /* the map registers stay with the card until it has ended */
}

static NTSTATUS KeepRequest(PZDEV d, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG Offset;
    ULONG Length;

    if (sl->MajorFunction == IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    Offset = sl->MajorFunction == IRP_MJ_WRITE ? sl->Parameters.Write.ByteOffset.QuadPart : sl->Parameters.Read.ByteOffset.QuadPart;
    Length = sl->MajorFunction == IRP_MJ_WRITE ? sl->Parameters.Write.Length : sl->Parameters.Read.Length;
    if (Offset < 0 || Offset > EDU_SIZE || Length > EDU_SIZE - (ULONG)Offset)
        return STATUS_INVALID_PARAMETER;
    if (!Length)
        return STATUS_SUCCESS;
    return ZSubmit(d, Irp);
}

static VOID Quiet(PKEEP x)
{
    ULONG i;

    for (i = 0; i < 100 && Moving(x); i++)
        ZSleep(10);
}

/* If the card goes on moving for ever, what it may write to stays allocated: that is the lesser evil. */
static VOID FreeDma(PKEEP x, BOOLEAN Still)
{
    if (x->Mapped && !Still) {
        x->Mapped = FALSE;
        x->Mdl = NULL;
        x->Bounce = NULL;
        x->Adapter = NULL;
        return;
    }
    if (x->Adapter) {
        KIRQL Irql;

        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        Unmap(x);
        KeLowerIrql(Irql);
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    }
    if (x->Mdl)
        IoFreeMdl(x->Mdl);
    if (x->Bounce)
        MmFreeContiguousMemorySpecifyCache(x->Bounce, EDU_SIZE, MmCached);
    x->Adapter = NULL;
    x->Mdl = NULL;
    x->Bounce = NULL;
}

static NTSTATUS GetDma(PKEEP x)
{
    DEVICE_DESCRIPTION Description;
    PHYSICAL_ADDRESS Low, High, None;

    Low.QuadPart = 0;
    High.QuadPart = EDU_REACH;
    None.QuadPart = 0;
    x->Bounce = MmAllocateContiguousMemorySpecifyCache(EDU_SIZE, Low, High, None, MmCached);
    if (!x->Bounce)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(x->Bounce, EDU_SIZE);
    x->Mdl = IoAllocateMdl(x->Bounce, EDU_SIZE, FALSE, FALSE, NULL);
    if (!x->Mdl)
        return STATUS_INSUFFICIENT_RESOURCES;
    MmBuildMdlForNonPagedPool(x->Mdl);

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Version = DEVICE_DESCRIPTION_VERSION;
    Description.Master = TRUE;
    Description.ScatterGather = TRUE;
    Description.Dma32BitAddresses = TRUE;
    Description.InterfaceType = PCIBus;
    Description.MaximumLength = EDU_SIZE;
    x->Adapter = IoGetDmaAdapter(x->Dev.Pdo, &Description, &x->MapRegisters);
    if (!x->Adapter || x->MapRegisters < ADDRESS_AND_SIZE_TO_SPAN_PAGES(x->Bounce, EDU_SIZE))
        return STATUS_INSUFFICIENT_RESOURCES;
    return STATUS_SUCCESS;
}

static VOID Hush(PKEEP x)
{
    ULONG Status = ZRead(x->Regs, EDU_STATUS);

    if (Status && Status != ONES)
        ZWrite(x->Regs, EDU_ACK, Status);
}

static NTSTATUS KeepUp(PZDEV d)
{
    PKEEP x = CONTAINING_RECORD(d, KEEP, Dev);

    if (ZRead(x->Regs, 0) != EDU_ID)
        return STATUS_NO_SUCH_DEVICE;
    Hush(x);
    ZHwOn(d);
    return STATUS_SUCCESS;
}

static VOID KeepDown(PZDEV d)
{
    PKEEP x = CONTAINING_RECORD(d, KEEP, Dev);

    Quiet(x);
    Hush(x); /* before no one answers the interrupt any more */
    ZHwOff(d);
}

static NTSTATUS KeepStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PKEEP x = CONTAINING_RECORD(d, KEEP, Dev);
    NTSTATUS Status;

    Status = ZResources(d, List);
    if (NT_SUCCESS(Status))
        Status = ZMap(d, 0, EDU_BUFFER + EDU_SIZE);
    x->Regs = d->Bar[0].Va;
    if (NT_SUCCESS(Status))
        Status = GetDma(x);
    if (NT_SUCCESS(Status)) {
        Hush(x);
        Status = ZConnect(d);
    }
    if (NT_SUCCESS(Status))
        Status = KeepUp(d);
    if (!NT_SUCCESS(Status)) {
        ZReleaseHw(d);
        FreeDma(x, TRUE);
    }
    return Status;
}

static VOID KeepStop(PZDEV d, BOOLEAN Touch)
{
    PKEEP x = CONTAINING_RECORD(d, KEEP, Dev);
    BOOLEAN Still = TRUE;

    if (Touch) {
        KeepDown(d);
        Still = !Moving(x);
    }
    ZReleaseHw(d);
    FreeDma(x, Still);
}

static NTSTATUS KeepAdd(PZDEV d)
{
    KeInitializeSpinLock(&CONTAINING_RECORD(d, KEEP, Dev)->HwLock);
    return STATUS_SUCCESS;
}

static const ZOPS KeepOps = {
    .Interface = &KEEP_GUID,
    .ExtensionSize = sizeof(KEEP),
    .Flags = DO_BUFFERED_IO,
    .Add = KeepAdd,
    .Start = KeepStart,
    .Stop = KeepStop,
    .Up = KeepUp,
    .Down = KeepDown,
    .Request = KeepRequest,
    .Begin = KeepBegin,
    .Limit = KeepLimit,
    .Isr = KeepIsr,
    .Dpc = KeepDpc,
};

static NTSTATUS NTAPI KeepAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &KeepOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, KeepAddDevice);
}
