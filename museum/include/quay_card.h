/* quay_card.h: a PCI function's windows, its interrupt, and the access to its registers. */
#ifndef AI_CARD_H
#define AI_CARD_H
#include "quay_pnp.h"

#define AI_WINDOWS 6

typedef struct _AI_RESOURCES {
    struct { PHYSICAL_ADDRESS Base; ULONG Length; } Mem[AI_WINDOWS];
    ULONG Mems;
    BOOLEAN HasInterrupt, Shared, Latched;
    KIRQL Level;
    ULONG Vector;
    KAFFINITY Affinity;
} AI_RESOURCES;

typedef struct _AI_CARD {
    AI_FDO F;                       /* first */
    PUCHAR Reg;                     /* the first memory window */
    ULONG RegLength;
    PUCHAR Win;                     /* the second, where the driver asks for it */
    ULONG WinLength;
    PKINTERRUPT Int;
    KDPC Dpc;
    BOOLEAN Live;                   /* interrupt lock: registers may be touched, interrupts are ours */
    ULONG Cause;                    /* interrupt lock: what the ISR has seen and the DPC has not */
} AI_CARD, *PAI_CARD;

static inline VOID AiResources(PCM_RESOURCE_LIST list, AI_RESOURCES *r)
{
    PCM_PARTIAL_RESOURCE_LIST p;
    ULONG i;

    RtlZeroMemory(r, sizeof *r);
    if (!list || list->Count == 0)
        return;
    p = &list->List[0].PartialResourceList;
    for (i = 0; i < p->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &p->PartialDescriptors[i];

        if (d->Type == CmResourceTypeMemory && r->Mems < AI_WINDOWS) {
            r->Mem[r->Mems].Base = d->u.Memory.Start;
            r->Mem[r->Mems].Length = d->u.Memory.Length;
            r->Mems++;
        } else if (d->Type == CmResourceTypeInterrupt && !r->HasInterrupt) {
            r->HasInterrupt = TRUE;
            r->Level = (KIRQL)d->u.Interrupt.Level;
            r->Vector = d->u.Interrupt.Vector;
            r->Affinity = d->u.Interrupt.Affinity;
            r->Latched = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
            r->Shared = d->ShareDisposition == CmResourceShareShared;
        }
    }
}

static inline ULONG AiRead(PAI_CARD c, ULONG offset)
{
    return READ_REGISTER_ULONG((PULONG)(c->Reg + offset));
}

static inline VOID AiWrite(PAI_CARD c, ULONG offset, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(c->Reg + offset), value);
}

static inline VOID AiUnmap(PAI_CARD c)
{
    if (c->Win) {
        MmUnmapIoSpace(c->Win, c->WinLength);
        c->Win = NULL;
    }
    if (c->Reg) {
        MmUnmapIoSpace(c->Reg, c->RegLength);
        c->Reg = NULL;
    }
}

/* maps the first memory window, and with window the second one too */
static inline NTSTATUS AiMap(PAI_CARD c, AI_RESOURCES *r, ULONG least, BOOLEAN window)
{
    if (r->Mems < (window ? 2u : 1u) || r->Mem[0].Length < least)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    c->RegLength = r->Mem[0].Length;
    c->Reg = MmMapIoSpace(r->Mem[0].Base, c->RegLength, MmNonCached);
    if (!c->Reg)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (window) {
        c->WinLength = r->Mem[1].Length;
        c->Win = MmMapIoSpace(r->Mem[1].Base, c->WinLength, MmNonCached);
        if (!c->Win) {
            AiUnmap(c);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    return STATUS_SUCCESS;
}

/* the card must be silent; Live is still FALSE */
static inline NTSTATUS AiConnect(PAI_CARD c, AI_RESOURCES *r, PKSERVICE_ROUTINE isr)
{
    NTSTATUS s;

    if (!r->HasInterrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    s = IoConnectInterrupt(&c->Int, isr, c, NULL, r->Vector, r->Level, r->Level, r->Latched ? Latched : LevelSensitive,
                           r->Shared, r->Affinity, FALSE);
    if (!NT_SUCCESS(s))
        c->Int = NULL;
    return s;
}

/* PASSIVE, Live is FALSE again: no ISR and no DPC of ours runs afterwards */
static inline VOID AiDisconnect(PAI_CARD c)
{
    if (c->Int) {
        KeFlushQueuedDpcs();        /* they still use the interrupt's lock */
        IoDisconnectInterrupt(c->Int);
        c->Int = NULL;
    }
}

/* what the ISR has seen since the last time */
static inline ULONG AiCause(PAI_CARD c)
{
    KIRQL q = KeAcquireInterruptSpinLock(c->Int);
    ULONG cause = c->Cause;

    c->Cause = 0;
    KeReleaseInterruptSpinLock(c->Int, q);
    return cause;
}
#endif
