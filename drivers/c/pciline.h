/*
 * What an application needs to talk to pciline.sys, and the registers of the PLX PCI 9050/9052 that the driver uses.
 */
#ifndef PCILINE_H
#define PCILINE_H

/* Waits until the card's local side raises LINTi1. One request at a time; it can be cancelled. */
#define IOCTL_PCILINE_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_READ_ACCESS)
/* Output: one PCILINE_STATE. */
#define IOCTL_PCILINE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _PCILINE_STATE {
    ULONG Transfers;    /* reads and writes that ended by the card's interrupt */
    LONG Interrupts;    /* claimed by the ISR */
    LONG Passed;        /* left to others on the line */
    ULONG LocalBytes;   /* bytes of local space 0 */
} PCILINE_STATE;

/* Local configuration registers, at the same offsets in BAR0 (memory) and BAR1 (I/O). */
#define LCR_LENGTH 0x80
#define LCR_INTCSR 0x4C
#define LCR_CNTRL 0x50

#define INTCSR_LINTI1_ENABLE 0x00000001u
#define INTCSR_LINTI1_ACTIVE_HIGH 0x00000002u
#define INTCSR_LINTI1_STATUS 0x00000004u
#define INTCSR_PCI_ENABLE 0x00000040u
#define INTCSR_SOFTWARE 0x00000080u
#define INTCSR_LINTI1_EDGE 0x00000100u       /* 9052 only */
#define INTCSR_LINTI1_EDGE_CLEAR 0x00000400u /* 9052 only; write 1 */

#endif
