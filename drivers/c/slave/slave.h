/* What the files of slave.sys share: the card, the adapter for its channel, and the ways to ask for what has no level of its own. */
#ifndef SLAVE_H
#define SLAVE_H

#include <ddk/wdm.h>

#define STORIES "slave"
#define CONTROL_WITHOUT_DEVICE
#include "../control.h"
#include "../function.h"
#include "../dma/operations.h"

#define SLAVE_CHANNEL 0x04
#define SLAVE_COMMAND 0x08
#define SLAVE_STATUS 0x0C
#define SLAVE_MOVED 0x10
#define SLAVE_OFFSET 0x14
#define SLAVE_START 1
#define SLAVE_TO_MEMORY 2
#define SLAVE_INTERRUPT 4
#define SLAVE_CONTINUE 8
#define SLAVE_TERMINAL_COUNT 1

/* Input: a SETUP. No request may be under way. */
#define IOCTL_SLAVE_SETUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0xD00, METHOD_BUFFERED, FILE_ANY_ACCESS)

enum {
    OPERATIONS, /* by DMA_OPERATIONS */
    OLD,        /* by HalGetAdapter and the exports of Windows NT 4 */
};

typedef struct _SETUP {
    ULONG How;
    ULONG MaximumLength;
} SETUP;

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    ULONG How;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters; /* the most of one transfer */
    /* The request under way. */
    PUCHAR Va; /* where the next part begins, as the MDL has it */
    ULONG Left;
    ULONG Part; /* bytes that are mapped */
    BOOLEAN ToDevice;
    PVOID Base;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

/* Of the story that runs. */
static PDEVICE_OBJECT Pdo;
static PDRIVER_OBJECT TheDriver;
static PFUNCTION Card;

#define WAITERS 4
#include "../waiters.h"

static VOID Describe(PDEVICE_DESCRIPTION Description, ULONG Version, ULONG Channel, ULONG MaximumLength)
{
    RtlZeroMemory(Description, sizeof(DESCRIPTION3));
    Description->Version = Version;
    Description->InterfaceType = Isa;
    Description->DmaChannel = Channel;
    Description->DmaWidth = Channel > 4 ? Width16Bits : Width8Bits;
    Description->DmaSpeed = Compatible;
    Description->MaximumLength = MaximumLength;
}

__attribute__((unused)) static PDMA_ADAPTER Get(ULONG Version, ULONG MaximumLength, PULONG MapRegisters)
{
    DESCRIPTION3 Description;

    Describe(&Description.Old, Version, Read(Card, SLAVE_CHANNEL), MaximumLength);
    return IoGetDmaAdapter(Pdo, &Description.Old, MapRegisters);
}

static PVOID Bases[WAITERS];

/* The AdapterControl routine of all stories. */
__attribute__((unused)) static IO_ALLOCATION_ACTION NTAPI Notes(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase,
                                                                PVOID Context)
{
    ULONG Index = (ULONG)(ULONG_PTR)Context;

    Mistakes += Index >= WAITERS || Device != Waiters[Index] || Irp != NumberOf(Index) || MapRegisterBase == NULL ||
                KeGetCurrentIrql() != DISPATCH_LEVEL;
    Bases[Index] = MapRegisterBase;
    Order[Ordered++] = Index;
    return Action;
}

/* Nonpaged memory with its MDL. */
__attribute__((unused)) static PMDL NewBuffer(PVOID Memory, ULONG Length)
{
    PMDL Mdl = IoAllocateMdl(Memory, Length, FALSE, FALSE, NULL);

    if (Mdl != NULL) {
        MmBuildMdlForNonPagedPool(Mdl);
    }
    return Mdl;
}

/* The card goes from the beginning of its memory, and does not interrupt. */
__attribute__((unused)) static VOID StartCard(ULONG Command)
{
    Write(Card, SLAVE_STATUS, SLAVE_TERMINAL_COUNT);
    Write(Card, SLAVE_OFFSET, 0);
    Write(Card, SLAVE_COMMAND, SLAVE_START | Command);
}

/* A while in which the card moves something. */
__attribute__((unused)) static VOID PassTime(ULONG Microseconds)
{
    ULONG Passed;

    for (Passed = 0; Passed < Microseconds; Passed += 50) {
        KeStallExecutionProcessor(50);
    }
}

/* Until the channel's count has ended; FALSE if it never does. */
__attribute__((unused)) static BOOLEAN CardDone(VOID)
{
    ULONG Turns;

    for (Turns = 0; Turns < 100000; Turns++) {
        if (Read(Card, SLAVE_STATUS) & SLAVE_TERMINAL_COUNT) {
            return TRUE;
        }
        KeStallExecutionProcessor(10);
    }
    return FALSE;
}

#endif
