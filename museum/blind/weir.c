/*
 * weir: water level contacts on a board behind a PLX PCI 9052. The first local interrupt is a float whose contact bounces, so the service routine
 * masks it until the DPC has seen to it; the second is a spare contact, which a program can switch on and off.
 *
 * The bug: to switch the second input, the register for both is read, changed and written under a spin lock that the service routine does not know. If
 * it masks the first input in between, the write takes that back.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_plx.h"

#define SECOND_INPUT (INT2_ENABLE | INT2_HIGH | INT2_EDGE)

#define IOCTL_WEIR_SECOND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_WEIR_AWAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_WEIR_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID WeirGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x0b } };

typedef struct _COUNTS {
    ULONG First;
    ULONG Second;
} COUNTS;

typedef struct _WEIR {
    UNIT Unit;
    LANE Wait;
    COUNTS Counts;              /* the interrupt's lock */
    BOOLEAN Second;             /* Unit.Hw: the second input is on */
} WEIR;

typedef struct _CALL {
    WEIR *Weir;
    BOOLEAN Second;
    COUNTS Counts;
} CALL;

static VOID WeirBorn(UNIT *U)
{
    LaneInit(&((WEIR *)U)->Wait, &U->Guard);
}

static VOID WeirOn(UNIT *U)
{
    Poke(U, PLX_INTCSR, PLX_FIRST_INPUT | INT1_CLEAR | (((WEIR *)U)->Second ? SECOND_INPUT | INT2_CLEAR : 0));
}

static BOOLEAN WeirIsr(UNIT *U)
{
    WEIR *Weir = (WEIR *)U;
    ULONG Value = Peek(U, PLX_INTCSR), Clear = 0;

    if (Value == 0xFFFFFFFF || !(Value & INT_PCI))
        return FALSE;
    if ((Value & INT1_ENABLE) && (Value & INT1_STATUS)) {
        Weir->Counts.First++;
        Value &= ~INT1_ENABLE;
        Clear |= INT1_CLEAR;
    }
    if ((Value & INT2_ENABLE) && (Value & INT2_STATUS)) {
        Weir->Counts.Second++;
        Clear |= INT2_CLEAR;
    }
    if (!Clear)
        return FALSE;
    Poke(U, PLX_INTCSR, Value | Clear);
    Peek(U, PLX_INTCSR);
    KeInsertQueueDpc(&U->Dpc, NULL, NULL);
    return TRUE;
}

/* Beside the service routine: the first input counts again. */
static BOOLEAN NTAPI Unmask(PVOID Context)
{
    CALL *Call = Context;
    UNIT *U = &Call->Weir->Unit;
    ULONG Value = Peek(U, PLX_INTCSR);

    if (!(Value & INT1_ENABLE))
        Poke(U, PLX_INTCSR, Value | INT1_ENABLE | INT1_CLEAR);  /* without the bounces of meanwhile */
    Call->Counts = Call->Weir->Counts;
    return TRUE;
}

static BOOLEAN NTAPI CopyCounts(PVOID Context)
{
    CALL *Call = Context;

    Call->Counts = Call->Weir->Counts;
    return TRUE;
}

static BOOLEAN NTAPI SwitchSecond(PVOID Context)
{
    CALL *Call = Context;
    UNIT *U = &Call->Weir->Unit;
    ULONG Value = Peek(U, PLX_INTCSR);

    Call->Weir->Second = Call->Second;
    if (Call->Second)
        Value |= SECOND_INPUT | INT2_CLEAR;
    else
        Value &= ~SECOND_INPUT;
    Poke(U, PLX_INTCSR, Value);
    return TRUE;
}

static VOID WeirDpc(UNIT *U)
{
    WEIR *Weir = (WEIR *)U;
    CALL Call = { .Weir = Weir };
    LIST_ENTRY Leaving;
    PIRP Irp;

    if (!UnitSync(U, Unmask, &Call))
        return;
    InitializeListHead(&Leaving);
    while ((Irp = LaneTake(&Weir->Wait, NULL)) != NULL)
        InsertTailList(&Leaving, &Irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&Leaving)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Leaving), IRP, Tail.Overlay.ListEntry);
        *(COUNTS *)Irp->AssociatedIrp.SystemBuffer = Call.Counts;
        Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(COUNTS));
    }
}

static VOID WeirAbandon(UNIT *U)
{
    LaneShut(&((WEIR *)U)->Wait, STATUS_DELETE_PENDING);
}

static NTSTATUS WeirCleanup(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    LaneClear(&((WEIR *)U)->Wait, Sp->FileObject, STATUS_CANCELLED);
    return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS WeirControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    WEIR *Weir = (WEIR *)U;
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Data = Irp->AssociatedIrp.SystemBuffer;
    CALL Call = { .Weir = Weir };
    BOOLEAN Live;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WEIR_SECOND:
        if (In != sizeof(ULONG) || *(PULONG)Data > 1)
            return Finish(&U->Guard, Irp, STATUS_INVALID_PARAMETER, 0);
        Call.Second = *(PULONG)Data != 0;
#ifndef FIXED
        {
            KIRQL Irql;

            KeAcquireSpinLock(&U->Hw, &Irql);
            Live = U->Live;
            if (Live)
                SwitchSecond(&Call);
            KeReleaseSpinLock(&U->Hw, Irql);
        }
#else
        Live = UnitSync(U, SwitchSecond, &Call);
#endif
        return Finish(&U->Guard, Irp, Live ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY, 0);
    case IOCTL_WEIR_AWAIT:
        if (Out < sizeof(COUNTS))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return LaneAdd(&Weir->Wait, Irp);
    case IOCTL_WEIR_COUNTS:
        if (Out < sizeof(COUNTS))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (!UnitSync(U, CopyCounts, &Call))
            return Finish(&U->Guard, Irp, STATUS_DEVICE_NOT_READY, 0);
        *(COUNTS *)Data = Call.Counts;
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(COUNTS));
    }
    return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const TRADE WeirTrade = {
    .Size = sizeof(WEIR),
    .Interface = &WeirGuid,
    .Windows = 1,
    .Span = PLX_SPAN,
    .Born = WeirBorn,
    .On = WeirOn,
    .Off = PlxQuiet,
    .Isr = WeirIsr,
    .Dpc = WeirDpc,
    .Abandon = WeirAbandon,
    .Cleanup = WeirCleanup,
    .Control = WeirControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &WeirTrade);
}
