/*
 * tarpan: a line scan camera that writes its lines into four blocks of memory, one after the other, and interrupts behind each.
 * A program's read waits for the next block.
 *
 * The bug: where one of the four blocks cannot be allocated, those before it are freed again, except for the first.
 *
 * Device: PCI\VEN_5A1F&DEV_0230
 * Rule: common-buffer-leak
 * Needs: failure
 */
#include "../include/gate_and_turnstile.h"

#define CONTROL     0x00
#define   SCAN          1u
#define ENABLE      0x04
#define STATUS      0x08    /* ones clear */
#define LENGTH      0x0c
#define ADDRESS(n)  (0x20 + 4 * (n))

#define BLOCKS      4
#define BLOCK       PAGE_SIZE

typedef struct TARPAN {
    FR_DEV fr;
    FR_WIN regs;
    FR_IRQ irq;
    KDPC dpc;
    PDMA_ADAPTER adapter;
    PUCHAR block[BLOCKS];
    PHYSICAL_ADDRESS logical[BLOCKS];
    volatile LONG done;             /* blocks that the DPC does not know of yet */
    FR_QUEUE readers;
    KSPIN_LOCK lock;
    ULONG next;                     /* the block that the card fills */
    ULONG missed;                   /* blocks that no request waited for */
} TARPAN;

static BOOLEAN Service(FR_DEV *dev)
{
    TARPAN *t = (TARPAN *)dev;
    ULONG status = FrRd(&t->regs, STATUS);
    if (status == 0 || status == ~0u)
        return FALSE;
    FrWr(&t->regs, STATUS, status);
    InterlockedIncrement(&t->done);
    KeInsertQueueDpc(&t->dpc, NULL, NULL);
    return TRUE;
}

static void Arm(FR_DEV *dev, BOOLEAN on)
{
    TARPAN *t = (TARPAN *)dev;
    ULONG n;
    if (on) {
        for (n = 0; n < BLOCKS; n++)
            FrWr(&t->regs, ADDRESS(n), t->logical[n].LowPart);
        FrWr(&t->regs, LENGTH, BLOCK);
        FrWr(&t->regs, ENABLE, 1);
        FrWr(&t->regs, CONTROL, SCAN);
    } else {
        FrWr(&t->regs, CONTROL, 0);
        FrWr(&t->regs, ENABLE, 0);
        n = FrRd(&t->regs, STATUS);     /* it has stopped when this read is answered */
        FrWr(&t->regs, STATUS, n);
    }
}

static VOID NTAPI Behind(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    TARPAN *t = context;
    LONG done = InterlockedExchange(&t->done, 0);
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    while (done-- > 0) {
        ULONG length = 0;
        PIRP irp;
        KeAcquireSpinLockAtDpcLevel(&t->lock);
        irp = FrTake(&t->readers, NULL);
        if (irp) {
            length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
            if (length > BLOCK)
                length = BLOCK;
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, t->block[t->next], length);
        } else
            t->missed++;
        t->next = (t->next + 1) % BLOCKS;
        KeReleaseSpinLockFromDpcLevel(&t->lock);
        if (irp)
            FrFinish(&t->fr, irp, STATUS_SUCCESS, length);
    }
}

static NTSTATUS Make(FR_DEV *dev)
{
    TARPAN *t = (TARPAN *)dev;
    KeInitializeSpinLock(&t->lock);
    KeInitializeDpc(&t->dpc, Behind, t);
    FrQueue(&t->readers, dev);
    return STATUS_SUCCESS;
}

static void FreeBlock(TARPAN *t, ULONG n)
{
    t->adapter->DmaOperations->FreeCommonBuffer(t->adapter, BLOCK, t->logical[n], t->block[n], FALSE);
    t->block[n] = NULL;
}

static NTSTATUS Blocks(TARPAN *t)
{
    DEVICE_DESCRIPTION d;
    ULONG registers, n;
    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = BLOCKS * BLOCK;
    t->adapter = IoGetDmaAdapter(t->fr.pdo, &d, &registers);
    if (!t->adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (n = 0; n < BLOCKS; n++) {
        t->block[n] = t->adapter->DmaOperations->AllocateCommonBuffer(t->adapter, BLOCK, &t->logical[n], FALSE);
        if (!t->block[n]) {
#ifndef FIXED
            while (n > 1)
                FreeBlock(t, --n);
#else
            while (n > 0)
                FreeBlock(t, --n);
#endif
            t->adapter->DmaOperations->PutDmaAdapter(t->adapter);
            t->adapter = NULL;
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        RtlZeroMemory(t->block[n], BLOCK);
    }
    return STATUS_SUCCESS;
}

static void NoBlocks(TARPAN *t)
{
    ULONG n;
    for (n = 0; n < BLOCKS; n++)
        FreeBlock(t, n);
    t->adapter->DmaOperations->PutDmaAdapter(t->adapter);
    t->adapter = NULL;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    TARPAN *t = (TARPAN *)dev;
    NTSTATUS status = FrMap(&t->regs, list, 0, ADDRESS(BLOCKS));
    if (!NT_SUCCESS(status))
        return status;
    status = Blocks(t);
    if (!NT_SUCCESS(status))
        goto no_blocks;
    status = FrIrqConnect(&t->irq, dev, list, Service, Arm);
    if (!NT_SUCCESS(status))
        goto no_line;
    return STATUS_SUCCESS;
no_line:
    NoBlocks(t);
no_blocks:
    FrUnmap(&t->regs);
    return status;
}

static void Release(FR_DEV *dev)
{
    TARPAN *t = (TARPAN *)dev;
    FrIrqDisconnect(&t->irq);
    NoBlocks(t);
    FrUnmap(&t->regs);
}

static void Run(FR_DEV *dev)
{
    TARPAN *t = (TARPAN *)dev;
    t->next = 0;
    InterlockedExchange(&t->done, 0);
    FrIrqSwitch(&t->irq, TRUE, TRUE);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    FrIrqSwitch(&((TARPAN *)dev)->irq, FALSE, present);
    KeFlushQueuedDpcs();
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    FrSweep(&((TARPAN *)dev)->readers, NULL, status);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    FrSweep(&((TARPAN *)dev)->readers, file, STATUS_CANCELLED);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    TARPAN *t = (TARPAN *)dev;
    UNREFERENCED_PARAMETER(info);
    if (at->MajorFunction != IRP_MJ_READ)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (!at->Parameters.Read.Length)
        return STATUS_SUCCESS;
    FrPut(&t->readers, irp);
    return STATUS_PENDING;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x10 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(TARPAN), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
