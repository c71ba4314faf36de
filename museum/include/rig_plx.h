/* plx.h: the PCI 9052 and the board's registers behind its local space 0. */
#ifndef PLX_H
#define PLX_H
#define PLX_INTCSR 0x4C
#define PLX_INT1_ENABLE 0x001
#define PLX_INT1_HIGH 0x002
#define PLX_INT1_STATUS 0x004
#define PLX_INT_PCI 0x040
#define PLX_INT_SOFTWARE 0x080
#define PLX_INT1_EDGE 0x100
#define PLX_INT1_CLEAR 0x400
#define PLX_LEAST 0x54                      /* of BAR0 */

/* The registers of the chip, and those of the board: the first memory behind them, or the second range of ports. */
LOCAL PCM_PARTIAL_RESOURCE_DESCRIPTOR PlxChip(PCM_PARTIAL_RESOURCE_LIST list)
{
    return RigFind(list, CmResourceTypeMemory, 0);
}

LOCAL PCM_PARTIAL_RESOURCE_DESCRIPTOR PlxBoard(PCM_PARTIAL_RESOURCE_LIST list)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR found = RigFind(list, CmResourceTypeMemory, 1);

    return found ? found : RigFind(list, CmResourceTypePort, 1);
}

#endif
