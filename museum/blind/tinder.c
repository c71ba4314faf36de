/*
 * TINDER: a bell on QEMU's educational card: programs ring it with a cause of their own, the card interrupts, and the driver keeps a history of the last causes,
 * which it has as long as the device is there, also over a stop and a new start.
 *
 * The bug: where the registers lie that are used often is reckoned out once, with what is made at the first start. After a stop and a new start the registers
 * are mapped anew, but the driver goes on with where they were before.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: stale-resource-used, wild-write, wild-read, io-space-unmap, device-memory-not-mapped, use-after-free
 * Needs: nothing
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define TINDER_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TINDER_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'dniT'
#define CAUSES 32
#define PROBE 0x5A00FF11

typedef struct _HISTORY {
    ULONG Rung;
    ULONG Causes[CAUSES];           /* at Rung modulo CAUSES goes the next one */
} HISTORY;

typedef struct _DEV {
    RIG Rig;
    PANE Regs;
    PULONG Live;
    PULONG Raise;
    HISTORY *History;               /* under the interrupt's lock, once it is connected */
    ULONG Faults;                   /* how often the card did not answer as it should; under the rig's lock */
} DEV;

typedef struct _COPY {
    DEV *Dev;
    HISTORY Copy;
} COPY;

static const GUID Interface = { 0x6f1c02db, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x0b } };

static BOOLEAN TinderIsr(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    ULONG cause = PaneRead(&dev->Regs, EDU_IRQ);

    if (cause == 0 || cause == 0xFFFFFFFF)
        return FALSE;
    PaneWrite(&dev->Regs, EDU_ACK, cause);
    (void)PaneRead(&dev->Regs, EDU_IRQ);
    dev->History->Causes[dev->History->Rung % CAUSES] = cause;
    dev->History->Rung++;
    return TRUE;
}

static VOID TinderMask(RIG *rig, BOOLEAN on)
{
    EduMask(&((DEV *)rig)->Regs, on);
}

static VOID TinderDpc(RIG *rig)
{
    (void)rig;
}

static BOOLEAN NTAPI CopyHistory(PVOID context)
{
    COPY *copy = context;

    copy->Copy = *copy->Dev->History;
    return TRUE;
}

static NTSTATUS TinderControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG cause;
    COPY copy;
    KIRQL irql;

    switch (task->Code) {
    case TINDER_RING:
        if (task->In < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        cause = *(PULONG)task->Buffer;
        if (cause == 0 || cause > 0xFF)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&rig->Lock, &irql);
        if (RigLive(rig))
            WRITE_REGISTER_ULONG(dev->Raise, cause);
        else
            status = RIG_HOLD;
        KeReleaseSpinLock(&rig->Lock, irql);
        return status;

    case TINDER_HISTORY:
        if (task->Out < sizeof(HISTORY))
            return STATUS_BUFFER_TOO_SMALL;
        copy.Dev = dev;
        KeAcquireSpinLock(&rig->Lock, &irql);
        if (RigLive(rig))
            KeSynchronizeExecution(rig->Interrupt, CopyHistory, &copy);
        else
            status = RIG_HOLD;
        KeReleaseSpinLock(&rig->Lock, irql);
        if (status == STATUS_SUCCESS) {
            RtlCopyMemory(task->Buffer, &copy.Copy, sizeof(HISTORY));
            task->Info = sizeof(HISTORY);
        }
        return status;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS TinderBorn(RIG *rig)
{
    (void)rig;
    return STATUS_SUCCESS;
}

static VOID TinderDead(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    if (dev->History != NULL)
        ExFreePoolWithTag(dev->History, TAG);
    dev->History = NULL;
}

static NTSTATUS TinderEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = PaneOpen(&dev->Regs, RigFind(list, CmResourceTypeMemory, 0), EDU_LEAST);

    if (!NT_SUCCESS(status))
        return status;
    if (dev->History == NULL) {
        dev->History = ExAllocatePoolWithTag(NonPagedPool, sizeof(HISTORY), TAG);
        if (dev->History == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlZeroMemory(dev->History, sizeof(HISTORY));
#ifndef FIXED
        dev->Live = (PULONG)(dev->Regs.Base + EDU_LIVE);
        dev->Raise = (PULONG)(dev->Regs.Base + EDU_RAISE);
#endif
    }
#ifdef FIXED
    dev->Live = (PULONG)(dev->Regs.Base + EDU_LIVE);
    dev->Raise = (PULONG)(dev->Regs.Base + EDU_RAISE);
#endif
    EduMask(&dev->Regs, FALSE);
    return RigConnect(rig, list);
}

static VOID TinderStrip(RIG *rig)
{
    RigDisconnect(rig);
    PaneShut(&((DEV *)rig)->Regs);
}

/* The card gives back the complement of what is written to it. */
static VOID TinderUp(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    WRITE_REGISTER_ULONG(dev->Live, PROBE);
    if (READ_REGISTER_ULONG(dev->Live) != ~(ULONG)PROBE)
        dev->Faults++;
}

static VOID TinderDown(RIG *rig, BOOLEAN reachable)
{
    (void)rig;
    (void)reachable;
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = TinderBorn,
    .Dead = TinderDead,
    .Equip = TinderEquip,
    .Strip = TinderStrip,
    .Up = TinderUp,
    .Down = TinderDown,
    .Control = TinderControl,
    .Isr = TinderIsr,
    .Mask = TinderMask,
    .Dpc = TinderDpc,
};

static NTSTATUS NTAPI TinderAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, TinderAdd);
}
