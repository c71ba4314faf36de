/*
 * caravan: a storage card of our own with a ring of descriptors. Reads and writes of up to 16 KiB (direct I/O) are put into the ring piece by piece; the card
 * works from its head to the tail that the driver sets.
 *
 * The bug: when the card comes back from D3 its head is 0, but the driver goes on where it was in the ring. The next request makes the card work off the old
 * descriptors from 0 up to there once more: it moves data from and to memory that belongs to others by now.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: dma-after-unmap
 * Needs: power
 *
 * The card, BAR0:
 *   0x00 ID      0x43525643
 *   0x04 CTRL    bit 0: run; bit 1: interrupt enable; bit 31: reset. A reset ends the card's bus accesses before the next read of a register returns, whatever it
 *                was doing, and clears everything: CTRL, HEAD and TAIL too. So does losing its power.
 *   0x08 STATUS  bit 0: HEAD has come to TAIL (an event), bit 1: error (both: write 1 to clear). The line is active while interrupts are enabled and one of them is set.
 *   0x10, 0x14   bus address of the ring, low and high half; descriptors of 16 bytes: address (64 bits), length (32), flags (32; bit 0: from the card)
 *   0x18 ENTRIES number of descriptors in the ring
 *   0x1c TAIL    index behind the last valid descriptor
 *   0x20 HEAD    index of the descriptor the card is at (read only)
 *   0x24, 0x28   position on the medium for what comes next, low and high half
 */
#include "../include/ticking_card.h"

#define CARD_ID 0x43525643u
#define R_ID 0x00
#define R_CTRL 0x04
#define R_STATUS 0x08
#define R_RING 0x10
#define R_ENTRIES 0x18
#define R_TAIL 0x1c
#define R_HEAD 0x20
#define R_POSITION 0x24
#define R_SIZE 0x2c
#define C_RUN 1u
#define C_IRQ 2u
#define C_RESET 0x80000000u
#define S_REACHED 1u
#define S_ERROR 2u
#define ONES 0xffffffffu

#define RING 32
#define LONGEST 16384

static const GUID CARAVAN_GUID = {0x5d0b6c1d, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x0d}};

typedef struct _CAMEL {
    ULONG64 Address;
    ULONG Length;
    ULONG Flags;
} CAMEL, *PCAMEL;

typedef struct _CARAVAN {
    ZDEV Dev;
    PUCHAR Regs;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    PCAMEL Ring;
    PHYSICAL_ADDRESS RingAddress;
    KSPIN_LOCK HwLock; /* publishing and starting are one step for the DPC */
    volatile LONG Flags; /* what the ISR has seen */
    ULONG Next; /* where the next descriptor goes */
    PIRP Irp;
    ULONG Length;
    LONGLONG Position;
    BOOLEAN ToCard;
    PSCATTER_GATHER_LIST List;
} CARAVAN, *PCARAVAN;

/* Brings the card into the state of its birth and gives it the ring. */
static VOID Setup(PCARAVAN x)
{
    ZWrite(x->Regs, R_CTRL, C_RESET);
    ZRead(x->Regs, R_ID);
    ZWrite(x->Regs, R_RING, x->RingAddress.LowPart);
    ZWrite(x->Regs, R_RING + 4, (ULONG)x->RingAddress.HighPart);
    ZWrite(x->Regs, R_ENTRIES, RING);
    InterlockedExchange(&x->Flags, 0);
}

/* Forgets what was before; in one step for the ISR. */
static BOOLEAN NTAPI Forget(PVOID Context)
{
    PCARAVAN x = Context;

    ZWrite(x->Regs, R_STATUS, S_REACHED | S_ERROR);
    x->Flags = 0;
    return TRUE;
}

/* After a request that went wrong. */
static VOID Recover(PCARAVAN x)
{
    x->Next = 0;
    Setup(x);
    ZWrite(x->Regs, R_CTRL, C_RUN | C_IRQ);
}

static VOID End(PCARAVAN x, PIRP Irp, NTSTATUS Status)
{
    x->Adapter->DmaOperations->PutScatterGatherList(x->Adapter, x->List, x->ToCard);
    ZFinish(&x->Dev, Irp, Status, NT_SUCCESS(Status) ? x->Length : 0);
}

static VOID NTAPI CaravanList(PDEVICE_OBJECT Self, PIRP Current, PSCATTER_GATHER_LIST List, PVOID Context)
{
    PCARAVAN x = Context;
    PSCATTER_GATHER_ELEMENT e = (PVOID)((PUCHAR)List + FIELD_OFFSET(SCATTER_GATHER_LIST, Elements));
    KIRQL Irql;
    ULONG n;

    (void)Self, (void)Current;
    KeAcquireSpinLock(&x->HwLock, &Irql);
    x->List = List;
    for (n = List->NumberOfElements; n; n--, e++) { /* at most five, and the ring is empty */
        x->Ring[x->Next].Address = (ULONG64)e->Address.QuadPart;
        x->Ring[x->Next].Length = e->Length;
        x->Ring[x->Next].Flags = x->ToCard ? 0 : 1;
        x->Next = (x->Next + 1) % RING;
    }
    __sync_synchronize(); /* before the card may look at it */
    KeSynchronizeExecution(x->Dev.Interrupt, Forget, x);
    ZWrite(x->Regs, R_POSITION, (ULONG)x->Position);
    ZWrite(x->Regs, R_POSITION + 4, (ULONG)(x->Position >> 32));
    ZPublish(&x->Dev, x->Irp, 30);
    ZWrite(x->Regs, R_TAIL, x->Next);
    KeReleaseSpinLock(&x->HwLock, Irql);
}

static NTSTATUS CaravanBegin(PZDEV d, PIRP Irp)
{
    PCARAVAN x = CONTAINING_RECORD(d, CARAVAN, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PVOID Va = MmGetMdlVirtualAddress(Irp->MdlAddress);

    if (ZRead(x->Regs, R_ID) != CARD_ID)
        return STATUS_NO_SUCH_DEVICE;
    x->Irp = Irp;
    x->ToCard = sl->MajorFunction == IRP_MJ_WRITE;
    x->Length = x->ToCard ? sl->Parameters.Write.Length : sl->Parameters.Read.Length;
    x->Position = x->ToCard ? sl->Parameters.Write.ByteOffset.QuadPart : sl->Parameters.Read.ByteOffset.QuadPart;
    if (ADDRESS_AND_SIZE_TO_SPAN_PAGES(Va, x->Length) > x->MapRegisters)
        return STATUS_INSUFFICIENT_RESOURCES;
    return x->Adapter->DmaOperations->GetScatterGatherList(x->Adapter, d->Self, Irp->MdlAddress, Va, x->Length, CaravanList, x, x->ToCard) == STATUS_SUCCESS
               ? STATUS_PENDING
               : STATUS_INSUFFICIENT_RESOURCES;
}

static BOOLEAN CaravanIsr(PZDEV d)
{
    PCARAVAN x = CONTAINING_RECORD(d, CARAVAN, Dev);
    ULONG Status = ZRead(x->Regs, R_STATUS);

    if (Status == ONES || !(Status & (S_REACHED | S_ERROR)))
        return FALSE;
    ZWrite(x->Regs, R_STATUS, Status & (S_REACHED | S_ERROR));
    InterlockedOr(&x->Flags, (LONG)(Status & (S_REACHED | S_ERROR)));
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

/* Has the request come to its end? Under HwLock. */
static BOOLEAN Outcome(PCARAVAN x, ULONG Flags, NTSTATUS *Status)
{
    ULONG Head = ZRead(x->Regs, R_HEAD);

    if (Head == ONES) {
        *Status = STATUS_NO_SUCH_DEVICE;
        return TRUE;
    }
    if (Flags & S_ERROR) {
        Recover(x);
        *Status = STATUS_IO_DEVICE_ERROR;
        return TRUE;
    }
    *Status = STATUS_SUCCESS;
    return Head == x->Next;
}

static VOID CaravanDpc(PZDEV d)
{
    PCARAVAN x = CONTAINING_RECORD(d, CARAVAN, Dev);
    PIRP Irp = NULL;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Flags;

    KeAcquireSpinLockAtDpcLevel(&x->HwLock);
    Flags = (ULONG)InterlockedExchange(&x->Flags, 0);
    if (Flags)
        Irp = ZTake(d);
    if (Irp && !Outcome(x, Flags, &Status)) {
        ZPutBack(d, Irp); /* the card is still at it */
        Irp = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&x->HwLock);
    if (Irp)
        End(x, Irp, Status);
}

static VOID CaravanLimit(PZDEV d, PIRP Irp)
{
    PCARAVAN x = CONTAINING_RECORD(d, CARAVAN, Dev);
    NTSTATUS Status;

    KeAcquireSpinLockAtDpcLevel(&x->HwLock);
    if (!Outcome(x, ZRead(x->Regs, R_STATUS) & S_ERROR, &Status)) { /* unless just the interrupt was lost */
        Recover(x);
        Status = STATUS_IO_TIMEOUT;
    }
    KeReleaseSpinLockFromDpcLevel(&x->HwLock);
    End(x, Irp, Status);
}

static NTSTATUS CaravanRequest(PZDEV d, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG Position;
    ULONG Length;

    if (sl->MajorFunction == IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    Length = sl->MajorFunction == IRP_MJ_WRITE ? sl->Parameters.Write.Length : sl->Parameters.Read.Length;
    Position = sl->MajorFunction == IRP_MJ_WRITE ? sl->Parameters.Write.ByteOffset.QuadPart : sl->Parameters.Read.ByteOffset.QuadPart;
    if (!Length)
        return STATUS_SUCCESS;
    if (Length > LONGEST || Position < 0 || !Irp->MdlAddress)
        return STATUS_INVALID_PARAMETER;
    return ZSubmit(d, Irp);
}

static NTSTATUS CaravanUp(PZDEV d)
{
    PCARAVAN x = CONTAINING_RECORD(d, CARAVAN, Dev);

    if (ZRead(x->Regs, R_ID) != CARD_ID)
        return STATUS_NO_SUCH_DEVICE;
#ifdef FIXED
    x->Next = 0;
#endif
    Setup(x);
    ZHwOn(d);
    ZWrite(x->Regs, R_CTRL, C_RUN | C_IRQ);
    return STATUS_SUCCESS;
}

static VOID CaravanDown(PZDEV d)
{
    PCARAVAN x = CONTAINING_RECORD(d, CARAVAN, Dev);

    ZWrite(x->Regs, R_CTRL, C_RESET);
    ZRead(x->Regs, R_ID);
    ZHwOff(d);
}

static VOID FreeDma(PCARAVAN x)
{
    if (x->Ring)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, RING * sizeof(CAMEL), x->RingAddress, x->Ring, FALSE);
    x->Ring = NULL;
    if (x->Adapter)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static NTSTATUS GetDma(PCARAVAN x)
{
    DEVICE_DESCRIPTION Description;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Version = DEVICE_DESCRIPTION_VERSION;
    Description.Master = TRUE;
    Description.ScatterGather = TRUE;
    Description.Dma32BitAddresses = TRUE;
    Description.Dma64BitAddresses = TRUE;
    Description.InterfaceType = PCIBus;
    Description.MaximumLength = LONGEST;
    x->Adapter = IoGetDmaAdapter(x->Dev.Pdo, &Description, &x->MapRegisters);
    if (!x->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Ring = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, RING * sizeof(CAMEL), &x->RingAddress, FALSE);
    if (!x->Ring)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(x->Ring, RING * sizeof(CAMEL));
    return STATUS_SUCCESS;
}

static NTSTATUS CaravanStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PCARAVAN x = CONTAINING_RECORD(d, CARAVAN, Dev);
    NTSTATUS Status;

    x->Next = 0;
    Status = ZResources(d, List);
    if (NT_SUCCESS(Status))
        Status = ZMap(d, 0, R_SIZE);
    x->Regs = d->Bar[0].Va;
    if (NT_SUCCESS(Status) && ZRead(x->Regs, R_ID) != CARD_ID)
        Status = STATUS_NO_SUCH_DEVICE;
    if (NT_SUCCESS(Status)) {
        ZWrite(x->Regs, R_CTRL, C_RESET);
        ZRead(x->Regs, R_ID);
        Status = GetDma(x);
    }
    if (NT_SUCCESS(Status))
        Status = ZConnect(d);
    if (NT_SUCCESS(Status))
        Status = CaravanUp(d);
    if (!NT_SUCCESS(Status)) {
        ZReleaseHw(d);
        FreeDma(x);
    }
    return Status;
}

static VOID CaravanStop(PZDEV d, BOOLEAN Touch)
{
    if (Touch)
        CaravanDown(d);
    ZReleaseHw(d);
    FreeDma(CONTAINING_RECORD(d, CARAVAN, Dev));
}

static NTSTATUS CaravanAdd(PZDEV d)
{
    KeInitializeSpinLock(&CONTAINING_RECORD(d, CARAVAN, Dev)->HwLock);
    return STATUS_SUCCESS;
}

static const ZOPS CaravanOps = {
    .Interface = &CARAVAN_GUID,
    .ExtensionSize = sizeof(CARAVAN),
    .Flags = DO_DIRECT_IO,
    .Add = CaravanAdd,
    .Start = CaravanStart,
    .Stop = CaravanStop,
    .Up = CaravanUp,
    .Down = CaravanDown,
    .Request = CaravanRequest,
    .Begin = CaravanBegin,
    .Limit = CaravanLimit,
    .Isr = CaravanIsr,
    .Dpc = CaravanDpc,
};

static NTSTATUS NTAPI CaravanAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &CaravanOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, CaravanAddDevice);
}
