/* edu.h: registers of QEMU's educational card, offsets in its first window (1 MiB). */
#ifndef RR_EDU_H
#define RR_EDU_H

#define EDU_SPAN            0x100000
#define EDU_ID              0x00
#define EDU_LIVENESS        0x04    /* what is written is read back inverted */
#define EDU_FACTORIAL       0x08
#define EDU_STATUS          0x20
#define   EDU_COMPUTING     0x01    /* read only */
#define   EDU_IRQ_FACTORIAL 0x80
#define EDU_IRQ_CAUSES      0x24
#define EDU_IRQ_RAISE       0x60
#define EDU_IRQ_ACK         0x64
#define EDU_DMA_SOURCE      0x80    /* 64 bits */
#define EDU_DMA_TARGET      0x88    /* 64 bits */
#define EDU_DMA_COUNT       0x90    /* 64 bits */
#define EDU_DMA_COMMAND     0x98    /* 64 bits */
#define   EDU_DMA_RUN       0x01
#define   EDU_DMA_TO_MEMORY 0x02
#define   EDU_DMA_IRQ       0x04
#define EDU_CAUSE_FACTORIAL 0x01
#define EDU_CAUSE_DMA       0x100
#define EDU_BUFFER          0x40000 /* where its memory of 4096 bytes lies, as the DMA engine sees it */
#define EDU_BUFFER_BYTES    4096

/* The service routine's part that is the same everywhere: the causes that were there, acknowledged; 0 if the interrupt is another's. */
PART ULONG EduCauses(UNIT *U)
{
    ULONG Causes = Peek(U, EDU_IRQ_CAUSES);

    if (!Causes || Causes == 0xFFFFFFFF)
        return 0;
    Poke(U, EDU_IRQ_ACK, Causes);
    Peek(U, EDU_IRQ_CAUSES);            /* the acknowledgement has arrived */
    return Causes;
}

/* No more interrupts but of DMA, and those of before are acknowledged. */
PART VOID EduQuiet(UNIT *U)
{
    Poke(U, EDU_STATUS, 0);
    Poke(U, EDU_IRQ_ACK, Peek(U, EDU_IRQ_CAUSES));
    Peek(U, EDU_IRQ_CAUSES);            /* all that has arrived */
}

#endif
