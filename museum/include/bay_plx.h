/*
 * What the drivers of PLX 9050 boards share: the windows, the interrupt and a copy of INTCSR that is kept over sleep.
 */
#pragma once
#include "bay_frame.h"

#define PLX_INTCSR 0x4Cu
#define PLX_CNTRL  0x50u
#define INT1_ENABLE 0x01u
#define INT1_HIGH   0x02u
#define INT1_STATUS 0x04u
#define INT2_ENABLE 0x08u
#define INT2_HIGH   0x10u
#define INT2_STATUS 0x20u
#define INT_PCI     0x40u

typedef struct AF_PLX {
    AF_DEVICE af;
    PUCHAR regs, space;                         /* BAR0, and the first local space if there is one */
    ULONG regsLength, spaceLength;
    CM_PARTIAL_RESOURCE_DESCRIPTOR line;        /* Type CmResourceTypeNull: none */
    PKINTERRUPT interrupt;
    BOOLEAN powered;                            /* these two: of the interrupt lock */
    ULONG intcsr;
} AF_PLX;

static inline void AfPlxUnmap(AF_PLX *plx)
{
    if (plx->space)
        MmUnmapIoSpace(plx->space, plx->spaceLength);
    if (plx->regs)
        MmUnmapIoSpace(plx->regs, plx->regsLength);
    plx->space = plx->regs = NULL;
    plx->spaceLength = plx->regsLength = 0;
}

static inline NTSTATUS AfPlxMap(AF_PLX *plx, CM_PARTIAL_RESOURCE_LIST *list)
{
    CM_PARTIAL_RESOURCE_DESCRIPTOR *at = list->PartialDescriptors;
    ULONG left;

    RtlZeroMemory(&plx->line, sizeof plx->line);
    for (left = list->Count; left; --left, ++at) {
        if (at->Type == CmResourceTypeInterrupt && plx->line.Type == CmResourceTypeNull) {
            plx->line = *at;
        } else if (at->Type == CmResourceTypeMemory && !plx->regs) {
            if (at->u.Memory.Length < PLX_CNTRL + sizeof(ULONG))
                break;
            plx->regs = MmMapIoSpace(at->u.Memory.Start, at->u.Memory.Length, MmNonCached);
            if (!plx->regs)
                return STATUS_INSUFFICIENT_RESOURCES;
            plx->regsLength = at->u.Memory.Length;
        } else if (at->Type == CmResourceTypeMemory && !plx->space) {
            plx->space = MmMapIoSpace(at->u.Memory.Start, at->u.Memory.Length, MmNonCached);
            if (!plx->space) {
                AfPlxUnmap(plx);
                return STATUS_INSUFFICIENT_RESOURCES;
            }
            plx->spaceLength = at->u.Memory.Length;
        }
    }
    if (!plx->regs)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (AfRead32(plx->regs, PLX_INTCSR) == 0xFFFFFFFF) {
        AfPlxUnmap(plx);
        return STATUS_DEVICE_DOES_NOT_EXIST;
    }
    return STATUS_SUCCESS;
}

typedef struct AF_PLX_CHANGE {
    AF_PLX *plx;
    ULONG clear, set;
} AF_PLX_CHANGE;

/* Changes INTCSR's copy, and INTCSR if it is to be reached; to be called with the interrupt's lock held. */
static inline BOOLEAN NTAPI AfPlxChange(PVOID context)
{
    AF_PLX_CHANGE *change = context;
    AF_PLX *plx = change->plx;

    plx->intcsr = (plx->intcsr & ~change->clear) | change->set;
    if (plx->powered)
        AfWrite32(plx->regs, PLX_INTCSR, plx->intcsr);
    return TRUE;
}

static inline BOOLEAN NTAPI AfPlxUp(PVOID context)
{
    AF_PLX *plx = context;

    AfWrite32(plx->regs, PLX_INTCSR, plx->intcsr);
    plx->powered = TRUE;
    return TRUE;
}

static inline BOOLEAN NTAPI AfPlxDown(PVOID context)
{
    AF_PLX *plx = context;

    if (plx->powered && AfReachable(&plx->af))
        AfWrite32(plx->regs, PLX_INTCSR, plx->intcsr & ~(INT1_ENABLE | INT2_ENABLE | INT_PCI));
    plx->powered = FALSE;
    return TRUE;
}

/* Which of the enabled lines are up (their enable bits); the isr has the lock. */
static inline ULONG AfPlxLines(AF_PLX *plx)
{
    ULONG value, lines = 0;

    if (!plx->powered)
        return 0;
    value = AfRead32(plx->regs, PLX_INTCSR);
    if (value == 0xFFFFFFFF || !(value & INT_PCI))
        return 0;
    if ((value & INT1_ENABLE) && (value & INT1_STATUS))
        lines |= INT1_ENABLE;
    if ((value & INT2_ENABLE) && (value & INT2_STATUS))
        lines |= INT2_ENABLE;
    return lines;
}

/* Connects and turns the board's interrupts on; lines that were enabled before a stop are again. */
static inline NTSTATUS AfPlxConnect(AF_PLX *plx, PKSERVICE_ROUTINE isr)
{
    CM_PARTIAL_RESOURCE_DESCRIPTOR *line = &plx->line;
    NTSTATUS status;

    if (line->Type != CmResourceTypeInterrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    plx->powered = FALSE;
    plx->intcsr = (plx->intcsr & (INT1_ENABLE | INT2_ENABLE)) | INT1_HIGH | INT2_HIGH | INT_PCI;
    AfWrite32(plx->regs, PLX_INTCSR, INT1_HIGH | INT2_HIGH);
    status = IoConnectInterrupt(&plx->interrupt, isr, plx, NULL, line->u.Interrupt.Vector, (KIRQL)line->u.Interrupt.Level,
                                (KIRQL)line->u.Interrupt.Level,
                                line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        plx->interrupt = NULL;
        return status;
    }
    KeSynchronizeExecution(plx->interrupt, AfPlxUp, plx);
    return STATUS_SUCCESS;
}

/* Neither isr nor DPC run afterwards. */
static inline void AfPlxDisconnect(AF_PLX *plx)
{
    if (!plx->interrupt)
        return;
    KeSynchronizeExecution(plx->interrupt, AfPlxDown, plx);
    IoDisconnectInterrupt(plx->interrupt);
    KeFlushQueuedDpcs();
    plx->interrupt = NULL;
}

static inline void AfPlxSuspend(AF_DEVICE *af)
{
    AF_PLX *plx = (AF_PLX *)af;

    KeSynchronizeExecution(plx->interrupt, AfPlxDown, plx);
}

static inline void AfPlxResume(AF_DEVICE *af)
{
    AF_PLX *plx = (AF_PLX *)af;

    KeSynchronizeExecution(plx->interrupt, AfPlxUp, plx);
}
