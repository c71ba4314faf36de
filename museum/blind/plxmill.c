/*
 * plxmill: a two-axis stepper controller on a board behind a PLX PCI 9052. Programs give an axis a number of steps and a rate in millihertz;
 * the board's divider makes the pulses from a clock of 4 MHz. A port of the vendor's NT4 driver, which took the rate in hertz.
 *
 * The bug: the rate is checked for zero before it is brought from millihertz to hertz, so that a rate below one hertz is zero behind the check, and
 * the clock is divided by it.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: divide-error
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_MILL_MOVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MILL_HALT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MILL_WHERE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x933, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MILL_AXES      2
#define MILL_CLOCK     4000000
#define MILL_FASTEST   200000000             /* mHz */
#define MILL_AXIS(n)   ((n) * 0x20)
#define MILL_CONTROL   0x00
#define MILL_GO        0x01
#define MILL_BACKWARDS 0x02
#define MILL_DIVIDER   0x04
#define MILL_STEPS     0x08
#define MILL_POSITION  0x0C

typedef struct MILL_MOVE {
    ULONG Axis;
    LONG Steps;
    ULONG Rate;                              /* mHz */
} MILL_MOVE;

typedef struct MILL_WHERE {
    LONG Position;
    ULONG Moving;
} MILL_WHERE;

typedef struct MILL {
    DEPOT *Depot;
    WINDOW Local;
    KSPIN_LOCK Lock;                         /* the registers of the axes */
    ULONG Moves[MILL_AXES];
} MILL;

static const GUID MillGuid = { 0x0d41c29a, 0x3377, 0x4e58, { 0x8c, 0x65, 0x1e, 0xb5, 0x90, 0x50, 0x66, 0x04 } };

static VOID MillStop(MILL *m, ULONG axis)
{
    KIRQL irql;

    KeAcquireSpinLock(&m->Lock, &irql);
    WindowPut(&m->Local, MILL_AXIS(axis) + MILL_CONTROL, 0);
    KeReleaseSpinLock(&m->Lock, irql);
}

static NTSTATUS MillStart(MILL *m, const MILL_MOVE *move)
{
    ULONG at = MILL_AXIS(move->Axis), steps, rate, divider;
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL irql;

    if (move->Rate == 0 || move->Rate > MILL_FASTEST)
        return STATUS_INVALID_PARAMETER;
    rate = move->Rate / 1000;
#ifdef FIXED
    if (rate == 0)
        return STATUS_INVALID_PARAMETER;
#endif
    divider = MILL_CLOCK / rate;
    steps = move->Steps < 0 ? 0 - (ULONG)move->Steps : (ULONG)move->Steps;

    KeAcquireSpinLock(&m->Lock, &irql);
    if (WindowGet(&m->Local, at + MILL_CONTROL) & MILL_GO) {
        st = STATUS_DEVICE_BUSY;
    } else {
        WindowPut(&m->Local, at + MILL_DIVIDER, divider);
        WindowPut(&m->Local, at + MILL_STEPS, steps);
        WindowPut(&m->Local, at + MILL_CONTROL, MILL_GO | (move->Steps < 0 ? MILL_BACKWARDS : 0));
        m->Moves[move->Axis]++;
    }
    KeReleaseSpinLock(&m->Lock, irql);
    return st;
}

static NTSTATUS MillControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    MILL *m = d->Own;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    MILL_WHERE where;
    ULONG axis = 0;
    KIRQL irql;

    if (in >= sizeof(ULONG) && buffer != NULL)      /* a code of another method has none there */
        axis = *(PULONG)buffer;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MILL_MOVE:
        if (in < sizeof(MILL_MOVE) || axis >= MILL_AXES)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        return DepotEnd(d, irp, MillStart(m, buffer), 0);
    case IOCTL_MILL_HALT:
        if (in < sizeof(ULONG) || axis >= MILL_AXES)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        MillStop(m, axis);
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    case IOCTL_MILL_WHERE:
        if (in < sizeof(ULONG) || axis >= MILL_AXES)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        if (out < sizeof(MILL_WHERE))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&m->Lock, &irql);
        where.Position = (LONG)WindowGet(&m->Local, MILL_AXIS(axis) + MILL_POSITION);
        where.Moving = WindowGet(&m->Local, MILL_AXIS(axis) + MILL_CONTROL) & MILL_GO;
        KeReleaseSpinLock(&m->Lock, irql);
        *(MILL_WHERE *)buffer = where;
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(where));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID MillSleep(DEPOT *d)
{
    ULONG i;

    for (i = 0; i < MILL_AXES; i++)
        MillStop(d->Own, i);
}

/* The axes stay where they are until a program moves them. */
static VOID MillWake(DEPOT *d)
{
    MillSleep(d);
}

static NTSTATUS MillUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    MILL *m = d->Own;
    const RES *r = PlxLocal(list);

    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&m->Local, r, MILL_AXIS(MILL_AXES)))
        return STATUS_INSUFFICIENT_RESOURCES;
    MillSleep(d);
    return STATUS_SUCCESS;
}

static VOID MillDown(DEPOT *d, BOOLEAN reach)
{
    MILL *m = d->Own;

    if (reach)
        MillSleep(d);
    WindowShut(&m->Local);
}

static NTSTATUS MillPrepare(DEPOT *d)
{
    MILL *m = d->Own;

    m->Depot = d;
    KeInitializeSpinLock(&m->Lock);
    return STATUS_SUCCESS;
}

static const PLAN MillPlan = {
    .Interface = &MillGuid,
    .OwnSize = sizeof(MILL),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = MillPrepare,
    .Up = MillUp,
    .Down = MillDown,
    .Sleep = MillSleep,
    .Wake = MillWake,
    .Control = MillControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &MillPlan);
}
