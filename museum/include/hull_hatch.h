/*
 * hatch.h: a window of registers (PORTHOLE) and an interrupt (BELL), from the translated resources of IRP_MN_START_DEVICE.
 */
#ifndef HATCH_H
#define HATCH_H

typedef struct PORTHOLE {
    PUCHAR At;
    ULONG Length;
} PORTHOLE;

typedef struct BELL {
    PKINTERRUPT Object;
    BOOLEAN Live;                       /* changed below the interrupt's lock, as soon as there is one */
    BOOLEAN (*Ring)(PVOID Owner);       /* at DIRQL; FALSE: it was not our card */
    PVOID Owner;
} BELL;

static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR HatchFind(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Skip)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    if (!List || !List->Count)
        return NULL;
    d = List->List[0].PartialResourceList.PartialDescriptors;
    for (i = 0; i < List->List[0].PartialResourceList.Count; i++, d++) {
        if (d->Type == Type && !Skip--)
            return d;
    }
    return NULL;
}

/* Maps the first window of memory, which must have at least Least bytes. */
static inline NTSTATUS HoleOpen(PORTHOLE *Hole, PCM_RESOURCE_LIST List, ULONG Least)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = HatchFind(List, CmResourceTypeMemory, 0);

    if (!d || d->u.Memory.Length < Least)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Hole->At = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);
    if (!Hole->At)
        return STATUS_INSUFFICIENT_RESOURCES;
    Hole->Length = d->u.Memory.Length;
    return STATUS_SUCCESS;
}

static inline VOID HoleShut(PORTHOLE *Hole)
{
    if (Hole->At)
        MmUnmapIoSpace(Hole->At, Hole->Length);
    Hole->At = NULL;
}

static inline ULONG HoleGet(PORTHOLE *Hole, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Hole->At + Offset));
}

static inline VOID HolePut(PORTHOLE *Hole, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Hole->At + Offset), Value);
}

static inline BOOLEAN NTAPI BellIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    BELL *bell = Context;

    (void)Interrupt;
    return bell->Live ? bell->Ring(bell->Owner) : FALSE;
}

static inline NTSTATUS BellHang(BELL *Bell, PCM_RESOURCE_LIST List, BOOLEAN (*Ring)(PVOID), PVOID Owner)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = HatchFind(List, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (!d)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Bell->Ring = Ring;
    Bell->Owner = Owner;
    Bell->Live = TRUE;
    status = IoConnectInterrupt(&Bell->Object, BellIsr, Bell, NULL, d->u.Interrupt.Vector, (KIRQL)d->u.Interrupt.Level,
                                (KIRQL)d->u.Interrupt.Level,
                                (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                                d->ShareDisposition == CmResourceShareShared, d->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status))
        Bell->Object = NULL;
    return status;
}

static inline VOID BellTake(BELL *Bell)
{
    if (Bell->Object)
        IoDisconnectInterrupt(Bell->Object);
    Bell->Object = NULL;
}

static inline BOOLEAN NTAPI BellOn(PVOID Bell)
{
    ((BELL *)Bell)->Live = TRUE;
    return TRUE;
}

static inline BOOLEAN NTAPI BellOff(PVOID Bell)
{
    ((BELL *)Bell)->Live = FALSE;
    return TRUE;
}

/* While the card sleeps, others may use its interrupt line: Ring is not called then. */
static inline VOID BellMute(BELL *Bell)
{
    KeSynchronizeExecution(Bell->Object, BellOff, Bell);
}

static inline VOID BellUnmute(BELL *Bell)
{
    KeSynchronizeExecution(Bell->Object, BellOn, Bell);
}

#endif
