/*
 * furrow: a plotter card of our own. A write of up to 64 KiB (direct I/O) is given to the card as a table of pieces of memory; the card fetches and plots it.
 *
 * The bug: the table is made for 64 KiB / PAGE_SIZE = 16 pieces. A buffer that does not begin on a page boundary touches one page more, and the 17th piece is
 * written over what lies behind the table in the extension: the pointer to the scatter/gather list, which is then put back.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: not-a-scatter-gather-list
 * Needs: ioctl
 *
 * The card, BAR0:
 *   0x00 ID      0x46555257
 *   0x04 CTRL    bit 0: interrupt enable; bit 31: reset. A reset ends the card's bus accesses before the next read of a register returns, whatever it was doing,
 *                and clears everything, CTRL too.
 *   0x08 STATUS  bit 0: done, bit 1: error (both: write 1 to clear), bit 2: busy (from GO on). The line is active while interrupts are enabled and bit 0 or 1 is set.
 *   0x10, 0x14   bus address of the table, low and high half; entries of 16 bytes: address (64 bits), length (32), 0 (32)
 *   0x18 ENTRIES number of entries
 *   0x1c GO      write 1
 */
#include "../include/ticking_card.h"

#define CARD_ID 0x46555257u
#define R_ID 0x00
#define R_CTRL 0x04
#define R_STATUS 0x08
#define R_TABLE 0x10
#define R_ENTRIES 0x18
#define R_GO 0x1c
#define R_SIZE 0x20
#define C_IRQ 1u
#define C_RESET 0x80000000u
#define S_DONE 1u
#define S_ERROR 2u
#define S_BUSY 4u
#define ONES 0xffffffffu

#define LONGEST 65536
#ifdef FIXED
#define PIECES (LONGEST / PAGE_SIZE + 1)
#else
#define PIECES (LONGEST / PAGE_SIZE)
#endif

static const GUID FURROW_GUID = {0x5d0b6c1c, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x0c}};

typedef struct _PIECE {
    ULONG64 Address;
    ULONG Length;
    ULONG Zero;
} PIECE, *PPIECE;

typedef struct _FURROW {
    ZDEV Dev;
    PUCHAR Regs;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    PVOID Table; /* a page that the card reads */
    PHYSICAL_ADDRESS TableAddress;
    KSPIN_LOCK HwLock; /* publishing and starting are one step for the DPC */
    volatile LONG Flags; /* what the ISR has seen */
    PIRP Irp;
    ULONG Length;
    PIECE Piece[PIECES];
    PSCATTER_GATHER_LIST List;
    ULONG Plotted;
} FURROW, *PFURROW;

static VOID Reset(PFURROW x)
{
    ZWrite(x->Regs, R_CTRL, C_RESET);
    ZRead(x->Regs, R_ID);
}

/* Forgets what was before; in one step for the ISR. */
static BOOLEAN NTAPI Forget(PVOID Context)
{
    PFURROW x = Context;

    ZWrite(x->Regs, R_STATUS, S_DONE | S_ERROR);
    x->Flags = 0;
    return TRUE;
}

static VOID End(PFURROW x, PIRP Irp, NTSTATUS Status)
{
    x->Adapter->DmaOperations->PutScatterGatherList(x->Adapter, x->List, TRUE);
    if (NT_SUCCESS(Status))
        x->Plotted++;
    ZFinish(&x->Dev, Irp, Status, NT_SUCCESS(Status) ? x->Length : 0);
}

static VOID NTAPI FurrowList(PDEVICE_OBJECT Self, PIRP Current, PSCATTER_GATHER_LIST List, PVOID Context)
{
    PFURROW x = Context;
    PSCATTER_GATHER_ELEMENT e = (PVOID)((PUCHAR)List + FIELD_OFFSET(SCATTER_GATHER_LIST, Elements));
    PPIECE p = x->Piece;
    KIRQL Irql;
    ULONG n;

    (void)Self, (void)Current;
    x->List = List;
    for (n = List->NumberOfElements; n; n--, e++, p++) {
        p->Address = (ULONG64)e->Address.QuadPart;
        p->Length = e->Length;
        p->Zero = 0;
    }
    RtlCopyMemory(x->Table, x->Piece, (PUCHAR)p - (PUCHAR)x->Piece);
    __sync_synchronize(); /* before the card may look at it */

    KeAcquireSpinLock(&x->HwLock, &Irql);
    KeSynchronizeExecution(x->Dev.Interrupt, Forget, x);
    ZWrite(x->Regs, R_TABLE, x->TableAddress.LowPart);
    ZWrite(x->Regs, R_TABLE + 4, (ULONG)x->TableAddress.HighPart);
    ZWrite(x->Regs, R_ENTRIES, (ULONG)(p - x->Piece));
    ZPublish(&x->Dev, x->Irp, 30);
    ZWrite(x->Regs, R_GO, 1);
    KeReleaseSpinLock(&x->HwLock, Irql);
}

static NTSTATUS FurrowBegin(PZDEV d, PIRP Irp)
{
    PFURROW x = CONTAINING_RECORD(d, FURROW, Dev);
    PVOID Va = MmGetMdlVirtualAddress(Irp->MdlAddress);
    ULONG Status = ZRead(x->Regs, R_STATUS);

    if (Status == ONES)
        return STATUS_NO_SUCH_DEVICE;
    if (Status & S_BUSY) {
        Reset(x);
        ZWrite(x->Regs, R_CTRL, C_IRQ);
    }
    x->Irp = Irp;
    x->Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    if (ADDRESS_AND_SIZE_TO_SPAN_PAGES(Va, x->Length) > x->MapRegisters)
        return STATUS_INSUFFICIENT_RESOURCES;
    return x->Adapter->DmaOperations->GetScatterGatherList(x->Adapter, d->Self, Irp->MdlAddress, Va, x->Length, FurrowList, x, TRUE) == STATUS_SUCCESS
               ? STATUS_PENDING
               : STATUS_INSUFFICIENT_RESOURCES;
}

static BOOLEAN FurrowIsr(PZDEV d)
{
    PFURROW x = CONTAINING_RECORD(d, FURROW, Dev);
    ULONG Status = ZRead(x->Regs, R_STATUS);

    if (Status == ONES || !(Status & (S_DONE | S_ERROR)))
        return FALSE;
    ZWrite(x->Regs, R_STATUS, Status & (S_DONE | S_ERROR));
    InterlockedOr(&x->Flags, (LONG)(Status & (S_DONE | S_ERROR)));
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

/* Ends the transfer in an orderly way, if it has come to an end. Under HwLock. */
static BOOLEAN Outcome(PFURROW x, ULONG Flags, NTSTATUS *Status)
{
    ULONG Now = ZRead(x->Regs, R_STATUS);

    if (Now == ONES) {
        *Status = STATUS_NO_SUCH_DEVICE;
        return TRUE;
    }
    if (Flags & S_ERROR) {
        Reset(x);
        ZWrite(x->Regs, R_CTRL, C_IRQ);
        *Status = STATUS_IO_DEVICE_ERROR;
        return TRUE;
    }
    *Status = STATUS_SUCCESS;
    return (Flags & S_DONE) && !(Now & S_BUSY);
}

static VOID FurrowDpc(PZDEV d)
{
    PFURROW x = CONTAINING_RECORD(d, FURROW, Dev);
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

static VOID FurrowLimit(PZDEV d, PIRP Irp)
{
    PFURROW x = CONTAINING_RECORD(d, FURROW, Dev);
    NTSTATUS Status;
    ULONG Now;

    KeAcquireSpinLockAtDpcLevel(&x->HwLock);
    Now = ZRead(x->Regs, R_STATUS);
    if (!Outcome(x, (Now | (ULONG)InterlockedExchange(&x->Flags, 0)) & (S_DONE | S_ERROR), &Status)) { /* unless just the interrupt was lost */
        Reset(x);
        ZWrite(x->Regs, R_CTRL, C_IRQ);
        Status = STATUS_IO_TIMEOUT;
    }
    KeReleaseSpinLockFromDpcLevel(&x->HwLock);
    End(x, Irp, Status);
}

static NTSTATUS FurrowRequest(PZDEV d, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);

    if (sl->MajorFunction != IRP_MJ_WRITE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (!sl->Parameters.Write.Length)
        return STATUS_SUCCESS;
    if (sl->Parameters.Write.Length > LONGEST || !Irp->MdlAddress)
        return STATUS_INVALID_PARAMETER;
    return ZSubmit(d, Irp);
}

static NTSTATUS FurrowUp(PZDEV d)
{
    PFURROW x = CONTAINING_RECORD(d, FURROW, Dev);

    if (ZRead(x->Regs, R_ID) != CARD_ID)
        return STATUS_NO_SUCH_DEVICE;
    Reset(x);
    ZHwOn(d);
    ZWrite(x->Regs, R_CTRL, C_IRQ);
    return STATUS_SUCCESS;
}

static VOID FurrowDown(PZDEV d)
{
    Reset(CONTAINING_RECORD(d, FURROW, Dev));
    ZHwOff(d);
}

static VOID FreeDma(PFURROW x)
{
    if (x->Table)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, PAGE_SIZE, x->TableAddress, x->Table, FALSE);
    x->Table = NULL;
    if (x->Adapter)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static NTSTATUS GetDma(PFURROW x)
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
    x->Table = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, PAGE_SIZE, &x->TableAddress, FALSE);
    return x->Table ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS FurrowStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PFURROW x = CONTAINING_RECORD(d, FURROW, Dev);
    NTSTATUS Status;

    Status = ZResources(d, List);
    if (NT_SUCCESS(Status))
        Status = ZMap(d, 0, R_SIZE);
    x->Regs = d->Bar[0].Va;
    if (NT_SUCCESS(Status) && ZRead(x->Regs, R_ID) != CARD_ID)
        Status = STATUS_NO_SUCH_DEVICE;
    if (NT_SUCCESS(Status)) {
        Reset(x); /* before someone could be interrupted whom no one answers */
        Status = GetDma(x);
    }
    if (NT_SUCCESS(Status))
        Status = ZConnect(d);
    if (NT_SUCCESS(Status))
        Status = FurrowUp(d);
    if (!NT_SUCCESS(Status)) {
        ZReleaseHw(d);
        FreeDma(x);
    }
    return Status;
}

static VOID FurrowStop(PZDEV d, BOOLEAN Touch)
{
    if (Touch)
        FurrowDown(d);
    ZReleaseHw(d);
    FreeDma(CONTAINING_RECORD(d, FURROW, Dev));
}

static NTSTATUS FurrowAdd(PZDEV d)
{
    KeInitializeSpinLock(&CONTAINING_RECORD(d, FURROW, Dev)->HwLock);
    return STATUS_SUCCESS;
}

static const ZOPS FurrowOps = {
    .Interface = &FURROW_GUID,
    .ExtensionSize = sizeof(FURROW),
    .Flags = DO_DIRECT_IO,
    .Add = FurrowAdd,
    .Start = FurrowStart,
    .Stop = FurrowStop,
    .Up = FurrowUp,
    .Down = FurrowDown,
    .Request = FurrowRequest,
    .Begin = FurrowBegin,
    .Limit = FurrowLimit,
    .Isr = FurrowIsr,
    .Dpc = FurrowDpc,
};

static NTSTATUS NTAPI FurrowAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &FurrowOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, FurrowAddDevice);
}
