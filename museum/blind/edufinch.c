/*
 * edufinch: has the card compute factorials. A request that the card does not answer in half a second comes back with a time-out; the
 * card is given the next number when it has ended the last one, whether anyone still wants that or not.
 *
 * The bug: when the card answers at last, the DPC takes for granted that the request is still there; if it has timed out or was cancelled in
 * the meantime, the result is stored by way of a null pointer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: bad-pointer, wild-read, wild-write, wild-pointer
 * Needs: ioctl, cancel, device, schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_edu.h"

#define FINCH_LIMIT 5000000LL       /* half a second, in 100 ns */
#define IOCTL_FINCH_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FINCH_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(FINCH_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x06);

typedef struct _FINCH_COUNTS {
    ULONG Computed;
    ULONG TimedOut;
} FINCH_COUNTS, *PFINCH_COUNTS;

typedef struct _FINCH {
    BOARD Board;
    EDU Edu;
    IRPQ Waiting;
    IRPQ Active;                /* the one whose number the card has, or none if it was given up */
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock;
    BOOLEAN Awake;
    BOOLEAN Busy;               /* the card computes */
    BOOLEAN Limited;            /* the active request has not ended by its limit yet */
    LONGLONG Limit;
    FINCH_COUNTS Counts;
} FINCH, *PFINCH;

/* Under the lock. */
static VOID FinchSetTimer(PFINCH f, LONGLONG Interval)
{
    LARGE_INTEGER due;

    due.QuadPart = -Interval;
    KeSetTimer(&f->Timer, due, &f->TimerDpc);
}

static VOID FinchNext(PFINCH f)
{
    NTSTATUS status;
    ULONG number;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&f->Lock, &irql);
        if (!f->Awake || f->Busy || (irp = IrpqTake(&f->Waiting)) == NULL) {
            KeReleaseSpinLock(&f->Lock, irql);
            return;
        }
        number = *(PULONG)irp->AssociatedIrp.SystemBuffer;
        status = IrpqAgain(&f->Active, irp);
        if (status == STATUS_PENDING) {
            f->Busy = TRUE;
            f->Limited = TRUE;
            f->Limit = (LONGLONG)KeQueryUnbiasedInterruptTime() + FINCH_LIMIT;
            FinchSetTimer(f, FINCH_LIMIT);
            EduWrite(&f->Edu, EDU_NUMBER, number);
        }
        KeReleaseSpinLock(&f->Lock, irql);
        if (status == STATUS_PENDING)
            return;
        BoardFinish(&f->Board, irp, status, 0);
    }
}

/* The card has computed something. */
static VOID NTAPI FinchDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PFINCH f = Context;
    ULONG result;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (!(EduFetch(&f->Edu) & EDU_CAUSE_NUMBER))
        return;
    KeAcquireSpinLockAtDpcLevel(&f->Lock);
    if (!f->Awake || !f->Busy || (EduRead(&f->Edu, EDU_STATE) & EDU_STATE_COMPUTES)) {
        KeReleaseSpinLockFromDpcLevel(&f->Lock);
        return;
    }
    result = EduRead(&f->Edu, EDU_NUMBER);
    f->Busy = FALSE;
    f->Limited = FALSE;
    KeCancelTimer(&f->Timer);
    f->Counts.Computed++;
    irp = IrpqTake(&f->Active);
    KeReleaseSpinLockFromDpcLevel(&f->Lock);
#ifdef FIXED
    if (irp != NULL)
#endif
    {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
        BoardFinish(&f->Board, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    FinchNext(f);
}

/* A timer that went off for the request before this one comes too early for it. */
static VOID NTAPI FinchLate(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PFINCH f = Context;
    LONGLONG rest;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&f->Lock);
    if (f->Awake && f->Limited) {
        rest = f->Limit - (LONGLONG)KeQueryUnbiasedInterruptTime();
        if (rest > 0)
            FinchSetTimer(f, rest);
        else {
            f->Limited = FALSE;
            irp = IrpqTake(&f->Active);
            if (irp != NULL)
                f->Counts.TimedOut++;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&f->Lock);
    if (irp != NULL)
        BoardFinish(&f->Board, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS FinchIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PFINCH f = CONTAINING_RECORD(Board, FINCH, Board);
    ULONG in, out;
    KIRQL irql;

    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FINCH_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        BoardPend(Board, &f->Waiting, Irp);
        FinchNext(f);
        return STATUS_PENDING;

    case IOCTL_FINCH_COUNTS:
        if (out < sizeof(FINCH_COUNTS))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&f->Lock, &irql);
        *(PFINCH_COUNTS)Irp->AssociatedIrp.SystemBuffer = f->Counts;
        KeReleaseSpinLock(&f->Lock, irql);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, sizeof(FINCH_COUNTS));
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID FinchCleanup(PBOARD Board, PFILE_OBJECT File)
{
    PFINCH f = CONTAINING_RECORD(Board, FINCH, Board);

    IrpqFlushFile(&f->Waiting, File);
    IrpqFlushFile(&f->Active, File);
}

static VOID FinchWake(PBOARD Board)
{
    PFINCH f = CONTAINING_RECORD(Board, FINCH, Board);
    KIRQL irql;

    EduLive(&f->Edu, TRUE, TRUE);
    KeAcquireSpinLock(&f->Lock, &irql);
    f->Awake = TRUE;
    EduWrite(&f->Edu, EDU_STATE, EDU_STATE_INTERRUPT);
    f->Busy = (EduRead(&f->Edu, EDU_STATE) & EDU_STATE_COMPUTES) != 0;
    KeReleaseSpinLock(&f->Lock, irql);
    FinchNext(f);
}

/* The active request waits for the card to be awake again. */
static VOID FinchQuiet(PBOARD Board, BOOLEAN Present)
{
    PFINCH f = CONTAINING_RECORD(Board, FINCH, Board);
    NTSTATUS status;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&f->Lock, &irql);
    f->Awake = FALSE;
    f->Limited = FALSE;
    KeReleaseSpinLock(&f->Lock, irql);
    KeCancelTimer(&f->Timer);
    EduLive(&f->Edu, FALSE, Present);
    KeFlushQueuedDpcs();
    while ((irp = IrpqTake(&f->Active)) != NULL) {
        status = IrpqAgain(&f->Waiting, irp);
        if (status != STATUS_PENDING)
            BoardFinish(Board, irp, status, 0);
    }
}

static VOID FinchDrain(PBOARD Board)
{
    PFINCH f = CONTAINING_RECORD(Board, FINCH, Board);

    IrpqShut(&f->Waiting, STATUS_DELETE_PENDING);
    IrpqShut(&f->Active, STATUS_DELETE_PENDING);
}

static NTSTATUS FinchStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    PFINCH f = CONTAINING_RECORD(Board, FINCH, Board);

    return EduGain(&f->Edu, List, EduService, &f->Edu);
}

static VOID FinchStop(PBOARD Board)
{
    EduLose(&CONTAINING_RECORD(Board, FINCH, Board)->Edu);
}

static NTSTATUS FinchBegin(PBOARD Board)
{
    PFINCH f = CONTAINING_RECORD(Board, FINCH, Board);

    KeInitializeSpinLock(&f->Lock);
    KeInitializeTimer(&f->Timer);
    KeInitializeDpc(&f->TimerDpc, FinchLate, f);
    KeInitializeDpc(&f->Edu.Dpc, FinchDpc, f);
    IrpqBuild(&f->Waiting, BoardRetire, Board);
    IrpqBuild(&f->Active, BoardRetire, Board);
    return STATUS_SUCCESS;
}

static VOID FinchEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND FinchKind = {
    .Bytes = sizeof(FINCH), .Flags = DO_BUFFERED_IO, .Class = &FINCH_CLASS,
    .Begin = FinchBegin, .End = FinchEnd, .Start = FinchStart, .Stop = FinchStop, .Wake = FinchWake, .Quiet = FinchQuiet,
    .Drain = FinchDrain, .Io = FinchIo, .Cleanup = FinchCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &FinchKind);
}
