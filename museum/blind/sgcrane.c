/*
 * sgcrane: writes of programs go by scatter/gather DMA to a plotter card. The card (BAR0, 4 KiB): 0x00 identification 0x1DA70001; 0x04 CTRL (bit 0
 * run, bit 1 interrupt when done, bit 31 reset: DMA has ceased when the write is done); 0x08 STATUS (bit 0 busy, set from the writing of run on; bit 1
 * done, bit 2 failed: both cleared by writing ones, both raise the interrupt); 0x0C MOVED bytes of the last transfer; 0x10 elements in the list; 0x20,
 * 0x24, 0x28 address low, high, length: the write of the length appends an element (at most 32; run or reset empties the list afterwards). 64-bit DMA.
 *
 * The bug: a failure of GetScatterGatherList is ignored and the request taken for one under way; as the list never comes, it is never completed, the
 * queue stands still and a stop or removal waits for ever.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: irp-never-completed
 * Needs: failure
 */
#include "../include/served_by_ticks.h"

#define REG_ID 0x00
#define REG_CTRL 0x04
#define REG_STATUS 0x08
#define REG_MOVED 0x0C
#define REG_LOW 0x20
#define REG_HIGH 0x24
#define REG_LENGTH 0x28
#define CARD_IS 0x1DA70001u
#define CTRL_RUN 0x00000001u
#define CTRL_IRQ 0x00000002u
#define CTRL_RESET 0x80000000u
#define STATUS_BUSY 0x1u
#define STATUS_DONE 0x2u
#define STATUS_FAILED 0x4u
#define WINDOW 0x1000
#define ELEMENTS 32
#define MAX_WRITE (64 * 1024)

static const GUID CraneInterface = { 0x6d1d0a5c, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x0c } };

typedef struct _DEV {
    BF B;
    PVOID Regs;
    PKINTERRUPT Irq;
    KDPC Dpc;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    BOOLEAN Powered;            /* with the interrupt held off */
    PIRP Pending;               /* between Prepare and ListReady; one at a time */
    PSCATTER_GATHER_LIST List;  /* of B.Active; under B.Lock */
} DEV, *PDEV;

static BOOLEAN NTAPI Isr(PKINTERRUPT irq, PVOID context)
{
    PDEV d = context;
    ULONG status;

    UNREFERENCED_PARAMETER(irq);
    if (!d->Powered)
        return FALSE;
    status = BfIn(d->Regs, REG_STATUS);
    if (status == ~0u || !(status & (STATUS_DONE | STATUS_FAILED)))
        return FALSE;
    BfOut(d->Regs, REG_STATUS, status & (STATUS_DONE | STATUS_FAILED));
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

/* DMA has ceased when this returns. */
static VOID Reset(PDEV d)
{
    BfOut(d->Regs, REG_CTRL, CTRL_RESET);
    (void)BfIn(d->Regs, REG_STATUS); /* the write has arrived */
    BfOut(d->Regs, REG_STATUS, STATUS_DONE | STATUS_FAILED);
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
    Reset(d);
    return TRUE;
}

static VOID PutList(PDEV d, PSCATTER_GATHER_LIST list)
{
    d->Adapter->DmaOperations->PutScatterGatherList(d->Adapter, list, TRUE);
}

/* Under B.Lock. */
static NTSTATUS Launch(PDEV d, PSCATTER_GATHER_LIST list)
{
    PSCATTER_GATHER_ELEMENT e = (PVOID)((PUCHAR)list + FIELD_OFFSET(SCATTER_GATHER_LIST, Elements));
    ULONG status = BfIn(d->Regs, REG_STATUS);
    ULONG i;

    if (status == ~0u)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (list->NumberOfElements > ELEMENTS)
        return STATUS_INSUFFICIENT_RESOURCES;
    Reset(d); /* whatever an earlier one has left */
    if (BfIn(d->Regs, REG_STATUS) & STATUS_BUSY)
        return STATUS_DEVICE_BUSY;
    for (i = 0; i < list->NumberOfElements; i++, e++) {
        BfOut(d->Regs, REG_LOW, e->Address.LowPart);
        BfOut(d->Regs, REG_HIGH, (ULONG)e->Address.HighPart);
        BfOut(d->Regs, REG_LENGTH, e->Length);
    }
    BfOut(d->Regs, REG_CTRL, CTRL_RUN | CTRL_IRQ);
    return STATUS_SUCCESS;
}

static VOID NTAPI ListReady(PDEVICE_OBJECT device, PIRP unused, PSCATTER_GATHER_LIST list, PVOID context)
{
    PDEV d = context;
    PBF b = &d->B;
    PIRP irp = d->Pending;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(unused);
    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    st = Launch(d, list);
    if (NT_SUCCESS(st)) {
        d->List = list;
        BfBegin(b, irp);
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    if (!NT_SUCCESS(st)) {
        PutList(d, list);
        BfDone(b, irp, st, 0);
    }
}

static NTSTATUS Prepare(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PMDL mdl = irp->MdlAddress;
    PVOID va = MmGetMdlVirtualAddress(mdl);
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
    ULONG pages = ADDRESS_AND_SIZE_TO_SPAN_PAGES(va, length);
    NTSTATUS st;
    KIRQL q;

    if (pages > ELEMENTS || pages > d->MapRegisters)
        return STATUS_INVALID_BUFFER_SIZE;
    d->Pending = irp;
    KeRaiseIrql(DISPATCH_LEVEL, &q);
    st = d->Adapter->DmaOperations->GetScatterGatherList(d->Adapter, b->Self, mdl, va, length, ListReady, d, TRUE);
    KeLowerIrql(q);
#ifdef FIXED
    if (!NT_SUCCESS(st))
        return st; /* ListReady does not come */
#else
    (void)st;
#endif
    return STATUS_PENDING;
}

/* From the interrupt and from the poll. */
static VOID Look(PBF b)
{
    PDEV d = (PDEV)b;
    PSCATTER_GATHER_LIST list = NULL;
    PIRP irp = NULL;
    ULONG moved = 0, length;

    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    if (b->Active && !(BfIn(d->Regs, REG_STATUS) & STATUS_BUSY)) {
        irp = b->Active;
        b->Active = NULL;
        list = d->List;
        d->List = NULL;
        moved = BfIn(d->Regs, REG_MOVED);
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    if (!irp)
        return;
    PutList(d, list);
    length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
    if (moved == length)
        BfDone(b, irp, STATUS_SUCCESS, length);
    else
        BfDone(b, irp, STATUS_IO_DEVICE_ERROR, 0);
}

static VOID NTAPI IrqDpc(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    Look(context);
}

static VOID Expire(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PSCATTER_GATHER_LIST list;

    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    list = d->List;
    d->List = NULL;
    Reset(d);
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    PutList(d, list);
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID Release(PDEV d)
{
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
    NTSTATUS st = STATUS_DEVICE_CONFIGURATION_ERROR;

    if (res->Windows < 1 || res->Window[0].Size < WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(res->Window[0].At, WINDOW, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (BfIn(d->Regs, REG_ID) != CARD_IS)
        goto fail;
    RtlZeroMemory(&dd, sizeof(dd));
    dd.Version = DEVICE_DESCRIPTION_VERSION;
    dd.Master = TRUE;
    dd.ScatterGather = TRUE;
    dd.Dma32BitAddresses = TRUE;
    dd.Dma64BitAddresses = TRUE;
    dd.InterfaceType = PCIBus;
    dd.MaximumLength = MAX_WRITE;
    d->Adapter = IoGetDmaAdapter(b->Pdo, &dd, &d->MapRegisters);
    if (!d->Adapter) {
        st = STATUS_INSUFFICIENT_RESOURCES;
        goto fail;
    }
    Reset(d);
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
    if (sp->MajorFunction != IRP_MJ_WRITE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (sp->Parameters.Write.Length > MAX_WRITE)
        return STATUS_INVALID_BUFFER_SIZE;
    if (sp->Parameters.Write.Length == 0 || !irp->MdlAddress)
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
    .Interface = &CraneInterface,
    .IoFlags = DO_DIRECT_IO,
    .Limit = 20,
    .Add = Add,
    .Start = Start,
    .Stop = Stop,
    .PowerDown = PowerDown,
    .PowerUp = PowerUp,
    .Prepare = Prepare,
    .Poll = Look,
    .Expire = Expire,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
