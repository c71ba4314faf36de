/*
 * edustork: a delivery bell on QEMU's educational device. A program rings (the card raises an interrupt), and the driver
 * writes each ring into a log at leisure, in a work item, with what the card's liveness register says by then.
 *
 * The bug: at stop, removal and power-down the driver waits for its work item first and has the interrupt sleep and the
 * DPC end only then: the DPC may queue the work item again, which uses the card when it is unmapped or without power.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-read, wild-write, bad-pointer, device-memory-not-mapped, card-without-power
 * Needs: ioctl, schedule, removal
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_STORK_RING    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STORK_AWAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STORK_LOG     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_LIVENESS    0x04
#define EDU_STATUS      0x20
#define EDU_IRQ_STATUS  0x24
#define EDU_IRQ_RAISE   0x60
#define EDU_IRQ_ACK     0x64

#define ENTRIES 32

typedef struct RING {
    LARGE_INTEGER when;
    ULONG causes;
    ULONG liveness;
} RING;

typedef struct STORK {
    FR_DEV fr;
    FR_WIN regs;
    FR_IRQ irq;
    KDPC dpc;
    FR_QUEUE waiting;
    volatile LONG causes;
    PIO_WORKITEM item;

    KSPIN_LOCK lock;
    BOOLEAN busy, again;        /* the work item is queued or works; there is more for it */
    KEVENT idle;
    ULONG token;
    RING log[ENTRIES];
    ULONG logged;
} STORK;

static BOOLEAN Service(FR_DEV *dev)
{
    STORK *s = (STORK *)dev;
    ULONG causes = FrRd(&s->regs, EDU_IRQ_STATUS);
    if (causes == 0 || causes == ~0u)
        return FALSE;
    FrWr(&s->regs, EDU_IRQ_ACK, causes);
    InterlockedOr(&s->causes, (LONG)causes);
    KeInsertQueueDpc(&s->dpc, NULL, NULL);
    return TRUE;
}

/* At DIRQL: nothing of the card's stays asserted on the line behind it. */
static void Arm(FR_DEV *dev, BOOLEAN on)
{
    STORK *s = (STORK *)dev;
    if (!on)
        FrWr(&s->regs, EDU_IRQ_ACK, ~0u);
}

static VOID NTAPI Write(PDEVICE_OBJECT self, PVOID context)
{
    STORK *s = context;
    KIRQL irql;
    UNREFERENCED_PARAMETER(self);
    for (;;) {
        RING ring;
        PIRP irp;
        KeQuerySystemTime(&ring.when);
        ring.causes = (ULONG)InterlockedExchange(&s->causes, 0);
        if (ring.causes) {
            KeAcquireSpinLock(&s->lock, &irql);
            FrWr(&s->regs, EDU_LIVENESS, ++s->token);
            ring.liveness = FrRd(&s->regs, EDU_LIVENESS);
            s->log[s->logged++ % ENTRIES] = ring;
            KeReleaseSpinLock(&s->lock, irql);
            while ((irp = FrTake(&s->waiting, NULL)) != NULL) {
                *(PULONG)irp->AssociatedIrp.SystemBuffer = ring.causes;
                FrFinish(&s->fr, irp, STATUS_SUCCESS, sizeof(ULONG));
            }
        }
        KeAcquireSpinLock(&s->lock, &irql);
        if (!s->again) {
            s->busy = FALSE;
            KeSetEvent(&s->idle, IO_NO_INCREMENT, FALSE);
            KeReleaseSpinLock(&s->lock, irql);
            return;
        }
        s->again = FALSE;
        KeReleaseSpinLock(&s->lock, irql);
    }
}

static VOID NTAPI Behind(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    STORK *s = context;
    BOOLEAN queue = FALSE;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&s->lock);
    if (s->busy)
        s->again = TRUE;
    else {
        s->busy = queue = TRUE;
        KeClearEvent(&s->idle);
    }
    KeReleaseSpinLockFromDpcLevel(&s->lock);
    if (queue)
        IoQueueWorkItem(s->item, Write, DelayedWorkQueue, s);
}

static NTSTATUS Make(FR_DEV *dev)
{
    STORK *s = (STORK *)dev;
    KeInitializeSpinLock(&s->lock);
    KeInitializeEvent(&s->idle, NotificationEvent, TRUE);
    KeInitializeDpc(&s->dpc, Behind, s);
    FrQueue(&s->waiting, dev);
    s->item = IoAllocateWorkItem(dev->self);
    return s->item ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static void Unmake(FR_DEV *dev)
{
    IoFreeWorkItem(((STORK *)dev)->item);
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    STORK *s = (STORK *)dev;
    NTSTATUS status = FrMap(&s->regs, list, 0, 0x100);
    if (!NT_SUCCESS(status))
        return status;
    status = FrIrqConnect(&s->irq, dev, list, Service, Arm);
    if (!NT_SUCCESS(status))
        FrUnmap(&s->regs);
    return status;
}

static void Release(FR_DEV *dev)
{
    STORK *s = (STORK *)dev;
    FrIrqDisconnect(&s->irq);
    FrUnmap(&s->regs);
}

static void Run(FR_DEV *dev)
{
    STORK *s = (STORK *)dev;
    FrWr(&s->regs, EDU_STATUS, 0);
    FrIrqSwitch(&s->irq, TRUE, FALSE);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    STORK *s = (STORK *)dev;
#ifndef FIXED
    KeWaitForSingleObject(&s->idle, Executive, KernelMode, FALSE, NULL);
    FrIrqSwitch(&s->irq, FALSE, present);
    KeFlushQueuedDpcs();
#else
    FrIrqSwitch(&s->irq, FALSE, present);
    KeFlushQueuedDpcs();
    KeWaitForSingleObject(&s->idle, Executive, KernelMode, FALSE, NULL);
#endif
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    FrSweep(&((STORK *)dev)->waiting, NULL, status);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    FrSweep(&((STORK *)dev)->waiting, file, STATUS_CANCELLED);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    STORK *s = (STORK *)dev;
    ULONG in, room, count, i;
    KIRQL irql;
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = at->Parameters.DeviceIoControl.InputBufferLength;
    room = at->Parameters.DeviceIoControl.OutputBufferLength;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STORK_RING:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*(PULONG)irp->AssociatedIrp.SystemBuffer & ~0xffu)
            return STATUS_INVALID_PARAMETER;
        FrWr(&s->regs, EDU_IRQ_RAISE, *(PULONG)irp->AssociatedIrp.SystemBuffer);
        return STATUS_SUCCESS;
    case IOCTL_STORK_AWAIT:
        if (room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        FrPut(&s->waiting, irp);
        return STATUS_PENDING;
    case IOCTL_STORK_LOG:
        KeAcquireSpinLock(&s->lock, &irql);
        count = s->logged < ENTRIES ? s->logged : ENTRIES;
        if (count > room / sizeof(RING))
            count = room / sizeof(RING);
        for (i = 0; i < count; i++)     /* the newest first */
            ((RING *)irp->AssociatedIrp.SystemBuffer)[i] = s->log[(s->logged - 1 - i) % ENTRIES];
        KeReleaseSpinLock(&s->lock, irql);
        *info = count * sizeof(RING);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x05 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(STORK), .flags = DO_BUFFERED_IO, .make = Make, .unmake = Unmake,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
