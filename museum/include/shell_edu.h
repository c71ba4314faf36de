/*
 * edu.h: QEMU's educational card, for the drivers of the set PP.
 */
#ifndef PP_EDU_H
#define PP_EDU_H

#include "shell_iron.h"

#define EDU_IDENT       0x00
#define EDU_FACTORIAL   0x08
#define EDU_STATUS      0x20
#define EDU_CAUSES      0x24
#define EDU_RAISE       0x60
#define EDU_ACK         0x64
#define EDU_DMA_FROM    0x80
#define EDU_DMA_TO      0x88
#define EDU_DMA_COUNT   0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_BYTES       0x100       /* how much of the window has registers */

#define EDU_COMPUTING   0x01        /* of EDU_STATUS */
#define EDU_TELL        0x80
#define EDU_DMA_START   0x01        /* of EDU_DMA_COMMAND */
#define EDU_DMA_TO_RAM  0x02
#define EDU_DMA_TELL    0x04
#define EDU_CAUSE_FACT  0x001       /* of EDU_CAUSES */
#define EDU_CAUSE_BELL  0x002       /* what a driver raises itself */
#define EDU_CAUSE_DMA   0x100
#define EDU_MEMORY      0x40000     /* the card's own, for its DMA */
#define EDU_MEMORY_SIZE 4096
#define EDU_REACH       0x10000000ULL   /* 28 address lines */
#define EDU_GONE        0xFFFFFFFFu

FRAME BOOLEAN EduThere(const WINDOW *Card)
{
    return (RegRead(Card, EDU_IDENT) & 0xFFFF) == 0x00ED;
}

/* Takes causes of the interrupt back. The read has the write arrive before it returns. */
FRAME VOID EduAck(const WINDOW *Card, ULONG Causes)
{
    RegWrite(Card, EDU_ACK, Causes);
    (VOID)RegRead(Card, EDU_IDENT);
}

/* No interrupt for computations, and none that is left over. */
FRAME VOID EduQuiet(const WINDOW *Card)
{
    RegWrite(Card, EDU_STATUS, 0);
    EduAck(Card, RegRead(Card, EDU_CAUSES));
}

/* Computes a factorial (of 12 at most, for 32 bits) at PASSIVE_LEVEL, by looking. One caller at a time. */
FRAME NTSTATUS EduCompute(const WINDOW *Card, ULONG Of, ULONG *Result)
{
    ULONG status, tries;

    for (tries = 0; (status = RegRead(Card, EDU_STATUS)) & EDU_COMPUTING; tries++) {
        if (status == EDU_GONE)
            return STATUS_DEVICE_NOT_CONNECTED;
        if (tries == 100)
            return STATUS_DEVICE_BUSY;      /* still at one that was given up */
        IronSleep(1);
    }
    RegWrite(Card, EDU_FACTORIAL, Of);
    for (tries = 0; (status = RegRead(Card, EDU_STATUS)) & EDU_COMPUTING; tries++) {
        if (status == EDU_GONE)
            return STATUS_DEVICE_NOT_CONNECTED;
        if (tries == 200)
            return STATUS_IO_TIMEOUT;
        IronSleep(1);
    }
    *Result = RegRead(Card, EDU_FACTORIAL);
    return *Result == EDU_GONE ? STATUS_DEVICE_NOT_CONNECTED : STATUS_SUCCESS;
}

/* Waits at PASSIVE_LEVEL until the card moves nothing. FALSE: it still does. */
FRAME BOOLEAN EduDmaSettled(const WINDOW *Card, ULONG Milliseconds)
{
    ULONG waited, command;

    for (waited = 0;; waited += 5) {
        command = RegRead(Card, EDU_DMA_COMMAND);
        if (command == EDU_GONE || !(command & EDU_DMA_START))
            return TRUE;
        if (waited >= Milliseconds)
            return FALSE;
        IronSleep(5);
    }
}

FRAME PDMA_ADAPTER EduAdapter(PDEVICE_OBJECT Pdo, ULONG *MapRegisters)
{
    DEVICE_DESCRIPTION d;

    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;         /* no description says 28: the address is looked at before it is used */
    d.InterfaceType = PCIBus;
    d.MaximumLength = EDU_MEMORY_SIZE;
    return IoGetDmaAdapter(Pdo, &d, MapRegisters);
}

/* Moves bytes between a logical address and the card's memory. */
FRAME VOID EduDmaStart(const WINDOW *Card, ULONG Logical, ULONG Offset, ULONG Bytes, BOOLEAN ToRam, BOOLEAN Tell)
{
    RegWrite(Card, EDU_DMA_FROM, ToRam ? EDU_MEMORY + Offset : Logical);
    RegWrite(Card, EDU_DMA_TO, ToRam ? Logical : EDU_MEMORY + Offset);
    RegWrite(Card, EDU_DMA_COUNT, Bytes);
    RegWrite(Card, EDU_DMA_COMMAND, EDU_DMA_START | (ToRam ? EDU_DMA_TO_RAM : 0) | (Tell ? EDU_DMA_TELL : 0));
}

#endif
