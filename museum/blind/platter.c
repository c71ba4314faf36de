/*
 * platter: a solid-state disc card. Reads and writes of whole blocks of 512 bytes (direct I/O, up to 64 KiB) are moved by the card's bus master
 * straight to and from the caller's pages; the card is given one contiguous piece after the other.
 *
 * The card (BAR0, 4096 bytes): 0x00 = identification 0x504C4154; 0x04 = command (bit 0 go; bit 1 direction, 1 = to RAM; bit 2 abort: when the write
 * has arrived the card accesses no memory any more and is not busy); 0x08 = status (bit 0 busy, bit 1 the last piece failed); 0x0C = interrupt
 * status (bit 0 piece done; a one written clears it); 0x10, 0x14 = address, low and high; 0x18 = bytes, any number up to 65536; 0x1C = position on
 * the disc in bytes; 0x20 = interrupt enable (bit 0); 0x24 = capacity in blocks. Addresses have 64 bits. D3 resets it, the disc keeps its data.
 *
 * The bug: the card is given the address of the list's first piece with the length of the whole transfer. A buffer whose pages are not neighbours
 * in physical memory is overrun: the card writes over (or stores on the disc) pages that belong to others.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: dma-length-of-whole
 * Needs: nothing
 */
#include "../include/gated_queue.h"

#define REG_IDENT 0x00
#define REG_COMMAND 0x04
#define REG_STATUS 0x08
#define REG_INT_STATUS 0x0C
#define REG_ADDRESS_LOW 0x10
#define REG_ADDRESS_HIGH 0x14
#define REG_BYTES 0x18
#define REG_POSITION 0x1C
#define REG_INT_ENABLE 0x20
#define REG_BLOCKS 0x24
#define REGS_SIZE 0x1000
#define IDENT 0x504C4154
#define COMMAND_GO 1
#define COMMAND_TO_RAM 2
#define COMMAND_ABORT 4
#define STATUS_BUSY_BIT 1
#define STATUS_FAILED_BIT 2
#define INT_DONE 1
#define BLOCK 512
#define BLOCKS_MAX 0x7FFFFF /* positions have 32 bits */
#define TRANSFER_MAX (64 * 1024)
#define ALL_ONES 0xFFFFFFFF
#define LIMIT_100NS (3 * 10 * 1000 * 1000)

#define IOCTL_PLATTER_BLOCKS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x970, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID PlatterGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x33}};

typedef struct _PLATTER {
    AK Ak;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN On; /* guarded by the interrupt's lock: the ISR may touch the card */
    PDMA_ADAPTER Adapter;
    volatile ULONG Blocks; /* set by the first start, the same at each */
    KDPC Dpc;
    KTIMER Limit;
    KDPC LimitDpc;
    KSPIN_LOCK Lock; /* guards all below */
    PIRP Current;
    BOOLEAN Over; /* Status is final, the limit's DPC is on its way and completes the request */
    NTSTATUS Status;
    BOOLEAN Write;
    PSCATTER_GATHER_LIST List;
    ULONG Element;
    ULONG Piece; /* bytes the card is at */
    ULONG Left;  /* bytes from this piece on */
    ULONG Position;
} PLATTER, *PPLATTER;

static ULONG Get(PPLATTER p, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(p->Regs + reg));
}

static VOID Put(PPLATTER p, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(p->Regs + reg), value);
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PPLATTER p = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!p->On)
        return FALSE;
    bits = Get(p, REG_INT_STATUS);
    if (bits == ALL_ONES || !(bits & INT_DONE))
        return FALSE;
    Put(p, REG_INT_STATUS, INT_DONE);
    KeInsertQueueDpc(&p->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN SyncOn(PVOID Context)
{
    PPLATTER p = Context;

    p->On = TRUE;
    Put(p, REG_INT_STATUS, INT_DONE);
    Put(p, REG_INT_ENABLE, INT_DONE);
    return TRUE;
}

static BOOLEAN SyncOff(PVOID Context)
{
    PPLATTER p = Context;

    p->On = FALSE;
    Put(p, REG_INT_ENABLE, 0);
    return TRUE;
}

static BOOLEAN SyncForget(PVOID Context)
{
    ((PPLATTER)Context)->On = FALSE;
    return TRUE;
}

/* Behind this the card accesses no memory any more. */
static VOID Abort(PPLATTER p)
{
    Put(p, REG_COMMAND, COMMAND_ABORT);
    (VOID)Get(p, REG_STATUS); /* the write has arrived */
}

/* Gives the card its next piece; the lock is held, something is left. */
static VOID StartPiece(PPLATTER p)
{
    PSCATTER_GATHER_ELEMENT e = (PSCATTER_GATHER_ELEMENT)((PUCHAR)p->List + FIELD_OFFSET(SCATTER_GATHER_LIST, Elements)) + p->Element;

#ifdef FIXED
    p->Piece = e->Length < p->Left ? e->Length : p->Left;
#else
    p->Piece = p->Left;
#endif
    Put(p, REG_ADDRESS_LOW, e->Address.LowPart);
    Put(p, REG_ADDRESS_HIGH, (ULONG)e->Address.HighPart);
    Put(p, REG_BYTES, p->Piece);
    Put(p, REG_POSITION, p->Position);
    Put(p, REG_COMMAND, COMMAND_GO | (p->Write ? 0 : COMMAND_TO_RAM));
}

/* Puts the list back and completes; DISPATCH. */
static VOID Finish(PPLATTER p, PIRP irp, PSCATTER_GATHER_LIST list, NTSTATUS status)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    BOOLEAN write = s->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? s->Parameters.Write.Length : s->Parameters.Read.Length;

    p->Adapter->DmaOperations->PutScatterGatherList(p->Adapter, list, write);
    AkDone(&p->Ak, irp, status, NT_SUCCESS(status) ? length : 0);
}

/* The card has done a piece. */
static VOID PieceDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PPLATTER p = Context;
    PSCATTER_GATHER_LIST list = NULL;
    NTSTATUS status = STATUS_SUCCESS;
    PIRP irp = NULL;
    ULONG state;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    if (p->Current && !p->Over) {
        state = Get(p, REG_STATUS);
        if (state != ALL_ONES && !(state & STATUS_BUSY_BIT)) { /* all ones: it is gone, the limit will find out */
            if (state & STATUS_FAILED_BIT) {
                p->Status = STATUS_DEVICE_DATA_ERROR;
                p->Over = TRUE;
            } else {
                p->Left -= p->Piece;
                p->Position += p->Piece;
                p->Element++;
                if (p->Left == 0) {
                    p->Status = STATUS_SUCCESS;
                    p->Over = TRUE;
                } else if (p->Element < p->List->NumberOfElements) {
                    StartPiece(p);
                } else {
                    p->Status = STATUS_DEVICE_DATA_ERROR;
                    p->Over = TRUE;
                }
            }
            if (p->Over && KeCancelTimer(&p->Limit)) {
                irp = p->Current;
                list = p->List;
                status = p->Status;
                p->Current = NULL;
                p->List = NULL;
            }
        }
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (irp)
        Finish(p, irp, list, status);
}

/* The time is over; or the transfer was over when this was already on its way. */
static VOID LimitDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PPLATTER p = Context;
    PSCATTER_GATHER_LIST list;
    NTSTATUS status;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    irp = p->Current;
    list = p->List;
    status = p->Status;
    p->Current = NULL;
    p->List = NULL;
    if (irp && !p->Over) {
        Abort(p);
        status = STATUS_IO_TIMEOUT;
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (irp)
        Finish(p, irp, list, status);
}

/* The caller's pages are known to the bus. DISPATCH */
static VOID ListReady(PDEVICE_OBJECT Device, PIRP Unused, PSCATTER_GATHER_LIST List, PVOID Context)
{
    PIRP irp = Context;
    PPLATTER p = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER limit;
    ULONG state;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Unused);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    state = Get(p, REG_STATUS);
    if (state == ALL_ONES) {
        status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (state & STATUS_BUSY_BIT) {
        Abort(p);
        status = STATUS_DEVICE_BUSY;
    } else {
        p->Current = irp;
        p->Over = FALSE;
        p->Status = STATUS_SUCCESS;
        p->Write = s->MajorFunction == IRP_MJ_WRITE;
        p->List = List;
        p->Element = 0;
        p->Left = p->Write ? s->Parameters.Write.Length : s->Parameters.Read.Length;
        p->Position = p->Write ? s->Parameters.Write.ByteOffset.LowPart : s->Parameters.Read.ByteOffset.LowPart;
        limit.QuadPart = -(LONGLONG)LIMIT_100NS;
        KeSetTimer(&p->Limit, limit, &p->LimitDpc);
        StartPiece(p);
    }
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
    if (!NT_SUCCESS(status))
        Finish(p, irp, List, status);
}

static VOID PlatterStartIo(PAK k, PIRP Irp)
{
    PPLATTER p = (PPLATTER)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = s->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? s->Parameters.Write.Length : s->Parameters.Read.Length;
    NTSTATUS status;
    KIRQL irql;

    KeFlushIoBuffers(Irp->MdlAddress, !write, TRUE);
    AkHold(k); /* the request may be over before the call returns; the adapter must stay until then */
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    status = p->Adapter->DmaOperations->GetScatterGatherList(p->Adapter, k->Self, Irp->MdlAddress, MmGetMdlVirtualAddress(Irp->MdlAddress), length,
                                                             ListReady, Irp, write);
    KeLowerIrql(irql);
    AkLeave(k);
    if (!NT_SUCCESS(status))
        AkDone(k, Irp, status, 0);
}

static NTSTATUS PlatterIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PPLATTER p = (PPLATTER)k;
    ULONGLONG capacity = (ULONGLONG)p->Blocks * BLOCK;
    LONGLONG offset;
    ULONG length;

    if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_PLATTER_BLOCKS)
            return STATUS_INVALID_DEVICE_REQUEST;
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = p->Blocks;
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    offset = s->MajorFunction == IRP_MJ_WRITE ? s->Parameters.Write.ByteOffset.QuadPart : s->Parameters.Read.ByteOffset.QuadPart;
    length = s->MajorFunction == IRP_MJ_WRITE ? s->Parameters.Write.Length : s->Parameters.Read.Length;
    if (length == 0)
        return STATUS_SUCCESS; /* there is no MDL then */
    if (length > TRANSFER_MAX || length % BLOCK || offset < 0 || offset % BLOCK)
        return STATUS_INVALID_PARAMETER;
    if ((ULONGLONG)offset >= capacity || length > capacity - (ULONGLONG)offset)
        return STATUS_INVALID_PARAMETER;
    return AkQueue(k, Irp);
}

static VOID Release(PPLATTER p)
{
    if (p->Interrupt) {
        IoDisconnectInterrupt(p->Interrupt);
        p->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (p->Adapter)
        p->Adapter->DmaOperations->PutDmaAdapter(p->Adapter);
    if (p->Regs)
        MmUnmapIoSpace(p->Regs, REGS_SIZE);
    p->Adapter = NULL;
    p->Regs = NULL;
}

static NTSTATUS PlatterStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PPLATTER p = (PPLATTER)k;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = AkMemory(Translated, 0), line = AkLine(Translated);
    DEVICE_DESCRIPTION description;
    ULONG registers, blocks;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    if (!memory || !line || memory->u.Memory.Length < REGS_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    p->Regs = MmMapIoSpace(memory->u.Memory.Start, REGS_SIZE, MmNonCached);
    if (!p->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = STATUS_NO_SUCH_DEVICE;
    if (Get(p, REG_IDENT) != IDENT)
        goto failed;
    Abort(p);
    Put(p, REG_INT_ENABLE, 0);
    blocks = Get(p, REG_BLOCKS);
    status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (blocks == 0 || blocks > BLOCKS_MAX || (p->Blocks && p->Blocks != blocks))
        goto failed;
    p->Blocks = blocks;
    RtlZeroMemory(&description, sizeof description);
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = TRANSFER_MAX;
    status = STATUS_INSUFFICIENT_RESOURCES;
    p->Adapter = IoGetDmaAdapter(k->Pdo, &description, &registers);
    if (!p->Adapter)
        goto failed;
    status = AkConnect(line, Isr, p, &p->Interrupt);
    if (!NT_SUCCESS(status)) {
        p->Interrupt = NULL;
        goto failed;
    }
    KeSynchronizeExecution(p->Interrupt, SyncOn, p);
    return STATUS_SUCCESS;

failed:
    Release(p);
    return status;
}

static VOID PlatterStop(PAK k, BOOLEAN Touch)
{
    PPLATTER p = (PPLATTER)k;

    KeSynchronizeExecution(p->Interrupt, Touch ? SyncOff : SyncForget, p);
    Release(p);
}

static VOID PlatterPowerDown(PAK k)
{
    KeSynchronizeExecution(((PPLATTER)k)->Interrupt, SyncOff, k);
}

static VOID PlatterPowerUp(PAK k)
{
    KeSynchronizeExecution(((PPLATTER)k)->Interrupt, SyncOn, k);
}

static NTSTATUS PlatterInit(PAK k)
{
    PPLATTER p = (PPLATTER)k;

    KeInitializeSpinLock(&p->Lock);
    KeInitializeDpc(&p->Dpc, PieceDpc, p);
    KeInitializeTimer(&p->Limit);
    KeInitializeDpc(&p->LimitDpc, LimitDpc, p);
    return STATUS_SUCCESS;
}

static const AK_OPS AkOps = {
    .Interface = &PlatterGuid,
    .ExtSize = sizeof(PLATTER),
    .DeviceFlags = DO_DIRECT_IO,
    .Init = PlatterInit,
    .Start = PlatterStart,
    .Stop = PlatterStop,
    .PowerDown = PlatterPowerDown,
    .PowerUp = PlatterPowerUp,
    .Io = PlatterIo,
    .StartIo = PlatterStartIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
