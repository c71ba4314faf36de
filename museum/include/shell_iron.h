/*
 * iron.h: resources of a card, for the drivers of the set PP.
 */
#ifndef PP_IRON_H
#define PP_IRON_H

#include "booth_or_shell.h"

typedef struct WINDOW {
    PUCHAR At;              /* NULL: not mapped */
    ULONG Bytes;
} WINDOW;

/* The Nth resource (from 0) of a type, or NULL. */
FRAME PCM_PARTIAL_RESOURCE_DESCRIPTOR IronFind(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Nth)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    if (List == NULL || List->Count == 0)
        return NULL;
    d = List->List[0].PartialResourceList.PartialDescriptors;
    for (i = 0; i < List->List[0].PartialResourceList.Count; i++, d++) {
        if (d->Type == Type && Nth-- == 0)
            return d;
    }
    return NULL;
}

FRAME ULONG IronCount(PCM_RESOURCE_LIST List, UCHAR Type)
{
    ULONG count = 0;

    while (IronFind(List, Type, count) != NULL)
        count++;
    return count;
}

FRAME NTSTATUS WindowMap(WINDOW *Window, PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory, ULONG AtLeast)
{
    if (Memory == NULL || Memory->u.Memory.Length < AtLeast)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Window->At = MmMapIoSpace(Memory->u.Memory.Start, Memory->u.Memory.Length, MmNonCached);
    if (Window->At == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Window->Bytes = Memory->u.Memory.Length;
    return STATUS_SUCCESS;
}

FRAME VOID WindowUnmap(WINDOW *Window)
{
    if (Window->At != NULL)
        MmUnmapIoSpace(Window->At, Window->Bytes);
    Window->At = NULL;
    Window->Bytes = 0;
}

FRAME ULONG RegRead(const WINDOW *Window, ULONG Offset)
{
    return READ_REGISTER_ULONG((volatile ULONG *)(Window->At + Offset));
}

FRAME VOID RegWrite(const WINDOW *Window, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((volatile ULONG *)(Window->At + Offset), Value);
}

FRAME NTSTATUS IronInterrupt(PCM_PARTIAL_RESOURCE_DESCRIPTOR Line, PKSERVICE_ROUTINE Routine, PVOID Context, PKINTERRUPT *Interrupt)
{
    if (Line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return IoConnectInterrupt(Interrupt, Routine, Context, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level,
                              (KIRQL)Line->u.Interrupt.Level, (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              (BOOLEAN)(Line->ShareDisposition == CmResourceShareShared), Line->u.Interrupt.Affinity, FALSE);
}

FRAME VOID IronSleep(ULONG Milliseconds)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * Milliseconds;
    KeDelayExecutionThread(KernelMode, FALSE, &due);
}

#endif
