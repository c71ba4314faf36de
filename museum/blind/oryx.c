/*
 * oryx: a multiplexed voltmeter. A request names one of eight channels, the card measures it and interrupts; requests wait for
 * their turn, and what was under way when the device goes to sleep is measured again when it wakes.
 *
 * The bug: the routine that begins the next measurement does not look whether the device is awake: it is called, too, when the
 * request that is under way is cancelled, which may be while the card is without power or its registers are unmapped.
 *
 * Device: PCI\VEN_5A1F&DEV_0560
 * Rule: card-without-power, device-memory-not-mapped, wild-write, bad-pointer
 * Needs: ioctl, cancel, power
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_ORYX_MEASURE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ORYX_COUNT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CONTROL     0x00
#define   CONVERT       1u
#define ENABLE      0x04
#define STATUS      0x08    /* ones clear */
#define CHANNEL     0x10
#define RESULT      0x14

#define CHANNELS    8

typedef struct ORYX {
    FR_DEV fr;
    FR_WIN regs;
    FR_IRQ irq;
    KDPC dpc;
    FR_QUEUE queue;             /* FR_WORKS: the one that is measured */
    volatile LONG pending;
    KSPIN_LOCK lock;
    BOOLEAN running;
    BOOLEAN busy;               /* with channel */
    ULONG channel;
    ULONG measured;
} ORYX;

static BOOLEAN Service(FR_DEV *dev)
{
    ORYX *o = (ORYX *)dev;
    ULONG status = FrRd(&o->regs, STATUS);
    if (status == 0 || status == ~0u)
        return FALSE;
    FrWr(&o->regs, STATUS, status);
    InterlockedOr(&o->pending, (LONG)status);
    KeInsertQueueDpc(&o->dpc, NULL, NULL);
    return TRUE;
}

static void Arm(FR_DEV *dev, BOOLEAN on)
{
    ORYX *o = (ORYX *)dev;
    ULONG status;
    FrWr(&o->regs, ENABLE, on ? 1 : 0);
    if (!on) {
        FrWr(&o->regs, CONTROL, 0);
        status = FrRd(&o->regs, STATUS);
        FrWr(&o->regs, STATUS, status);
    }
}

/* With the lock held. */
static void Convert(ORYX *o)
{
    InterlockedExchange(&o->pending, 0);
    FrWr(&o->regs, CHANNEL, o->channel);
    FrWr(&o->regs, CONTROL, CONVERT);
}

static void Which(PIRP irp, PVOID context)
{
    *(PULONG)context = *(PULONG)irp->AssociatedIrp.SystemBuffer;
}

static void Next(ORYX *o)
{
    KIRQL irql;
    KeAcquireSpinLock(&o->lock, &irql);
#ifdef FIXED
    if (!o->running) {
        KeReleaseSpinLock(&o->lock, irql);
        return;
    }
#endif
    if (!o->busy && FrStep(&o->queue, FR_WAITS, FR_WORKS, Which, &o->channel)) {
        o->busy = TRUE;
        Convert(o);
    }
    KeReleaseSpinLock(&o->lock, irql);
}

/* A request leaves the queue before it is answered. */
static void Dropped(FR_DEV *dev, PIRP irp)
{
    ORYX *o = (ORYX *)dev;
    KIRQL irql;
    if (FR_STAGE(irp) != FR_WORKS)
        return;
    KeAcquireSpinLock(&o->lock, &irql);
    o->busy = FALSE;
    if (o->running)
        FrWr(&o->regs, CONTROL, 0);
    KeReleaseSpinLock(&o->lock, irql);
    Next(o);
}

static VOID NTAPI Measured(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    ORYX *o = context;
    ULONG result;
    PIRP irp = NULL;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&o->lock);
    if (o->running && o->busy && InterlockedExchange(&o->pending, 0)) {
        result = FrRd(&o->regs, RESULT);
        irp = FrTakeStage(&o->queue, FR_WORKS);     /* none: it is being cancelled, see Dropped */
        if (irp) {
            o->busy = FALSE;
            o->measured++;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&o->lock);
    if (irp) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
        FrFinish(&o->fr, irp, STATUS_SUCCESS, sizeof result);
        Next(o);
    }
}

static NTSTATUS Make(FR_DEV *dev)
{
    ORYX *o = (ORYX *)dev;
    KeInitializeSpinLock(&o->lock);
    KeInitializeDpc(&o->dpc, Measured, o);
    FrQueue(&o->queue, dev);
    o->queue.dropped = Dropped;
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    ORYX *o = (ORYX *)dev;
    NTSTATUS status = FrMap(&o->regs, list, 0, RESULT + 4);
    if (!NT_SUCCESS(status))
        return status;
    status = FrIrqConnect(&o->irq, dev, list, Service, Arm);
    if (!NT_SUCCESS(status))
        FrUnmap(&o->regs);
    return status;
}

static void Release(FR_DEV *dev)
{
    ORYX *o = (ORYX *)dev;
    FrIrqDisconnect(&o->irq);
    FrUnmap(&o->regs);
}

static void Run(FR_DEV *dev)
{
    ORYX *o = (ORYX *)dev;
    KIRQL irql;
    FrIrqSwitch(&o->irq, TRUE, TRUE);
    KeAcquireSpinLock(&o->lock, &irql);
    o->running = TRUE;
    if (o->busy)
        Convert(o);
    KeReleaseSpinLock(&o->lock, irql);
    Next(o);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    ORYX *o = (ORYX *)dev;
    KIRQL irql;
    KeAcquireSpinLock(&o->lock, &irql);
    o->running = FALSE;
    KeReleaseSpinLock(&o->lock, irql);
    FrIrqSwitch(&o->irq, FALSE, present);
    KeFlushQueuedDpcs();
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    ORYX *o = (ORYX *)dev;
    KIRQL irql;
    FrSweep(&o->queue, NULL, status);
    KeAcquireSpinLock(&o->lock, &irql);
    o->busy = FALSE;
    KeReleaseSpinLock(&o->lock, irql);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    ORYX *o = (ORYX *)dev;
    PIRP irp;
    while ((irp = FrTake(&o->queue, file)) != NULL) {
        Dropped(dev, irp);
        FrFinish(dev, irp, STATUS_CANCELLED, 0);
    }
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    ORYX *o = (ORYX *)dev;
    ULONG in, room;
    KIRQL irql;
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = at->Parameters.DeviceIoControl.InputBufferLength;
    room = at->Parameters.DeviceIoControl.OutputBufferLength;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ORYX_MEASURE:
        if (in < sizeof(ULONG) || room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*(PULONG)irp->AssociatedIrp.SystemBuffer >= CHANNELS)
            return STATUS_INVALID_PARAMETER;
        FrPut(&o->queue, irp);
        Next(o);
        return STATUS_PENDING;
    case IOCTL_ORYX_COUNT:
        if (room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&o->lock, &irql);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = o->measured;
        KeReleaseSpinLock(&o->lock, irql);
        *info = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x13 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(ORYX), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
