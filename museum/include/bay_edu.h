/*
 * What the drivers of the edu device share: its registers and its interrupt (line or one message).
 */
#pragma once
#include "bay_bus.h"

#define EDU_ID        0x00u
#define EDU_FACTORIAL 0x08u
#define EDU_STATUS    0x20u
#define EDU_RAISED    0x24u
#define EDU_ACK       0x64u
#define EDU_SOURCE    0x80u
#define EDU_TARGET    0x88u
#define EDU_LENGTH    0x90u
#define EDU_COMMAND   0x98u
#define EDU_BUFFER    0x40000u
#define EDU_SIZE      4096u
#define EDU_REACH     0x10000000ull             /* 28 bits of address */

#define STATUS_BUSY   0x01u
#define STATUS_NOTIFY 0x80u
#define DMA_START     1u
#define DMA_FROM      2u
#define DMA_NOTIFY    4u
#define RAISED_FACTORIAL 0x001u
#define RAISED_DMA       0x100u

typedef struct AF_EDU {
    AF_DEVICE af;
    PUCHAR regs;
    ULONG length;
    PKINTERRUPT interrupt;
    KDPC dpc;                                   /* the driver's; queued by the interrupt */
    BOOLEAN powered;                            /* these two: of the interrupt lock */
    ULONG raised;
} AF_EDU;

static inline BOOLEAN NTAPI AfEduIsr(PKINTERRUPT interrupt, PVOID context)
{
    AF_EDU *edu = context;
    ULONG raised;

    UNREFERENCED_PARAMETER(interrupt);
    if (!edu->powered)
        return FALSE;
    raised = AfRead32(edu->regs, EDU_RAISED);
    if (raised == 0 || raised == 0xFFFFFFFF)
        return FALSE;
    AfWrite32(edu->regs, EDU_ACK, raised);
    edu->raised |= raised;
    KeInsertQueueDpc(&edu->dpc, NULL, NULL);
    return TRUE;
}

/* For the DPC: what has been raised since it last asked. */
static inline ULONG AfEduRaised(AF_EDU *edu)
{
    KIRQL irql = KeAcquireInterruptSpinLock(edu->interrupt);
    ULONG raised = edu->raised;

    edu->raised = 0;
    KeReleaseInterruptSpinLock(edu->interrupt, irql);
    return raised;
}

static inline void AfEduHush(AF_EDU *edu)
{
    ULONG raised;

    AfWrite32(edu->regs, EDU_STATUS, 0);
    raised = AfRead32(edu->regs, EDU_RAISED);
    if (raised && raised != 0xFFFFFFFF)
        AfWrite32(edu->regs, EDU_ACK, raised);
}

static inline BOOLEAN NTAPI AfEduUp(PVOID context)
{
    AF_EDU *edu = context;

    AfEduHush(edu);
    edu->raised = 0;
    edu->powered = TRUE;
    return TRUE;
}

static inline BOOLEAN NTAPI AfEduDown(PVOID context)
{
    AF_EDU *edu = context;

    if (edu->powered && AfReachable(&edu->af))
        AfEduHush(edu);
    edu->powered = FALSE;
    return TRUE;
}

static inline void AfEduSuspend(AF_DEVICE *af)
{
    AF_EDU *edu = (AF_EDU *)af;

    KeSynchronizeExecution(edu->interrupt, AfEduDown, edu);
    KeFlushQueuedDpcs();
}

static inline void AfEduResume(AF_DEVICE *af)
{
    AF_EDU *edu = (AF_EDU *)af;

    KeSynchronizeExecution(edu->interrupt, AfEduUp, edu);
}

/* The driver's DPC is initialized already. */
static inline NTSTATUS AfEduStart(AF_EDU *edu, CM_PARTIAL_RESOURCE_LIST *list)
{
    CM_PARTIAL_RESOURCE_DESCRIPTOR *at = list->PartialDescriptors, *memory = NULL, *line = NULL;
    NTSTATUS status;
    ULONG left;

    for (left = list->Count; left; --left, ++at) {
        if (at->Type == CmResourceTypeMemory && !memory)
            memory = at;
        else if (at->Type == CmResourceTypeInterrupt && !line)
            line = at;
    }
    if (!memory || !line || memory->u.Memory.Length < EDU_COMMAND + sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    edu->length = memory->u.Memory.Length;
    edu->regs = MmMapIoSpace(memory->u.Memory.Start, edu->length, MmNonCached);
    if (!edu->regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = STATUS_DEVICE_DOES_NOT_EXIST;
    if ((AfRead32(edu->regs, EDU_ID) & 0xFFFF) != 0x00ED || AfRead32(edu->regs, EDU_ID) == 0xFFFFFFFF)
        goto unmap;
    edu->powered = FALSE;
    edu->raised = 0;
    AfEduHush(edu);
    status = IoConnectInterrupt(&edu->interrupt, AfEduIsr, edu, NULL, line->u.Interrupt.Vector, (KIRQL)line->u.Interrupt.Level,
                                (KIRQL)line->u.Interrupt.Level,
                                line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status))
        goto unmap;
    KeSynchronizeExecution(edu->interrupt, AfEduUp, edu);
    return STATUS_SUCCESS;
unmap:
    edu->interrupt = NULL;
    MmUnmapIoSpace(edu->regs, edu->length);
    edu->regs = NULL;
    return status;
}

/* Neither isr nor DPC (nor any other of the driver's that is queued) runs afterwards. */
static inline void AfEduStop(AF_EDU *edu)
{
    KeSynchronizeExecution(edu->interrupt, AfEduDown, edu);
    IoDisconnectInterrupt(edu->interrupt);
    KeFlushQueuedDpcs();
    edu->interrupt = NULL;
    MmUnmapIoSpace(edu->regs, edu->length);
    edu->regs = NULL;
}
