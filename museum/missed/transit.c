/*
 * transit: a transient recorder. A read takes the samples of the next record, which the card writes straight into the caller's buffer
 * (scatter/gather DMA); a record that does not come within two seconds fails the read.
 *
 * The bug: when the time is over the read is ended without stopping the card. The record that comes later is written to pages that
 * are no longer the reader's.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: dma-after-unmap
 * Needs: device
 *
 * The card: BAR0, 4096 bytes of memory; one shared level interrupt. Registers of 32 bits:
 *   0x00 ID      (ro)  0x54520001
 *   0x04 CTRL    (rw)  bit 0 GO (write only), bit 1 IE: interrupt enable, bit 2 RESET (write only): drops the transfer, clears STAT
 *                      and IE; after the write has reached the card (read CTRL back) it makes no further bus access
 *   0x08 STAT          bit 0 BUSY (ro), bit 1 DONE, bit 2 ERROR (write 1 to clear); the line is IE and (DONE or ERROR)
 *   0x0c COUNT   (ro)  bytes the last transfer has written
 *   0x10 PIECES  (rw)  how many of the pieces are used, 1 to 32
 *   0x100 + 16 * i     piece i: address low, address high, length in bytes (all multiples of 4)
 */
#include <ddk/wdm.h>

static const GUID TransitGuid = { 0x5d0a2c16, 0x7e43, 0x4b0e, { 0x9a, 0x61, 0x10, 0x42, 0x77, 0x3c, 0xd5, 0x06 } };

#define GG_GUID TransitGuid
#define GG_IO DO_DIRECT_IO
#include "../include/with_waits.h"

#define REG_ID     0x00
#define REG_CTRL   0x04
#define REG_STAT   0x08
#define REG_COUNT  0x0c
#define REG_PIECES 0x10
#define REG_PIECE  0x100
#define CARD_ID    0x54520001
#define WINDOW     0x1000

#define CTRL_GO    1
#define CTRL_IE    2
#define CTRL_RESET 4
#define STAT_DONE  2
#define STAT_ERROR 4

#define MAX_PIECES 32
#define MAX_RECORD 0x10000
#define LIMIT_MS   2000

typedef struct _TRANSIT {
    GG Gg;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    PDMA_ADAPTER Adapter;
    KDPC Dpc;
    BOOLEAN Awake;                          /* under the interrupt lock: the interrupt routine may touch the card */
    ULONG Raw;                              /* under the interrupt lock: DONE, ERROR for the DPC */
    KSPIN_LOCK CardLock;                    /* arming and starting, looking and taking go together */
    PSCATTER_GATHER_LIST List;              /* of the running request */
} TRANSIT, *PTRANSIT;

static ULONG HwSize(VOID)
{
    return sizeof(TRANSIT);
}

static ULONG TransitGet(PTRANSIT t, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(t->Regs + reg));
}

static VOID TransitPut(PTRANSIT t, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(t->Regs + reg), value);
}

/* ---- under the interrupt lock --------------------------------------------------------------------------------------------- */

static BOOLEAN NTAPI TransitIsr(PKINTERRUPT interrupt, PVOID context)
{
    PTRANSIT t = context;
    ULONG stat;

    UNREFERENCED_PARAMETER(interrupt);
    if (!t->Awake)
        return FALSE;
    stat = TransitGet(t, REG_STAT);
    if (stat == MAXULONG || !(stat & (STAT_DONE | STAT_ERROR)))
        return FALSE;
    stat &= STAT_DONE | STAT_ERROR;
    TransitPut(t, REG_STAT, stat);
    t->Raw |= stat;
    KeInsertQueueDpc(&t->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI TransitStop(PVOID context)             /* no bus access of the card after this */
{
    PTRANSIT t = context;

    TransitPut(t, REG_CTRL, CTRL_RESET);
    TransitGet(t, REG_CTRL);
    t->Raw = 0;
    return TRUE;
}

static BOOLEAN NTAPI TransitBegin(PVOID context)
{
    PTRANSIT t = context;

    t->Raw = 0;
    TransitPut(t, REG_CTRL, CTRL_IE | CTRL_GO);
    return TRUE;
}

static BOOLEAN NTAPI TransitWakeUp(PVOID context)
{
    TransitStop(context);
    ((PTRANSIT)context)->Awake = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI TransitQuiet(PVOID context)
{
    TransitStop(context);
    ((PTRANSIT)context)->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI TransitDeaf(PVOID context)
{
    ((PTRANSIT)context)->Awake = FALSE;
    return TRUE;
}

typedef struct _TAKEN {
    PTRANSIT Transit;
    ULONG Raw;
} TAKEN, *PTAKEN;

static BOOLEAN NTAPI TransitTakeRaw(PVOID context)
{
    PTAKEN taken = context;

    taken->Raw = taken->Transit->Raw;
    taken->Transit->Raw = 0;
    return TRUE;
}

/* ---- a request ------------------------------------------------------------------------------------------------------------ */

/* By its single finisher; the card is through with it or stopped. */
static VOID TransitEnd(PTRANSIT t, PIRP irp, NTSTATUS status, ULONG count)
{
    PSCATTER_GATHER_LIST list = t->List;

    t->List = NULL;
    t->Adapter->DmaOperations->PutScatterGatherList(t->Adapter, list, FALSE);
    GgDone(&t->Gg, irp, status, count);
}

static VOID NTAPI TransitDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PTRANSIT t = context;
    TAKEN taken = { t, 0 };
    ULONG count = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&t->CardLock);
    KeSynchronizeExecution(t->Interrupt, TransitTakeRaw, &taken);
    if (taken.Raw) {
        irp = GgTake(&t->Gg);
        if (irp)
            count = TransitGet(t, REG_COUNT);
    }
    KeReleaseSpinLockFromDpcLevel(&t->CardLock);
    if (irp == NULL)
        return;
    if ((taken.Raw & STAT_ERROR) || count > IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length) {
        KeSynchronizeExecution(t->Interrupt, TransitStop, t);           /* who knows what it is doing */
        TransitEnd(t, irp, STATUS_DEVICE_DATA_ERROR, 0);
    } else {
        TransitEnd(t, irp, STATUS_SUCCESS, count);
    }
}

static VOID HwLimit(PGG g, PIRP irp)
{
    PTRANSIT t = CONTAINING_RECORD(g, TRANSIT, Gg);

#ifdef FIXED
    KeSynchronizeExecution(t->Interrupt, TransitStop, t);
#endif
    TransitEnd(t, irp, STATUS_IO_TIMEOUT, 0);
}

/* The pieces of the caller's buffer are there, DISPATCH_LEVEL. */
static VOID NTAPI TransitMapped(PDEVICE_OBJECT dev, PIRP unused, PSCATTER_GATHER_LIST list, PVOID context)
{
    PTRANSIT t = CONTAINING_RECORD(dev->DeviceExtension, TRANSIT, Gg);
    PSCATTER_GATHER_ELEMENT e = (PVOID)((PUCHAR)list + FIELD_OFFSET(SCATTER_GATHER_LIST, Elements));
    PIRP irp = context;
    ULONG i, n = list->NumberOfElements;

    UNREFERENCED_PARAMETER(unused);
    t->List = list;
    if (n == 0 || n > MAX_PIECES) {
        TransitEnd(t, irp, STATUS_INVALID_BUFFER_SIZE, 0);
        return;
    }
    KeAcquireSpinLockAtDpcLevel(&t->CardLock);
    KeSynchronizeExecution(t->Interrupt, TransitStop, t);
    for (i = 0; i < n; i++, e++) {
        TransitPut(t, REG_PIECE + 16 * i, e->Address.LowPart);
        TransitPut(t, REG_PIECE + 16 * i + 4, (ULONG)e->Address.HighPart);
        TransitPut(t, REG_PIECE + 16 * i + 8, e->Length);
    }
    TransitPut(t, REG_PIECES, n);
    GgArm(&t->Gg, irp, LIMIT_MS);
    KeSynchronizeExecution(t->Interrupt, TransitBegin, t);
    KeReleaseSpinLockFromDpcLevel(&t->CardLock);
}

static VOID HwRun(PGG g, PIRP irp)
{
    PTRANSIT t = CONTAINING_RECORD(g, TRANSIT, Gg);
    NTSTATUS status = STATUS_DEVICE_DOES_NOT_EXIST;
    KIRQL irql;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    if (TransitGet(t, REG_ID) == CARD_ID)
        status = t->Adapter->DmaOperations->GetScatterGatherList(
            t->Adapter, g->Self, irp->MdlAddress, MmGetMdlVirtualAddress(irp->MdlAddress),
            IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length, TransitMapped, irp, FALSE);
    KeLowerIrql(irql);
    if (!NT_SUCCESS(status))
        GgDone(g, irp, status, 0);
}

static NTSTATUS HwIo(PGG g, PIRP irp, PIO_STACK_LOCATION sp)
{
    ULONG length = sp->Parameters.Read.Length;

    if (sp->MajorFunction != IRP_MJ_READ)
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (length == 0)
        return GgEnd(irp, STATUS_SUCCESS, 0);
    if (length > MAX_RECORD || length % 4 || MmGetMdlByteOffset(irp->MdlAddress) % 4)
        return GgEnd(irp, STATUS_INVALID_PARAMETER, 0);
    return GgQueue(g, irp);
}

static VOID HwCleanup(PGG g, PFILE_OBJECT file)
{
    UNREFERENCED_PARAMETER(g);
    UNREFERENCED_PARAMETER(file);
}

/* ---- start, stop, sleep --------------------------------------------------------------------------------------------------- */

static NTSTATUS HwInit(PGG g)
{
    PTRANSIT t = CONTAINING_RECORD(g, TRANSIT, Gg);

    KeInitializeSpinLock(&t->CardLock);
    KeInitializeDpc(&t->Dpc, TransitDpc, t);
    return STATUS_SUCCESS;
}

static VOID HwFree(PGG g)
{
    UNREFERENCED_PARAMETER(g);
}

static NTSTATUS HwStart(PGG g, PGG_RES res)
{
    PTRANSIT t = CONTAINING_RECORD(g, TRANSIT, Gg);
    DEVICE_DESCRIPTION d;
    ULONG registers;
    NTSTATUS status;

    if (res->Mems == 0 || res->MemLen[0] < WINDOW || !res->HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    t->Regs = MmMapIoSpace(res->Mem[0], WINDOW, MmNonCached);
    if (t->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = STATUS_NO_SUCH_DEVICE;
    if (TransitGet(t, REG_ID) != CARD_ID)
        goto no_adapter;
    TransitStop(t);

    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.Dma64BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = MAX_RECORD;
    status = STATUS_INSUFFICIENT_RESOURCES;
    t->Adapter = IoGetDmaAdapter(g->Pdo, &d, &registers);
    if (t->Adapter == NULL)
        goto no_adapter;
    status = GgConnect(res, &t->Interrupt, TransitIsr, t);
    if (!NT_SUCCESS(status))
        goto no_interrupt;
    KeSynchronizeExecution(t->Interrupt, TransitWakeUp, t);
    return STATUS_SUCCESS;
no_interrupt:
    t->Adapter->DmaOperations->PutDmaAdapter(t->Adapter);
    t->Adapter = NULL;
no_adapter:
    MmUnmapIoSpace(t->Regs, WINDOW);
    t->Regs = NULL;
    return status;
}

static VOID HwStop(PGG g, BOOLEAN present)
{
    PTRANSIT t = CONTAINING_RECORD(g, TRANSIT, Gg);

    KeSynchronizeExecution(t->Interrupt, present ? TransitQuiet : TransitDeaf, t);
    KeCancelTimer(&g->Timer);
    KeFlushQueuedDpcs();                                    /* the DPC uses the interrupt object */
    IoDisconnectInterrupt(t->Interrupt);
    t->Interrupt = NULL;
    t->Adapter->DmaOperations->PutDmaAdapter(t->Adapter);
    t->Adapter = NULL;
    MmUnmapIoSpace(t->Regs, WINDOW);
    t->Regs = NULL;
}

static VOID HwSleep(PGG g)
{
    PTRANSIT t = CONTAINING_RECORD(g, TRANSIT, Gg);

    KeSynchronizeExecution(t->Interrupt, TransitQuiet, t);
}

static NTSTATUS HwWake(PGG g)
{
    PTRANSIT t = CONTAINING_RECORD(g, TRANSIT, Gg);

    if (TransitGet(t, REG_ID) != CARD_ID)
        return STATUS_NO_SUCH_DEVICE;
    KeSynchronizeExecution(t->Interrupt, TransitWakeUp, t);
    return STATUS_SUCCESS;
}
