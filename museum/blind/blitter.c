/*
 * blitter: reads and writes the 4096 bytes of on-card memory of QEMU's edu device by the card's DMA engine and a
 * common buffer, one transfer at a time, others wait in a cancel-safe queue. Each transfer is watched by a timer.
 * Registers: 0x24 interrupt status, 0x64 acknowledge, 0x80 source, 0x88 destination, 0x90 count, 0x98 command
 * (1 start, 2 card to RAM, 4 interrupt 0x100 at the end); card memory at 0x40000.
 *
 * The bug: the DPC of the interrupt and the DPC of the watch timer take the current request without exclusion, so that
 * a transfer which ends just when its time is up is completed by both.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, double-completion, bad-pointer
 * Needs: device, schedule
 */
#include "../include/gated_device.h"

#define REG_IRQ_STATUS 0x24
#define REG_IRQ_ACK    0x64
#define REG_DMA_SRC    0x80
#define REG_DMA_DST    0x88
#define REG_DMA_CNT    0x90
#define REG_DMA_CMD    0x98
#define DMA_RUN        1u
#define DMA_TO_RAM     2u
#define DMA_IRQ        4u
#define IRQ_DMA        0x100u
#define CARD_MEMORY    0x40000
#define CARD_BYTES     4096u
#define REGS_NEEDED    0x41000
#define TIME_LIMIT     10000000LL       /* 1 s */

#define IOCTL_BLIT_STATISTICS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _BLIT_STATISTICS {
    ULONG Transfers;
    ULONG TimeOuts;
    ULONG Interrupts;
    ULONG Broken;
} BLIT_STATISTICS;

/* DEVICE_DESCRIPTION of version 3 (Windows 8) */
typedef struct _BLIT_DESCRIPTION {
    DEVICE_DESCRIPTION Base;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} BLIT_DESCRIPTION;

typedef struct _BLIT {
    BQ_DEVICE Bq;
    PUCHAR Regs;
    SIZE_T RegsLength;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    KDPC WatchDpc;
    KTIMER Watch;
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS CommonLogical;
    KSPIN_LOCK Lock;                /* Current, Deadline, Broken, the DMA registers */
    PIRP Current;
    ULONGLONG Deadline;
    BOOLEAN Broken;
    LONG Transfers, TimeOuts, Interrupts;
    KSPIN_LOCK QueueLock;           /* taken inside Lock */
    LIST_ENTRY Queue;
    IO_CSQ Csq;
} BLIT, *PBLIT;

static const GUID BlitInterface = { 0x5a1f2c11, 0x77b2, 0x4a0e, { 0x91, 0x20, 0x11, 0x83, 0x55, 0x0a, 0xe1, 0x01 } };

static ULONG Rd(PBLIT B, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(B->Regs + Reg)); }
static VOID Wr(PBLIT B, ULONG Reg, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(B->Regs + Reg), V); }

static BOOLEAN BlitIsRead(PIRP Irp) { return IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_READ; }

static ULONG BlitLength(PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    return sp->MajorFunction == IRP_MJ_READ ? sp->Parameters.Read.Length : sp->Parameters.Write.Length;
}

static LONGLONG BlitOffset(PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    return sp->MajorFunction == IRP_MJ_READ ? sp->Parameters.Read.ByteOffset.QuadPart
                                            : sp->Parameters.Write.ByteOffset.QuadPart;
}

/* Starts the next request if the engine is free. */
static VOID BlitPump(PBLIT B)
{
    KIRQL irql;

    KeAcquireSpinLock(&B->Lock, &irql);
    if (B->Current == NULL && !B->Broken) {
        PIRP irp = IoCsqRemoveNextIrp(&B->Csq, NULL);

        if (irp != NULL) {
            ULONG card = CARD_MEMORY + (ULONG)BlitOffset(irp);
            BOOLEAN read = BlitIsRead(irp);
            LARGE_INTEGER due;

            if (!read)
                RtlCopyMemory(B->Common, irp->Tail.Overlay.DriverContext[0], BlitLength(irp));
            B->Current = irp;
            B->Deadline = KeQueryInterruptTime() + TIME_LIMIT;
            Wr(B, REG_DMA_SRC, read ? card : B->CommonLogical.LowPart);
            Wr(B, REG_DMA_DST, read ? B->CommonLogical.LowPart : card);
            Wr(B, REG_DMA_CNT, BlitLength(irp));
            Wr(B, REG_DMA_CMD, DMA_RUN | DMA_IRQ | (read ? DMA_TO_RAM : 0));
            due.QuadPart = -TIME_LIMIT - 100000;
            KeSetTimer(&B->Watch, due, &B->WatchDpc);
        }
    }
    KeReleaseSpinLock(&B->Lock, irql);
}

static VOID BlitFail(PBLIT B, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&B->Csq, NULL)) != NULL) {
        BqComplete(&B->Bq, irp, Status, 0);
        BqLeave(&B->Bq);
    }
}

static VOID NTAPI BlitDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PBLIT b = Context;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&b->Lock);
#endif
    irp = b->Current;
    if (irp != NULL && (Rd(b, REG_DMA_CMD) & DMA_RUN))
        irp = NULL;                                 /* not at its end, or the card is gone */
    if (irp != NULL) {
        if (BlitIsRead(irp))
            RtlCopyMemory(irp->Tail.Overlay.DriverContext[0], b->Common, BlitLength(irp));
        KeCancelTimer(&b->Watch);
        b->Current = NULL;
    }
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
#endif
    if (irp != NULL) {
        ULONG length = BlitLength(irp);

        InterlockedIncrement(&b->Transfers);
        BlitPump(b);                                /* while the request still keeps the gate */
        BqComplete(&b->Bq, irp, STATUS_SUCCESS, length);
        BqLeave(&b->Bq);
    }
}

static VOID NTAPI BlitWatchDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PBLIT b = Context;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&b->Lock);
#endif
    irp = b->Current;
    if (irp != NULL && KeQueryInterruptTime() < b->Deadline)
        irp = NULL;                                 /* the timer of an earlier transfer */
    if (irp != NULL) {
        b->Broken = TRUE;                           /* until the next start */
        b->Current = NULL;
    }
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
#endif
    if (irp != NULL) {
        InterlockedIncrement(&b->TimeOuts);
        BlitFail(b, STATUS_IO_DEVICE_ERROR);
        BqComplete(&b->Bq, irp, STATUS_IO_TIMEOUT, 0);
        BqLeave(&b->Bq);
    }
}

static BOOLEAN NTAPI BlitIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PBLIT b = Context;
    ULONG status = Rd(b, REG_IRQ_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0 || status == 0xFFFFFFFF)
        return FALSE;
    Wr(b, REG_IRQ_ACK, status);
    InterlockedIncrement(&b->Interrupts);
    if (status & IRQ_DMA)
        KeInsertQueueDpc(&b->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PBLIT b = (PBLIT)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG length;
    LONGLONG offset;
    BOOLEAN broken;
    KIRQL irql;

    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        BLIT_STATISTICS *s = Irp->AssociatedIrp.SystemBuffer;

        if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_BLIT_STATISTICS)
            return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*s))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        s->Transfers = (ULONG)b->Transfers;
        s->TimeOuts = (ULONG)b->TimeOuts;
        s->Interrupts = (ULONG)b->Interrupts;
        s->Broken = b->Broken;
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(*s));
    }

    length = BlitLength(Irp);
    offset = BlitOffset(Irp);
    if (length == 0)
        return BqComplete(Dev, Irp, STATUS_SUCCESS, 0);
    if (offset < 0 || offset >= CARD_BYTES)
        return BqComplete(Dev, Irp, STATUS_INVALID_PARAMETER, 0);
    if (length > CARD_BYTES - (ULONG)offset)
        return BqComplete(Dev, Irp, STATUS_INVALID_PARAMETER, 0);
    Irp->Tail.Overlay.DriverContext[0] = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (Irp->Tail.Overlay.DriverContext[0] == NULL)
        return BqComplete(Dev, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);

    BqStay(Dev);
    IoCsqInsertIrp(&b->Csq, Irp, NULL);
    KeAcquireSpinLock(&b->Lock, &irql);
    broken = b->Broken;
    KeReleaseSpinLock(&b->Lock, irql);
    if (broken)
        BlitFail(b, STATUS_IO_DEVICE_ERROR);
    else
        BlitPump(b);
    return STATUS_PENDING;
}

/* ---- queue ---- */

static VOID NTAPI BlitInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, BLIT, Csq)->Queue, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI BlitRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI BlitPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PBLIT b = CONTAINING_RECORD(Csq, BLIT, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : b->Queue.Flink;

    for (; e != &b->Queue; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (File == NULL || IoGetCurrentIrpStackLocation(irp)->FileObject == (PFILE_OBJECT)File)
            return irp;
    }
    return NULL;
}

static VOID NTAPI BlitLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, BLIT, Csq)->QueueLock, Irql);
}

static VOID NTAPI BlitUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, BLIT, Csq)->QueueLock, Irql);
}

static VOID NTAPI BlitCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PBLIT b = CONTAINING_RECORD(Csq, BLIT, Csq);

    BqComplete(&b->Bq, Irp, STATUS_CANCELLED, 0);
    BqLeave(&b->Bq);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File)
{
    PBLIT b = (PBLIT)Dev;
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&b->Csq, File)) != NULL)
        BlitCancelled(&b->Csq, irp);
}

/* ---- start and stop ---- */

static BOOLEAN BlitEngineStops(PBLIT B)
{
    LARGE_INTEGER wait;
    ULONG i;

    wait.QuadPart = -100000;                            /* 10 ms */
    for (i = 0; i < 100; i++) {
        ULONG cmd = Rd(B, REG_DMA_CMD);
        if (!(cmd & DMA_RUN) || cmd == 0xFFFFFFFF)
            return TRUE;
        KeDelayExecutionThread(KernelMode, FALSE, &wait);
    }
    return FALSE;
}

static VOID BlitRelease(PBLIT B)
{
    if (B->Common != NULL)
        B->Adapter->DmaOperations->FreeCommonBuffer(B->Adapter, CARD_BYTES, B->CommonLogical, B->Common, FALSE);
    B->Common = NULL;
    if (B->Adapter != NULL)
        B->Adapter->DmaOperations->PutDmaAdapter(B->Adapter);
    B->Adapter = NULL;
    if (B->Regs != NULL)
        MmUnmapIoSpace(B->Regs, B->RegsLength);
    B->Regs = NULL;
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PBLIT b = (PBLIT)Dev;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = BqFind(List, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = BqFind(List, CmResourceTypeInterrupt, 0);
    BLIT_DESCRIPTION d;
    ULONG registers;
    NTSTATUS status;

    if (mem == NULL || irq == NULL || mem->u.Memory.Length < REGS_NEEDED)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    b->RegsLength = mem->u.Memory.Length;
    b->Regs = MmMapIoSpace(mem->u.Memory.Start, b->RegsLength, MmNonCached);
    if (b->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    RtlZeroMemory(&d, sizeof(d));
    d.Base.Version = 3;
    d.Base.Master = TRUE;
    d.Base.Dma32BitAddresses = TRUE;
    d.Base.InterfaceType = PCIBus;
    d.Base.MaximumLength = CARD_BYTES;
    d.DmaAddressWidth = 28;
    b->Adapter = IoGetDmaAdapter(Dev->Pdo, &d.Base, &registers);
    if (b->Adapter == NULL) {                           /* an older system */
        d.Base.Version = DEVICE_DESCRIPTION_VERSION1;
        b->Adapter = IoGetDmaAdapter(Dev->Pdo, &d.Base, &registers);
    }
    if (b->Adapter == NULL) {
        BlitRelease(b);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    b->Common = b->Adapter->DmaOperations->AllocateCommonBuffer(b->Adapter, CARD_BYTES, &b->CommonLogical, FALSE);
    if (b->Common == NULL || b->CommonLogical.QuadPart + CARD_BYTES > 0x10000000LL || !BlitEngineStops(b)) {
        BlitRelease(b);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    b->Broken = FALSE;
    Wr(b, REG_IRQ_ACK, Rd(b, REG_IRQ_STATUS));
    status = BqConnect(&b->Interrupt, BlitIsr, b, irq);
    if (!NT_SUCCESS(status)) {
        b->Interrupt = NULL;
        BlitRelease(b);
    }
    return status;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    PBLIT b = (PBLIT)Dev;

    /* No request is in the gate, so none is queued or current. */
    IoDisconnectInterrupt(b->Interrupt);
    b->Interrupt = NULL;
    KeCancelTimer(&b->Watch);
    KeFlushQueuedDpcs();
    if (BqTouchable(Dev) && !BlitEngineStops(b)) {
        /* A transfer that never ends: the card may still write to the buffer, it must stay where it is. */
        b->Common = NULL;
        b->Adapter = NULL;
    }
    BlitRelease(b);
}

static VOID BqPowerDown(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

static VOID BqPowerUp(PBQ_DEVICE Dev)
{
    PBLIT b = (PBLIT)Dev;
    KIRQL irql;

    KeAcquireSpinLock(&b->Lock, &irql);
    b->Broken = (Rd(b, REG_DMA_CMD) & DMA_RUN) != 0;
    KeReleaseSpinLock(&b->Lock, irql);
}

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    PBLIT b = (PBLIT)Dev;

    KeInitializeSpinLock(&b->Lock);
    KeInitializeSpinLock(&b->QueueLock);
    InitializeListHead(&b->Queue);
    KeInitializeDpc(&b->Dpc, BlitDpc, b);
    KeInitializeDpc(&b->WatchDpc, BlitWatchDpc, b);
    KeInitializeTimer(&b->Watch);
    return IoCsqInitialize(&b->Csq, BlitInsert, BlitRemove, BlitPeek, BlitLock, BlitUnlock, BlitCancelled);
}

static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(BLIT), DO_DIRECT_IO, &BlitInterface);
    return STATUS_SUCCESS;
}
