/* The registers of QEMU's educational device by which it interrupts and transfers. */
#ifndef EDU_H
#define EDU_H

#define EDU_INTERRUPT_STATUS 0x24
#define EDU_INTERRUPT_ACKNOWLEDGE 0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_DESTINATION 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_START 1
#define EDU_DMA_TO_MEMORY 2
#define EDU_DMA_INTERRUPT 4
#define EDU_BUFFER 0x40000
#define EDU_BUFFER_LENGTH 0x1000

#endif
