/*
 * wharf_plx.h: the two registers of the PLX PCI 9052 that the drivers use,
 * and the steps of starting and stopping that do not differ between them.
 */
#ifndef WHARF_PLX_H
#define WHARF_PLX_H
#include "wharf_card.h"

#define PLX_INTCSR   0x4C
#define   PLX_EN1      0x01
#define   PLX_HIGH1    0x02
#define   PLX_ST1      0x04
#define   PLX_EN2      0x08
#define   PLX_HIGH2    0x10
#define   PLX_ST2      0x20
#define   PLX_PCI      0x40
#define   PLX_SOFT     0x80
#define PLX_CNTRL    0x50
#define   PLX_USER0_OUT  0x02
#define   PLX_USER0_DATA 0x04
#define PLX_GONE     0xFFFFFFFFu

static inline NTSTATUS PlxMap(WHARF *w, WHARF_RES *r)
{
    NTSTATUS st = WharfMap(w, r, PLX_CNTRL + 4);

    if (!NT_SUCCESS(st))
        return st;
    if (WharfRd(w, PLX_INTCSR) == PLX_GONE) {
        WharfUnmap(w);
        return STATUS_NO_SUCH_DEVICE;
    }
    WharfWr(w, PLX_INTCSR, 0);
    return STATUS_SUCCESS;
}

/* lets the ISR look at the card, and the card interrupt */
static inline VOID PlxLoud(WHARF *w, ULONG intcsr)
{
    KIRQL q = KeAcquireInterruptSpinLock(w->Interrupt);
    w->IsrOn = TRUE;
    WharfWr(w, PLX_INTCSR, intcsr);
    KeReleaseInterruptSpinLock(w->Interrupt, q);
}

static inline VOID PlxQuiet(WHARF *w, BOOLEAN touch)
{
    KIRQL q = KeAcquireInterruptSpinLock(w->Interrupt);
    if (touch)
        WharfWr(w, PLX_INTCSR, 0);
    w->IsrOn = FALSE;
    KeReleaseInterruptSpinLock(w->Interrupt, q);
}

#endif
