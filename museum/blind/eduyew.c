/*
 * eduyew: watches over the card. At a period that a program may choose it asks the card whether it is alive, by a timer, and
 * counts right and wrong answers; programs ask for the counts, or wait for the next wrong answer.
 *
 * The bug: the timer's DPC looks once, at its beginning, whether the device is being stopped, and sets the timer again at its end. When
 * the stop comes between the two, it cancels a timer that is not set, waits for the DPC, and leaves it set.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: freed-active-timer, use-after-free, unload-still-called, freed-queued-dpc, card-without-power, device-memory-not-mapped, bad-pointer
 * Needs: removal, schedule
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_edu.h"

#define YEW_USUAL 100
#define IOCTL_YEW_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_YEW_PERIOD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_YEW_ALARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(YEW_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x05);

typedef struct _YEW_COUNTS {
    ULONG Right;
    ULONG Wrong;
    ULONG Period;
} YEW_COUNTS, *PYEW_COUNTS;

typedef struct _YEW {
    BOARD Board;
    EDU Edu;
    IRPQ Alarmed;               /* they wait for a wrong answer */
    KTIMER Timer;
    KDPC Tick;
    KSPIN_LOCK Lock;
    BOOLEAN Ticking;
    ULONG Question;
    YEW_COUNTS Counts;
} YEW, *PYEW;

/* Under the lock. */
static BOOLEAN YewAsk(PYEW y)
{
    y->Question = y->Question * 1664525 + 1013904223;
    EduWrite(&y->Edu, EDU_ALIVE, y->Question);
    if (EduRead(&y->Edu, EDU_ALIVE) == ~y->Question) {
        y->Counts.Right++;
        return TRUE;
    }
    y->Counts.Wrong++;
    return FALSE;
}

static VOID NTAPI YewTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PYEW y = Context;
    LARGE_INTEGER due;
    BOOLEAN right;
    ULONG wrong;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&y->Lock);
    if (!y->Ticking) {
        KeReleaseSpinLockFromDpcLevel(&y->Lock);
        return;
    }
    right = YewAsk(y);
    wrong = y->Counts.Wrong;
    due.QuadPart = -10000LL * y->Counts.Period;
#ifdef FIXED
    KeSetTimer(&y->Timer, due, &y->Tick);
#endif
    KeReleaseSpinLockFromDpcLevel(&y->Lock);
    while (!right && (irp = IrpqTake(&y->Alarmed)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = wrong;
        BoardFinish(&y->Board, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
#ifndef FIXED
    KeSetTimer(&y->Timer, due, &y->Tick);
#endif
}

static NTSTATUS YewIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PYEW y = CONTAINING_RECORD(Board, YEW, Board);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, out, period;
    KIRQL irql;

    if (Stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_YEW_COUNTS:
        if (out < sizeof(YEW_COUNTS))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&y->Lock, &irql);
        *(PYEW_COUNTS)buffer = y->Counts;
        KeReleaseSpinLock(&y->Lock, irql);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, sizeof(YEW_COUNTS));

    case IOCTL_YEW_PERIOD:          /* from the next tick on */
        if (in < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        period = *(PULONG)buffer;
        if (period < 10 || period > 10000)
            return BoardFinish(Board, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&y->Lock, &irql);
        y->Counts.Period = period;
        KeReleaseSpinLock(&y->Lock, irql);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, 0);

    case IOCTL_YEW_ALARM:
        if (out < sizeof(ULONG))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return BoardPend(Board, &y->Alarmed, Irp);
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID YewCleanup(PBOARD Board, PFILE_OBJECT File)
{
    IrpqFlushFile(&CONTAINING_RECORD(Board, YEW, Board)->Alarmed, File);
}

static VOID YewWake(PBOARD Board)
{
    PYEW y = CONTAINING_RECORD(Board, YEW, Board);
    LARGE_INTEGER due;
    KIRQL irql;

    EduHush(&y->Edu);
    KeAcquireSpinLock(&y->Lock, &irql);
    y->Ticking = TRUE;
    due.QuadPart = -10000LL * y->Counts.Period;
    KeSetTimer(&y->Timer, due, &y->Tick);
    KeReleaseSpinLock(&y->Lock, irql);
}

static VOID YewQuiet(PBOARD Board, BOOLEAN Present)
{
    PYEW y = CONTAINING_RECORD(Board, YEW, Board);
    KIRQL irql;

    UNREFERENCED_PARAMETER(Present);
    KeAcquireSpinLock(&y->Lock, &irql);
    y->Ticking = FALSE;
    KeReleaseSpinLock(&y->Lock, irql);
    KeCancelTimer(&y->Timer);
    KeFlushQueuedDpcs();
}

static VOID YewDrain(PBOARD Board)
{
    IrpqShut(&CONTAINING_RECORD(Board, YEW, Board)->Alarmed, STATUS_DELETE_PENDING);
}

static NTSTATUS YewStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    return EduMap(&CONTAINING_RECORD(Board, YEW, Board)->Edu, List);
}

static VOID YewStop(PBOARD Board)
{
    EduUnmap(&CONTAINING_RECORD(Board, YEW, Board)->Edu);
}

static NTSTATUS YewBegin(PBOARD Board)
{
    PYEW y = CONTAINING_RECORD(Board, YEW, Board);

    KeInitializeSpinLock(&y->Lock);
    KeInitializeTimer(&y->Timer);
    KeInitializeDpc(&y->Tick, YewTick, y);
    IrpqBuild(&y->Alarmed, BoardRetire, Board);
    y->Counts.Period = YEW_USUAL;
    return STATUS_SUCCESS;
}

static VOID YewEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND YewKind = {
    .Bytes = sizeof(YEW), .Flags = DO_BUFFERED_IO, .Class = &YEW_CLASS,
    .Begin = YewBegin, .End = YewEnd, .Start = YewStart, .Stop = YewStop, .Wake = YewWake, .Quiet = YewQuiet,
    .Drain = YewDrain, .Io = YewIo, .Cleanup = YewCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &YewKind);
}
