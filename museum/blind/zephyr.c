/*
 * zephyr: a wind tunnel's recorder. A read of up to 64 KiB is written by the card straight into the program's buffer (packet-based bus-master DMA, piece by
 * piece as the memory hangs together).
 *
 * The bug: MapTransfer answers how many bytes hang together at the address; the driver does not look and lets the card write the whole length there. The card
 * writes over whatever pages come behind the first one.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: dma-length-of-whole
 * Needs: device
 *
 * The card: BAR0 memory, 64 bytes, long words; interrupt line, shared; addresses of 64 bits.
 *   00 ID       5A455059
 *   04 CONTROL  bit 0 interrupt on; bit 1 (write) reset: the card gives up its DMA before CONTROL can be read again; bit 0 becomes 0
 *   08 STATUS   bit 0 done, bit 1 failed; a write to GO clears them
 *   0C ADDRESS  lower half    10 ADDRESS  upper half    14 LENGTH  bytes
 *   18 GO       (write) starts a transfer from the card to memory
 *   1C LINE     bit 0: the card holds the line, because a transfer is done or has failed; writing 1 lets it go
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define ZEP_ID 0x00
#define ZEP_CONTROL 0x04
#define ZEP_STATUS 0x08
#define ZEP_LOW 0x0C
#define ZEP_HIGH 0x10
#define ZEP_LENGTH 0x14
#define ZEP_GO 0x18
#define ZEP_LINE 0x1C
#define ZEP_REGISTERS 64

#define ZEP_IDENTITY 0x5A455059
#define ZEP_ON 1
#define ZEP_RESET 2
#define ZEP_DONE 1
#define ZEP_FAILED 2
#define ZEP_GONE 0xffffffff
#define ZEP_MOST 65536
#define ZEP_LIMIT 1000 /* ms, for a piece */

static const GUID ZepInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x0c}};

typedef struct _ZEP_EXT {
    YK Yk;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening; /* the ISR may look at the card; changed in step with the ISR */
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters; /* as many as we may have */
    KDPC Dpc;
    YK_LIMIT Limit;
    /* Of the current request: */
    PIRP Irp;
    PMDL Mdl;
    PUCHAR Va;
    ULONG Count; /* of map registers */
    PVOID MapBase;
    ULONG Total;
    ULONG Moved;
    ULONG Piece;
    PIRP Active; /* the card is at it; under HwLock */
} ZEP_EXT, *PZEP_EXT;

DRIVER_INITIALIZE DriverEntry;

static ULONG ZepGet(PZEP_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID ZepPut(PZEP_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

/* The card does nothing any more and holds no line. */
static VOID ZepReset(PZEP_EXT x)
{
    ZepPut(x, ZEP_CONTROL, ZEP_RESET);
    (VOID) ZepGet(x, ZEP_CONTROL);
    ZepPut(x, ZEP_LINE, 1);
}

static BOOLEAN NTAPI ZepIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PZEP_EXT x = CONTAINING_RECORD((PYK)Context, ZEP_EXT, Yk);
    ULONG Line = x->Listening ? ZepGet(x, ZEP_LINE) : 0;

    UNREFERENCED_PARAMETER(Interrupt);
    if (Line == ZEP_GONE || (Line & 1) == 0)
        return FALSE;
    ZepPut(x, ZEP_LINE, 1);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI ZepListen(PVOID Context)
{
    PZEP_EXT x = Context;

    ZepReset(x);
    ZepPut(x, ZEP_CONTROL, ZEP_ON);
    x->Listening = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI ZepIgnore(PVOID Context)
{
    PZEP_EXT x = Context;

    x->Listening = FALSE;
    ZepReset(x);
    return TRUE;
}

static VOID ZepEnable(PYK d)
{
    PZEP_EXT x = CONTAINING_RECORD(d, ZEP_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, ZepListen, x);
}

static VOID ZepDisable(PYK d)
{
    PZEP_EXT x = CONTAINING_RECORD(d, ZEP_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, ZepIgnore, x);
}

/* Under HwLock: sets the card at the next piece. */
static VOID ZepPiece(PZEP_EXT x)
{
    PHYSICAL_ADDRESS Address;
    ULONG Length = x->Total - x->Moved;

    Address = x->Adapter->DmaOperations->MapTransfer(x->Adapter, x->Mdl, x->MapBase, x->Va + x->Moved, &Length, FALSE);
#ifdef FIXED
    x->Piece = Length;
#else
    x->Piece = x->Total - x->Moved;
#endif
    YkLimitSet(&x->Limit, ZEP_LIMIT);
    ZepPut(x, ZEP_LOW, Address.LowPart);
    ZepPut(x, ZEP_HIGH, (ULONG)Address.HighPart);
    ZepPut(x, ZEP_LENGTH, x->Piece);
    ZepPut(x, ZEP_GO, 1);
}

/* The card is not at the request any more: gives everything back. */
static VOID ZepEnd(PZEP_EXT x, PIRP Irp, NTSTATUS Status)
{
    PDMA_OPERATIONS o = x->Adapter->DmaOperations;

    if (!o->FlushAdapterBuffers(x->Adapter, x->Mdl, x->MapBase, x->Va, x->Moved + x->Piece, FALSE) && NT_SUCCESS(Status))
        Status = STATUS_DEVICE_DATA_ERROR;
    o->FreeMapRegisters(x->Adapter, x->MapBase, x->Count);
    YkDone(&x->Yk, Irp, Status, NT_SUCCESS(Status) ? x->Total : 0);
}

static VOID NTAPI ZepDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PZEP_EXT x = Context;
    NTSTATUS Status = STATUS_PENDING;
    ULONG State;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    Irp = x->Active;
    if (Irp != NULL) {
        State = ZepGet(x, ZEP_STATUS);
        if (State == ZEP_GONE) {
            Status = STATUS_DEVICE_NOT_CONNECTED;
        } else if ((State & ZEP_FAILED) != 0) {
            Status = STATUS_DEVICE_DATA_ERROR;
        } else if ((State & ZEP_DONE) != 0) { /* else it is an interrupt of before */
            x->Moved += x->Piece;
            x->Piece = 0;
            if (x->Moved == x->Total)
                Status = STATUS_SUCCESS;
            else
                ZepPiece(x);
        }
        if (Status != STATUS_PENDING) {
            x->Active = NULL;
            KeCancelTimer(&x->Limit.Timer);
            if (!NT_SUCCESS(Status))
                KeSynchronizeExecution(x->Interrupt, ZepListen, x); /* resets the card */
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (Status != STATUS_PENDING)
        ZepEnd(x, Irp, Status);
}

static VOID NTAPI ZepLate(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PZEP_EXT x = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    Irp = x->Active;
    if (Irp != NULL && YkLimitOver(&x->Limit)) {
        x->Active = NULL;
        KeSynchronizeExecution(x->Interrupt, ZepListen, x); /* resets the card */
    } else {
        Irp = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (Irp != NULL)
        ZepEnd(x, Irp, STATUS_IO_TIMEOUT);
}

/* The map registers are ours. The request is the current one, so the device stays live until its end. */
static IO_ALLOCATION_ACTION NTAPI ZepControl(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID MapBase, PVOID Context)
{
    PZEP_EXT x = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    x->MapBase = MapBase;
    x->Active = x->Irp;
    ZepPiece(x);
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    return DeallocateObjectKeepRegisters;
}

static VOID ZepStartIo(PYK d, PIRP Irp)
{
    PZEP_EXT x = CONTAINING_RECORD(d, ZEP_EXT, Yk);
    NTSTATUS Status;

    x->Irp = Irp;
    x->Mdl = Irp->MdlAddress;
    x->Va = MmGetMdlVirtualAddress(x->Mdl);
    x->Total = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    x->Moved = 0;
    x->Piece = 0;
    x->Count = ADDRESS_AND_SIZE_TO_SPAN_PAGES(x->Va, x->Total);
    if (x->Count > x->MapRegisters) {
        YkDone(d, Irp, STATUS_INVALID_BUFFER_SIZE, 0);
        return;
    }
    KeFlushIoBuffers(x->Mdl, TRUE, TRUE);
    Status = x->Adapter->DmaOperations->AllocateAdapterChannel(x->Adapter, d->Self, x->Count, ZepControl, x);
    if (!NT_SUCCESS(Status))
        YkDone(d, Irp, Status, 0);
}

static NTSTATUS ZepRequest(PYK d, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    if (s->MajorFunction != IRP_MJ_READ)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (s->Parameters.Read.Length == 0)
        return YkFinish(d, Irp, STATUS_SUCCESS, 0);
    if (s->Parameters.Read.Length > ZEP_MOST)
        return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
    return YkQueue(d, Irp);
}

static NTSTATUS ZepStart(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, ULONG Count)
{
    PZEP_EXT x = CONTAINING_RECORD(d, ZEP_EXT, Yk);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = NULL, Line = NULL;
    DEVICE_DESCRIPTION Description;

    for (; Count != 0; Count--, r++) {
        if (r->Type == CmResourceTypeMemory && Memory == NULL && r->u.Memory.Length >= ZEP_REGISTERS)
            Memory = r;
        else if (r->Type == CmResourceTypeInterrupt && Line == NULL)
            Line = r;
    }
    if (Memory == NULL || Line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Regs = MmMapIoSpace(Memory->u.Memory.Start, ZEP_REGISTERS, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (ZepGet(x, ZEP_ID) != ZEP_IDENTITY)
        return STATUS_NO_SUCH_DEVICE;
    RtlZeroMemory(&Description, sizeof(Description));
    Description.Version = DEVICE_DESCRIPTION_VERSION;
    Description.Master = TRUE;
    Description.ScatterGather = TRUE;
    Description.Dma32BitAddresses = TRUE;
    Description.Dma64BitAddresses = TRUE;
    Description.InterfaceType = PCIBus;
    Description.MaximumLength = ZEP_MOST;
    x->Adapter = IoGetDmaAdapter(d->Pdo, &Description, &x->MapRegisters);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ZepReset(x);
    return YkConnect(d, Line, ZepIsr, &x->Interrupt);
}

static VOID ZepStop(PYK d)
{
    PZEP_EXT x = CONTAINING_RECORD(d, ZEP_EXT, Yk);

    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
    KeCancelTimer(&x->Limit.Timer);
    KeFlushQueuedDpcs();
    if (x->Adapter != NULL) {
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
        x->Adapter = NULL;
    }
    if (x->Regs != NULL) {
        MmUnmapIoSpace(x->Regs, ZEP_REGISTERS);
        x->Regs = NULL;
    }
}

static NTSTATUS ZepInit(PYK d)
{
    PZEP_EXT x = CONTAINING_RECORD(d, ZEP_EXT, Yk);

    KeInitializeDpc(&x->Dpc, ZepDpc, x);
    YkLimitInit(&x->Limit, ZepLate, x);
    return STATUS_SUCCESS;
}

static const YK_OPS ZepOps = {
    .ExtensionSize = sizeof(ZEP_EXT),
    .Interface = &ZepInterface,
    .Flags = DO_DIRECT_IO,
    .Init = ZepInit,
    .Start = ZepStart,
    .Stop = ZepStop,
    .Enable = ZepEnable,
    .Disable = ZepDisable,
    .Request = ZepRequest,
    .StartIo = ZepStartIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &ZepOps);
}
