/*
 * BOWSPRIT: a board with a mailbox of sixteen words behind a PLX PCI 9052, by which programs speak with the processor on the board. Programs read runs of
 * words from a place that they name, and write one word at a time; all of it is 32 bits wide.
 *
 * The bug: how many words a program may read is checked in bytes: the rest of the mailbox behind the place is compared with the count of words, and four times
 * as much is read as there is.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping, wild-read
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define BOWSPRIT_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define BOWSPRIT_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define BOWSPRIT_SIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A3, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MAILBOX 64                  /* bytes */

typedef struct _RUN {
    ULONG Offset;                   /* bytes */
    ULONG Count;                    /* words of 32 bits */
} RUN;

typedef struct _WORD {
    ULONG Offset;
    ULONG Value;
} WORD_OF;

typedef struct _DEV {
    RIG Rig;
    PANE Chip;
    PANE Mailbox;
} DEV;

static const GUID Interface = { 0x6f1c02d3, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x03 } };

static NTSTATUS BowspritBorn(RIG *rig)
{
    (void)rig;
    return STATUS_SUCCESS;
}

static VOID BowspritDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS BowspritEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR board = PlxBoard(list);
    CM_PARTIAL_RESOURCE_DESCRIPTOR part;
    NTSTATUS status = PaneOpen(&dev->Chip, PlxChip(list), PLX_LEAST);

    if (!NT_SUCCESS(status))
        return status;
    if (board == NULL || board->u.Memory.Length < MAILBOX)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    /* The window goes on behind the mailbox with what is the board's own. */
    part = *board;
    part.u.Memory.Length = MAILBOX;
    return PaneOpen(&dev->Mailbox, &part, MAILBOX);
}

static VOID BowspritStrip(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    PaneShut(&dev->Mailbox);
    PaneShut(&dev->Chip);
}

static VOID BowspritUp(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    PaneWrite(&dev->Chip, PLX_INTCSR, 0);
}

static VOID BowspritDown(RIG *rig, BOOLEAN reachable)
{
    (void)rig;
    (void)reachable;
}

static NTSTATUS ReadRun(DEV *dev, TASK *task)
{
    NTSTATUS status = STATUS_SUCCESS;
    PULONG into = task->Buffer;
    ULONG i;
    RUN run;
    KIRQL irql;

    if (task->In < sizeof(RUN))
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(&run, task->Buffer, sizeof(run));
    if (run.Offset % sizeof(ULONG) != 0 || run.Offset >= MAILBOX || run.Count == 0)
        return STATUS_INVALID_PARAMETER;
#ifndef FIXED
    if (run.Count > MAILBOX - run.Offset)
        return STATUS_INVALID_PARAMETER;
#else
    if (run.Count > (MAILBOX - run.Offset) / sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
#endif
    if (task->Out < run.Count * sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;

    KeAcquireSpinLock(&dev->Rig.Lock, &irql);
    if (!RigLive(&dev->Rig)) {
        status = RIG_HOLD;
    } else {
        for (i = 0; i < run.Count; i++)
            into[i] = PaneRead(&dev->Mailbox, run.Offset + i * sizeof(ULONG));
    }
    KeReleaseSpinLock(&dev->Rig.Lock, irql);
    if (NT_SUCCESS(status))
        task->Info = run.Count * sizeof(ULONG);
    return status;
}

static NTSTATUS WriteWord(DEV *dev, TASK *task)
{
    NTSTATUS status = STATUS_SUCCESS;
    WORD_OF word;
    KIRQL irql;

    if (task->In < sizeof(WORD_OF))
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(&word, task->Buffer, sizeof(word));
    if (word.Offset % sizeof(ULONG) != 0 || word.Offset >= MAILBOX)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&dev->Rig.Lock, &irql);
    if (RigLive(&dev->Rig))
        PaneWrite(&dev->Mailbox, word.Offset, word.Value);
    else
        status = RIG_HOLD;
    KeReleaseSpinLock(&dev->Rig.Lock, irql);
    return status;
}

static NTSTATUS BowspritControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;

    switch (task->Code) {
    case BOWSPRIT_READ:
        return ReadRun(dev, task);
    case BOWSPRIT_WRITE:
        return WriteWord(dev, task);
    case BOWSPRIT_SIZE:
        if (task->Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *(PULONG)task->Buffer = MAILBOX;
        task->Info = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = BowspritBorn,
    .Dead = BowspritDead,
    .Equip = BowspritEquip,
    .Strip = BowspritStrip,
    .Up = BowspritUp,
    .Down = BowspritDown,
    .Control = BowspritControl,
};

static NTSTATUS NTAPI BowspritAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, BowspritAdd);
}
