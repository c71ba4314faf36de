/*
 * A card as pci9052_c.sys has it: its registers, its device extension, and how its requests are counted and ended. Included behind the
 * DDK's declarations.
 */
#ifndef PCI9052_CARD_H
#define PCI9052_CARD_H

#include "queue.h"

#define PCI9052_TAG 0x32353039u /* "9052" in pool listings */

#define LCR_LENGTH 0x80
#define LCR_INTCSR 0x4C
#define LCR_CNTRL 0x50
#define INTCSR_LINTI1_ENABLE 0x01u
#define INTCSR_LINTI1_STATUS 0x04u
#define INTCSR_PCI_ENABLE 0x40u
#define INTCSR_RESERVED 0x80000000u /* reads 0 */
#define INTCSR_WORKING 0x53u /* LINTi1 enabled, both inputs active high, interrupts to PCI */

/* Local memory, BAR2; the peripheral's registers end it. They are reached by the last 256 bytes as ports, BAR3, too. */
#define LOCAL_LENGTH 0x10000
#define LOCAL_MEMORY 0xFFF8
#define LOCAL_STATUS 0xFFF8
#define LOCAL_DOORBELL 0xFFFC
#define PORTS_LENGTH 0x100
#define PORT_STATUS 0xF8
#define PORT_DOORBELL 0xFC
#define STATUS_DONE 1u
#define STATUS_OVERRUN 4u
#define GONE 0xFFFFFFFFu /* what a card that is gone reads */

typedef enum _PHASE { Added, Started, StopPending, Stopped, RemovePending, SurpriseRemoved } PHASE;

/* What becomes of a read or write that arrives. */
typedef enum _WAY { WayOpen, WayHeld, WayClosed } WAY;

/* Why a device stops. */
typedef enum _WHY { ForRebalance, ForRemoval, ForSurprise } WHY;

typedef struct _COUNTERS {
    LONG64 BytesRead, BytesWritten;
    LONG Transfers, Interrupts, Passed, TimeOuts;
} COUNTERS;

typedef struct _DEVICE_EXTENSION {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    PHASE Phase, PhaseBefore; /* only Plug and Play requests, which come one at a time, change them */
    WCHAR NameBuffer[24], LinkBuffer[24];
    UNICODE_STRING Name, Link, Interface;
    ULONG UsePorts;
    LONG StopTimeout; /* milliseconds */
    BOOLEAN IsProvider;

    /* From start to stop: who uses it is counted in. */
    EX_RUNDOWN_REF Users;
    BOOLEAN HasHardware;
    PUCHAR Lcr; /* NULL: by ports */
    PUCHAR LcrPorts;
    PUCHAR Local;
    ULONG LocalLength, LcrLength;
    PUCHAR LocalPorts; /* where STATUS and DOORBELL are reached, if not in local memory */
    PKINTERRUPT Interrupt;
    KTIMER PollTimer;
    KDPC PollDpc;
    BOOLEAN SeenDone, SeenOutside; /* the service routine's */
    BOOLEAN Awake;                 /* likewise: a request may come to unmask a card that has been sent to sleep since */

    KSPIN_LOCK Gate; /* guards the four below, and Idle with Busy */
    BOOLEAN Closed, Paused, Asleep;
    BOOLEAN Busy; /* a request has its turn: it is on the card, or was until it was cancelled */
    KEVENT Idle;
    LONG OnCard; /* the peripheral was rung for the turn, which who exchanges this for 0 ends */
    QUEUE Waiting, InFlight, Waiters;

    KEVENT Cntrl; /* synchronization: CNTRL has the EEPROM's pins, one at a time */
    COUNTERS Counters;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Ends a request that took the remove lock with itself as tag. */
static NTSTATUS End(PDEVICE_EXTENSION Extension, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Complete(Irp, Status, Information);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

/* Why requests are held or refused. */
typedef enum _BAR { BarClosed, BarPaused, BarAsleep } BAR;

static VOID SetBar(PDEVICE_EXTENSION Extension, BAR Bar, BOOLEAN On)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Extension->Gate, &OldIrql);
    switch (Bar) {
    case BarClosed:
        Extension->Closed = On;
        break;
    case BarPaused:
        Extension->Paused = On;
        break;
    case BarAsleep:
        Extension->Asleep = On;
        break;
    }
    KeReleaseSpinLock(&Extension->Gate, OldIrql);
}

/* With the gate held. */
static WAY WayWithGate(PDEVICE_EXTENSION Extension)
{
    return Extension->Closed ? WayClosed : Extension->Paused || Extension->Asleep ? WayHeld : WayOpen;
}

static WAY WayOf(PDEVICE_EXTENSION Extension)
{
    KIRQL OldIrql;
    WAY Way;

    KeAcquireSpinLock(&Extension->Gate, &OldIrql);
    Way = WayWithGate(Extension);
    KeReleaseSpinLock(&Extension->Gate, OldIrql);
    return Way;
}

#endif
