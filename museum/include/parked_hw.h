/*
 * hw.h: the windows and the interrupt of a card, as IRP_MN_START_DEVICE's translated list has them.
 */
#ifndef AD_HW_H
#define AD_HW_H

#define HW_WINDOWS 6

struct win {
    PUCHAR at;
    ULONG len;
    BOOLEAN port;
};

struct hw {
    struct win w[HW_WINDOWS];
    ULONG n;
    BOOLEAN has_line;
    CM_PARTIAL_RESOURCE_DESCRIPTOR line;
    PKINTERRUPT object;
    BOOLEAN live;                    /* the card may be touched by the service routine; changed under the interrupt's lock */
    BOOLEAN (*isr)(PVOID);
    PVOID ctx;
};

static inline ULONG hw_r32(const struct win *w, ULONG off)
{
    return w->port ? READ_PORT_ULONG((PULONG)(w->at + off)) : READ_REGISTER_ULONG((PULONG)(w->at + off));
}

static inline void hw_w32(const struct win *w, ULONG off, ULONG v)
{
    if (w->port)
        WRITE_PORT_ULONG((PULONG)(w->at + off), v);
    else
        WRITE_REGISTER_ULONG((PULONG)(w->at + off), v);
}

static inline void hw_unmap(struct hw *h)
{
    ULONG i;

    for (i = 0; i < h->n; i++)
        if (!h->w[i].port)
            MmUnmapIoSpace(h->w[i].at, h->w[i].len);
    h->n = 0;
    h->has_line = FALSE;
}

static inline NTSTATUS hw_claim(struct hw *h, PCM_RESOURCE_LIST list)
{
    PCM_PARTIAL_RESOURCE_LIST part;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    h->n = 0;
    h->has_line = FALSE;
    if (!list || !list->Count)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    part = &list->List[0].PartialResourceList;
    d = part->PartialDescriptors;
    for (i = 0; i < part->Count; i++, d++) {
        struct win *w = &h->w[h->n];

        switch (d->Type) {
        case CmResourceTypePort:
            if (h->n == HW_WINDOWS)
                break;
            w->at = (PUCHAR)(ULONG_PTR)d->u.Port.Start.QuadPart;
            w->len = d->u.Port.Length;
            w->port = TRUE;
            h->n++;
            break;
        case CmResourceTypeMemory:
            if (h->n == HW_WINDOWS)
                break;
            w->at = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);
            if (!w->at) {
                hw_unmap(h);
                return STATUS_INSUFFICIENT_RESOURCES;
            }
            w->len = d->u.Memory.Length;
            w->port = FALSE;
            h->n++;
            break;
        case CmResourceTypeInterrupt:
            h->line = *d;
            h->has_line = TRUE;
            break;
        default:
            break;
        }
    }
    return STATUS_SUCCESS;
}

static inline BOOLEAN NTAPI hw_service(PKINTERRUPT k, PVOID ctx)
{
    struct hw *h = ctx;

    UNREFERENCED_PARAMETER(k);
    return h->live ? h->isr(h->ctx) : FALSE;
}

static inline NTSTATUS hw_connect(struct hw *h, BOOLEAN (*isr)(PVOID), PVOID ctx)
{
    PKINTERRUPT object = NULL;
    NTSTATUS st;

    if (!h->has_line)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    h->isr = isr;
    h->ctx = ctx;
    h->live = FALSE;
    st = IoConnectInterrupt(&object, hw_service, h, NULL, h->line.u.Interrupt.Vector, (KIRQL)h->line.u.Interrupt.Level, (KIRQL)h->line.u.Interrupt.Level,
                            (h->line.Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                            h->line.ShareDisposition == CmResourceShareShared, h->line.u.Interrupt.Affinity, FALSE);
    h->object = NT_SUCCESS(st) ? object : NULL;
    return st;
}

struct hw_turn {
    struct hw *h;
    BOOLEAN live;
    void (*regs)(PVOID);
};

static inline BOOLEAN NTAPI hw_turned(PVOID p)
{
    struct hw_turn *t = p;

    if (t->regs)
        t->regs(t->h->ctx);
    t->h->live = t->live;
    return TRUE;
}

/* Has the service routine see the card, or leave it alone from now on; regs (or NULL) sets the card's registers in the same breath. */
static inline void hw_turn(struct hw *h, BOOLEAN live, void (*regs)(PVOID))
{
    struct hw_turn t;

    t.h = h;
    t.live = live;
    t.regs = regs;
    if (h->object)
        KeSynchronizeExecution(h->object, hw_turned, &t);
}

static inline void hw_disconnect(struct hw *h)
{
    if (h->object)
        IoDisconnectInterrupt(h->object);
    h->object = NULL;
}

#endif
