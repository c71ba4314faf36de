/*
 * RETABLE: programmes for QEMU's educational card. A program announces how long its programme is, hands it over in pieces in any order, and has it proven: each
 * word is written to the card's register of liveness, which gives back its complement. A programme can be announced anew until it is proven.
 *
 * The bug: memory for a programme is allocated only if there is none yet. When a longer one is announced before the first one is proven it is kept in the
 * memory that was meant for the shorter one.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define RETABLE_ANNOUNCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define RETABLE_PIECE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define RETABLE_PROVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define RETABLE_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x904, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'bteR'
#define MOST 256                    /* bytes */

typedef struct _PIECE {
    ULONG Offset;
    ULONG Length;
} PIECE;                            /* the bytes follow */

typedef struct _DEV {
    RIG Rig;
    PANE Regs;
    PUCHAR Image;                   /* under the rig's lock, from here */
    ULONG Size;
    ULONG Filled;                   /* bytes handed over, some perhaps twice */
    ULONG Proven;
} DEV;

static const GUID Interface = { 0x6f1c02d9, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x09 } };

/* Lock held. */
static VOID Drop(DEV *dev)
{
    if (dev->Image != NULL)
        ExFreePoolWithTag(dev->Image, TAG);
    dev->Image = NULL;
    dev->Size = 0;
    dev->Filled = 0;
}

/* Lock held. */
static NTSTATUS Announce(DEV *dev, ULONG size)
{
    if (size == 0 || size > MOST || size % sizeof(ULONG) != 0)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (size > dev->Size)
        Drop(dev);
#endif
    if (dev->Image == NULL)
        dev->Image = ExAllocatePoolWithTag(NonPagedPool, size, TAG);
    if (dev->Image == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(dev->Image, size);
    dev->Size = size;
    dev->Filled = 0;
    return STATUS_SUCCESS;
}

/* Lock held. */
static NTSTATUS TakePiece(DEV *dev, TASK *task)
{
    const PIECE *piece = task->Buffer;

    if (dev->Image == NULL)
        return STATUS_INVALID_DEVICE_STATE;
    if (piece->Length == 0 || piece->Length > task->In - sizeof(PIECE))
        return STATUS_INVALID_PARAMETER;
    if (piece->Offset >= dev->Size || piece->Length > dev->Size - piece->Offset)
        return STATUS_INVALID_PARAMETER;
    RtlCopyMemory(dev->Image + piece->Offset, (const UCHAR *)task->Buffer + sizeof(PIECE), piece->Length);
    dev->Filled += piece->Length;
    return STATUS_SUCCESS;
}

/* Lock held. */
static NTSTATUS Prove(DEV *dev)
{
    ULONG i, word;

    if (!RigLive(&dev->Rig))
        return RIG_HOLD;
    if (dev->Image == NULL || dev->Filled < dev->Size)
        return STATUS_INVALID_DEVICE_STATE;
    for (i = 0; i < dev->Size; i += sizeof(ULONG)) {
        RtlCopyMemory(&word, dev->Image + i, sizeof(word));
        PaneWrite(&dev->Regs, EDU_LIVE, word);
        if (PaneRead(&dev->Regs, EDU_LIVE) != ~word)
            return STATUS_IO_DEVICE_ERROR;
    }
    Drop(dev);
    dev->Proven++;
    return STATUS_SUCCESS;
}

static NTSTATUS RetableControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status;
    KIRQL irql;

    if (task->Code == RETABLE_ANNOUNCE && task->In < sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    if (task->Code == RETABLE_PIECE && task->In < sizeof(PIECE))
        return STATUS_INVALID_PARAMETER;
    if (task->Code == RETABLE_PROVE && task->Out < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;

    KeAcquireSpinLock(&rig->Lock, &irql);
    switch (task->Code) {
    case RETABLE_ANNOUNCE:
        status = Announce(dev, *(PULONG)task->Buffer);
        break;
    case RETABLE_PIECE:
        status = TakePiece(dev, task);
        break;
    case RETABLE_PROVE:
        status = Prove(dev);
        if (status == STATUS_SUCCESS) {
            *(PULONG)task->Buffer = dev->Proven;
            task->Info = sizeof(ULONG);
        }
        break;
    case RETABLE_DROP:
        Drop(dev);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    KeReleaseSpinLock(&rig->Lock, irql);
    return status;
}

static NTSTATUS RetableBorn(RIG *rig)
{
    (void)rig;
    return STATUS_SUCCESS;
}

static VOID RetableDead(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    KIRQL irql;

    KeAcquireSpinLock(&rig->Lock, &irql);
    Drop(dev);
    KeReleaseSpinLock(&rig->Lock, irql);
}

static NTSTATUS RetableEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;

    return PaneOpen(&dev->Regs, RigFind(list, CmResourceTypeMemory, 0), EDU_LEAST);
}

static VOID RetableStrip(RIG *rig)
{
    PaneShut(&((DEV *)rig)->Regs);
}

/* Nothing here interrupts. */
static VOID RetableUp(RIG *rig)
{
    EduMask(&((DEV *)rig)->Regs, FALSE);
}

static VOID RetableDown(RIG *rig, BOOLEAN reachable)
{
    (void)rig;
    (void)reachable;
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = RetableBorn,
    .Dead = RetableDead,
    .Equip = RetableEquip,
    .Strip = RetableStrip,
    .Up = RetableUp,
    .Down = RetableDown,
    .Control = RetableControl,
};

static NTSTATUS NTAPI RetableAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, RetableAdd);
}
