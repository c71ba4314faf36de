/* card.h: windows and the interrupt of a PCI card. */
#ifndef AC_CARD_H
#define AC_CARD_H

#include "stead_frame.h"

typedef struct WINDOW {
    PHYSICAL_ADDRESS where;
    ULONG bytes;
    BOOLEAN port;
    PUCHAR at;                  /* mapped, or the port; NULL: not there */
} WINDOW;

typedef struct CARD {
    ULONG windows;
    WINDOW window[6];           /* in the order of the resources */
    BOOLEAN wired;
    BOOLEAN latched;
    BOOLEAN shared;
    ULONG vector;
    KIRQL irql;
    KAFFINITY cpus;
    PKINTERRUPT irq;
    BOOLEAN deaf;               /* only under the interrupt's lock */
    BOOLEAN (*service)(PVOID owner);
    PVOID owner;
} CARD;

/* Reads what the card was given; nothing is mapped. */
static inline VOID CardRead(CARD *card, PCM_RESOURCE_LIST list)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    RtlZeroMemory(card, sizeof(*card));
    if (list == NULL || list->Count == 0)
        return;
    d = list->List[0].PartialResourceList.PartialDescriptors;
    for (i = 0; i < list->List[0].PartialResourceList.Count; i++, d++) {
        switch (d->Type) {
        case CmResourceTypePort:
        case CmResourceTypeMemory:
            if (card->windows < 6) {
                WINDOW *w = &card->window[card->windows++];
                w->where = d->u.Memory.Start;
                w->bytes = d->u.Memory.Length;
                w->port = d->Type == CmResourceTypePort;
            }
            break;
        case CmResourceTypeInterrupt:
            if (!card->wired) {
                card->wired = TRUE;
                card->latched = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
                card->shared = d->ShareDisposition == CmResourceShareShared;
                card->vector = d->u.Interrupt.Vector;
                card->irql = (KIRQL)d->u.Interrupt.Level;
                card->cpus = d->u.Interrupt.Affinity;
            }
            break;
        default:
            break;
        }
    }
}

/* The n-th window of a kind, counted from 0, or NULL. */
static inline WINDOW *CardWindow(CARD *card, BOOLEAN port, ULONG n)
{
    ULONG i;

    for (i = 0; i < card->windows; i++) {
        if (card->window[i].port == port && n-- == 0)
            return &card->window[i];
    }
    return NULL;
}

static inline NTSTATUS CardMap(WINDOW *w, ULONG atLeast)
{
    if (w == NULL || w->bytes < atLeast)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (w->at == NULL) {
        if (w->port)
            w->at = (PUCHAR)(ULONG_PTR)w->where.QuadPart;
        else
            w->at = MmMapIoSpace(w->where, w->bytes, MmNonCached);
    }
    return w->at != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static inline VOID CardUnmap(CARD *card)
{
    ULONG i;

    for (i = 0; i < card->windows; i++) {
        WINDOW *w = &card->window[i];
        if (w->at != NULL && !w->port)
            MmUnmapIoSpace(w->at, w->bytes);
        w->at = NULL;
    }
}

static BOOLEAN NTAPI CardIsr(PKINTERRUPT irq, PVOID context)
{
    CARD *card = context;

    UNREFERENCED_PARAMETER(irq);
    return card->deaf ? FALSE : card->service(card->owner);
}

/* The card's own sources are off, and all that the service routine uses is ready. */
static inline NTSTATUS CardConnect(CARD *card, BOOLEAN (*service)(PVOID), PVOID owner)
{
    NTSTATUS status;

    if (!card->wired)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    card->service = service;
    card->owner = owner;
    card->deaf = FALSE;
    status = IoConnectInterrupt(&card->irq, CardIsr, card, NULL, card->vector, card->irql, card->irql,
                                card->latched ? Latched : LevelSensitive, card->shared, card->cpus, FALSE);
    if (!NT_SUCCESS(status))
        card->irq = NULL;
    return status;
}

static inline VOID CardDisconnect(CARD *card)
{
    if (card->irq != NULL) {
        IoDisconnectInterrupt(card->irq);
        card->irq = NULL;
    }
}

static BOOLEAN NTAPI CardDeafenNow(PVOID context)
{
    ((CARD *)context)->deaf = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI CardHearNow(PVOID context)
{
    ((CARD *)context)->deaf = FALSE;
    return TRUE;
}

/* From here on the service routine touches nothing: the card sleeps. */
static inline VOID CardDeafen(CARD *card)
{
    if (card->irq != NULL)
        KeSynchronizeExecution(card->irq, CardDeafenNow, card);
}

static inline VOID CardHear(CARD *card)
{
    if (card->irq != NULL)
        KeSynchronizeExecution(card->irq, CardHearNow, card);
}

static inline ULONG CardGet(WINDOW *w, ULONG offset)
{
    return w->port ? READ_PORT_ULONG((PULONG)(w->at + offset)) : READ_REGISTER_ULONG((PULONG)(w->at + offset));
}

static inline VOID CardPut(WINDOW *w, ULONG offset, ULONG value)
{
    if (w->port)
        WRITE_PORT_ULONG((PULONG)(w->at + offset), value);
    else
        WRITE_REGISTER_ULONG((PULONG)(w->at + offset), value);
}

#endif
