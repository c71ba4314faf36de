/*
 * brindle: motor axis board behind a PLX PCI 9052. IOCTL_BRINDLE_COMMAND gives the board one command and ends with
 * its result, IOCTL_BRINDLE_WAIT_STOP ends at the next edge of the emergency stop contact.
 *
 * Board in local space 0 (BAR2): 0x00 STATUS (bit 0 busy, from the write of CMD until RESULT is there; bit 1 fault),
 * 0x04 ARG, 0x08 CMD (a write begins the command, 0 halts at once), 0x0C RESULT. LINTi1: edge when a command is done
 * (some take a microsecond). LINTi2: edge when the emergency stop contact opens.
 *
 * The bug: the DPC clears the causes that it has served at its end and not when it takes them, so the done edge of
 * the next command is lost when it comes while the DPC still runs; that command never ends, nor do those after it.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/sable_wdm.h"

static const GUID BrindleGuid = {0x6c1e51a4, 0x2f0b, 0x4b61, {0x9d, 0x11, 0x3a, 0x70, 0x5e, 0x21, 0x84, 0x03}};

#define IOCTL_BRINDLE_COMMAND   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BRINDLE_WAIT_STOP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct {
    ULONG Code;         /* 1 to 255 */
    ULONG Argument;
} BRINDLE_COMMAND;

typedef struct {
    ULONG Result;
    ULONG Fault;
} BRINDLE_RESULT;

#define PLX_INTCSR   0x4C
#define PLX_SIZE     0x80
#define LINT1_STATUS 0x004
#define LINT2_STATUS 0x020
#define PCI_ENABLE   0x040
#define LINT1_CLEAR  0x400
#define LINT2_CLEAR  0x800
#define INTCSR_EDGES 0x300                              /* both lines edge triggered */
#define INTCSR_OFF   (INTCSR_EDGES | 0x12)              /* active high */
#define INTCSR_RUN   (INTCSR_OFF | 0x09 | PCI_ENABLE)   /* and enabled */

#define B_STATUS 0x00
#define B_ARG    0x04
#define B_CMD    0x08
#define B_RESULT 0x0C
#define B_SIZE   0x10
#define ST_BUSY  1
#define ST_FAULT 2
#define CMD_HALT 0

#define EV_DONE  1
#define EV_STOP  2

typedef struct {
    SABLE S;
    PUCHAR Plx;
    PUCHAR Board;
    LIST_ENTRY Queue;       /* commands that wait */
    LIST_ENTRY Active;      /* none or one: the command that the board works on */
    LIST_ENTRY Waiters;     /* for the emergency stop */
    BOOLEAN Busy;           /* the board works, though its request may have been cancelled */
    ULONG Stops;
    volatile LONG Events;
    KDPC Dpc;
} EXT, *PEXT;

static ULONG Rd(PUCHAR Base, ULONG Reg)
{
    return READ_REGISTER_ULONG((PULONG)(Base + Reg));
}

static VOID Wr(PUCHAR Base, ULONG Reg, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Base + Reg), Value);
}

/* ---- the interrupt's lock held ---- */

static BOOLEAN NTAPI BrindleRun(PVOID Context)
{
    PEXT E = Context;

    E->S.IsrOn = 1;
    Wr(E->Plx, PLX_INTCSR, INTCSR_RUN | LINT1_CLEAR | LINT2_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI BrindleMask(PVOID Context)
{
    PEXT E = Context;

    E->S.IsrOn = 0;
    Wr(E->Plx, PLX_INTCSR, INTCSR_OFF | LINT1_CLEAR | LINT2_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI BrindleIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT E = Context;
    ULONG v, clear = 0;
    LONG ev = 0;

    (void)Interrupt;
    if (!E->S.IsrOn)
        return FALSE;
    v = Rd(E->Plx, PLX_INTCSR);
    if (v == SABLE_ONES || !(v & PCI_ENABLE))
        return FALSE;
    if (v & LINT1_STATUS) {
        ev |= EV_DONE;
        clear |= LINT1_CLEAR;
    }
    if (v & LINT2_STATUS) {
        ev |= EV_STOP;
        clear |= LINT2_CLEAR;
    }
    if (!ev)
        return FALSE;
    Wr(E->Plx, PLX_INTCSR, INTCSR_RUN | clear);
    InterlockedOr(&E->Events, ev);
    KeInsertQueueDpc(&E->Dpc, NULL, NULL);
    return TRUE;
}

/* ---- SABLE.Lock held ---- */

/* Begin the next command if the board is free. Its request can still be cancelled. */
static VOID BrindleNext(PEXT E)
{
    PLIST_ENTRY e;
    BRINDLE_COMMAND *command;

    if (E->Busy || !SableLive(&E->S) || IsListEmpty(&E->Queue))
        return;
    e = RemoveHeadList(&E->Queue);
    InsertTailList(&E->Active, e);
    command = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry)->AssociatedIrp.SystemBuffer;
    E->Busy = TRUE;
    Wr(E->Board, B_ARG, command->Argument);
    Wr(E->Board, B_CMD, command->Code);
}

/* The board may be done: the edge is only a hint, its status decides. */
static PIRP BrindleCommandDone(PEXT E)
{
    ULONG st, result;
    PIRP irp;

    if (!E->Busy || !SableLive(&E->S))
        return NULL;
    st = Rd(E->Board, B_STATUS);
    if (st == SABLE_ONES || (st & ST_BUSY))
        return NULL;
    result = Rd(E->Board, B_RESULT);
    E->Busy = FALSE;
    irp = SableTake(&E->Active, NULL);
    if (irp) {
        BRINDLE_RESULT *out = irp->AssociatedIrp.SystemBuffer;

        out->Result = result;
        out->Fault = (st & ST_FAULT) != 0;
    }
    BrindleNext(E);
    return irp;
}

/* ---- no lock held ---- */

static VOID BrindleStopEdge(PEXT E)
{
    LIST_ENTRY done;
    PIRP irp;

    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&E->S.Lock);
    E->Stops++;
    while ((irp = SableTake(&E->Waiters, NULL)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = E->Stops;
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLockFromDpcLevel(&E->S.Lock);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        SableFinish(&E->S, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI BrindleDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PEXT E = Context;
    LONG ev;

    (void)Dpc;
    (void)A1;
    (void)A2;
#ifdef FIXED
    ev = InterlockedExchange(&E->Events, 0);
#else
    ev = E->Events;
#endif
    if (ev & EV_STOP)
        BrindleStopEdge(E);
    if (ev & EV_DONE) {
        PIRP irp;

        KeAcquireSpinLockAtDpcLevel(&E->S.Lock);
        irp = BrindleCommandDone(E);
        KeReleaseSpinLockFromDpcLevel(&E->S.Lock);
        if (irp)
            SableFinish(&E->S, irp, STATUS_SUCCESS, sizeof(BRINDLE_RESULT));
    }
#ifndef FIXED
    InterlockedAnd(&E->Events, ~ev);
#endif
}

static NTSTATUS NTAPI BrindleFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, s->MajorFunction == IRP_MJ_CREATE ? status : STATUS_SUCCESS);
    if (s->MajorFunction == IRP_MJ_CREATE) {
        KIRQL q;

        KeAcquireSpinLock(&E->S.Lock, &q);
        if (!E->S.Started || E->S.Gone)
            status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&E->S.Lock, q);
    } else if (s->MajorFunction == IRP_MJ_CLEANUP) {
        SableFlush(&E->S, &E->Queue, s->FileObject, STATUS_CANCELLED);
        SableFlush(&E->S, &E->Active, s->FileObject, STATUS_CANCELLED);
        SableFlush(&E->S, &E->Waiters, s->FileObject, STATUS_CANCELLED);
    }
    return SableFinish(&E->S, Irp, status, 0);
}

static NTSTATUS NTAPI BrindleControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    BRINDLE_COMMAND *command = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);
    PLIST_ENTRY list;
    KIRQL q;

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, status);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BRINDLE_COMMAND:
        if (in < sizeof *command || out < sizeof(BRINDLE_RESULT))
            return SableFinish(&E->S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (command->Code == CMD_HALT || command->Code > 255)
            return SableFinish(&E->S, Irp, STATUS_INVALID_PARAMETER, 0);
        list = &E->Queue;
        break;
    case IOCTL_BRINDLE_WAIT_STOP:
        if (out < sizeof(ULONG))
            return SableFinish(&E->S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        list = &E->Waiters;
        break;
    default:
        return SableFinish(&E->S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    KeAcquireSpinLock(&E->S.Lock, &q);
    status = E->S.Started && !E->S.Gone ? SableQueue(list, Irp) : STATUS_DEVICE_NOT_READY;
    if (status == STATUS_PENDING)
        BrindleNext(E);
    KeReleaseSpinLock(&E->S.Lock, q);
    return status == STATUS_PENDING ? status : SableFinish(&E->S, Irp, status, 0);
}

/* Lock held, device in D0. */
static VOID BrindleBoardOff(PEXT E)
{
    SableSync(&E->S, BrindleMask, E);
    Wr(E->Board, B_CMD, CMD_HALT);
}

static NTSTATUS CardStart(PSABLE C, PSABLE_RES R)
{
    PEXT E = (PEXT)C;
    NTSTATUS status;
    KIRQL q;

    if (R->MemCount < 2 || R->MemLen[0] < PLX_SIZE || R->MemLen[1] < B_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    E->Plx = MmMapIoSpace(R->Mem[0], PLX_SIZE, MmNonCached);
    E->Board = MmMapIoSpace(R->Mem[1], B_SIZE, MmNonCached);
    if (!E->Plx || !E->Board)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Rd(E->Plx, PLX_INTCSR) == SABLE_ONES)
        return STATUS_NO_SUCH_DEVICE;
    Wr(E->Plx, PLX_INTCSR, INTCSR_OFF | LINT1_CLEAR | LINT2_CLEAR);
    Wr(E->Board, B_CMD, CMD_HALT);
    status = SableConnect(C, R, BrindleIsr);
    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&C->Lock, &q);
    C->Started = TRUE;
    SableSync(C, BrindleRun, E);
    KeReleaseSpinLock(&C->Lock, q);
    return STATUS_SUCCESS;
}

static VOID CardStop(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (C->Started && !C->Asleep && Rd(E->Plx, PLX_INTCSR) != SABLE_ONES)
        BrindleBoardOff(E);
    C->Started = FALSE;
    KeReleaseSpinLock(&C->Lock, q);
    SableDown(C);
    E->Busy = FALSE;
    InterlockedExchange(&E->Events, 0);
    SableFlush(C, &E->Active, NULL, STATUS_DEVICE_NOT_READY);
    SableFlush(C, &E->Queue, NULL, STATUS_DEVICE_NOT_READY);
    SableFlush(C, &E->Waiters, NULL, STATUS_DEVICE_NOT_READY);
    if (E->Plx)
        MmUnmapIoSpace(E->Plx, PLX_SIZE);
    if (E->Board)
        MmUnmapIoSpace(E->Board, B_SIZE);
    E->Plx = NULL;
    E->Board = NULL;
}

/* The axis halts, the command that it works on is given up; those that wait go on after the wake. */
static VOID CardSleep(PSABLE C)
{
    PEXT E = (PEXT)C;
    PIRP irp;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (SableLive(C))
        BrindleBoardOff(E);
    C->Asleep = TRUE;
    E->Busy = FALSE;
    irp = SableTake(&E->Active, NULL);
    KeReleaseSpinLock(&C->Lock, q);
    if (irp)
        SableFinish(C, irp, STATUS_REQUEST_ABORTED, 0);
}

static VOID CardWake(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (C->Asleep) {
        C->Asleep = FALSE;
        if (SableLive(C)) {
            SableSync(C, BrindleRun, E);
            BrindleNext(E);
        }
    }
    KeReleaseSpinLock(&C->Lock, q);
}

static VOID CardFree(PSABLE C)
{
    (void)C;
}

static NTSTATUS NTAPI BrindleAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PSABLE C;
    PEXT E;
    NTSTATUS status = SableAdd(Driver, Pdo, sizeof(EXT), &BrindleGuid, &C);

    if (!NT_SUCCESS(status))
        return status;
    E = (PEXT)C;
    InitializeListHead(&E->Queue);
    InitializeListHead(&E->Active);
    InitializeListHead(&E->Waiters);
    KeInitializeDpc(&E->Dpc, BrindleDpc, E);
    return SableAddEnd(C);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    SableEntry(Driver, BrindleAdd);
    Driver->MajorFunction[IRP_MJ_CREATE] = BrindleFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BrindleFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BrindleFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BrindleControl;
    return STATUS_SUCCESS;
}
