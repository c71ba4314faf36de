/*
 * PLUMBOB: factorials of small numbers by QEMU's educational card. Requests wait in a row, the card works for one at a time and interrupts when it is done. A
 * request can be cancelled at any time, also while the card works for it.
 *
 * The bug: the driver keeps a pointer to the request that the card works for. When that request is cancelled the pointer stays, and the end of the computation
 * writes to the request, and ends it, though it is ended and gone.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, double-completion, write-after-free, list-corrupt, list-damaged, cancel-after-completion, irp-in-use
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define PLUMBOB_COMPUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define PLUMBOB_DONE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D2, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEV {
    RIG Rig;
    PANE Regs;
    CREW Crew;
    ULONG Done;
#ifndef FIXED
    PIRP Current;
#endif
} DEV;

static const GUID Interface = { 0x6f1c02d6, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x06 } };

static VOID Begin(RIG *rig, PIRP irp)
{
    DEV *dev = (DEV *)rig;

#ifndef FIXED
    dev->Current = irp;
#endif
    PaneWrite(&dev->Regs, EDU_FACT, *(PULONG)irp->AssociatedIrp.SystemBuffer);
}

/* Lock held: the request whose result is there, no more in the row. */
static PIRP Finished(DEV *dev)
{
#ifndef FIXED
    PIRP irp = dev->Current;

    dev->Current = NULL;
    if (irp != NULL) {
        IoSetCancelRoutine(irp, NULL);
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    }
    return irp;
#else
    return CrewTake(&dev->Crew);
#endif
}

static VOID PlumbobDpc(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&rig->Lock, &irql);
    /* A card that is gone reads as ones: busy for good. */
    if (RigLive(rig) && dev->Crew.Busy && !(PaneRead(&dev->Regs, EDU_STATUS) & EDU_STATUS_BUSY)) {
        irp = Finished(dev);
        if (irp != NULL) {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = PaneRead(&dev->Regs, EDU_FACT);
            dev->Done++;
        }
        dev->Crew.Busy = FALSE;
        CrewNext(&dev->Crew);
    }
    KeReleaseSpinLock(&rig->Lock, irql);
    if (irp != NULL)
        RigFinish(rig, irp, STATUS_SUCCESS, sizeof(ULONG));
}

static BOOLEAN PlumbobIsr(RIG *rig)
{
    return EduIsr(&((DEV *)rig)->Regs);
}

static VOID PlumbobMask(RIG *rig, BOOLEAN on)
{
    EduMask(&((DEV *)rig)->Regs, on);
}

static VOID PlumbobUp(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    if (PaneRead(&dev->Regs, EDU_STATUS) & EDU_STATUS_BUSY)
        CrewStale(&dev->Crew);
    else
        CrewNext(&dev->Crew);
}

static VOID PlumbobDown(RIG *rig, BOOLEAN reachable)
{
    DEV *dev = (DEV *)rig;

    (void)reachable;
#ifndef FIXED
    dev->Current = NULL;
#endif
    CrewRest(&dev->Crew);
}

static VOID PlumbobClear(RIG *rig, PFILE_OBJECT file, NTSTATUS status)
{
    CrewClear(&((DEV *)rig)->Crew, file, status);
}

static NTSTATUS PlumbobControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status;
    KIRQL irql;

    switch (task->Code) {
    case PLUMBOB_COMPUTE:
        if (task->In < sizeof(ULONG) || *(PULONG)task->Buffer > 12)
            return STATUS_INVALID_PARAMETER;
        if (task->Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&rig->Lock, &irql);
        status = CrewPut(&dev->Crew, task->Irp);
        KeReleaseSpinLock(&rig->Lock, irql);
        return status;

    case PLUMBOB_DONE:
        if (task->Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&rig->Lock, &irql);
        *(PULONG)task->Buffer = dev->Done;
        KeReleaseSpinLock(&rig->Lock, irql);
        task->Info = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS PlumbobBorn(RIG *rig)
{
    CrewInit(&((DEV *)rig)->Crew, rig, Begin);
    return STATUS_SUCCESS;
}

static VOID PlumbobDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS PlumbobEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = PaneOpen(&dev->Regs, RigFind(list, CmResourceTypeMemory, 0), EDU_LEAST);

    if (NT_SUCCESS(status)) {
        EduMask(&dev->Regs, FALSE);
        status = RigConnect(rig, list);
    }
    return status;
}

static VOID PlumbobStrip(RIG *rig)
{
    RigDisconnect(rig);
    PaneShut(&((DEV *)rig)->Regs);
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = PlumbobBorn,
    .Dead = PlumbobDead,
    .Equip = PlumbobEquip,
    .Strip = PlumbobStrip,
    .Up = PlumbobUp,
    .Down = PlumbobDown,
    .Clear = PlumbobClear,
    .Control = PlumbobControl,
    .Isr = PlumbobIsr,
    .Mask = PlumbobMask,
    .Dpc = PlumbobDpc,
};

static NTSTATUS NTAPI PlumbobAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, PlumbobAdd);
}
