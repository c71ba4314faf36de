/*
 * plx.h: boards behind a PLX PCI 9052: the chip's registers (BAR0), and the first local space (BAR2, or the first that the board has).
 */
#ifndef AD_PLX_H
#define AD_PLX_H

#define PLX_INTCSR 0x4C

/* LINTi1: enabled, active high, latched at its edge; and the PCI interrupt */
#define PLX_LINT1_ON    0x00000143
#define PLX_LINT1_STATE 0x00000004
#define PLX_LINT1_CLEAR 0x00000400

static inline NTSTATUS plx_find(struct hw *h, ULONG least, struct win **chip, struct win **local)
{
    ULONG i;

    *chip = *local = NULL;
    for (i = 0; i < h->n; i++) {
        struct win *w = &h->w[i];

        if (!*chip && w->len >= PLX_INTCSR + 8)
            *chip = w;
        else if (w->port && w->len == 0x80 && i == 1)
            continue;                                       /* BAR1: the same registers once more */
        else if (!*local && w->len >= least)
            *local = w;
    }
    return *chip && *local ? STATUS_SUCCESS : STATUS_DEVICE_CONFIGURATION_ERROR;
}

/* In the service routine: is it our board's, and if so, take it back. */
static inline BOOLEAN plx_claim(const struct win *chip)
{
    ULONG v = hw_r32(chip, PLX_INTCSR);

    if (v == 0xFFFFFFFF || !(v & 1) || !(v & PLX_LINT1_STATE))
        return FALSE;
    hw_w32(chip, PLX_INTCSR, PLX_LINT1_ON | PLX_LINT1_CLEAR);
    return TRUE;
}

#endif
