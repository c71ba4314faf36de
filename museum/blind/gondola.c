/*
 * gondola: carries data between programs and the educational card's memory of 4 KiB by the card's DMA engine, through a common buffer. One transfer
 * at a time; one that the card has not done within two seconds ends with STATUS_IO_TIMEOUT. The card is not sent to sleep in the middle of one.
 *
 * The bug: when the limit has ended a transfer, the card counts as free, though it has not been stopped and still moves. The next transfer is written to registers
 * that do not take it, and ends with the late interrupt of the one before, with whatever lies in the buffer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: schedule, device
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_edu.h"

#define LIMIT_MS 2000
#define AGAIN_MS 20
#define PATIENCE_MS 10000
#define ADDRESSES (1LL << 28)   /* the card has 28 address lines */
#define COMMAND_REGISTER 4
#define COMMAND_MASTER 0x0004
#define COMMAND_NO_LINE 0x0400

static const GUID GondolaGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x08 } };

/* DEVICE_DESCRIPTION_VERSION3, which mingw's headers do not have. */
typedef struct _DESCRIPTION3 {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DESCRIPTION3;

typedef struct _GONDOLA {
    UNIT Unit;
    LANE Wait;
    KTIMER Timer;
    KDPC TimerDpc;
    LONGLONG Frequency;
    PDMA_ADAPTER Adapter;       /* this and the next: changed while the unit is not Ready */
    PUCHAR Buffer;
    PHYSICAL_ADDRESS Logical;
    BOOLEAN Stuck;              /* PnP requests only: the card was still moving when it was given up */
    PIRP Active;                /* Unit.Hw, as all below */
    BOOLEAN Moving;             /* the card moves, for Active or for one that was given up */
    BOOLEAN Sinking;            /* a request for D3 is here, or has been */
    PIRP Held;                  /* which waits for the end of Active */
    BOOLEAN Stopping;           /* the device is about to be stopped */
    LONGLONG Deadline;
} GONDOLA;

static VOID Go(GONDOLA *Gondola);

static VOID Arm(GONDOLA *Gondola, ULONG Milliseconds)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * Milliseconds;
    KeSetTimer(&Gondola->Timer, Due, &Gondola->TimerDpc);
}

/* Hw is held: the request that the card works for, now the caller's, and the power request that has waited for it. */
static PIRP TakeActive(GONDOLA *Gondola, PFILE_OBJECT File, PIRP *Held)
{
    PIRP Irp = Gondola->Active;

    *Held = NULL;
    if (!Irp || (File && IoGetCurrentIrpStackLocation(Irp)->FileObject != File))
        return NULL;
    Gondola->Active = NULL;
    KeCancelTimer(&Gondola->Timer);
    *Held = Gondola->Held;
    Gondola->Held = NULL;
    return Irp;
}

static VOID Conclude(GONDOLA *Gondola, PIRP Irp, NTSTATUS Status, ULONG Bytes, PIRP Held)
{
    if (Irp)
        Finish(&Gondola->Unit.Guard, Irp, Status, Bytes);
    if (Held)
        UnitSinkLater(&Gondola->Unit, Held);
}

static VOID NTAPI GondolaLimit(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    GONDOLA *Gondola = Context;
    UNIT *U = &Gondola->Unit;
    PIRP Irp = NULL, Held = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeAcquireSpinLockAtDpcLevel(&U->Hw);
    if (U->Live && Gondola->Active) {
        if (KeQueryPerformanceCounter(NULL).QuadPart < Gondola->Deadline) {
            Arm(Gondola, AGAIN_MS);
        } else {
            Irp = TakeActive(Gondola, NULL, &Held);
#ifndef FIXED
            Gondola->Moving = FALSE;
#endif
        }
    }
    KeReleaseSpinLockFromDpcLevel(&U->Hw);
    Conclude(Gondola, Irp, STATUS_IO_TIMEOUT, 0, Held);
    Go(Gondola);
}

static VOID GondolaBorn(UNIT *U)
{
    GONDOLA *Gondola = (GONDOLA *)U;
    LARGE_INTEGER Frequency;

    LaneInit(&Gondola->Wait, &U->Guard);
    KeInitializeTimer(&Gondola->Timer);
    KeInitializeDpc(&Gondola->TimerDpc, GondolaLimit, Gondola);
    KeQueryPerformanceCounter(&Frequency);
    Gondola->Frequency = Frequency.QuadPart;
}

/* ---- the card ---- */

static ULONG LengthOf(PIO_STACK_LOCATION Sp)
{
    return Sp->MajorFunction == IRP_MJ_WRITE ? Sp->Parameters.Write.Length : Sp->Parameters.Read.Length;
}

static ULONG PlaceOf(PIO_STACK_LOCATION Sp)
{
    return Sp->MajorFunction == IRP_MJ_WRITE ? Sp->Parameters.Write.ByteOffset.LowPart : Sp->Parameters.Read.ByteOffset.LowPart;
}

/* Hw is held: gives the request to the card. */
static VOID Carry(GONDOLA *Gondola, PIRP Irp)
{
    UNIT *U = &Gondola->Unit;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = LengthOf(Sp), Command = EDU_DMA_RUN | EDU_DMA_IRQ;

    Gondola->Active = Irp;
    Gondola->Moving = TRUE;
    Gondola->Deadline = KeQueryPerformanceCounter(NULL).QuadPart + Gondola->Frequency * LIMIT_MS / 1000;
    if (Sp->MajorFunction == IRP_MJ_WRITE) {
        RtlCopyMemory(Gondola->Buffer, Irp->AssociatedIrp.SystemBuffer, Length);
        Poke(U, EDU_DMA_SOURCE, Gondola->Logical.LowPart);
        Poke(U, EDU_DMA_TARGET, EDU_BUFFER + PlaceOf(Sp));
    } else {
        Poke(U, EDU_DMA_SOURCE, EDU_BUFFER + PlaceOf(Sp));
        Poke(U, EDU_DMA_TARGET, Gondola->Logical.LowPart);
        Command |= EDU_DMA_TO_MEMORY;
    }
    Poke(U, EDU_DMA_COUNT, Length);
    Poke(U, EDU_DMA_COMMAND, Command);
    Arm(Gondola, LIMIT_MS);
}

static VOID Go(GONDOLA *Gondola)
{
    UNIT *U = &Gondola->Unit;
    PIRP Irp;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    if (U->Live && !Gondola->Active && !Gondola->Sinking && !Gondola->Stopping) {
        if (Gondola->Moving && !(Peek(U, EDU_DMA_COMMAND) & EDU_DMA_RUN))
            Gondola->Moving = FALSE;
        if (!Gondola->Moving) {
            Irp = LaneTake(&Gondola->Wait, NULL);
            if (Irp)
                Carry(Gondola, Irp);
        }
    }
    KeReleaseSpinLock(&U->Hw, Irql);
}

static BOOLEAN GondolaIsr(UNIT *U)
{
    if (!EduCauses(U))
        return FALSE;
    KeInsertQueueDpc(&U->Dpc, NULL, NULL);
    return TRUE;
}

static VOID GondolaDpc(UNIT *U)
{
    GONDOLA *Gondola = (GONDOLA *)U;
    PIRP Irp = NULL, Held = NULL;
    PIO_STACK_LOCATION Sp;
    ULONG Length = 0;

    KeAcquireSpinLockAtDpcLevel(&U->Hw);
    if (U->Live && Gondola->Moving && !(Peek(U, EDU_DMA_COMMAND) & EDU_DMA_RUN)) {
        Gondola->Moving = FALSE;
        Irp = TakeActive(Gondola, NULL, &Held);
        if (Irp) {
            Sp = IoGetCurrentIrpStackLocation(Irp);
            Length = LengthOf(Sp);
            if (Sp->MajorFunction == IRP_MJ_READ)
                RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Gondola->Buffer, Length);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&U->Hw);
    Conclude(Gondola, Irp, STATUS_SUCCESS, Length, Held);
    Go(Gondola);
}

/* ---- start, stop, power ---- */

/* Has the card be a bus master and interrupt, or neither. */
static NTSTATUS Master(UNIT *U, BOOLEAN On)
{
    PIO_STACK_LOCATION Next;
    IO_STATUS_BLOCK Block;
    USHORT Command = 0;
    NTSTATUS Status = STATUS_SUCCESS;
    KEVENT Event;
    ULONG Step;
    PIRP Irp;

    for (Step = 0; Step < 2 && NT_SUCCESS(Status); Step++) {
        if (Step == 1)
            Command = On ? (Command | COMMAND_MASTER) & ~COMMAND_NO_LINE : (Command & ~COMMAND_MASTER) | COMMAND_NO_LINE;
        KeInitializeEvent(&Event, NotificationEvent, FALSE);
        Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, U->Lower, NULL, 0, NULL, &Event, &Block);
        if (!Irp)
            return STATUS_INSUFFICIENT_RESOURCES;
        Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
        Next = IoGetNextIrpStackLocation(Irp);
        Next->MinorFunction = Step ? IRP_MN_WRITE_CONFIG : IRP_MN_READ_CONFIG;
        Next->Parameters.ReadWriteConfig.WhichSpace = PCI_WHICHSPACE_CONFIG;
        Next->Parameters.ReadWriteConfig.Buffer = &Command;
        Next->Parameters.ReadWriteConfig.Offset = COMMAND_REGISTER;
        Next->Parameters.ReadWriteConfig.Length = sizeof(Command);
        Status = IoCallDriver(U->Lower, Irp);
        if (Status == STATUS_PENDING) {
            KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
            Status = Block.Status;
        }
    }
    return Status;
}

static NTSTATUS GondolaPrepare(UNIT *U)
{
    GONDOLA *Gondola = (GONDOLA *)U;
    DESCRIPTION3 Description;
    ULONG Registers;
    NTSTATUS Status;

    if (Gondola->Stuck) {
        if (Peek(U, EDU_DMA_COMMAND) & EDU_DMA_RUN)
            return STATUS_DEVICE_BUSY;
        Status = Master(U, TRUE);
        if (!NT_SUCCESS(Status))
            return Status;
        Gondola->Stuck = FALSE;
    }
    RtlZeroMemory(&Description, sizeof(Description));
    Description.Old.Version = 3;
    Description.Old.Master = TRUE;
    Description.Old.ScatterGather = TRUE;
    Description.Old.Dma32BitAddresses = TRUE;
    Description.Old.InterfaceType = PCIBus;
    Description.Old.MaximumLength = EDU_BUFFER_BYTES;
    Description.DmaAddressWidth = 28;
    Gondola->Adapter = IoGetDmaAdapter(U->Pdo, &Description.Old, &Registers);
    if (!Gondola->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    Gondola->Buffer = Gondola->Adapter->DmaOperations->AllocateCommonBuffer(Gondola->Adapter, EDU_BUFFER_BYTES, &Gondola->Logical, FALSE);
    if (!Gondola->Buffer || Gondola->Logical.QuadPart + EDU_BUFFER_BYTES > ADDRESSES)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(Gondola->Buffer, EDU_BUFFER_BYTES);
    return STATUS_SUCCESS;
}

/* A card that is not there any more reads as ones, and moves nothing. */
static BOOLEAN Runs(UNIT *U)
{
    ULONG Command = Peek(U, EDU_DMA_COMMAND);

    return Command != MAXULONG && (Command & EDU_DMA_RUN);
}

/* The card cannot stop a transfer: waits until it has, and in the end takes the bus away from it. */
static VOID GondolaSettle(UNIT *U)
{
    GONDOLA *Gondola = (GONDOLA *)U;
    ULONG Waited = 0, Step = 1;
    LARGE_INTEGER Delay;
    BOOLEAN Quiet;
    KIRQL Irql;

    for (;;) {
        KeAcquireSpinLock(&U->Hw, &Irql);
        Gondola->Stopping = TRUE;
        Quiet = !U->Live || (!Gondola->Active && !Runs(U));
        KeReleaseSpinLock(&U->Hw, Irql);
        if (Quiet)
            return;
        if (Waited >= PATIENCE_MS)
            break;
        Delay.QuadPart = -10000LL * Step;
        KeDelayExecutionThread(KernelMode, FALSE, &Delay);
        Waited += Step;
        if (Step < 1000)
            Step *= 2;
    }
    Gondola->Stuck = TRUE;
    Master(U, FALSE);
}

static VOID GondolaRelease(UNIT *U)
{
    GONDOLA *Gondola = (GONDOLA *)U;

    KeCancelTimer(&Gondola->Timer);
    KeFlushQueuedDpcs();
    if (Gondola->Buffer)
        Gondola->Adapter->DmaOperations->FreeCommonBuffer(Gondola->Adapter, EDU_BUFFER_BYTES, Gondola->Logical, Gondola->Buffer, FALSE);
    Gondola->Buffer = NULL;
    if (Gondola->Adapter)
        Gondola->Adapter->DmaOperations->PutDmaAdapter(Gondola->Adapter);
    Gondola->Adapter = NULL;
}

static VOID GondolaOn(UNIT *U)
{
    GONDOLA *Gondola = (GONDOLA *)U;

    EduQuiet(U);                /* causes of the time before; that of DMA needs no enabling */
    Gondola->Sinking = FALSE;
    Gondola->Stopping = FALSE;
    Gondola->Moving = Runs(U);
}

static VOID GondolaResume(UNIT *U)
{
    Go((GONDOLA *)U);
}

static VOID GondolaPaused(UNIT *U)
{
    GONDOLA *Gondola = (GONDOLA *)U;
    PIRP Irp, Held;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    Irp = TakeActive(Gondola, NULL, &Held);
    KeReleaseSpinLock(&U->Hw, Irql);
    if (Irp)
        LaneAdd(&Gondola->Wait, Irp);
    Conclude(Gondola, NULL, STATUS_SUCCESS, 0, Held);
}

static BOOLEAN GondolaHold(UNIT *U, PIRP Irp)
{
    GONDOLA *Gondola = (GONDOLA *)U;
    BOOLEAN Hold = FALSE;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    Gondola->Sinking = TRUE;
    if (Gondola->Active) {
        Gondola->Held = Irp;
        Hold = TRUE;
    }
    KeReleaseSpinLock(&U->Hw, Irql);
    return Hold;
}

/* ---- programs ---- */

static VOID Clear(GONDOLA *Gondola, PFILE_OBJECT File, NTSTATUS Status)
{
    UNIT *U = &Gondola->Unit;
    PIRP Irp, Held;
    KIRQL Irql;

    LaneClear(&Gondola->Wait, File, Status);
    KeAcquireSpinLock(&U->Hw, &Irql);
    Irp = TakeActive(Gondola, File, &Held);
    KeReleaseSpinLock(&U->Hw, Irql);
    Conclude(Gondola, Irp, Status, 0, Held);
    Go(Gondola);
}

static VOID GondolaAbandon(UNIT *U)
{
    LaneShut(&((GONDOLA *)U)->Wait, STATUS_DELETE_PENDING);
    Clear((GONDOLA *)U, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS GondolaCleanup(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    Clear((GONDOLA *)U, Sp->FileObject, STATUS_CANCELLED);
    return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS GondolaTransfer(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    GONDOLA *Gondola = (GONDOLA *)U;
    LONGLONG Place = Sp->MajorFunction == IRP_MJ_WRITE ? Sp->Parameters.Write.ByteOffset.QuadPart : Sp->Parameters.Read.ByteOffset.QuadPart;
    ULONG Length = LengthOf(Sp);
    NTSTATUS Status;

    if (!Length)
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
    if (Place < 0 || Place >= EDU_BUFFER_BYTES || Length > EDU_BUFFER_BYTES - (ULONG)Place)
        return Finish(&U->Guard, Irp, STATUS_INVALID_PARAMETER, 0);
    Status = LaneAdd(&Gondola->Wait, Irp);
    Go(Gondola);
    return Status;
}

static const TRADE GondolaTrade = {
    .Size = sizeof(GONDOLA),
    .IoFlags = DO_BUFFERED_IO,
    .Interface = &GondolaGuid,
    .Windows = 1,
    .Span = EDU_BUFFER,
    .Born = GondolaBorn,
    .Prepare = GondolaPrepare,
    .Settle = GondolaSettle,
    .Release = GondolaRelease,
    .On = GondolaOn,
    .Off = EduQuiet,
    .Resume = GondolaResume,
    .Paused = GondolaPaused,
    .Isr = GondolaIsr,
    .Dpc = GondolaDpc,
    .Hold = GondolaHold,
    .Abandon = GondolaAbandon,
    .Cleanup = GondolaCleanup,
    .Read = GondolaTransfer,
    .Write = GondolaTransfer,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &GondolaTrade);
}
