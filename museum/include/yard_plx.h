/*
 * plxcard.h: a board behind a PLX PCI 9052. Window 0 is its BAR0, the bridge's own registers; local spaces come behind BAR1.
 */
#ifndef TT_PLXCARD_H
#define TT_PLXCARD_H

#define PLX_INTCSR      0x4C
#define   PLX_INT1_ENABLE   0x0001
#define   PLX_INT1_HIGH     0x0002
#define   PLX_INT1_STATUS   0x0004
#define   PLX_PCI_ENABLE    0x0040
#define   PLX_INT1_EDGE     0x0100
#define   PLX_INT1_CLEAR    0x0400
#define   PLX_INT2_CLEAR    0x0800
#define   PLX_INT1_ALL      (PLX_INT1_ENABLE | PLX_INT1_HIGH | PLX_INT1_EDGE | PLX_INT1_CLEAR)
#define PLX_CNTRL       0x50
#define   PLX_USER0_SELECT  0x0001      /* 0: a user pin */
#define   PLX_USER0_OUT     0x0002
#define   PLX_USER0_DATA    0x0004
#define   PLX_USER1_SELECT  0x0008
#define   PLX_USER1_OUT     0x0010
#define   PLX_USER1_DATA    0x0020
#define PLX_BYTES       0x54
#define PLX_ALL_ONES    0xFFFFFFFFu

FR ULONG PlxRd(PFRAME F, ULONG Offset)
{
    return Rd32(F, 0, Offset);
}

FR VOID PlxWr(PFRAME F, ULONG Offset, ULONG Value)
{
    Wr32(F, 0, Offset, Value);
}

FR NTSTATUS PlxCheck(PFRAME F)
{
    return F->Windows != 0 && !F->Window[0].Port && F->Window[0].Length >= PLX_BYTES ? STATUS_SUCCESS : STATUS_DEVICE_CONFIGURATION_ERROR;
}

/* The window of the first local space that has so many bytes; 0 if there is none. */
FR ULONG PlxLocal(PFRAME F, ULONG Bytes)
{
    ULONG i;

    for (i = 1; i < F->Windows; i++) {
        if (F->Window[i].Port && i == 1)
            continue;           /* BAR1: window 0 once more, in I/O space */
        if (F->Window[i].Length >= Bytes)
            return i;
    }
    return 0;
}

/* Hooks.Listen: rising edges of LINTi1 */
FR VOID PlxListen(PFRAME F, BOOLEAN On)
{
    ULONG csr = PlxRd(F, PLX_INTCSR);

    if (csr == PLX_ALL_ONES)
        return;
    csr &= ~(PLX_INT1_ALL | PLX_INT2_CLEAR | PLX_PCI_ENABLE);
    if (On)
        csr |= PLX_INT1_ALL | PLX_PCI_ENABLE;
    PlxWr(F, PLX_INTCSR, csr);
    PlxRd(F, PLX_INTCSR);
}

/* In the service routine: was it LINTi1? It is acknowledged then. */
FR BOOLEAN PlxEdge(PFRAME F)
{
    ULONG csr = PlxRd(F, PLX_INTCSR);

    if (csr == PLX_ALL_ONES || (csr & (PLX_INT1_ENABLE | PLX_INT1_STATUS | PLX_PCI_ENABLE)) != (PLX_INT1_ENABLE | PLX_INT1_STATUS | PLX_PCI_ENABLE))
        return FALSE;
    PlxWr(F, PLX_INTCSR, (csr & ~PLX_INT2_CLEAR) | PLX_INT1_CLEAR);
    PlxRd(F, PLX_INTCSR);
    return TRUE;
}

#endif
