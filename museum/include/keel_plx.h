/* keel_plx.h: the local configuration registers of the PCI 9052 (first memory range) and changes of INTCSR. */
#ifndef AJ_PLX_H
#define AJ_PLX_H
#include "keel_card.h"

#define PLX_INTCSR 0x4C
#define PLX_CNTRL  0x50

#define PLX_L1_ENABLE  0x001u
#define PLX_L1_HIGH    0x002u
#define PLX_L1_STATUS  0x004u
#define PLX_L2_ENABLE  0x008u
#define PLX_L2_HIGH    0x010u
#define PLX_L2_STATUS  0x020u
#define PLX_PCI_ENABLE 0x040u
#define PLX_SOFT       0x080u
#define PLX_L1_EDGE    0x100u
#define PLX_L2_EDGE    0x200u
#define PLX_L1_CLEAR   0x400u   /* writing one takes the noted edge back; reads as zero */
#define PLX_L2_CLEAR   0x800u

#define PLX_USER0_DATA 0x004u

typedef struct AJ_PLX_CHANGE { AJ_CARD *c; ULONG off, on; } AJ_PLX_CHANGE;

static inline BOOLEAN plx_change_sync(PVOID ctx)
{
    AJ_PLX_CHANGE *p = ctx;
    ULONG v = aj_rd(p->c, PLX_INTCSR);

    if (v != AJ_GONE)
        aj_wr(p->c, PLX_INTCSR, (v & ~(p->off | PLX_L1_CLEAR | PLX_L2_CLEAR)) | p->on);
    return TRUE;
}

/* up to DISPATCH_LEVEL, with the interrupt connected: never at the same time as the ISR */
static inline void plx_change(AJ_CARD *c, ULONG off, ULONG on)
{
    AJ_PLX_CHANGE p = { c, off, on };

    KeSynchronizeExecution(c->intr, plx_change_sync, &p);
}

/* the interrupt is not connected: nothing from the card */
static inline void plx_silence(AJ_CARD *c)
{
    aj_wr(c, PLX_INTCSR, PLX_L1_CLEAR | PLX_L2_CLEAR);
}
#endif
