/*
 * ringown: sends telegrams of up to 512 bytes through a card that works off a ring of 16 descriptors in memory. The card (BAR0, 4 KiB): 0x00
 * identification 0x1DA70002; 0x04 CTRL (bit 0 run, bit 1 interrupts, bit 31 reset: DMA has ceased when the write is done, the card is back at the first
 * descriptor); 0x08 STATUS (bit 1: a telegram was sent; cleared by writing one, raises the interrupt); 0x10, 0x14 address of the ring. While run is set
 * the card looks at the next descriptor every few microseconds; one whose OWN bit (31 of the first word; below it in bits 0-15 the length) is set it
 * carries out at once and clears the bit, setting bit 30 if it failed. 64-bit DMA.
 *
 * The bug: the driver hands a descriptor over (OWN) before it has written address and tag into it; the card, which looks on its own account, can send
 * memory from the address the descriptor had the last time (or 0).
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: dma-after-unmap
 * Needs: schedule
 */
#include "../include/served_by_ticks.h"

#define REG_ID 0x00
#define REG_CTRL 0x04
#define REG_STATUS 0x08
#define REG_BASE_LOW 0x10
#define REG_BASE_HIGH 0x14
#define CARD_IS 0x1DA70002u
#define CTRL_RUN 0x00000001u
#define CTRL_IRQ 0x00000002u
#define CTRL_RESET 0x80000000u
#define STATUS_SENT 0x2u
#define WINDOW 0x1000

#define OWN 0x80000000u
#define FAILED 0x40000000u
#define DESCRIPTORS 16
#define SLOTS 5
#define TELEGRAM 512
#define FENCE() __asm__ volatile("mfence" : : : "memory")
#define MEMORY (DESCRIPTORS * sizeof(DESCRIPTOR) + SLOTS * TELEGRAM)

static const GUID RingInterface = { 0x6d1d0a5d, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x0d } };

typedef struct _DESCRIPTOR {
    volatile ULONG Control;
    volatile ULONG Tag;
    volatile ULONGLONG Address;
} DESCRIPTOR, *PDESCRIPTOR;

typedef struct _DEV {
    BF B;
    PVOID Regs;
    PKINTERRUPT Irq;
    KDPC Dpc;
    PDMA_ADAPTER Adapter;
    PUCHAR Memory; /* the ring, then the slots */
    PHYSICAL_ADDRESS At;
    BOOLEAN Powered; /* with the interrupt held off */
    ULONG Next;      /* descriptor; this and the next under B.Lock */
    ULONG Sequence;
} DEV, *PDEV;

static PDESCRIPTOR Descriptor(PDEV d, ULONG i)
{
    return (PDESCRIPTOR)(d->Memory + i * sizeof(DESCRIPTOR));
}

static BOOLEAN NTAPI Isr(PKINTERRUPT irq, PVOID context)
{
    PDEV d = context;
    ULONG status;

    UNREFERENCED_PARAMETER(irq);
    if (!d->Powered)
        return FALSE;
    status = BfIn(d->Regs, REG_STATUS);
    if (status == ~0u || !(status & STATUS_SENT))
        return FALSE;
    BfOut(d->Regs, REG_STATUS, STATUS_SENT);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

/* DMA has ceased when this returns. */
static VOID Reset(PDEV d)
{
    BfOut(d->Regs, REG_CTRL, CTRL_RESET);
    (void)BfIn(d->Regs, REG_STATUS); /* the write has arrived */
    BfOut(d->Regs, REG_STATUS, STATUS_SENT);
}

/* Nothing under way: an empty ring, card and driver at its beginning. */
static VOID Setup(PDEV d)
{
    Reset(d);
    RtlZeroMemory(d->Memory, DESCRIPTORS * sizeof(DESCRIPTOR));
    FENCE();
    d->Next = 0;
    BfOut(d->Regs, REG_BASE_LOW, d->At.LowPart);
    BfOut(d->Regs, REG_BASE_HIGH, (ULONG)d->At.HighPart);
    BfOut(d->Regs, REG_CTRL, CTRL_RUN | CTRL_IRQ);
}

static BOOLEAN NTAPI Quiet(PVOID context)
{
    PDEV d = context;

    if (d->Powered)
        Reset(d);
    d->Powered = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI Wake(PVOID context)
{
    PDEV d = context;

    d->Powered = TRUE;
    Setup(d);
    return TRUE;
}

/* From the interrupt and from the poll. */
static VOID Look(PBF b)
{
    PDEV d = (PDEV)b;
    PIRP irp = NULL;
    ULONG control = 0, length;

    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    if (b->Active) {
        control = Descriptor(d, d->Next)->Control;
        if (!(control & OWN)) {
            irp = b->Active;
            b->Active = NULL;
            d->Next = (d->Next + 1) % DESCRIPTORS;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    if (!irp)
        return;
    length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
    if (control & FAILED)
        BfDone(b, irp, STATUS_IO_DEVICE_ERROR, 0);
    else
        BfDone(b, irp, STATUS_SUCCESS, length);
}

static VOID NTAPI IrqDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    Look(context);
}

/* The slots go round apart from the descriptors. */
static NTSTATUS StartIo(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PDESCRIPTOR desc = Descriptor(d, d->Next);
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
    ULONG offset;

    if (BfIn(d->Regs, REG_STATUS) == ~0u)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (desc->Control & OWN)
        return STATUS_DEVICE_BUSY;
    d->Sequence++;
    offset = DESCRIPTORS * sizeof(DESCRIPTOR) + (d->Sequence % SLOTS) * TELEGRAM;
    RtlCopyMemory(d->Memory + offset, irp->AssociatedIrp.SystemBuffer, length);
    FENCE();
#ifdef FIXED
    desc->Tag = d->Sequence;
    desc->Address = (ULONGLONG)d->At.QuadPart + offset;
    FENCE();
    desc->Control = OWN | length;
#else
    desc->Control = OWN | length;
    desc->Tag = d->Sequence;
    desc->Address = (ULONGLONG)d->At.QuadPart + offset;
#endif
    return STATUS_PENDING;
}

static VOID Expire(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;

    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    Setup(d);
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID Release(PDEV d)
{
    if (d->Memory) {
        d->Adapter->DmaOperations->FreeCommonBuffer(d->Adapter, MEMORY, d->At, d->Memory, TRUE);
        d->Memory = NULL;
    }
    if (d->Adapter) {
        d->Adapter->DmaOperations->PutDmaAdapter(d->Adapter);
        d->Adapter = NULL;
    }
    if (d->Regs) {
        MmUnmapIoSpace(d->Regs, WINDOW);
        d->Regs = NULL;
    }
}

static NTSTATUS Start(PBF b, PBF_RES res)
{
    PDEV d = (PDEV)b;
    DEVICE_DESCRIPTION dd;
    PKINTERRUPT irq;
    ULONG maps;
    NTSTATUS st = STATUS_DEVICE_CONFIGURATION_ERROR;

    if (res->Windows < 1 || res->Window[0].Size < WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(res->Window[0].At, WINDOW, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (BfIn(d->Regs, REG_ID) != CARD_IS)
        goto fail;
    Reset(d);
    RtlZeroMemory(&dd, sizeof(dd));
    dd.Version = DEVICE_DESCRIPTION_VERSION;
    dd.Master = TRUE;
    dd.ScatterGather = TRUE;
    dd.Dma32BitAddresses = TRUE;
    dd.Dma64BitAddresses = TRUE;
    dd.InterfaceType = PCIBus;
    dd.MaximumLength = MEMORY;
    st = STATUS_INSUFFICIENT_RESOURCES;
    d->Adapter = IoGetDmaAdapter(b->Pdo, &dd, &maps);
    if (!d->Adapter)
        goto fail;
    d->Memory = d->Adapter->DmaOperations->AllocateCommonBuffer(d->Adapter, MEMORY, &d->At, TRUE);
    if (!d->Memory)
        goto fail;
    RtlZeroMemory(d->Memory, MEMORY);
    d->Powered = FALSE;
    st = BfConnect(res, Isr, d, &irq);
    if (!NT_SUCCESS(st))
        goto fail;
    d->Irq = irq;
    KeSynchronizeExecution(irq, Wake, d);
    return STATUS_SUCCESS;

fail:
    Release(d);
    return st;
}

static VOID Stop(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Quiet, d);
    IoDisconnectInterrupt(d->Irq);
    d->Irq = NULL;
    KeFlushQueuedDpcs();
    Release(d);
}

static VOID PowerDown(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Quiet, d);
}

static VOID PowerUp(PBF b)
{
    PDEV d = (PDEV)b;

    KeSynchronizeExecution(d->Irq, Wake, d);
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    UNREFERENCED_PARAMETER(b);
    UNREFERENCED_PARAMETER(irp);
    if (sp->MajorFunction != IRP_MJ_WRITE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (sp->Parameters.Write.Length > TELEGRAM)
        return STATUS_INVALID_BUFFER_SIZE;
    if (sp->Parameters.Write.Length == 0)
        return STATUS_SUCCESS;
    return BF_QUEUE;
}

static NTSTATUS Add(PBF b)
{
    PDEV d = (PDEV)b;

    KeInitializeDpc(&d->Dpc, IrqDpc, d);
    return STATUS_SUCCESS;
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &RingInterface,
    .IoFlags = DO_BUFFERED_IO,
    .Limit = 20,
    .Add = Add,
    .Start = Start,
    .Stop = Stop,
    .PowerDown = PowerDown,
    .PowerUp = PowerUp,
    .StartIo = StartIo,
    .Poll = Look,
    .Expire = Expire,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
