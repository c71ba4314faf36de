/*
 * SEXTANT: an angle encoder behind a PLX PCI 9052. The driver looks at the angle every few milliseconds and keeps the least, the greatest and the last one;
 * programs ask for them, have them begin anew, and say how often the driver shall look.
 *
 * The bug: the routine of the timer sets the timer again behind the lock under which it has found the device live. When the device is stopped in between, its
 * timer is set all the same, and runs out in memory that is freed with the device.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: freed-active-timer, use-after-free, freed-queued-dpc, unload-still-called, write-after-free
 * Needs: schedule, removal
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define SEXTANT_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define SEXTANT_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define SEXTANT_PERIOD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x883, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define BOARD_ANGLE 0x00
#define BOARD_LEAST 0x10

typedef struct _ANGLES {
    ULONG Looks;
    ULONG Least;
    ULONG Greatest;
    ULONG Last;
} ANGLES;

typedef struct _DEV {
    RIG Rig;
    PANE Chip;
    PANE Board;
    KTIMER Timer;
    KDPC Tick;
    ULONG Period;                   /* milliseconds */
    ANGLES Angles;
} DEV;

static const GUID Interface = { 0x6f1c02d1, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x01 } };

static VOID SetTimer(DEV *dev, ULONG period)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * period;
    KeSetTimer(&dev->Timer, due, &dev->Tick);
}

/* Lock held, device live. */
static VOID Look(DEV *dev)
{
    ULONG angle = PaneRead(&dev->Board, BOARD_ANGLE);

    if (angle == 0xFFFFFFFF)                    /* not there any more */
        return;
    angle &= 0xFFFFF;
    if (dev->Angles.Looks == 0 || angle < dev->Angles.Least)
        dev->Angles.Least = angle;
    if (dev->Angles.Looks == 0 || angle > dev->Angles.Greatest)
        dev->Angles.Greatest = angle;
    dev->Angles.Last = angle;
    dev->Angles.Looks++;
}

static VOID NTAPI Tick(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    DEV *dev = context;
#ifndef FIXED
    ULONG period = 0;
#endif

    (void)dpc;
    (void)a;
    (void)b;
    KeAcquireSpinLockAtDpcLevel(&dev->Rig.Lock);
    if (RigLive(&dev->Rig)) {
        Look(dev);
#ifndef FIXED
        period = dev->Period;
#else
        SetTimer(dev, dev->Period);
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&dev->Rig.Lock);
#ifndef FIXED
    if (period != 0)
        SetTimer(dev, period);
#endif
}

static NTSTATUS SextantBorn(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    KeInitializeTimer(&dev->Timer);
    KeInitializeDpc(&dev->Tick, Tick, dev);
    dev->Period = 10;
    return STATUS_SUCCESS;
}

static VOID SextantDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS SextantEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = PaneOpen(&dev->Chip, PlxChip(list), PLX_LEAST);

    if (NT_SUCCESS(status))
        status = PaneOpen(&dev->Board, PlxBoard(list), BOARD_LEAST);
    return status;
}

static VOID SextantStrip(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    PaneShut(&dev->Board);
    PaneShut(&dev->Chip);
}

static VOID SextantUp(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    PaneWrite(&dev->Chip, PLX_INTCSR, 0);
    SetTimer(dev, dev->Period);
}

static VOID SextantDown(RIG *rig, BOOLEAN reachable)
{
    DEV *dev = (DEV *)rig;

    (void)reachable;
    KeCancelTimer(&dev->Timer);
}

static NTSTATUS SextantControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    ANGLES angles;
    ULONG period;
    KIRQL irql;

    switch (task->Code) {
    case SEXTANT_GET:
        if (task->Out < sizeof(ANGLES))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&rig->Lock, &irql);
        angles = dev->Angles;
        KeReleaseSpinLock(&rig->Lock, irql);
        RtlCopyMemory(task->Buffer, &angles, sizeof(angles));
        task->Info = sizeof(angles);
        return STATUS_SUCCESS;

    case SEXTANT_RESET:
        KeAcquireSpinLock(&rig->Lock, &irql);
        RtlZeroMemory(&dev->Angles, sizeof(dev->Angles));
        KeReleaseSpinLock(&rig->Lock, irql);
        return STATUS_SUCCESS;

    case SEXTANT_PERIOD:
        if (task->In < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        period = *(PULONG)task->Buffer;
        if (period < 2 || period > 10000)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&rig->Lock, &irql);
        dev->Period = period;
        if (RigLive(rig))
            SetTimer(dev, period);
        KeReleaseSpinLock(&rig->Lock, irql);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = SextantBorn,
    .Dead = SextantDead,
    .Equip = SextantEquip,
    .Strip = SextantStrip,
    .Up = SextantUp,
    .Down = SextantDown,
    .Control = SextantControl,
};

static NTSTATUS NTAPI SextantAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, SextantAdd);
}
