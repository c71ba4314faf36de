/* quay_plx.h: a card with a PLX PCI 9052: BAR0 = its local configuration registers, BAR2 = local space 0. */
#ifndef AI_PLX_H
#define AI_PLX_H
#include "quay_card.h"

#define PLX_INTCSR  0x4C
#define  PLX_INT1_ON    0x0001
#define  PLX_INT1_HIGH  0x0002
#define  PLX_INT1_NOW   0x0004
#define  PLX_INT2_ON    0x0008
#define  PLX_INT2_HIGH  0x0010
#define  PLX_INT2_NOW   0x0020
#define  PLX_PCI_ON     0x0040
#define  PLX_SOFT       0x0080
#define  PLX_INT1_EDGE  0x0100
#define  PLX_INT2_EDGE  0x0200
#define  PLX_INT1_CLEAR 0x0400
#define  PLX_INT2_CLEAR 0x0800
#define PLX_CNTRL   0x50
#define PLX_GONE    0xFFFFFFFFu

/* maps; with an ISR: makes the card silent and connects. Live is still FALSE. */
static inline NTSTATUS AiPlxStart(PAI_CARD c, PCM_RESOURCE_LIST list, PKSERVICE_ROUTINE isr, BOOLEAN window)
{
    AI_RESOURCES r;
    NTSTATUS s;

    AiResources(list, &r);
    s = AiMap(c, &r, 0x54, window);
    if (!NT_SUCCESS(s))
        return s;
    if (AiRead(c, PLX_INTCSR) == PLX_GONE) {
        AiUnmap(c);
        return STATUS_DEVICE_NOT_CONNECTED;
    }
    if (isr) {
        AiWrite(c, PLX_INTCSR, PLX_INT1_CLEAR | PLX_INT2_CLEAR);
        s = AiConnect(c, &r, isr);
        if (!NT_SUCCESS(s))
            AiUnmap(c);
    }
    return s;
}

/* with an interrupt: sets INTCSR and goes live (start, and back in D0) */
static inline VOID AiPlxLive(PAI_CARD c, ULONG intcsr)
{
    KIRQL q = KeAcquireInterruptSpinLock(c->Int);

    c->Cause = 0;
    c->Live = TRUE;
    AiWrite(c, PLX_INTCSR, intcsr);
    KeReleaseInterruptSpinLock(c->Int, q);
}

/* with an interrupt: nothing of the card any more (D3, stop) */
static inline VOID AiPlxQuiet(PAI_CARD c)
{
    KIRQL q = KeAcquireInterruptSpinLock(c->Int);

    if (c->Live) {
        AiWrite(c, PLX_INTCSR, PLX_INT1_CLEAR | PLX_INT2_CLEAR);
        c->Live = FALSE;
    }
    c->Cause = 0;
    KeReleaseInterruptSpinLock(c->Int, q);
}

static inline VOID AiPlxStop(PAI_CARD c)
{
    AiPlxQuiet(c);
    AiDisconnect(c);
    AiUnmap(c);
}
#endif
