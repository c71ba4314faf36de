/*
 * gorse: tells programs of the two interrupt lines of a board behind a PLX bridge. A line is armed by a program; when it comes, it is
 * masked (the board keeps it up until it is served), all that wait learn of it, and it can be armed again.
 *
 * The bug: arming and disarming read, change and write the bridge's interrupt register without keeping the service routine away, which
 * does the same. A line that it masks in between is unmasked again behind its back, or what another request has armed is lost.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_plx.h"

#define GORSE_ARM       CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA21, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG, lines */
#define GORSE_DISARM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA22, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG, lines */
#define GORSE_WAIT      CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA23, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* out: ULONG, lines that came */

#define GORSE_LINE1     1
#define GORSE_LINE2     2

typedef struct GORSE {
    SHELL Shell;
    WINDOW Bridge;
    PKINTERRUPT Interrupt;
    BOOLEAN Awake;              /* the service routine may touch the bridge */
    volatile LONG Armed;        /* lines that are to interrupt */
    volatile LONG Came;         /* lines that the service routine has seen, and the DPC has not */
    KDPC Dpc;
    PEN Waiters;                /* its lock guards Untold, too */
    ULONG Untold;               /* lines that came while no one waited */
} GORSE;

typedef struct CHANGE {
    GORSE *Gorse;
    ULONG Arm;
    ULONG Disarm;
} CHANGE;

static const GUID GorseInterface = { 0x2ad90e71, 0x7b5c, 0x4f13, { 0x86, 0xdd, 0x3e, 0x12, 0xa0, 0x69, 0xc5, 0x09 } };

static ULONG GorseEnables(ULONG Lines)
{
    return ((Lines & GORSE_LINE1) ? INTCSR_ENABLE1 : 0) | ((Lines & GORSE_LINE2) ? INTCSR_ENABLE2 : 0);
}

static BOOLEAN NTAPI GorseInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    GORSE *gorse = Context;
    ULONG value, lines = 0;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!gorse->Awake)
        return FALSE;
    value = RegRead(&gorse->Bridge, PLX_INTCSR);
    if (value == PLX_GONE || !(value & INTCSR_PCI))
        return FALSE;
    if ((value & INTCSR_ENABLE1) && (value & INTCSR_ACTIVE1))
        lines |= GORSE_LINE1;
    if ((value & INTCSR_ENABLE2) && (value & INTCSR_ACTIVE2))
        lines |= GORSE_LINE2;
    if (lines == 0)
        return FALSE;
    RegWrite(&gorse->Bridge, PLX_INTCSR, value & ~(INTCSR_UNLATCH | GorseEnables(lines)));
    (VOID)RegRead(&gorse->Bridge, PLX_INTCSR);      /* the write has arrived */
    InterlockedAnd(&gorse->Armed, ~(LONG)lines);
    InterlockedOr(&gorse->Came, (LONG)lines);
    KeInsertQueueDpc(&gorse->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI GorseDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    GORSE *gorse = Context;
    ULONG lines = (ULONG)InterlockedExchange(&gorse->Came, 0);
    LIST_ENTRY due;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (lines == 0)
        return;
    InitializeListHead(&due);
    KeAcquireSpinLockAtDpcLevel(&gorse->Waiters.Lock);
    while ((irp = PenNext(&gorse->Waiters, NULL)) != NULL)
        InsertTailList(&due, &irp->Tail.Overlay.ListEntry);
    if (IsListEmpty(&due))
        gorse->Untold |= lines;
    KeReleaseSpinLockFromDpcLevel(&gorse->Waiters.Lock);
    while (!IsListEmpty(&due)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&due), IRP, Tail.Overlay.ListEntry);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = lines;
        Settle(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static BOOLEAN NTAPI GorseChange(PVOID Context)
{
    CHANGE *change = Context;
    GORSE *gorse = change->Gorse;
    ULONG value = RegRead(&gorse->Bridge, PLX_INTCSR) & ~INTCSR_UNLATCH;

    value |= GorseEnables(change->Arm);
    value &= ~GorseEnables(change->Disarm);
    InterlockedOr(&gorse->Armed, (LONG)change->Arm);
    InterlockedAnd(&gorse->Armed, ~(LONG)change->Disarm);
    RegWrite(&gorse->Bridge, PLX_INTCSR, value);
    return TRUE;
}

static VOID GorseSet(GORSE *Gorse, ULONG Arm, ULONG Disarm)
{
    CHANGE change = { Gorse, Arm, Disarm };

#ifndef FIXED
    GorseChange(&change);
#else
    KeSynchronizeExecution(Gorse->Interrupt, GorseChange, &change);
#endif
}

/* The armed lines interrupt, from now on. */
static BOOLEAN NTAPI GorseOn(PVOID Context)
{
    GORSE *gorse = Context;
    ULONG value = RegRead(&gorse->Bridge, PLX_INTCSR) & ~(INTCSR_UNLATCH | INTCSR_ENABLE1 | INTCSR_ENABLE2);

    gorse->Awake = TRUE;
    RegWrite(&gorse->Bridge, PLX_INTCSR, value | INTCSR_PCI | GorseEnables((ULONG)gorse->Armed));
    return TRUE;
}

static BOOLEAN NTAPI GorseOff(PVOID Context)
{
    GORSE *gorse = Context;
    ULONG value = RegRead(&gorse->Bridge, PLX_INTCSR) & ~(INTCSR_UNLATCH | INTCSR_ENABLE1 | INTCSR_ENABLE2 | INTCSR_PCI);

    RegWrite(&gorse->Bridge, PLX_INTCSR, value);
    (VOID)RegRead(&gorse->Bridge, PLX_INTCSR);
    gorse->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI GorseGone(PVOID Context)
{
    ((GORSE *)Context)->Awake = FALSE;
    return TRUE;
}

static NTSTATUS GorseFound(SHELL *Shell)
{
    GORSE *gorse = (GORSE *)Shell;

    KeInitializeDpc(&gorse->Dpc, GorseDpc, gorse);
    PenInit(&gorse->Waiters);
    return STATUS_SUCCESS;
}

static NTSTATUS GorseBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    GORSE *gorse = (GORSE *)Shell;
    NTSTATUS status = WindowMap(&gorse->Bridge, IronFind(Resources, CmResourceTypeMemory, 0), PLX_BYTES);

    if (!NT_SUCCESS(status))
        return status;
    GorseOff(gorse);            /* nothing is connected yet */
    status = IronInterrupt(IronFind(Resources, CmResourceTypeInterrupt, 0), GorseInterrupt, gorse, &gorse->Interrupt);
    if (!NT_SUCCESS(status)) {
        WindowUnmap(&gorse->Bridge);
        return status;
    }
    KeSynchronizeExecution(gorse->Interrupt, GorseOn, gorse);
    return STATUS_SUCCESS;
}

static VOID GorseEnd(SHELL *Shell, BOOLEAN Present)
{
    GORSE *gorse = (GORSE *)Shell;

    KeSynchronizeExecution(gorse->Interrupt, Present ? GorseOff : GorseGone, gorse);
    IoDisconnectInterrupt(gorse->Interrupt);
    gorse->Interrupt = NULL;
    KeFlushQueuedDpcs();
    WindowUnmap(&gorse->Bridge);
}

static VOID GorseRest(SHELL *Shell)
{
    GORSE *gorse = (GORSE *)Shell;

    KeSynchronizeExecution(gorse->Interrupt, GorseOff, gorse);
}

static VOID GorseRouse(SHELL *Shell)
{
    GORSE *gorse = (GORSE *)Shell;

    KeSynchronizeExecution(gorse->Interrupt, GorseOn, gorse);
}

static VOID GorseDesert(SHELL *Shell)
{
    PenShut(&((GORSE *)Shell)->Waiters, STATUS_DEVICE_REMOVED);
}

static NTSTATUS GorseWait(GORSE *Gorse, PIRP Irp)
{
    BOOLEAN marked = FALSE;
    NTSTATUS status;
    ULONG lines;
    KIRQL irql;

    KeAcquireSpinLock(&Gorse->Waiters.Lock, &irql);
    lines = Gorse->Untold;
    Gorse->Untold = 0;
    status = lines != 0 ? STATUS_SUCCESS : PenStow(&Gorse->Waiters, Irp, FALSE, &marked);
    KeReleaseSpinLock(&Gorse->Waiters.Lock, irql);
    if (status == STATUS_PENDING)
        return STATUS_PENDING;
    if (lines != 0)
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = lines;
    Settle(Irp, status, lines != 0 ? sizeof(ULONG) : 0);
    return marked ? STATUS_PENDING : status;
}

static NTSTATUS GorseServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    GORSE *gorse = (GORSE *)Shell;
    ULONG code = At->Parameters.DeviceIoControl.IoControlCode, lines;

    if (At->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (code) {
    case GORSE_ARM:
    case GORSE_DISARM:
        if (At->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        lines = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        if (lines & ~(ULONG)(GORSE_LINE1 | GORSE_LINE2))
            return Settle(Irp, STATUS_INVALID_PARAMETER, 0);
        GorseSet(gorse, code == GORSE_ARM ? lines : 0, code == GORSE_DISARM ? lines : 0);
        return Settle(Irp, STATUS_SUCCESS, 0);

    case GORSE_WAIT:
        if (At->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return GorseWait(gorse, Irp);
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID GorseQuit(SHELL *Shell, PFILE_OBJECT File)
{
    PenSweep(&((GORSE *)Shell)->Waiters, File, STATUS_CANCELLED);
}

static const SHELL_TRADE GorseTrade = {
    .Size = sizeof(GORSE), .Interface = &GorseInterface,
    .Found = GorseFound, .Begin = GorseBegin, .End = GorseEnd, .Rest = GorseRest, .Rouse = GorseRouse,
    .Desert = GorseDesert, .Serve = GorseServe, .Quit = GorseQuit,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &GorseTrade);
}
