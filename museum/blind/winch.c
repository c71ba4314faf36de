/*
 * WINCH: the rope of a winch, whose board gives an edge on LINTi1 of a PCI 9052 for every metre. The service routine keeps time and position of each edge in a
 * ring; programs read from it, and wait while it is empty. A program can have a mark put between them, for which the chip interrupts by software.
 *
 * The bug: what is read is taken out of the ring under the lock of the driver, which the service routine does not know: both change the count of the entries.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: data-race
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define WINCH_MARK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define WINCH_LOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define BOARD_POSITION 0x00
#define BOARD_LEAST 0x10
#define INTCSR_ON (PLX_INT1_ENABLE | PLX_INT1_HIGH | PLX_INT1_EDGE | PLX_INT_PCI)
#define RING 64

#define CAUSE_METRE 1
#define CAUSE_MARK 2

typedef struct _EDGE {
    ULONGLONG Time;
    ULONG Position;
    ULONG Cause;
} EDGE;

typedef struct _DEV {
    RIG Rig;
    PANE Chip;
    PANE Board;
    ROW Readers;                    /* under the rig's lock */
    EDGE Ring[RING];                /* from here on the service routine's */
    ULONG Next;
    ULONG Count;
    ULONG Lost;
} DEV;

typedef struct _DRAIN {
    DEV *Dev;
    EDGE *Into;
    ULONG Most;
    ULONG Taken;
    ULONG Left;
} DRAIN;

static const GUID Interface = { 0x6f1c02d2, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x02 } };

static BOOLEAN WinchIsr(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    ULONG state = PaneRead(&dev->Chip, PLX_INTCSR);
    ULONG cause = 0;

    if (state == 0xFFFFFFFF || !(state & PLX_INT_PCI))
        return FALSE;
    if ((state & PLX_INT1_STATUS) && (state & PLX_INT1_ENABLE))
        cause |= CAUSE_METRE;
    if (state & PLX_INT_SOFTWARE)
        cause |= CAUSE_MARK;
    if (cause == 0)
        return FALSE;
    PaneWrite(&dev->Chip, PLX_INTCSR, INTCSR_ON | (cause & CAUSE_METRE ? PLX_INT1_CLEAR : 0));
    (void)PaneRead(&dev->Chip, PLX_INTCSR);
    if (dev->Count == RING) {
        dev->Lost++;
    } else {
        EDGE *edge = &dev->Ring[dev->Next];

        edge->Time = KeQueryInterruptTime();
        edge->Position = PaneRead(&dev->Board, BOARD_POSITION);
        edge->Cause = cause;
        dev->Next = (dev->Next + 1) % RING;
        dev->Count++;
    }
    return TRUE;
}

static VOID WinchMask(RIG *rig, BOOLEAN on)
{
    DEV *dev = (DEV *)rig;

    PaneWrite(&dev->Chip, PLX_INTCSR, on ? INTCSR_ON | PLX_INT1_CLEAR : 0);
    (void)PaneRead(&dev->Chip, PLX_INTCSR);
}

/* Takes as many as there are, at most Most, and says what is left. */
static BOOLEAN NTAPI DrainRing(PVOID context)
{
    DRAIN *drain = context;
    DEV *dev = drain->Dev;

    while (drain->Taken < drain->Most && dev->Count != 0) {
        drain->Into[drain->Taken++] = dev->Ring[(dev->Next + RING - dev->Count) % RING];
        dev->Count--;
    }
    drain->Left = dev->Count;
    return TRUE;
}

/* Lock held, device live. */
static ULONG Drain(DEV *dev, EDGE *into, ULONG most, PULONG taken)
{
    DRAIN drain;

    drain.Dev = dev;
    drain.Into = into;
    drain.Most = most;
    drain.Taken = 0;
    drain.Left = 0;
#ifndef FIXED
    DrainRing(&drain);
#else
    KeSynchronizeExecution(dev->Rig.Interrupt, DrainRing, &drain);
#endif
    *taken = drain.Taken;
    return drain.Left;
}

static BOOLEAN NTAPI RaiseMark(PVOID context)
{
    DEV *dev = context;

    PaneWrite(&dev->Chip, PLX_INTCSR, INTCSR_ON | PLX_INT_SOFTWARE);
    return TRUE;
}

static BOOLEAN NTAPI ReadLost(PVOID context)
{
    DRAIN *drain = context;

    drain->Taken = drain->Dev->Lost;
    return TRUE;
}

/* Without the lock. One more may wait; and gives those that wait what there is. */
static NTSTATUS Feed(DEV *dev, PIRP more)
{
    NTSTATUS status = STATUS_SUCCESS;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&dev->Rig.Lock, &irql);
    if (more != NULL)
        status = RigPut(&dev->Rig, &dev->Readers, more);
    while (RigLive(&dev->Rig) && !IsListEmpty(&dev->Readers.Irps)) {
        ULONG taken;
        PIRP irp;

        if (Drain(dev, NULL, 0, &taken) == 0)
            break;
        irp = RowTake(&dev->Readers, NULL);
        if (irp == NULL)
            break;
        Drain(dev, irp->AssociatedIrp.SystemBuffer, IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(EDGE), &taken);
        irp->IoStatus.Information = taken * sizeof(EDGE);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&dev->Rig.Lock, irql);
    while (!IsListEmpty(&done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);

        RigFinish(&dev->Rig, irp, STATUS_SUCCESS, irp->IoStatus.Information);
    }
    return status;
}

static VOID WinchDpc(RIG *rig)
{
    Feed((DEV *)rig, NULL);
}

static NTSTATUS WinchRead(RIG *rig, TASK *task)
{
    if (task->Out < sizeof(EDGE))
        return STATUS_BUFFER_TOO_SMALL;
    return Feed((DEV *)rig, task->Irp);
}

static NTSTATUS WinchControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = STATUS_SUCCESS;
    DRAIN drain;
    KIRQL irql;

    if (task->Code != WINCH_MARK && task->Code != WINCH_LOST)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (task->Code == WINCH_LOST && task->Out < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    RtlZeroMemory(&drain, sizeof(drain));
    drain.Dev = dev;
    KeAcquireSpinLock(&rig->Lock, &irql);
    if (!RigLive(rig))
        status = RIG_HOLD;
    else if (task->Code == WINCH_MARK)
        KeSynchronizeExecution(rig->Interrupt, RaiseMark, dev);
    else
        KeSynchronizeExecution(rig->Interrupt, ReadLost, &drain);
    KeReleaseSpinLock(&rig->Lock, irql);
    if (NT_SUCCESS(status) && task->Code == WINCH_LOST) {
        *(PULONG)task->Buffer = drain.Taken;
        task->Info = sizeof(ULONG);
    }
    return status;
}

static NTSTATUS WinchBorn(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    RowInit(&dev->Readers, &rig->Lock, &rig->Gate);
    return STATUS_SUCCESS;
}

static VOID WinchDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS WinchEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = PaneOpen(&dev->Chip, PlxChip(list), PLX_LEAST);

    if (NT_SUCCESS(status))
        status = PaneOpen(&dev->Board, PlxBoard(list), BOARD_LEAST);
    if (NT_SUCCESS(status)) {
        WinchMask(rig, FALSE);
        status = RigConnect(rig, list);
    }
    return status;
}

static VOID WinchStrip(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    RigDisconnect(rig);
    PaneShut(&dev->Board);
    PaneShut(&dev->Chip);
}

/* What came before, and who came meanwhile. */
static VOID WinchUp(RIG *rig)
{
    KeInsertQueueDpc(&rig->Dpc, NULL, NULL);
}

static VOID WinchDown(RIG *rig, BOOLEAN reachable)
{
    (void)rig;
    (void)reachable;
}

static VOID WinchClear(RIG *rig, PFILE_OBJECT file, NTSTATUS status)
{
    RowEmpty(&((DEV *)rig)->Readers, file, status);
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = WinchBorn,
    .Dead = WinchDead,
    .Equip = WinchEquip,
    .Strip = WinchStrip,
    .Up = WinchUp,
    .Down = WinchDown,
    .Clear = WinchClear,
    .Control = WinchControl,
    .Read = WinchRead,
    .Isr = WinchIsr,
    .Mask = WinchMask,
    .Dpc = WinchDpc,
};

static NTSTATUS NTAPI WinchAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, WinchAdd);
}
