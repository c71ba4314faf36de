/*
 * eduquoll: factorials by the batch. A program hands in up to eight numbers, QEMU's educational device computes one after
 * the other, and the program gets all results at once. Batches of several programs wait in a queue.
 *
 * The bug: where there is no memory for a batch, the routine that begins batches completes its request and returns the error, which
 * the control routine returns, too: its own request, completed already or still waiting, is completed once more.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, completed-with-pending, use-after-free
 * Needs: ioctl, failure
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_QUOLL_BATCH   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUOLL_DONE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_FACTORIAL   0x08
#define EDU_STATUS      0x20
#define   COMPUTING     0x01
#define   WHEN_DONE     0x80
#define EDU_IRQ_STATUS  0x24
#define EDU_IRQ_ACK     0x64

#define MOST 8

typedef struct BATCH {
    ULONG count, index;
    ULONG in[MOST], out[MOST];
} BATCH;

typedef struct QUOLL {
    FR_DEV fr;
    FR_WIN regs;
    FR_IRQ irq;
    KDPC dpc;
    FR_QUEUE queue;

    KSPIN_LOCK lock;
    BOOLEAN running;
    BOOLEAN busy;           /* a batch is begun, or will be by who has set this */
    BOOLEAN stale;          /* the card is at a number of before the last halt */
    BATCH *batch;
    ULONG done;
} QUOLL;

static BOOLEAN Service(FR_DEV *dev)
{
    QUOLL *q = (QUOLL *)dev;
    ULONG causes = FrRd(&q->regs, EDU_IRQ_STATUS);
    if (causes == 0 || causes == ~0u)
        return FALSE;
    FrWr(&q->regs, EDU_IRQ_ACK, causes);
    KeInsertQueueDpc(&q->dpc, NULL, NULL);
    return TRUE;
}

/* At DIRQL: nothing of the card's stays asserted on the line behind it. */
static void Arm(FR_DEV *dev, BOOLEAN on)
{
    QUOLL *q = (QUOLL *)dev;
    FrWr(&q->regs, EDU_STATUS, on ? WHEN_DONE : 0);
    if (!on)
        FrWr(&q->regs, EDU_IRQ_ACK, ~0u);
}

static void Numbers(PIRP irp, PVOID context)
{
    BATCH *batch = context;
    batch->index = 0;
    batch->count = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength / sizeof(ULONG);
    RtlCopyMemory(batch->in, irp->AssociatedIrp.SystemBuffer, batch->count * sizeof(ULONG));
}

/* Begins the next batch, if none is under way. */
static NTSTATUS Begin(QUOLL *q)
{
    NTSTATUS status = STATUS_SUCCESS;
    BATCH next, *batch;
    BOOLEAN begin;
    KIRQL irql;
    PIRP irp;
    RtlZeroMemory(&next, sizeof next);
    for (;;) {
        KeAcquireSpinLock(&q->lock, &irql);
        begin = q->running && !q->busy && FrStep(&q->queue, FR_WAITS, FR_WORKS, Numbers, &next);
        if (begin)
            q->busy = TRUE;
        KeReleaseSpinLock(&q->lock, irql);
        if (!begin)
            return status;
        batch = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *batch, FR_TAG);
        if (batch)
            break;
        status = STATUS_INSUFFICIENT_RESOURCES;
        irp = FrTakeStage(&q->queue, FR_WORKS);
        if (irp)
            FrFinish(&q->fr, irp, status, 0);
        KeAcquireSpinLock(&q->lock, &irql);
        q->busy = FALSE;
        KeReleaseSpinLock(&q->lock, irql);
    }
    *batch = next;
    KeAcquireSpinLock(&q->lock, &irql);
    q->batch = batch;
    FrWr(&q->regs, EDU_FACTORIAL, batch->in[0]);
    KeReleaseSpinLock(&q->lock, irql);
    return status;
}

static VOID NTAPI Computed(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    QUOLL *q = context;
    BATCH *batch;
    PIRP irp = NULL;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&q->lock);
    batch = q->batch;
    if (!q->running || (!batch && !q->stale) || (FrRd(&q->regs, EDU_STATUS) & COMPUTING)) {
        KeReleaseSpinLockFromDpcLevel(&q->lock);
        return;
    }
    if (q->stale)
        q->stale = FALSE;
    else {
        batch->out[batch->index++] = FrRd(&q->regs, EDU_FACTORIAL);
        if (batch->index < batch->count) {
            FrWr(&q->regs, EDU_FACTORIAL, batch->in[batch->index]);
            KeReleaseSpinLockFromDpcLevel(&q->lock);
            return;
        }
        irp = FrTakeStage(&q->queue, FR_WORKS);     /* none: it was cancelled */
        q->batch = NULL;
        q->done++;
    }
    q->busy = FALSE;
    KeReleaseSpinLockFromDpcLevel(&q->lock);
    if (irp) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, batch->out, batch->count * sizeof(ULONG));
        FrFinish(&q->fr, irp, STATUS_SUCCESS, batch->count * sizeof(ULONG));
    }
    if (batch)
        ExFreePoolWithTag(batch, FR_TAG);
    Begin(q);
}

static NTSTATUS Make(FR_DEV *dev)
{
    QUOLL *q = (QUOLL *)dev;
    KeInitializeSpinLock(&q->lock);
    KeInitializeDpc(&q->dpc, Computed, q);
    FrQueue(&q->queue, dev);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    QUOLL *q = (QUOLL *)dev;
    NTSTATUS status = FrMap(&q->regs, list, 0, 0x100);
    if (!NT_SUCCESS(status))
        return status;
    status = FrIrqConnect(&q->irq, dev, list, Service, Arm);
    if (!NT_SUCCESS(status))
        FrUnmap(&q->regs);
    return status;
}

static void Release(FR_DEV *dev)
{
    QUOLL *q = (QUOLL *)dev;
    FrIrqDisconnect(&q->irq);
    FrUnmap(&q->regs);
}

static void Run(FR_DEV *dev)
{
    QUOLL *q = (QUOLL *)dev;
    KIRQL irql;
    FrIrqSwitch(&q->irq, TRUE, TRUE);
    KeAcquireSpinLock(&q->lock, &irql);
    q->running = TRUE;
    q->stale = q->busy = (FrRd(&q->regs, EDU_STATUS) & COMPUTING) != 0;
    KeReleaseSpinLock(&q->lock, irql);
    Begin(q);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    QUOLL *q = (QUOLL *)dev;
    KIRQL irql;
    KeAcquireSpinLock(&q->lock, &irql);
    q->running = FALSE;
    KeReleaseSpinLock(&q->lock, irql);
    FrIrqSwitch(&q->irq, FALSE, present);
    KeFlushQueuedDpcs();
    if (q->batch)
        ExFreePoolWithTag(q->batch, FR_TAG);
    q->batch = NULL;
    while (FrStep(&q->queue, FR_WORKS, FR_WAITS, NULL, NULL))       /* it is begun again */
        ;
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    QUOLL *q = (QUOLL *)dev;
    FrSweep(&q->queue, NULL, status);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    QUOLL *q = (QUOLL *)dev;
    FrSweep(&q->queue, file, STATUS_CANCELLED);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    QUOLL *q = (QUOLL *)dev;
    ULONG in, room;
    KIRQL irql;
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = at->Parameters.DeviceIoControl.InputBufferLength;
    room = at->Parameters.DeviceIoControl.OutputBufferLength;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QUOLL_BATCH:
        if (in < sizeof(ULONG) || in > MOST * sizeof(ULONG) || in % sizeof(ULONG))
            return STATUS_INVALID_BUFFER_SIZE;
        if (room < in)
            return STATUS_BUFFER_TOO_SMALL;
        FrPut(&q->queue, irp);
#ifndef FIXED
        {
            NTSTATUS status = Begin(q);
            return NT_SUCCESS(status) ? STATUS_PENDING : status;
        }
#else
        Begin(q);
        return STATUS_PENDING;
#endif
    case IOCTL_QUOLL_DONE:
        if (room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&q->lock, &irql);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = q->done;
        KeReleaseSpinLock(&q->lock, irql);
        *info = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x07 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(QUOLL), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
