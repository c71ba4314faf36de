/*
 * tapeblk: uses the edu card's 4 KB of memory as a block device: ReadFile and WriteFile at an offset move the caller's
 * pages by the card's DMA, one element of the scatter/gather list at a time.
 *
 * The bug: the request is completed before its scatter/gather list is put, so bounce buffers are flushed to, and the
 * list refers to, an MDL that is gone.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-unlocked-while-mapped
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/mapped_device.h"
#include "../include/waiting_requests.h"

#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK    0x64
#define EDU_DMA_SRC    0x80
#define EDU_DMA_DST    0x88
#define EDU_DMA_COUNT  0x90
#define EDU_DMA_CMD    0x98
#define DMA_START      1
#define DMA_TO_RAM     2
#define DMA_IRQ        4
#define IRQ_DMA        0x100
#define CARD_BASE      0x40000
#define CARD_BYTES     4096

static const GUID TapeInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x07 } };

typedef struct DEV {
    FDO F;
    PUCHAR Regs;
    SIZE_T RegBytes;
    PKINTERRUPT Interrupt;
    BOOLEAN IrqLive;            /* by KeSynchronizeExecution */
    ULONG IrqBits;              /* likewise */
    KDPC Dpc;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    WAITQ Waiting;
    /* under HwLock: */
    BOOLEAN Paused;
    PIRP Current;
    PSCATTER_GATHER_LIST List;
    ULONG Element, Done, CardAt;
    BOOLEAN ToCard;
    KEVENT Idle;                /* no Current */
} DEV;

static VOID TapeKick(DEV *d);

static ULONG Get(DEV *d, ULONG at) { return READ_REGISTER_ULONG((PULONG)(d->Regs + at)); }
static VOID Put(DEV *d, ULONG at, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(d->Regs + at), v); }

static BOOLEAN NTAPI TapeIrqOn(PVOID context)
{
    DEV *d = context;
    d->IrqLive = TRUE;
    d->IrqBits = 0;
    return TRUE;
}

static BOOLEAN NTAPI TapeIrqOff(PVOID context)
{
    ((DEV *)context)->IrqLive = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI TapeTakeBits(PVOID context)
{
    ULONG *out = ((PVOID *)context)[1];
    DEV *d = ((PVOID *)context)[0];
    *out = d->IrqBits;
    d->IrqBits = 0;
    return TRUE;
}

static BOOLEAN NTAPI TapeIsr(PKINTERRUPT interrupt, PVOID context)
{
    DEV *d = context;
    ULONG bits;

    UNREFERENCED_PARAMETER(interrupt);
    if (!d->IrqLive)
        return FALSE;
    bits = Get(d, EDU_IRQ_STATUS);
    if (bits == 0 || bits == 0xFFFFFFFF)
        return FALSE;
    Put(d, EDU_IRQ_ACK, bits);
    d->IrqBits |= bits;
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

/* Under HwLock, live: moves the next element. */
static VOID TapeMove(DEV *d)
{
    PSCATTER_GATHER_ELEMENT e = &d->List->Elements[d->Element];
    ULONG ram = e->Address.LowPart, card = CARD_BASE + d->CardAt + d->Done;

    Put(d, EDU_DMA_SRC, d->ToCard ? ram : card);
    Put(d, EDU_DMA_DST, d->ToCard ? card : ram);
    Put(d, EDU_DMA_COUNT, e->Length);
    Put(d, EDU_DMA_CMD, DMA_START | DMA_IRQ | (d->ToCard ? 0 : DMA_TO_RAM));
}

/* Under HwLock: takes the request out of the works, for the caller to finish. */
static PIRP TapeTakeCurrent(DEV *d, PSCATTER_GATHER_LIST *list, BOOLEAN *toCard)
{
    PIRP irp = d->Current;
    *list = d->List;
    *toCard = d->ToCard;
    d->Current = NULL;
    d->List = NULL;
    KeSetEvent(&d->Idle, IO_NO_INCREMENT, FALSE);
    return irp;
}

/* At DISPATCH_LEVEL: ends a request whose list was made. */
static VOID TapeEnd(DEV *d, PIRP irp, PSCATTER_GATHER_LIST list, BOOLEAN toCard, NTSTATUS status, ULONG_PTR info)
{
#ifdef FIXED
    d->Adapter->DmaOperations->PutScatterGatherList(d->Adapter, list, toCard);
#endif
    FdoComplete(irp, status, info);
#ifndef FIXED
    d->Adapter->DmaOperations->PutScatterGatherList(d->Adapter, list, toCard);
#endif
    TapeKick(d);
    IoReleaseRemoveLock(&d->F.RemoveLock, &d->Waiting);
}

static VOID NTAPI TapeDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    DEV *d = context;
    PSCATTER_GATHER_LIST list = NULL;
    PIRP irp = NULL;
    BOOLEAN toCard = FALSE;
    ULONG bits = 0, length = 0;
    PVOID take[2] = { d, &bits };

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
    if (d->F.Live)              /* otherwise the interrupt may be disconnected already */
        KeSynchronizeExecution(d->Interrupt, TapeTakeBits, take);
    if (d->F.Live && d->Current && d->List && (bits & IRQ_DMA) && !(Get(d, EDU_DMA_CMD) & DMA_START)) {
        d->Done += d->List->Elements[d->Element].Length;
        if (++d->Element < d->List->NumberOfElements) {
            TapeMove(d);
        } else {
            length = d->Done;
            irp = TapeTakeCurrent(d, &list, &toCard);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
    if (irp)
        TapeEnd(d, irp, list, toCard, STATUS_SUCCESS, length);
    else
        TapeKick(d);            /* woken up: requests may wait */
}

static VOID NTAPI TapeListReady(PDEVICE_OBJECT dev, PIRP unused, PSCATTER_GATHER_LIST list, PVOID context)
{
    DEV *d = context;
    PIRP irp = NULL;
    BOOLEAN toCard = FALSE;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(unused);
    KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
    d->List = list;
    d->Element = d->Done = 0;
    if (d->F.Live)
        TapeMove(d);
    else
        irp = TapeTakeCurrent(d, &list, &toCard);
    KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
    if (irp)
        TapeEnd(d, irp, list, toCard, STATUS_DEVICE_NOT_CONNECTED, 0);
}

/* Starts the next request if the card is free; at DISPATCH_LEVEL or below. */
static VOID TapeKick(DEV *d)
{
    KIRQL irql;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    for (;;) {
        PIO_STACK_LOCATION sp;
        PIRP irp;
        PSCATTER_GATHER_LIST list;
        BOOLEAN toCard;
        ULONG length;
        NTSTATUS status;

        KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
        irp = !d->F.Live || d->Paused || d->Current ? NULL : WaitqTake(&d->Waiting, NULL);
        if (!irp) {
            KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
            break;
        }
        sp = IoGetCurrentIrpStackLocation(irp);
        toCard = sp->MajorFunction == IRP_MJ_WRITE;
        length = toCard ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
        d->CardAt = toCard ? sp->Parameters.Write.ByteOffset.LowPart : sp->Parameters.Read.ByteOffset.LowPart;
        d->ToCard = toCard;
        d->Current = irp;
        d->List = NULL;
        KeClearEvent(&d->Idle);
        KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);

        KeFlushIoBuffers(irp->MdlAddress, !toCard, TRUE);
        status = d->Adapter->DmaOperations->GetScatterGatherList(d->Adapter, d->F.Self, irp->MdlAddress,
            MmGetMdlVirtualAddress(irp->MdlAddress), length, TapeListReady, d, toCard);
        if (NT_SUCCESS(status))
            break;
        KeAcquireSpinLockAtDpcLevel(&d->F.HwLock);
        irp = TapeTakeCurrent(d, &list, &toCard);
        KeReleaseSpinLockFromDpcLevel(&d->F.HwLock);
        WaitqFinish(&d->Waiting, irp, status, 0);
    }
    KeLowerIrql(irql);
}

static NTSTATUS TapeRequest(FDO *f, PIRP irp, PIO_STACK_LOCATION sp)
{
    DEV *d = (DEV *)f;
    BOOLEAN ready;
    ULONG length;
    LONGLONG offset;
    KIRQL irql;
    NTSTATUS status;

    if (sp->MajorFunction == IRP_MJ_READ) {
        length = sp->Parameters.Read.Length;
        offset = sp->Parameters.Read.ByteOffset.QuadPart;
    } else if (sp->MajorFunction == IRP_MJ_WRITE) {
        length = sp->Parameters.Write.Length;
        offset = sp->Parameters.Write.ByteOffset.QuadPart;
    } else {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (offset < 0 || offset > CARD_BYTES || length > CARD_BYTES - (ULONG)offset)
        return STATUS_END_OF_FILE;
    if (length == 0)
        return STATUS_SUCCESS;
    KeAcquireSpinLock(&f->HwLock, &irql);
    ready = f->Live && !d->Paused;
    KeReleaseSpinLock(&f->HwLock, irql);
    if (!ready)
        return STATUS_DEVICE_NOT_READY;
    if (ADDRESS_AND_SIZE_TO_SPAN_PAGES(MmGetMdlVirtualAddress(irp->MdlAddress), length) > d->MapRegisters)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = WaitqPut(&d->Waiting, irp);
    if (status == STATUS_PENDING)
        TapeKick(d);
    return status;
}

/* Before the card is stopped or powered down: lets the transfer under way finish. */
static VOID TapeDrain(FDO *f)
{
    DEV *d = (DEV *)f;
    LARGE_INTEGER wait = { .QuadPart = -1000000 };
    KIRQL irql;

    KeAcquireSpinLock(&f->HwLock, &irql);
    d->Paused = TRUE;
    KeReleaseSpinLock(&f->HwLock, irql);
    while (KeWaitForSingleObject(&d->Idle, Executive, KernelMode, FALSE, &wait) == STATUS_TIMEOUT) {
        PSCATTER_GATHER_LIST list = NULL;
        PIRP irp = NULL;
        BOOLEAN toCard = FALSE;

        KeAcquireSpinLock(&f->HwLock, &irql);
        if (d->Current && d->List && (!f->Live || Get(d, EDU_DMA_CMD) == 0xFFFFFFFF))     /* the card is gone */
            irp = TapeTakeCurrent(d, &list, &toCard);
        KeReleaseSpinLock(&f->HwLock, irql);
        if (irp) {
            KeRaiseIrql(DISPATCH_LEVEL, &irql);
            TapeEnd(d, irp, list, toCard, STATUS_DEVICE_NOT_CONNECTED, 0);
            KeLowerIrql(irql);
        }
    }
}

static VOID TapeWake(FDO *f)
{
    DEV *d = (DEV *)f;
    d->Paused = FALSE;
    KeSynchronizeExecution(d->Interrupt, TapeIrqOn, d);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
}

static VOID TapeQuiet(FDO *f, BOOLEAN present)
{
    DEV *d = (DEV *)f;
    KeSynchronizeExecution(d->Interrupt, TapeIrqOff, d);
    if (present)
        Put(d, EDU_IRQ_ACK, Get(d, EDU_IRQ_STATUS));
}

static VOID TapeUnmap(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Interrupt) {
        IoDisconnectInterrupt(d->Interrupt);
        KeFlushQueuedDpcs();
        d->Interrupt = NULL;
    }
    if (d->Regs) {
        MmUnmapIoSpace(d->Regs, d->RegBytes);
        d->Regs = NULL;
    }
}

static NTSTATUS TapeMap(FDO *f, PCM_RESOURCE_LIST resources)
{
    DEV *d = (DEV *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR m = FdoFind(resources, CmResourceTypeMemory, 0);

    if (!m || m->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!d->Adapter) {
        DEVICE_DESCRIPTION desc;
        RtlZeroMemory(&desc, sizeof(desc));
        desc.Version = DEVICE_DESCRIPTION_VERSION2;
        desc.Master = TRUE;
        desc.ScatterGather = TRUE;
        desc.Dma32BitAddresses = FALSE; /* the card has 28 address lines */
        desc.InterfaceType = PCIBus;
        desc.MaximumLength = CARD_BYTES;
        d->Adapter = IoGetDmaAdapter(f->Pdo, &desc, &d->MapRegisters);
        if (!d->Adapter)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    d->RegBytes = m->u.Memory.Length;
    d->Regs = MmMapIoSpace(m->u.Memory.Start, d->RegBytes, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    Put(d, EDU_IRQ_ACK, Get(d, EDU_IRQ_STATUS));
    return FdoConnect(resources, TapeIsr, d, &d->Interrupt);
}

static VOID TapeFlush(FDO *f, PFILE_OBJECT file)
{
    DEV *d = (DEV *)f;

    if (file) {
        WaitqDrain(&d->Waiting, file, STATUS_CANCELLED);
    } else {
        PSCATTER_GATHER_LIST list = NULL;
        PIRP irp = NULL;
        BOOLEAN toCard = FALSE;
        KIRQL irql;

        WaitqClose(&d->Waiting, STATUS_DEVICE_NOT_CONNECTED);
        KeAcquireSpinLock(&f->HwLock, &irql);
        if (d->Current && d->List)
            irp = TapeTakeCurrent(d, &list, &toCard);
        KeReleaseSpinLock(&f->HwLock, irql);
        if (irp) {
            KeRaiseIrql(DISPATCH_LEVEL, &irql);
            TapeEnd(d, irp, list, toCard, STATUS_DEVICE_NOT_CONNECTED, 0);
            KeLowerIrql(irql);
        }
    }
}

static NTSTATUS TapeInit(FDO *f)
{
    DEV *d = (DEV *)f;

    KeInitializeDpc(&d->Dpc, TapeDpc, d);
    KeInitializeEvent(&d->Idle, NotificationEvent, TRUE);
    WaitqInit(&d->Waiting, &f->RemoveLock);
    return STATUS_SUCCESS;
}

static VOID TapeFree(FDO *f)
{
    DEV *d = (DEV *)f;

    if (d->Adapter)
        d->Adapter->DmaOperations->PutDmaAdapter(d->Adapter);
}

static const FDO_HOOKS Hooks = {
    sizeof(DEV), DO_DIRECT_IO, &TapeInterface,
    TapeInit, TapeFree, TapeMap, TapeUnmap, TapeWake, TapeQuiet, TapeFlush, TapeRequest, TapeDrain
};
