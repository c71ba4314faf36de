/* AEplx.h: the local configuration registers of a PLX PCI 9050/9052, memory-mapped by BAR0. */
#ifndef AEPLX_H
#define AEPLX_H

#define PLX_LENGTH 128
#define PLX_INTCSR 0x4C
#define PLX_CNTRL 0x50

#define INT_1_ENABLE 0x01
#define INT_1_HIGH 0x02
#define INT_1_ACTIVE 0x04
#define INT_2_ENABLE 0x08
#define INT_2_HIGH 0x10
#define INT_2_ACTIVE 0x20
#define INT_PCI 0x40
#define INT_BASE (INT_1_HIGH | INT_2_HIGH)	/* both lines active high, nothing enabled */
#define INT_ENABLES (INT_1_ENABLE | INT_2_ENABLE | INT_PCI)

#define PLX_ABSENT 0xFFFFFFFF			/* what a board reads that is gone */

#endif
