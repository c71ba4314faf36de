/*
 * STEPPR: a controller for four stepper motors on a PCI card with one window of registers. Before a command is given to an axis the
 * card's command register must be free, which takes it some microseconds.
 *
 * The bug: the wait for a free command register has no bound and takes what it reads at face value: it never ends when the card has
 * been pulled out, as all bits read as ones then, or when it hangs.
 *
 * Device: PCI\VEN_1D5A&DEV_0122
 * Rule: endless-loop, stuck, livelock
 * Needs: ioctl, removal, device
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_STEP_MOVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9F1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STEP_HALT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9F2, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STEP_WHERE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9F3, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID StepFace = { 0x5b1d3c1b, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x0C } };

#define AXES 4
#define REG_STATUS    0x00
#define REG_COMMAND   0x04
#define REG_STEPS     0x08
#define REG_SPEED     0x0C
#define REG_POSITION  0x10      /* one for each axis */
#define REG_BYTES     0x20

#define STATUS_BUSY   0x00000001U
#define COMMAND_MOVE  0x100
#define COMMAND_HALT  0x200

typedef struct MOVE {
    ULONG axis;
    LONG steps;
    ULONG stepsPerSecond;
} MOVE;

typedef struct STEP {
    CARD card;
    WINDOW *regs;
    FAST_MUTEX mutex;           /* one command at a time */
} STEP;

/* The command register is free when this returns STATUS_SUCCESS. */
static NTSTATUS StepAwaitFree(STEP *d)
{
#ifndef FIXED
    while (CardGet(d->regs, REG_STATUS) & STATUS_BUSY)
        ;
    return STATUS_SUCCESS;
#else
    LARGE_INTEGER step;
    ULONG i, status;

    step.QuadPart = -10000;
    for (i = 0; i < 100; i++) {
        status = CardGet(d->regs, REG_STATUS);
        if (status == 0xFFFFFFFF)
            return STATUS_NO_SUCH_DEVICE;
        if ((status & STATUS_BUSY) == 0)
            return STATUS_SUCCESS;
        if (i < 20)
            KeStallExecutionProcessor(5);
        else
            KeDelayExecutionThread(KernelMode, FALSE, &step);
    }
    return STATUS_IO_TIMEOUT;
#endif
}

static NTSTATUS StepMove(STEP *d, const MOVE *move)
{
    NTSTATUS status;

    if (move->axis >= AXES || move->stepsPerSecond == 0 || move->stepsPerSecond > 50000)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&d->mutex);
    status = StepAwaitFree(d);
    if (NT_SUCCESS(status)) {
        CardPut(d->regs, REG_STEPS, (ULONG)move->steps);
        CardPut(d->regs, REG_SPEED, move->stepsPerSecond);
        CardPut(d->regs, REG_COMMAND, COMMAND_MOVE | move->axis);
    }
    ExReleaseFastMutex(&d->mutex);
    return status;
}

static NTSTATUS StepHalt(STEP *d)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG axis;

    ExAcquireFastMutex(&d->mutex);
    for (axis = 0; axis < AXES && NT_SUCCESS(status); axis++) {
        status = StepAwaitFree(d);
        if (NT_SUCCESS(status))
            CardPut(d->regs, REG_COMMAND, COMMAND_HALT | axis);
    }
    ExReleaseFastMutex(&d->mutex);
    return status;
}

static NTSTATUS StepSettle(STEAD *s)
{
    ExInitializeFastMutex(&OWN(s, STEP)->mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS StepBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    STEP *d = OWN(s, STEP);

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    if (d->card.windows == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->regs = &d->card.window[0];
    return CardMap(d->regs, REG_BYTES);
}

static VOID StepEnd(STEAD *s, BOOLEAN touch)
{
    STEP *d = OWN(s, STEP);

    if (touch)
        StepHalt(d);
    CardUnmap(&d->card);
}

static VOID StepDim(STEAD *s)
{
    STEP *d = OWN(s, STEP);

    StepHalt(d);
    CardGet(d->regs, REG_STATUS);
}

static NTSTATUS StepServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    STEP *d = OWN(s, STEP);
    PULONG words = irp->AssociatedIrp.SystemBuffer;
    ULONG axis;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STEP_MOVE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(MOVE))
            return STATUS_BUFFER_TOO_SMALL;
        return StepMove(d, irp->AssociatedIrp.SystemBuffer);
    case IOCTL_STEP_HALT:
        return StepHalt(d);
    case IOCTL_STEP_WHERE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < AXES * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&d->mutex);
        for (axis = 0; axis < AXES; axis++)
            words[axis] = CardGet(d->regs, REG_POSITION + 4 * axis);
        ExReleaseFastMutex(&d->mutex);
        *info = AXES * sizeof(ULONG);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT StepCraft = {
    .own = sizeof(STEP),
    .flags = DO_BUFFERED_IO,
    .face = &StepFace,
    .settle = StepSettle,
    .begin = StepBegin,
    .end = StepEnd,
    .dim = StepDim,
    .serve = StepServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &StepCraft);
}
