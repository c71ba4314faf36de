/*
 * plx.h: the bridge PLX PCI 9052, for the drivers of the set PP. Its registers are in the first memory window; the local bus, with the
 * board itself, is behind the windows that follow.
 */
#ifndef PP_PLX_H
#define PP_PLX_H

#include "shell_iron.h"

#define PLX_INTCSR      0x4C
#define PLX_CNTRL       0x50
#define PLX_BYTES       0x54            /* how much of the window has registers */
#define PLX_GONE        0xFFFFFFFFu

#define INTCSR_ENABLE1  0x001
#define INTCSR_ACTIVE1  0x004
#define INTCSR_ENABLE2  0x008
#define INTCSR_ACTIVE2  0x020
#define INTCSR_PCI      0x040           /* lets local interrupts through to the PCI bus */
#define INTCSR_UNLATCH  0xC00           /* ones clear the latches of edges */

/* The window of the board: the last one. */
FRAME PCM_PARTIAL_RESOURCE_DESCRIPTOR PlxBoard(PCM_RESOURCE_LIST List)
{
    ULONG count = IronCount(List, CmResourceTypeMemory);

    return count == 0 ? NULL : IronFind(List, CmResourceTypeMemory, count - 1);
}

#endif
