/*
 * CISTERN: the memory of QEMU's educational card as a store of 4088 bytes. Programs have bytes brought there and back by DMA, through one buffer that the card
 * and the driver share. A transfer that takes longer than three seconds is given up.
 *
 * The bug: when a transfer is given up the next one is begun at once, though the card may still be at the old one. The card passes over the new start, and the
 * end of the old transfer is taken for that of the new one.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define CISTERN_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define CISTERN_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E2, METHOD_BUFFERED, FILE_READ_ACCESS)

#define ROOM 4088
#define PATIENCE 3000               /* milliseconds for a transfer */
#define AGAIN 500                   /* and between later looks */

typedef struct _PLACE {
    ULONG Offset;
    ULONG Length;
} PLACE;                            /* the bytes to store follow */

typedef struct _DEV {
    RIG Rig;
    PANE Regs;
    CREW Crew;
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS Logical;
    KTIMER Timer;
    KDPC Late;
    ULONGLONG Limit;                /* under the rig's lock */
    PLACE Place;                    /* of the transfer */
    BOOLEAN Fetch;
} DEV;

static const GUID Interface = { 0x6f1c02d7, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x07 } };

/* Lock held. */
static VOID Watch(DEV *dev, ULONG milliseconds)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * milliseconds;
    dev->Limit = KeQueryInterruptTime() + 10000ULL * (milliseconds - 20);      /* less than the timer, whose clock ticks */
    KeSetTimer(&dev->Timer, due, &dev->Late);
}

static BOOLEAN CisternWorking(RIG *rig)
{
    ULONG command = PaneRead(&((DEV *)rig)->Regs, EDU_DMA_CMD);

    return command != 0xFFFFFFFF && (command & EDU_DMA_RUN);
}

static VOID Begin(RIG *rig, PIRP irp)
{
    DEV *dev = (DEV *)rig;
    PUCHAR buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG memory = dev->Logical.LowPart;
    ULONG command = EDU_DMA_RUN | EDU_DMA_IRQ;

    RtlCopyMemory(&dev->Place, buffer, sizeof(PLACE));
    dev->Fetch = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode == CISTERN_FETCH;
    if (dev->Fetch) {
        command |= EDU_DMA_TO_RAM;
        PaneWrite(&dev->Regs, EDU_DMA_FROM, EDU_BUFFER + dev->Place.Offset);
        PaneWrite(&dev->Regs, EDU_DMA_TO, memory);
    } else {
        RtlCopyMemory(dev->Common, buffer + sizeof(PLACE), dev->Place.Length);
        PaneWrite(&dev->Regs, EDU_DMA_FROM, memory);
        PaneWrite(&dev->Regs, EDU_DMA_TO, EDU_BUFFER + dev->Place.Offset);
    }
    PaneWrite(&dev->Regs, EDU_DMA_COUNT, dev->Place.Length);
    PaneWrite(&dev->Regs, EDU_DMA_CMD, command);
    Watch(dev, PATIENCE);
}

/* Lock held, the card at rest: the request it was for, with its result, and the next one begun. */
static PIRP End(DEV *dev, PULONG_PTR info)
{
    PIRP irp = CrewTake(&dev->Crew);

    *info = 0;
    if (irp != NULL && dev->Fetch) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, dev->Common, dev->Place.Length);
        *info = dev->Place.Length;
    }
    KeCancelTimer(&dev->Timer);
    dev->Crew.Busy = FALSE;
    CrewNext(&dev->Crew);
    return irp;
}

static VOID CisternDpc(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    ULONG_PTR info = 0;
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&rig->Lock, &irql);
    if (RigLive(rig) && dev->Crew.Busy && !CisternWorking(rig))
        irp = End(dev, &info);
    KeReleaseSpinLock(&rig->Lock, irql);
    if (irp != NULL)
        RigFinish(rig, irp, STATUS_SUCCESS, info);
}

static VOID NTAPI Late(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    DEV *dev = context;
    RIG *rig = &dev->Rig;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    PIRP irp = NULL;

    (void)dpc;
    (void)a;
    (void)b;
    KeAcquireSpinLockAtDpcLevel(&rig->Lock);
    if (RigLive(rig) && dev->Crew.Busy && KeQueryInterruptTime() >= dev->Limit) {
#ifndef FIXED
        irp = CrewTake(&dev->Crew);
        status = STATUS_IO_TIMEOUT;
        dev->Crew.Busy = FALSE;
        CrewNext(&dev->Crew);
#else
        if (CisternWorking(rig)) {
            irp = CrewTake(&dev->Crew);
            status = STATUS_IO_TIMEOUT;
            CrewStale(&dev->Crew);
            Watch(dev, AGAIN);
        } else {
            irp = End(dev, &info);
        }
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&rig->Lock);
    if (irp != NULL)
        RigFinish(rig, irp, status, info);
}

static BOOLEAN CisternIsr(RIG *rig)
{
    return EduIsr(&((DEV *)rig)->Regs);
}

static VOID CisternMask(RIG *rig, BOOLEAN on)
{
    EduMask(&((DEV *)rig)->Regs, on);
}

static VOID CisternUp(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    if (CisternWorking(rig)) {
        CrewStale(&dev->Crew);
        Watch(dev, AGAIN);
    } else {
        CrewNext(&dev->Crew);
    }
}

static VOID CisternDown(RIG *rig, BOOLEAN reachable)
{
    DEV *dev = (DEV *)rig;

    (void)reachable;
    KeCancelTimer(&dev->Timer);
    CrewRest(&dev->Crew);
}

static VOID CisternClear(RIG *rig, PFILE_OBJECT file, NTSTATUS status)
{
    CrewClear(&((DEV *)rig)->Crew, file, status);
}

static NTSTATUS CisternControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    PLACE *place = task->Buffer;
    NTSTATUS status;
    KIRQL irql;

    if (task->Code != CISTERN_STORE && task->Code != CISTERN_FETCH)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (task->In < sizeof(PLACE))
        return STATUS_INVALID_PARAMETER;
    if (place->Length == 0 || place->Offset >= ROOM || place->Length > ROOM - place->Offset)
        return STATUS_INVALID_PARAMETER;
    if (task->Code == CISTERN_STORE && place->Length > task->In - sizeof(PLACE))
        return STATUS_INVALID_PARAMETER;
    if (task->Code == CISTERN_FETCH && place->Length > task->Out)
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&rig->Lock, &irql);
    status = CrewPut(&dev->Crew, task->Irp);
    KeReleaseSpinLock(&rig->Lock, irql);
    return status;
}

static NTSTATUS CisternBorn(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    CrewInit(&dev->Crew, rig, Begin);
    KeInitializeTimer(&dev->Timer);
    KeInitializeDpc(&dev->Late, Late, dev);
    return STATUS_SUCCESS;
}

static VOID CisternDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS CisternEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = PaneOpen(&dev->Regs, RigFind(list, CmResourceTypeMemory, 0), EDU_LEAST);

    if (!NT_SUCCESS(status))
        return status;
    dev->Adapter = EduAdapter(rig, EDU_BUFFER_SIZE);
    if (dev->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    dev->Common = dev->Adapter->DmaOperations->AllocateCommonBuffer(dev->Adapter, EDU_BUFFER_SIZE, &dev->Logical, TRUE);
    if (dev->Common == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (dev->Logical.QuadPart + EDU_BUFFER_SIZE > 1LL << 28)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    EduMask(&dev->Regs, FALSE);
    return RigConnect(rig, list);
}

static VOID CisternStrip(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    RigDisconnect(rig);
    if (dev->Common != NULL)
        dev->Adapter->DmaOperations->FreeCommonBuffer(dev->Adapter, EDU_BUFFER_SIZE, dev->Logical, dev->Common, TRUE);
    dev->Common = NULL;
    if (dev->Adapter != NULL)
        dev->Adapter->DmaOperations->PutDmaAdapter(dev->Adapter);
    dev->Adapter = NULL;
    PaneShut(&dev->Regs);
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = CisternBorn,
    .Dead = CisternDead,
    .Equip = CisternEquip,
    .Strip = CisternStrip,
    .Up = CisternUp,
    .Down = CisternDown,
    .Working = CisternWorking,
    .Clear = CisternClear,
    .Control = CisternControl,
    .Isr = CisternIsr,
    .Mask = CisternMask,
    .Dpc = CisternDpc,
};

static NTSTATUS NTAPI CisternAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, CisternAdd);
}
