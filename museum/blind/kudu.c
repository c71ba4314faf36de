/*
 * kudu: a pattern generator that is fed by bus master DMA. A write's memory is handed to the card in parts of 1 KiB (its
 * buffer), each by a scatter/gather list; the card interrupts behind each part.
 *
 * The bug: the length of a part is worked out for the first part only: the last part of a write whose length is no multiple of
 * it reaches beyond the program's memory.
 *
 * Device: PCI\VEN_5A1F&DEV_0450
 * Rule: dma-outside-mdl
 * Needs: ioctl, device
 */
#include "../include/gate_and_turnstile.h"

#define CONTROL     0x00
#define   GO            1u
#define   RESET         2u
#define ENABLE      0x04
#define STATUS      0x08    /* ones clear */
#define   DONE          1u
#define   FAULT         2u
#define ADDRESS     0x20    /* of a piece ... */
#define PIECE       0x24    /* ... and its length: pushes both */

#define PART        0x400u

typedef struct KUDU {
    FR_DEV fr;
    FR_WIN regs;
    FR_IRQ irq;
    KDPC dpc;
    PDMA_ADAPTER adapter;
    FR_QUEUE waiting;
    volatile LONG pending;          /* what the card has said */
    volatile LONG abort;            /* the request that is under way shall end */
    KEVENT idle;

    KSPIN_LOCK lock;
    BOOLEAN running;
    PIRP irp;                       /* under way, with its handle */
    PFILE_OBJECT file;
    PSCATTER_GATHER_LIST list;
    /* Of who goes on with the request: one routine at a time. */
    PUCHAR va;
    ULONG left, moved, part;
} KUDU;

static BOOLEAN Service(FR_DEV *dev)
{
    KUDU *k = (KUDU *)dev;
    ULONG status = FrRd(&k->regs, STATUS);
    if (status == 0 || status == ~0u)
        return FALSE;
    FrWr(&k->regs, STATUS, status);
    InterlockedOr(&k->pending, (LONG)status);
    KeInsertQueueDpc(&k->dpc, NULL, NULL);
    return TRUE;
}

/* Ends what the card does; it is over when the read is answered. */
static void Reset(KUDU *k)
{
    FrWr(&k->regs, CONTROL, RESET);
    FrRd(&k->regs, CONTROL);
    FrWr(&k->regs, CONTROL, 0);
}

static void Arm(FR_DEV *dev, BOOLEAN on)
{
    KUDU *k = (KUDU *)dev;
    ULONG status;
    if (on)
        FrWr(&k->regs, ENABLE, DONE | FAULT);
    else {
        FrWr(&k->regs, ENABLE, 0);
        Reset(k);
        status = FrRd(&k->regs, STATUS);
        FrWr(&k->regs, STATUS, status);
    }
}

static VOID NTAPI Cancel(PDEVICE_OBJECT self, PIRP irp)
{
    KUDU *k = self->DeviceExtension;
    InterlockedExchange(&k->abort, 1);
    KeInsertQueueDpc(&k->dpc, NULL, NULL);
    IoReleaseCancelSpinLock(irp->CancelIrql);
}

/* Behind this the cancel routine neither runs nor will. */
static void NoCancel(PIRP irp)
{
    KIRQL irql;
    if (!IoSetCancelRoutine(irp, NULL)) {
        IoAcquireCancelSpinLock(&irql);
        IoReleaseCancelSpinLock(irql);
    }
}

static void End(KUDU *k, NTSTATUS status)
{
    PIRP irp = k->irp;
    ULONG moved = k->moved;
    KIRQL irql;
    NoCancel(irp);
    KeAcquireSpinLock(&k->lock, &irql);
    k->irp = NULL;
    KeSetEvent(&k->idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&k->lock, irql);
    FrFinish(&k->fr, irp, status, NT_SUCCESS(status) ? moved : 0);
}

/* The device halts: the request waits again, and begins anew. */
static void PutBack(KUDU *k)
{
    PFILE_OBJECT file = k->file;
    BOOLEAN abort;
    KIRQL irql;
    NoCancel(k->irp);
    FrPut(&k->waiting, k->irp);
    KeAcquireSpinLock(&k->lock, &irql);
    k->irp = NULL;
    abort = InterlockedCompareExchange(&k->abort, 0, 0) != 0;
    KeSetEvent(&k->idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&k->lock, irql);
    if (abort)      /* its handle was closed meanwhile */
        FrSweep(&k->waiting, file, STATUS_CANCELLED);
}

static VOID NTAPI Listed(PDEVICE_OBJECT self, PIRP irp, PSCATTER_GATHER_LIST list, PVOID context)
{
    KUDU *k = context;
    ULONG i;
    UNREFERENCED_PARAMETER(self);
    UNREFERENCED_PARAMETER(irp);
    KeAcquireSpinLockAtDpcLevel(&k->lock);
    k->list = list;
    if (!k->running || InterlockedCompareExchange(&k->abort, 0, 0))
        KeInsertQueueDpc(&k->dpc, NULL, NULL);
    else {
        InterlockedExchange(&k->pending, 0);
        for (i = 0; i < list->NumberOfElements; i++) {
            FrWr(&k->regs, ADDRESS, list->Elements[i].Address.LowPart);
            FrWr(&k->regs, PIECE, list->Elements[i].Length);
        }
        FrWr(&k->regs, CONTROL, GO);
    }
    KeReleaseSpinLockFromDpcLevel(&k->lock);
}

static NTSTATUS Ask(KUDU *k)
{
    NTSTATUS status;
    KIRQL irql;
#ifndef FIXED
    if (!k->moved)
        k->part = k->left < PART ? k->left : PART;
#else
    k->part = k->left < PART ? k->left : PART;
#endif
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    status = k->adapter->DmaOperations->GetScatterGatherList(k->adapter, k->fr.self, k->irp->MdlAddress, k->va,
                                                            k->part, Listed, k, TRUE);
    KeLowerIrql(irql);
    return status;
}

static void Next(KUDU *k)
{
    KIRQL irql;
    PIRP irp;
    NTSTATUS status;
    for (;;) {
        KeAcquireSpinLock(&k->lock, &irql);
        if (!k->running || k->irp || (irp = FrTake(&k->waiting, NULL)) == NULL) {
            KeReleaseSpinLock(&k->lock, irql);
            return;
        }
        KeClearEvent(&k->idle);
        k->irp = irp;
        k->file = IoGetCurrentIrpStackLocation(irp)->FileObject;
        k->list = NULL;
        k->va = MmGetMdlVirtualAddress(irp->MdlAddress);
        k->left = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
        k->moved = 0;
        InterlockedExchange(&k->abort, 0);
        IoSetCancelRoutine(irp, Cancel);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL))
            InterlockedExchange(&k->abort, 1);
        KeReleaseSpinLock(&k->lock, irql);
        status = Ask(k);
        if (NT_SUCCESS(status))
            return;
        End(k, status);
    }
}

static VOID NTAPI Behind(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    KUDU *k = context;
    PSCATTER_GATHER_LIST list;
    BOOLEAN running, abort;
    NTSTATUS status;
    ULONG said;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&k->lock);
    list = k->list;
    running = k->running;
    abort = InterlockedCompareExchange(&k->abort, 0, 0) != 0;
    said = list ? (ULONG)InterlockedExchange(&k->pending, 0) & (DONE | FAULT) : 0;
    if (!list || (!said && running && !abort)) {
        KeReleaseSpinLockFromDpcLevel(&k->lock);
        return;
    }
    k->list = NULL;
    if (said != DONE)
        Reset(k);
    KeReleaseSpinLockFromDpcLevel(&k->lock);
    k->adapter->DmaOperations->PutScatterGatherList(k->adapter, list, TRUE);

    if (said == DONE) {
        k->va += k->part;
        k->moved += k->part;
        k->left = k->left > k->part ? k->left - k->part : 0;
    }
    if (said & FAULT)
        End(k, STATUS_IO_DEVICE_ERROR);
    else if (said && !k->left)
        End(k, STATUS_SUCCESS);
    else if (abort)
        End(k, STATUS_CANCELLED);
    else if (!running)
        PutBack(k);
    else {
        status = Ask(k);
        if (NT_SUCCESS(status))
            return;
        End(k, status);
    }
    Next(k);
}

static NTSTATUS Make(FR_DEV *dev)
{
    KUDU *k = (KUDU *)dev;
    KeInitializeSpinLock(&k->lock);
    KeInitializeEvent(&k->idle, NotificationEvent, TRUE);
    KeInitializeDpc(&k->dpc, Behind, k);
    FrQueue(&k->waiting, dev);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    KUDU *k = (KUDU *)dev;
    DEVICE_DESCRIPTION d;
    ULONG registers = 0;
    NTSTATUS status = FrMap(&k->regs, list, 0, PIECE + 4);
    if (!NT_SUCCESS(status))
        return status;
    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = PAGE_SIZE;
    k->adapter = IoGetDmaAdapter(dev->pdo, &d, &registers);
    if (!k->adapter) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_adapter;
    }
    if (registers < 2) {        /* a part may lie in two pages */
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_line;
    }
    status = FrIrqConnect(&k->irq, dev, list, Service, Arm);
    if (NT_SUCCESS(status))
        return STATUS_SUCCESS;
no_line:
    k->adapter->DmaOperations->PutDmaAdapter(k->adapter);
    k->adapter = NULL;
no_adapter:
    FrUnmap(&k->regs);
    return status;
}

static void Release(FR_DEV *dev)
{
    KUDU *k = (KUDU *)dev;
    FrIrqDisconnect(&k->irq);
    k->adapter->DmaOperations->PutDmaAdapter(k->adapter);
    k->adapter = NULL;
    FrUnmap(&k->regs);
}

static void Run(FR_DEV *dev)
{
    KUDU *k = (KUDU *)dev;
    KIRQL irql;
    FrIrqSwitch(&k->irq, TRUE, TRUE);
    KeAcquireSpinLock(&k->lock, &irql);
    k->running = TRUE;
    KeReleaseSpinLock(&k->lock, irql);
    Next(k);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    KUDU *k = (KUDU *)dev;
    KIRQL irql;
    KeAcquireSpinLock(&k->lock, &irql);
    k->running = FALSE;
    KeReleaseSpinLock(&k->lock, irql);
    FrIrqSwitch(&k->irq, FALSE, present);
    KeInsertQueueDpc(&k->dpc, NULL, NULL);      /* it takes the request from the card */
    KeWaitForSingleObject(&k->idle, Executive, KernelMode, FALSE, NULL);
    KeFlushQueuedDpcs();
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    FrSweep(&((KUDU *)dev)->waiting, NULL, status);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    KUDU *k = (KUDU *)dev;
    KIRQL irql;
    FrSweep(&k->waiting, file, STATUS_CANCELLED);
    KeAcquireSpinLock(&k->lock, &irql);
    if (k->irp && k->file == file) {
        InterlockedExchange(&k->abort, 1);
        KeInsertQueueDpc(&k->dpc, NULL, NULL);
    }
    KeReleaseSpinLock(&k->lock, irql);
    FrSweep(&k->waiting, file, STATUS_CANCELLED);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    KUDU *k = (KUDU *)dev;
    UNREFERENCED_PARAMETER(info);
    if (at->MajorFunction != IRP_MJ_WRITE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (!at->Parameters.Write.Length)
        return STATUS_SUCCESS;
    KeFlushIoBuffers(irp->MdlAddress, FALSE, TRUE);
    FrPut(&k->waiting, irp);
    Next(k);
    return STATUS_PENDING;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x12 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(KUDU), .flags = DO_DIRECT_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
