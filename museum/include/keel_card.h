/* keel_card.h: memory ranges and the interrupt of a card. */
#ifndef AJ_CARD_H
#define AJ_CARD_H
#include "keel_pnp.h"

#define AJ_GONE 0xFFFFFFFFu     /* what a card that is not there reads as */

/* reasons to leave a card alone, kept in a driver's `paused` */
#define P_STOP  1
#define P_SLEEP 2
#define P_GONE  4

/* hold, resume, sleep and wake of a driver that has a p_pause and a p_unpause */
#define AJ_PAUSES(p, T) \
static void p##_hold(AJ_FDO *f) { p##_pause((T *)f, P_STOP); } \
static void p##_resume(AJ_FDO *f) { p##_unpause((T *)f, P_STOP); } \
static void p##_sleep(AJ_FDO *f) { p##_pause((T *)f, P_SLEEP); } \
static void p##_wake(AJ_FDO *f) { p##_unpause((T *)f, P_SLEEP); }

typedef struct AJ_CARD {
    PUCHAR mem[6];              /* memory ranges in the order of the resource list */
    ULONG len[6];
    ULONG mems;
    BOOLEAN has_irq;
    ULONG vector;
    KIRQL irql;
    KAFFINITY cpus;
    KINTERRUPT_MODE mode;
    BOOLEAN share;
    PKINTERRUPT intr;
} AJ_CARD;

static inline ULONG aj_rd(AJ_CARD *c, ULONG off)
{
    return READ_REGISTER_ULONG((PULONG)(c->mem[0] + off));
}

static inline void aj_wr(AJ_CARD *c, ULONG off, ULONG v)
{
    WRITE_REGISTER_ULONG((PULONG)(c->mem[0] + off), v);
}

static inline void aj_unmap(AJ_CARD *c)
{
    while (c->mems) {
        c->mems--;
        MmUnmapIoSpace(c->mem[c->mems], c->len[c->mems]);
        c->mem[c->mems] = NULL;
    }
}

/* Maps all memory ranges; needs the first of at least `need` bytes and an interrupt. */
static inline NTSTATUS aj_map(AJ_CARD *c, PCM_RESOURCE_LIST res, ULONG need)
{
    PCM_PARTIAL_RESOURCE_LIST l;
    ULONG i;

    c->mems = 0;
    c->has_irq = FALSE;
    if (!res || !res->Count)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    l = &res->List[0].PartialResourceList;
    for (i = 0; i < l->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &l->PartialDescriptors[i];

        if (d->Type == CmResourceTypeMemory && c->mems < 6 && d->u.Memory.Length) {
            PUCHAR p = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);

            if (!p) {
                aj_unmap(c);
                return STATUS_INSUFFICIENT_RESOURCES;
            }
            c->mem[c->mems] = p;
            c->len[c->mems] = d->u.Memory.Length;
            c->mems++;
        } else if (d->Type == CmResourceTypeInterrupt && !c->has_irq) {
            c->has_irq = TRUE;
            c->vector = d->u.Interrupt.Vector;
            c->irql = (KIRQL)d->u.Interrupt.Level;
            c->cpus = d->u.Interrupt.Affinity;
            c->mode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
            c->share = d->ShareDisposition == CmResourceShareShared;
        }
    }
    if (!c->mems || c->len[0] < need || !c->has_irq) {
        aj_unmap(c);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    return STATUS_SUCCESS;
}

static inline NTSTATUS aj_connect(AJ_CARD *c, PKSERVICE_ROUTINE isr, PVOID ctx)
{
    NTSTATUS st = IoConnectInterrupt(&c->intr, isr, ctx, NULL, c->vector, c->irql, c->irql, c->mode, c->share,
                                     c->cpus, FALSE);

    if (!NT_SUCCESS(st))
        c->intr = NULL;
    return st;
}

/* afterwards neither the ISR nor a DPC it queued is running */
static inline void aj_disconnect(AJ_CARD *c)
{
    if (c->intr) {
        IoDisconnectInterrupt(c->intr);
        c->intr = NULL;
    }
    KeFlushQueuedDpcs();
}
#endif
