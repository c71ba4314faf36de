/*
 * BELLOWS: factorials by QEMU's educational card, without interrupts: a program has the card begin, and asks later whether it is done and what came out. Before
 * the card loses its power or its registers the driver sees to it that it is at rest.
 *
 * The bug: the driver waits for the card to be at rest also when the card has been pulled out; a card that is not there reads as ones, which says busy, and the
 * processor never comes out of the loop.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: endless-loop, stuck, livelock, long-stall
 * Needs: removal
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define BELLOWS_BEGIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define BELLOWS_ASK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define BELLOWS_CARD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x913, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST 12

typedef struct _ANSWER {
    ULONG Done;
    ULONG Number;                   /* of which it is the factorial; of the last that was begun */
    ULONG Result;                   /* 0 while not done */
} ANSWER;

typedef struct _DEV {
    RIG Rig;
    PANE Regs;
    BOOLEAN Begun;                  /* under the rig's lock */
    ULONG Number;
} DEV;

static const GUID Interface = { 0x6f1c02da, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x0a } };

/* Lock held, device live. */
static NTSTATUS Start(DEV *dev, ULONG number)
{
    ULONG state = PaneRead(&dev->Regs, EDU_STATUS);

    if (state == 0xFFFFFFFF)
        return STATUS_NO_SUCH_DEVICE;
    if (state & EDU_STATUS_BUSY)
        return STATUS_DEVICE_BUSY;
    PaneWrite(&dev->Regs, EDU_FACT, number);
    dev->Begun = TRUE;
    dev->Number = number;
    return STATUS_SUCCESS;
}

/* Lock held, device live. */
static NTSTATUS Ask(DEV *dev, ANSWER *answer)
{
    ULONG state = PaneRead(&dev->Regs, EDU_STATUS);

    if (state == 0xFFFFFFFF)
        return STATUS_NO_SUCH_DEVICE;
    if (!dev->Begun)
        return STATUS_INVALID_DEVICE_STATE;
    answer->Done = !(state & EDU_STATUS_BUSY);
    answer->Number = dev->Number;
    answer->Result = answer->Done ? PaneRead(&dev->Regs, EDU_FACT) : 0;
    return STATUS_SUCCESS;
}

static NTSTATUS BellowsControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status;
    ANSWER answer;
    ULONG number = 0;
    KIRQL irql;

    RtlZeroMemory(&answer, sizeof(answer));
    switch (task->Code) {
    case BELLOWS_BEGIN:
        if (task->In < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        number = *(PULONG)task->Buffer;
        if (number > MOST)
            return STATUS_INVALID_PARAMETER;
        break;
    case BELLOWS_ASK:
        if (task->Out < sizeof(ANSWER))
            return STATUS_BUFFER_TOO_SMALL;
        break;
    case BELLOWS_CARD:
        if (task->Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        break;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }

    KeAcquireSpinLock(&rig->Lock, &irql);
    if (!RigLive(rig)) {
        status = RIG_HOLD;
    } else if (task->Code == BELLOWS_BEGIN) {
        status = Start(dev, number);
    } else if (task->Code == BELLOWS_ASK) {
        status = Ask(dev, &answer);
    } else {
        number = PaneRead(&dev->Regs, EDU_ID);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&rig->Lock, irql);

    if (status == STATUS_SUCCESS && task->Code == BELLOWS_ASK) {
        RtlCopyMemory(task->Buffer, &answer, sizeof(answer));
        task->Info = sizeof(answer);
    } else if (status == STATUS_SUCCESS && task->Code == BELLOWS_CARD) {
        RtlCopyMemory(task->Buffer, &number, sizeof(number));
        task->Info = sizeof(number);
    }
    return status;
}

static NTSTATUS BellowsBorn(RIG *rig)
{
    (void)rig;
    return STATUS_SUCCESS;
}

static VOID BellowsDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS BellowsEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;

    return PaneOpen(&dev->Regs, RigFind(list, CmResourceTypeMemory, 0), EDU_LEAST);
}

static VOID BellowsStrip(RIG *rig)
{
    PaneShut(&((DEV *)rig)->Regs);
}

static VOID BellowsUp(RIG *rig)
{
    EduMask(&((DEV *)rig)->Regs, FALSE);
}

/* A factorial takes some microseconds. What it was is not to be known behind this. */
static VOID BellowsDown(RIG *rig, BOOLEAN reachable)
{
    DEV *dev = (DEV *)rig;

#ifndef FIXED
    (void)reachable;
    while (PaneRead(&dev->Regs, EDU_STATUS) & EDU_STATUS_BUSY)
        KeStallExecutionProcessor(1);
#else
    ULONG looks;

    for (looks = 0; reachable && looks < 50; looks++) {
        if (!(PaneRead(&dev->Regs, EDU_STATUS) & EDU_STATUS_BUSY))
            break;
        KeStallExecutionProcessor(1);
    }
#endif
    dev->Begun = FALSE;
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = BellowsBorn,
    .Dead = BellowsDead,
    .Equip = BellowsEquip,
    .Strip = BellowsStrip,
    .Up = BellowsUp,
    .Down = BellowsDown,
    .Control = BellowsControl,
};

static NTSTATUS NTAPI BellowsAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, BellowsAdd);
}
