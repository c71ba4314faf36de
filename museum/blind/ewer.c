/*
 * ewer: an acceptance test for the educational card's data path. It writes values to the liveness register and looks whether they come back inverted: one
 * that a program gives, or a sweep over a table of patterns. The last results are kept.
 *
 * The bug: when the second allocation at start fails, the first block is freed, but its pointer stays. The frame calls Release behind a
 * start that has failed, which frees the block again.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-free
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_edu.h"

#define EWER_TAG 'rewE'
#define RESULTS 64
#define PATTERNS 66

#define IOCTL_EWER_TRY     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_EWER_SWEEP   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_EWER_RESULTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID EwerGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x03 } };

typedef struct _RESULT {
    ULONG Written;
    ULONG Read;
} RESULT;

typedef struct _EWER {
    UNIT Unit;
    RESULT *Results;            /* these and all below: Unit.Hw, while the unit is Ready */
    ULONG *Patterns;
    ULONG Made;                 /* results since the start */
    ULONG Bad;
} EWER;

/* Hw is held, and the card is Live. */
static BOOLEAN Try(EWER *Ewer, ULONG Value)
{
    RESULT *Result = &Ewer->Results[Ewer->Made++ % RESULTS];

    Poke(&Ewer->Unit, EDU_LIVENESS, Value);
    Result->Written = Value;
    Result->Read = Peek(&Ewer->Unit, EDU_LIVENESS);
    if (Result->Read == ~Value)
        return TRUE;
    Ewer->Bad++;
    return FALSE;
}

static NTSTATUS EwerPrepare(UNIT *U)
{
    EWER *Ewer = (EWER *)U;
    ULONG i;

    Ewer->Results = ExAllocatePoolWithTag(NonPagedPool, RESULTS * sizeof(RESULT), EWER_TAG);
    if (!Ewer->Results)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(Ewer->Results, RESULTS * sizeof(RESULT));
    Ewer->Patterns = ExAllocatePoolWithTag(NonPagedPool, PATTERNS * sizeof(ULONG), EWER_TAG);
    if (!Ewer->Patterns) {
        ExFreePoolWithTag(Ewer->Results, EWER_TAG);
#ifdef FIXED
        Ewer->Results = NULL;
#endif
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    for (i = 0; i < 32; i++) {
        Ewer->Patterns[2 * i] = 1u << i;
        Ewer->Patterns[2 * i + 1] = ~(1u << i);
    }
    Ewer->Patterns[64] = 0x55555555;
    Ewer->Patterns[65] = 0xAAAAAAAA;
    Ewer->Made = 0;
    Ewer->Bad = 0;
    return STATUS_SUCCESS;
}

static VOID EwerRelease(UNIT *U)
{
    EWER *Ewer = (EWER *)U;

    if (Ewer->Patterns)
        ExFreePoolWithTag(Ewer->Patterns, EWER_TAG);
    if (Ewer->Results)
        ExFreePoolWithTag(Ewer->Results, EWER_TAG);
    Ewer->Patterns = NULL;
    Ewer->Results = NULL;
}

static NTSTATUS Sweep(EWER *Ewer, ULONG *Bad)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;
    ULONG i;

    *Bad = 0;
    for (i = 0; i < PATTERNS && NT_SUCCESS(Status); i++) {
        /* one at a time, so that the processor is not kept for the whole sweep */
        KeAcquireSpinLock(&Ewer->Unit.Hw, &Irql);
        if (!Ewer->Unit.Live)
            Status = STATUS_DEVICE_NOT_READY;
        else if (!Try(Ewer, Ewer->Patterns[i]))
            ++*Bad;
        KeReleaseSpinLock(&Ewer->Unit.Hw, Irql);
    }
    return Status;
}

static NTSTATUS Results(EWER *Ewer, RESULT *To, ULONG Room, ULONG *Given)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Number, Kept;
    KIRQL Irql;

    *Given = 0;
    KeAcquireSpinLock(&Ewer->Unit.Hw, &Irql);
    if (!Ewer->Unit.Ready) {
        Status = STATUS_DEVICE_NOT_READY;
    } else {
        Kept = Ewer->Made < RESULTS ? Ewer->Made : RESULTS;
        if (Kept > Room)
            Kept = Room;
        for (Number = Ewer->Made - Kept; Number != Ewer->Made; Number++)
            To[(*Given)++] = Ewer->Results[Number % RESULTS];
    }
    KeReleaseSpinLock(&Ewer->Unit.Hw, Irql);
    return Status;
}

static NTSTATUS EwerControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    EWER *Ewer = (EWER *)U;
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Data = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    ULONG Count;
    KIRQL Irql;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EWER_TRY:
        if (In != sizeof(ULONG))
            return Finish(&U->Guard, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&U->Hw, &Irql);
        if (!U->Live)
            Status = STATUS_DEVICE_NOT_READY;
        else
            Status = Try(Ewer, *Data) ? STATUS_SUCCESS : STATUS_DEVICE_DATA_ERROR;
        KeReleaseSpinLock(&U->Hw, Irql);
        return Finish(&U->Guard, Irp, Status, 0);
    case IOCTL_EWER_SWEEP:
        if (Out < sizeof(ULONG))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Status = Sweep(Ewer, &Count);
        if (NT_SUCCESS(Status))
            *Data = Count;
        return Finish(&U->Guard, Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
    case IOCTL_EWER_RESULTS:
        if (Out < sizeof(RESULT))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Status = Results(Ewer, (RESULT *)Data, Out / sizeof(RESULT), &Count);
        return Finish(&U->Guard, Irp, Status, Count * sizeof(RESULT));
    }
    return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const TRADE EwerTrade = {
    .Size = sizeof(EWER),
    .Interface = &EwerGuid,
    .Windows = 1,
    .Span = EDU_BUFFER,
    .Prepare = EwerPrepare,
    .Release = EwerRelease,
    .Control = EwerControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &EwerTrade);
}
