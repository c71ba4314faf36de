/*
 * gavial: a river gauge without interrupts. The driver looks at the level every 25 ms, by a timer that its DPC sets anew,
 * and wakes the programs that wait for the river to reach a level.
 *
 * The bug: when the device is stopped or sleeps, the timer is cancelled and the DPC awaited first, and the word by which the DPC
 * knows that it shall not set the timer again is changed only then: a DPC that runs meanwhile sets it, and comes again when
 * the registers are unmapped or without power.
 *
 * Device: PCI\VEN_5A1F&DEV_0340
 * Rule: wild-read, bad-pointer, device-memory-not-mapped, card-without-power, freed-active-timer, use-after-free
 * Needs: schedule, removal, power
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_GAVIAL_LEVEL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GAVIAL_AWAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CONTROL     0x00
#define   MEASURE       1u
#define LEVEL       0x0c

#define LOOK_MS     25

typedef struct LEVELS {
    ULONG now, lowest, highest;
    ULONG looks;
} LEVELS;

typedef struct GAVIAL {
    FR_DEV fr;
    FR_WIN regs;
    KTIMER timer;
    KDPC dpc;
    FR_QUEUE waiting;
    KSPIN_LOCK lock;
    BOOLEAN running;
    LEVELS levels;
} GAVIAL;

static BOOLEAN Reached(PIRP irp, PVOID context)
{
    return *(PULONG)irp->AssociatedIrp.SystemBuffer <= *(PULONG)context;
}

static VOID NTAPI Look(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    GAVIAL *g = context;
    ULONG level = FrRd(&g->regs, LEVEL) & 0xffff;
    PIRP irp;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&g->lock);
    g->levels.now = level;
    if (!g->levels.looks++)
        g->levels.lowest = g->levels.highest = level;
    if (level < g->levels.lowest)
        g->levels.lowest = level;
    if (level > g->levels.highest)
        g->levels.highest = level;
    if (g->running)
        KeSetTimer(&g->timer, FrMs(LOOK_MS), &g->dpc);
    KeReleaseSpinLockFromDpcLevel(&g->lock);
    while ((irp = FrTakeIf(&g->waiting, Reached, &level)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = level;
        FrFinish(&g->fr, irp, STATUS_SUCCESS, sizeof level);
    }
}

static void Running(GAVIAL *g, BOOLEAN on)
{
    KIRQL irql;
    KeAcquireSpinLock(&g->lock, &irql);
    g->running = on;
    if (on)
        KeSetTimer(&g->timer, FrMs(LOOK_MS), &g->dpc);
    KeReleaseSpinLock(&g->lock, irql);
}

static NTSTATUS Make(FR_DEV *dev)
{
    GAVIAL *g = (GAVIAL *)dev;
    KeInitializeSpinLock(&g->lock);
    KeInitializeTimer(&g->timer);
    KeInitializeDpc(&g->dpc, Look, g);
    FrQueue(&g->waiting, dev);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    return FrMap(&((GAVIAL *)dev)->regs, list, 0, LEVEL + 4);
}

static void Release(FR_DEV *dev)
{
    FrUnmap(&((GAVIAL *)dev)->regs);
}

static void Run(FR_DEV *dev)
{
    GAVIAL *g = (GAVIAL *)dev;
    FrWr(&g->regs, CONTROL, MEASURE);
    Running(g, TRUE);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    GAVIAL *g = (GAVIAL *)dev;
#ifndef FIXED
    KeCancelTimer(&g->timer);
    KeFlushQueuedDpcs();
    Running(g, FALSE);
#else
    Running(g, FALSE);
    KeCancelTimer(&g->timer);
    KeFlushQueuedDpcs();
#endif
    if (present)
        FrWr(&g->regs, CONTROL, 0);
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    FrSweep(&((GAVIAL *)dev)->waiting, NULL, status);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    FrSweep(&((GAVIAL *)dev)->waiting, file, STATUS_CANCELLED);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    GAVIAL *g = (GAVIAL *)dev;
    KIRQL irql;
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GAVIAL_LEVEL:
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LEVELS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&g->lock, &irql);
        *(LEVELS *)irp->AssociatedIrp.SystemBuffer = g->levels;
        KeReleaseSpinLock(&g->lock, irql);
        *info = sizeof(LEVELS);
        return STATUS_SUCCESS;
    case IOCTL_GAVIAL_AWAIT:
        if (at->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)
            || at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        FrPut(&g->waiting, irp);
        return STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x11 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(GAVIAL), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
