/*
 * plxpacer: a pulse generator on the local bus of a PLX PCI 9052. A program chooses the rate of the pulses, the prescaler of
 * the generator's clock, and how much of a period the pulse takes; the driver works out the board's counters.
 *
 * The bug: a rate is held against the clock as the prescaler has it when the rate is set, but not when the prescaler is
 * changed later: a slower clock leaves a period of no ticks, by which the next setting of the pulse's width divides.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: divide-error
 * Needs: ioctl
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_PACER_RATE        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PACER_PRESCALE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PACER_WIDTH       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PACER_SETTINGS    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x893, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* The board, in local space 0 (BAR2) */
#define PERIOD      0x0
#define WIDTH       0x4
#define CONTROL     0x8
#define   GO            1u
#define   PRESCALE(n)   ((n) << 4)

#define CLOCK       1000000u    /* the board's oscillator */
#define SLOWEST     10u         /* the prescaler halves it up to so many times */

typedef struct SETTINGS {
    ULONG rate;             /* pulses in a second */
    ULONG prescale;
    ULONG period;           /* ticks */
    ULONG width;            /* ticks */
    ULONG resolution;       /* what one tick is of a period, in parts of a million */
} SETTINGS;

typedef struct PACER {
    FR_DEV fr;
    FR_WIN board;
    FAST_MUTEX lock;
    SETTINGS now;
} PACER;

static void Program(PACER *p)
{
    FrWr(&p->board, CONTROL, 0);
    FrWr(&p->board, PERIOD, p->now.period);
    FrWr(&p->board, WIDTH, p->now.width);
    FrWr(&p->board, CONTROL, PRESCALE(p->now.prescale) | GO);
}

static NTSTATUS Rate(PACER *p, ULONG rate)
{
    if (rate < 1 || rate > CLOCK >> p->now.prescale)
        return STATUS_INVALID_PARAMETER;
    p->now.rate = rate;
    p->now.period = (CLOCK >> p->now.prescale) / rate;
    p->now.width = (p->now.period + 1) / 2;
    Program(p);
    return STATUS_SUCCESS;
}

static NTSTATUS Prescale(PACER *p, ULONG prescale)
{
    if (prescale > SLOWEST)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (p->now.rate > CLOCK >> prescale)
        return STATUS_INVALID_PARAMETER;
#endif
    p->now.prescale = prescale;
    p->now.period = (CLOCK >> prescale) / p->now.rate;
    p->now.width = (p->now.period + 1) / 2;
    Program(p);
    return STATUS_SUCCESS;
}

static NTSTATUS Width(PACER *p, ULONG permille)
{
    if (permille > 1000)
        return STATUS_INVALID_PARAMETER;
    p->now.resolution = 1000000u / p->now.period;
    p->now.width = permille * 1000u / (p->now.resolution ? p->now.resolution : 1);
    if (p->now.width > p->now.period)
        p->now.width = p->now.period;
    Program(p);
    return STATUS_SUCCESS;
}

static NTSTATUS Make(FR_DEV *dev)
{
    PACER *p = (PACER *)dev;
    ExInitializeFastMutex(&p->lock);
    p->now.rate = 1000;
    p->now.period = CLOCK / 1000;
    p->now.width = p->now.period / 2;
    return STATUS_SUCCESS;
}

static NTSTATUS Start(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    return FrMap(&((PACER *)dev)->board, list, 2, CONTROL + 4);
}

static void Release(FR_DEV *dev)
{
    FrUnmap(&((PACER *)dev)->board);
}

static void Run(FR_DEV *dev)
{
    PACER *p = (PACER *)dev;
    ExAcquireFastMutex(&p->lock);
    Program(p);
    ExReleaseFastMutex(&p->lock);
}

static void Halt(FR_DEV *dev, BOOLEAN present)
{
    if (present)
        FrWr(&((PACER *)dev)->board, CONTROL, 0);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    PACER *p = (PACER *)dev;
    PULONG value = irp->AssociatedIrp.SystemBuffer;
    ULONG in, room, code;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;
    if (at->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return status;
    in = at->Parameters.DeviceIoControl.InputBufferLength;
    room = at->Parameters.DeviceIoControl.OutputBufferLength;
    code = at->Parameters.DeviceIoControl.IoControlCode;
    ExAcquireFastMutex(&p->lock);
    switch (code) {
    case IOCTL_PACER_RATE:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : Rate(p, *value);
        break;
    case IOCTL_PACER_PRESCALE:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : Prescale(p, *value);
        break;
    case IOCTL_PACER_WIDTH:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : Width(p, *value);
        break;
    case IOCTL_PACER_SETTINGS:
        status = STATUS_BUFFER_TOO_SMALL;
        if (room >= sizeof(SETTINGS)) {
            *(SETTINGS *)irp->AssociatedIrp.SystemBuffer = p->now;
            *info = sizeof(SETTINGS);
            status = STATUS_SUCCESS;
        }
        break;
    }
    ExReleaseFastMutex(&p->lock);
    return status;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x09 } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(PACER), .flags = DO_BUFFERED_IO, .make = Make,
    .start = Start, .release = Release, .run = Run, .halt = Halt, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
