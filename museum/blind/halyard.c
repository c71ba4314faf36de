/*
 * HALYARD: eight inputs and eight outputs on a board behind a PLX PCI 9052. Programs read the inputs, set outputs, and change some of them in one go; what the
 * outputs shall be is kept, and written to the board again when it has been without power.
 *
 * The bug: whether the device is live is asked before its lock is taken, so as to spare the lock. The device may go to sleep, be stopped or be taken away in
 * between, and a register is touched all the same.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power, data-race, wild-read, wild-write, device-memory-not-mapped, stale-resource-used
 * Needs: ioctl, schedule, power, removal
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define HALYARD_INPUTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define HALYARD_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define HALYARD_CHANGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C3, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define BOARD_INPUTS 0x00
#define BOARD_OUTPUTS 0x04
#define BOARD_LEAST 0x10

typedef struct _CHANGE {
    UCHAR Clear;
    UCHAR Set;
} CHANGE;

typedef struct _DEV {
    RIG Rig;
    PANE Chip;
    PANE Board;
    ULONG Outputs;                  /* under the rig's lock */
} DEV;

static const GUID Interface = { 0x6f1c02d5, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x05 } };

/* With the lock, and the device live; or without, and not. */
static BOOLEAN Enter(DEV *dev, PKIRQL irql)
{
#ifndef FIXED
    if (!RigLive(&dev->Rig))
        return FALSE;
    KeAcquireSpinLock(&dev->Rig.Lock, irql);
    return TRUE;
#else
    KeAcquireSpinLock(&dev->Rig.Lock, irql);
    if (RigLive(&dev->Rig))
        return TRUE;
    KeReleaseSpinLock(&dev->Rig.Lock, *irql);
    return FALSE;
#endif
}

static VOID Leave(DEV *dev, KIRQL irql)
{
    KeReleaseSpinLock(&dev->Rig.Lock, irql);
}

static NTSTATUS HalyardControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    ULONG value;
    CHANGE change;
    KIRQL irql;

    switch (task->Code) {
    case HALYARD_INPUTS:
        if (task->Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (!Enter(dev, &irql))
            return RIG_HOLD;
        value = PaneRead(&dev->Board, BOARD_INPUTS);
        Leave(dev, irql);
        *(PULONG)task->Buffer = value & 0xFF;
        task->Info = sizeof(ULONG);
        return STATUS_SUCCESS;

    case HALYARD_SET:
        if (task->In < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        value = *(PULONG)task->Buffer;
        if (value > 0xFF)
            return STATUS_INVALID_PARAMETER;
        if (!Enter(dev, &irql))
            return RIG_HOLD;
        dev->Outputs = value;
        PaneWrite(&dev->Board, BOARD_OUTPUTS, dev->Outputs);
        Leave(dev, irql);
        return STATUS_SUCCESS;

    case HALYARD_CHANGE:
        if (task->In < sizeof(CHANGE))
            return STATUS_INVALID_PARAMETER;
        RtlCopyMemory(&change, task->Buffer, sizeof(change));
        if (change.Clear & change.Set)
            return STATUS_INVALID_PARAMETER;
        if (!Enter(dev, &irql))
            return RIG_HOLD;
        dev->Outputs = (dev->Outputs & ~(ULONG)change.Clear) | change.Set;
        PaneWrite(&dev->Board, BOARD_OUTPUTS, dev->Outputs);
        Leave(dev, irql);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS HalyardBorn(RIG *rig)
{
    (void)rig;
    return STATUS_SUCCESS;
}

static VOID HalyardDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS HalyardEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = PaneOpen(&dev->Chip, PlxChip(list), PLX_LEAST);

    if (NT_SUCCESS(status))
        status = PaneOpen(&dev->Board, PlxBoard(list), BOARD_LEAST);
    return status;
}

static VOID HalyardStrip(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    PaneShut(&dev->Board);
    PaneShut(&dev->Chip);
}

static VOID HalyardUp(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    PaneWrite(&dev->Chip, PLX_INTCSR, 0);
    PaneWrite(&dev->Board, BOARD_OUTPUTS, dev->Outputs);
}

static VOID HalyardDown(RIG *rig, BOOLEAN reachable)
{
    DEV *dev = (DEV *)rig;

    if (reachable) {
        PaneWrite(&dev->Board, BOARD_OUTPUTS, 0);
        (void)PaneRead(&dev->Board, BOARD_OUTPUTS);
    }
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = HalyardBorn,
    .Dead = HalyardDead,
    .Equip = HalyardEquip,
    .Strip = HalyardStrip,
    .Up = HalyardUp,
    .Down = HalyardDown,
    .Control = HalyardControl,
};

static NTSTATUS NTAPI HalyardAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, HalyardAdd);
}
