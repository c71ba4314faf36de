/*
 * Reads and writes of local memory: dispatch, doorbell, interrupt, DPC, completion; and waiting for an interrupt. One request at a time is
 * on the card. One that is cancelled there ends at once; the card's operation runs on, and the next request starts when it has ended.
 * While the device is stopped or has no power, requests wait.
 */
#ifndef PCI9052_TRANSFER_H
#define PCI9052_TRANSFER_H

#include "hardware.h"

/* Whether a transfer lies in local memory. */
static BOOLEAN IsInMemory(PIO_STACK_LOCATION Stack)
{
    ULONGLONG Offset = (ULONGLONG)Stack->Parameters.Write.ByteOffset.QuadPart; /* Read has the same layout */

    return Offset <= LOCAL_MEMORY && Stack->Parameters.Write.Length <= LOCAL_MEMORY - Offset;
}

static VOID MoveBytes(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PUCHAR Card = Extension->Local + Stack->Parameters.Write.ByteOffset.LowPart;
    PUCHAR Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Length = Stack->Parameters.Write.Length;

    while (Length-- > 0) { /* mingw's READ_REGISTER_BUFFER_UCHAR copies the wrong way, into the card */
        if (Stack->MajorFunction == IRP_MJ_READ) {
            *Buffer++ = READ_REGISTER_UCHAR(Card++);
        } else {
            WRITE_REGISTER_UCHAR(Card++, *Buffer++);
        }
    }
}

/* The turn is free again. */
static VOID GiveTurnBack(PDEVICE_EXTENSION Extension)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Extension->Gate, &OldIrql);
    Extension->Busy = FALSE;
    KeSetEvent(&Extension->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Extension->Gate, OldIrql);
}

/* Gives the card a request that has the turn: the bytes of a write first, then the doorbell. */
static VOID Give(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    if (!Enter(Extension)) {
        GiveTurnBack(Extension);
        End(Extension, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return;
    }
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_WRITE) {
        MoveBytes(Extension, Irp);
    }
    InterlockedExchange(&Extension->OnCard, 1);
    /* Which has room for all: a request that is being cancelled may still be in it, and lets others pass. */
    Park(&Extension->InFlight, Irp, AT_THE_END);
    Unmask(Extension);
    Ring(Extension);
    Leave(Extension);
}

static VOID FailWaiters(PDEVICE_EXTENSION Extension)
{
    PIRP Irp;

    while ((Irp = Pop(&Extension->Waiters, NULL)) != NULL) {
        End(Extension, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
}

/*
 * What waits goes on, or fails, as the way now is. To be called after the way has changed, after a turn has ended, and after something was
 * put to wait, because the way may have changed meanwhile.
 */
static VOID Settle(PDEVICE_EXTENSION Extension)
{
    KIRQL OldIrql;

    for (;;) {
        PIRP Irp = NULL;
        WAY Way;

        KeAcquireSpinLock(&Extension->Gate, &OldIrql);
        Way = WayWithGate(Extension);
        if (Way == WayClosed || (Way == WayOpen && !Extension->Busy)) {
            Irp = Pop(&Extension->Waiting, NULL);
        }
        if (Irp != NULL && Way == WayOpen) {
            Extension->Busy = TRUE;
            KeClearEvent(&Extension->Idle);
        }
        KeReleaseSpinLock(&Extension->Gate, OldIrql);
        if (Irp == NULL) {
            if (Way == WayClosed) {
                FailWaiters(Extension);
            }
            return;
        }
        if (Way == WayClosed) {
            End(Extension, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        } else {
            Give(Extension, Irp);
        }
    }
}

static NTSTATUS DispatchTransfer(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (WayOf(Extension) == WayClosed) {
        return End(Extension, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
    if (!IsInMemory(Stack)) {
        return End(Extension, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (Stack->Parameters.Write.Length == 0) {
        return End(Extension, Irp, STATUS_SUCCESS, 0);
    }
    Park(&Extension->Waiting, Irp, AT_THE_END); /* which has room for all */
    Settle(Extension);
    return STATUS_PENDING;
}

/* The card has ended an operation. Whether it was a transfer. At DISPATCH_LEVEL, by who has come in. */
static BOOLEAN EndTransfer(PDEVICE_EXTENSION Extension)
{
    PIRP Irp;

    if (!InterlockedExchange(&Extension->OnCard, 0)) {
        return FALSE; /* it has been given up */
    }
    Irp = Pop(&Extension->InFlight, NULL);
    if (Irp != NULL) {
        PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
        BOOLEAN Reads = Stack->MajorFunction == IRP_MJ_READ;

        if (Reads) {
            MoveBytes(Extension, Irp);
        }
        InterlockedIncrement(&Extension->Counters.Transfers);
        InterlockedExchangeAdd64(Reads ? &Extension->Counters.BytesRead : &Extension->Counters.BytesWritten,
                                 Stack->Parameters.Write.Length);
    }
    GiveTurnBack(Extension);
    Settle(Extension);
    if (Irp != NULL) {
        End(Extension, Irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length);
    }
    return TRUE;
}

/* The card will not end what it has: its request waits to be done again, before all others. `Settle` follows. */
static VOID Abandon(PDEVICE_EXTENSION Extension)
{
    PIRP Irp;

    if (!InterlockedExchange(&Extension->OnCard, 0)) {
        return;
    }
    Irp = Pop(&Extension->InFlight, NULL);
    if (Irp != NULL) {
        Park(&Extension->Waiting, Irp, AT_THE_FRONT);
    }
    GiveTurnBack(Extension);
}

/* ---- interrupts, and who waits for one ---------------------------------------------------------------------------- */

static NTSTATUS StartWait(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    WAY Way = WayOf(Extension);

    if (Way != WayOpen) {
        return End(Extension, Irp, Way == WayHeld ? STATUS_DEVICE_BUSY : STATUS_DEVICE_NOT_CONNECTED, 0);
    }
    if (!NT_SUCCESS(Park(&Extension->Waiters, Irp, AT_THE_END))) {
        return End(Extension, Irp, STATUS_DEVICE_BUSY, 0);
    }
    if (Enter(Extension)) {
        Unmask(Extension);
        Leave(Extension);
    }
    Settle(Extension);
    return STATUS_PENDING;
}

/* What the service routine saw takes its course. An interrupt that ends no transfer is what waiters wait for. */
static VOID React(PDEVICE_EXTENSION Extension)
{
    SEEN Seen = {Extension, FALSE, FALSE};
    BOOLEAN Ended;
    PIRP Irp;

    if (!Enter(Extension)) {
        return;
    }
    KeSynchronizeExecution(Extension->Interrupt, TakeIt, &Seen);
    Ended = Seen.Done && EndTransfer(Extension);
    if (Seen.Outside || (Seen.Done && !Ended)) {
        while ((Irp = Pop(&Extension->Waiters, NULL)) != NULL) {
            End(Extension, Irp, STATUS_SUCCESS, 0);
        }
    }
    if (Seen.Outside && Extension->OnCard) {
        PollLater(Extension);
    }
    Leave(Extension);
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    React(Context);
}

/* The timer's routine: others hold the line active, so that the end of a transfer makes no interrupt. */
static VOID NTAPI Poll(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (!Extension->OnCard) {
        return;
    }
    if (Enter(Extension)) {
        if (!KeSynchronizeExecution(Extension->Interrupt, LookAtIt, Extension)) {
            PollLater(Extension);
        }
        Leave(Extension);
    }
    React(Extension);
}

#endif
