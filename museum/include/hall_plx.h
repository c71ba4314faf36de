/* plx.h: local configuration registers of the PLX PCI 9052, offsets in its first window (128 bytes). */
#ifndef RR_PLX_H
#define RR_PLX_H

#define PLX_SPAN            0x54
#define PLX_INTCSR          0x4C
#define   INT1_ENABLE       0x0001
#define   INT1_HIGH         0x0002
#define   INT1_STATUS       0x0004
#define   INT2_ENABLE       0x0008
#define   INT2_HIGH         0x0010
#define   INT2_STATUS       0x0020
#define   INT_PCI           0x0040
#define   INT1_EDGE         0x0100
#define   INT2_EDGE         0x0200
#define   INT1_CLEAR        0x0400
#define   INT2_CLEAR        0x0800
#define PLX_CNTRL           0x50
#define   USER_OUT(n)       (0x2u << (3 * (n)))     /* direction of pin USERn */
#define   USER_DATA(n)      (0x4u << (3 * (n)))
#define   USER_SELECT(n)    (0x1u << (3 * (n)))     /* the pin has another function */

/* First input only, triggered by its edge. */
#define PLX_FIRST_INPUT     (INT1_ENABLE | INT1_HIGH | INT1_EDGE | INT_PCI)

/* TRUE if the first input has interrupted; its edge has been taken back then. */
PART BOOLEAN PlxFirstInput(UNIT *U)
{
    ULONG Value = Peek(U, PLX_INTCSR);

    if (Value == 0xFFFFFFFF || !(Value & INT_PCI) || !(Value & INT1_ENABLE) || !(Value & INT1_STATUS))
        return FALSE;
    Poke(U, PLX_INTCSR, Value | INT1_CLEAR);
    Peek(U, PLX_INTCSR);
    return TRUE;
}

/* Neither input interrupts any more. */
PART VOID PlxQuiet(UNIT *U)
{
    Poke(U, PLX_INTCSR, INT1_CLEAR | INT2_CLEAR);
    Peek(U, PLX_INTCSR);                /* that has arrived */
}

#endif
