/* Registers and interrupts of the cards: mapping a window, connecting the line. Needs pnp_frame.h. */
#ifndef HW_H
#define HW_H

typedef struct _HW_BAR {
    PUCHAR Base;
    SIZE_T Length;
} HW_BAR, *PHW_BAR;

static NTSTATUS HwMapBar(PCM_RESOURCE_LIST Translated, ULONG Index, ULONG Need, PHW_BAR Bar)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR r = FdoResource(Translated, CmResourceTypeMemory, Index);

    if (!r || r->u.Memory.Length < Need)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Bar->Base = MmMapIoSpace(r->u.Memory.Start, r->u.Memory.Length, MmNonCached);
    if (!Bar->Base)
        return STATUS_INSUFFICIENT_RESOURCES;
    Bar->Length = r->u.Memory.Length;
    return STATUS_SUCCESS;
}

static VOID HwUnmapBar(PHW_BAR Bar)
{
    if (Bar->Base)
        MmUnmapIoSpace(Bar->Base, Bar->Length);
    Bar->Base = NULL;
}

static inline ULONG HwRead(PHW_BAR Bar, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Bar->Base + Offset));
}

static inline VOID HwWrite(PHW_BAR Bar, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Bar->Base + Offset), Value);
}

static inline NTSTATUS HwConnect(PCM_RESOURCE_LIST Translated, PKSERVICE_ROUTINE Isr, PVOID Context, PKINTERRUPT *Interrupt)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR r = FdoResource(Translated, CmResourceTypeInterrupt, 0);

    if (!r)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return IoConnectInterrupt(Interrupt, Isr, Context, NULL, r->u.Interrupt.Vector, (KIRQL)r->u.Interrupt.Level, (KIRQL)r->u.Interrupt.Level,
                              r->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                              r->ShareDisposition == CmResourceShareShared, r->u.Interrupt.Affinity, FALSE);
}

#endif
