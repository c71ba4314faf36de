/* jetty_card.h: the resources of a PCI card. */
#ifndef JETTY_CARD_H
#define JETTY_CARD_H

#include "jetty_pnp.h"

typedef struct _JETTY_CARD {
    PHYSICAL_ADDRESS Base;      /* the first memory range */
    ULONG Length;
    ULONG Vector;
    KIRQL Irql;
    KAFFINITY Affinity;
    KINTERRUPT_MODE Mode;
} JETTY_CARD, *PJETTY_CARD;

static inline NTSTATUS JettyResources(PCM_RESOURCE_LIST Translated, ULONG AtLeast, PJETTY_CARD Card)
{
    BOOLEAN memory = FALSE, interrupt = FALSE;
    ULONG i;

    if (!Translated || Translated->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    for (i = 0; i < Translated->List[0].PartialResourceList.Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d =
            &Translated->List[0].PartialResourceList.PartialDescriptors[i];

        if (d->Type == CmResourceTypeMemory && !memory) {
            Card->Base = d->u.Memory.Start;
            Card->Length = d->u.Memory.Length;
            memory = TRUE;
        } else if (d->Type == CmResourceTypeInterrupt && !interrupt) {
            Card->Vector = d->u.Interrupt.Vector;
            Card->Irql = (KIRQL)d->u.Interrupt.Level;
            Card->Affinity = d->u.Interrupt.Affinity;
            Card->Mode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
            interrupt = TRUE;
        }
    }
    if (!memory || !interrupt || Card->Length < AtLeast)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return STATUS_SUCCESS;
}

static inline NTSTATUS JettyConnect(PJETTY_CARD Card, PKSERVICE_ROUTINE Isr, PVOID Ext, PKINTERRUPT *Out)
{
    return IoConnectInterrupt(Out, Isr, Ext, NULL, Card->Vector, Card->Irql, Card->Irql,
                              Card->Mode, TRUE, Card->Affinity, FALSE);
}

static inline ULONG JettyRead(PUCHAR Regs, ULONG Offset)
{
    ULONG value = *(volatile ULONG *)(Regs + Offset);

    __asm__ __volatile__("" ::: "memory");
    return value;
}

static inline VOID JettyWrite(PUCHAR Regs, ULONG Offset, ULONG Value)
{
    __asm__ __volatile__("" ::: "memory");
    *(volatile ULONG *)(Regs + Offset) = Value;
}

#endif
