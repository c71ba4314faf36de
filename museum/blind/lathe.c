/*
 * LATHE: records of what QEMU's educational card has in its memory. Each request has the card bring one record by DMA into a ring of 4096 bytes, behind the one
 * before; programs ask for the latest one, and say how long records shall be. A record is never split.
 *
 * The bug: the ring begins anew only when a record has reached its end. As the length of a record need not divide that of the ring the last one runs over: the
 * card writes behind the memory that it was given.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-dma, dma-behind-mapping, wild-read
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define LATHE_RECORD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LATHE_LATEST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LATHE_LENGTH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F3, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define RING 4096
#define LEAST 64
#define MOST 2048

typedef struct _DEV {
    RIG Rig;
    PANE Regs;
    CREW Crew;
    PDMA_ADAPTER Adapter;
    PUCHAR Ring;
    PHYSICAL_ADDRESS Logical;
    ULONG Length;                   /* of the records to come; under the rig's lock, all of these */
    ULONG Head;
    ULONG Moving;                   /* length of the one that comes */
    ULONG Last;                     /* where the latest is */
    ULONG LastLength;               /* 0: there is none */
    ULONG Records;
} DEV;

static const GUID Interface = { 0x6f1c02d8, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x08 } };

static BOOLEAN LatheWorking(RIG *rig)
{
    ULONG command = PaneRead(&((DEV *)rig)->Regs, EDU_DMA_CMD);

    return command != 0xFFFFFFFF && (command & EDU_DMA_RUN);
}

static VOID Begin(RIG *rig, PIRP irp)
{
    DEV *dev = (DEV *)rig;

    (void)irp;
    dev->Moving = dev->Length;
#ifndef FIXED
    if (dev->Head >= RING)
        dev->Head = 0;
#else
    if (dev->Moving > RING - dev->Head)
        dev->Head = 0;
#endif
    /* What the card writes over is the latest no more. */
    if (dev->Last < dev->Head + dev->Moving && dev->Head < dev->Last + dev->LastLength)
        dev->LastLength = 0;
    PaneWrite(&dev->Regs, EDU_DMA_FROM, EDU_BUFFER);
    PaneWrite(&dev->Regs, EDU_DMA_TO, dev->Logical.LowPart + dev->Head);
    PaneWrite(&dev->Regs, EDU_DMA_COUNT, dev->Moving);
    PaneWrite(&dev->Regs, EDU_DMA_CMD, EDU_DMA_RUN | EDU_DMA_TO_RAM | EDU_DMA_IRQ);
}

static VOID LatheDpc(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&rig->Lock, &irql);
    if (RigLive(rig) && dev->Crew.Busy && !LatheWorking(rig)) {
        if (dev->Moving != 0) {
            dev->Last = dev->Head;
            dev->LastLength = dev->Moving;
            dev->Head += dev->Moving;
            dev->Records++;
        }
        dev->Moving = 0;
        irp = CrewTake(&dev->Crew);
        if (irp != NULL)
            *(PULONG)irp->AssociatedIrp.SystemBuffer = dev->Records;
        dev->Crew.Busy = FALSE;
        CrewNext(&dev->Crew);
    }
    KeReleaseSpinLock(&rig->Lock, irql);
    if (irp != NULL)
        RigFinish(rig, irp, STATUS_SUCCESS, sizeof(ULONG));
}

static BOOLEAN LatheIsr(RIG *rig)
{
    return EduIsr(&((DEV *)rig)->Regs);
}

static VOID LatheMask(RIG *rig, BOOLEAN on)
{
    EduMask(&((DEV *)rig)->Regs, on);
}

static VOID LatheUp(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    if (LatheWorking(rig))
        CrewStale(&dev->Crew);
    else
        CrewNext(&dev->Crew);
}

/* The record that was coming is none: it is begun again. */
static VOID LatheDown(RIG *rig, BOOLEAN reachable)
{
    DEV *dev = (DEV *)rig;

    (void)reachable;
    dev->Moving = 0;
    CrewRest(&dev->Crew);
}

static VOID LatheClear(RIG *rig, PFILE_OBJECT file, NTSTATUS status)
{
    CrewClear(&((DEV *)rig)->Crew, file, status);
}

static NTSTATUS LatheControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG length;
    KIRQL irql;

    switch (task->Code) {
    case LATHE_RECORD:
        if (task->Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&rig->Lock, &irql);
        status = CrewPut(&dev->Crew, task->Irp);
        KeReleaseSpinLock(&rig->Lock, irql);
        return status;

    case LATHE_LATEST:
        KeAcquireSpinLock(&rig->Lock, &irql);
        if (dev->Ring == NULL || dev->LastLength == 0) {
            status = STATUS_NOT_FOUND;
        } else if (task->Out < dev->LastLength) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RtlCopyMemory(task->Buffer, dev->Ring + dev->Last, dev->LastLength);
            task->Info = dev->LastLength;
        }
        KeReleaseSpinLock(&rig->Lock, irql);
        return status;

    case LATHE_LENGTH:
        if (task->In < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        length = *(PULONG)task->Buffer;
        if (length < LEAST || length > MOST || length % 8 != 0)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&rig->Lock, &irql);
        dev->Length = length;
        KeReleaseSpinLock(&rig->Lock, irql);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS LatheBorn(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    CrewInit(&dev->Crew, rig, Begin);
    dev->Length = 1536;
    return STATUS_SUCCESS;
}

static VOID LatheDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS LatheEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = PaneOpen(&dev->Regs, RigFind(list, CmResourceTypeMemory, 0), EDU_LEAST);
    PUCHAR ring;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    dev->Adapter = EduAdapter(rig, RING);
    if (dev->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ring = dev->Adapter->DmaOperations->AllocateCommonBuffer(dev->Adapter, RING, &dev->Logical, TRUE);
    if (ring == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&rig->Lock, &irql);
    dev->Ring = ring;
    dev->Head = 0;
    dev->LastLength = 0;
    KeReleaseSpinLock(&rig->Lock, irql);
    if (dev->Logical.QuadPart + RING > 1LL << 28)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    EduMask(&dev->Regs, FALSE);
    return RigConnect(rig, list);
}

static VOID LatheStrip(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    PUCHAR ring;
    KIRQL irql;

    RigDisconnect(rig);
    KeAcquireSpinLock(&rig->Lock, &irql);
    ring = dev->Ring;
    dev->Ring = NULL;
    dev->LastLength = 0;
    KeReleaseSpinLock(&rig->Lock, irql);
    if (ring != NULL)
        dev->Adapter->DmaOperations->FreeCommonBuffer(dev->Adapter, RING, dev->Logical, ring, TRUE);
    if (dev->Adapter != NULL)
        dev->Adapter->DmaOperations->PutDmaAdapter(dev->Adapter);
    dev->Adapter = NULL;
    PaneShut(&dev->Regs);
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = LatheBorn,
    .Dead = LatheDead,
    .Equip = LatheEquip,
    .Strip = LatheStrip,
    .Up = LatheUp,
    .Down = LatheDown,
    .Working = LatheWorking,
    .Clear = LatheClear,
    .Control = LatheControl,
    .Isr = LatheIsr,
    .Mask = LatheMask,
    .Dpc = LatheDpc,
};

static NTSTATUS NTAPI LatheAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, LatheAdd);
}
