/*
 * larkspur: watches over the educational card's data path. Four times a second a timer's DPC writes a number to the liveness register and looks whether its
 * inverse comes back; programs read the outcomes, or wait for the next one.
 *
 * The bug: the timer's DPC looks whether the device has been started, not whether it has power, and so goes on touching the card while it is in D3.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_edu.h"

#define EVERY_MS 250
#define KEPT 16

#define IOCTL_LARKSPUR_OUTCOMES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_LARKSPUR_NEXT     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID LarkspurGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x07 } };

typedef struct _OUTCOME {
    ULONG Beat;
    ULONG Good;
} OUTCOME;

typedef struct _LARKSPUR {
    UNIT Unit;
    LANE Wait;
    KTIMER Timer;
    KDPC TimerDpc;
    ULONG Beat;                 /* Unit.Hw, as all below */
    ULONG Made;
    OUTCOME Outcome[KEPT];
} LARKSPUR;

/* Hw is held: one look at the card. */
static OUTCOME Look(LARKSPUR *Larkspur)
{
    OUTCOME Outcome;

    Outcome.Beat = ++Larkspur->Beat;
    Poke(&Larkspur->Unit, EDU_LIVENESS, Outcome.Beat);
    Outcome.Good = Peek(&Larkspur->Unit, EDU_LIVENESS) == ~Outcome.Beat;
    Larkspur->Outcome[Larkspur->Made++ % KEPT] = Outcome;
    return Outcome;
}

static VOID NTAPI LarkspurTick(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    LARKSPUR *Larkspur = Context;
    UNIT *U = &Larkspur->Unit;
    BOOLEAN Looked = FALSE;
    LIST_ENTRY Leaving;
    OUTCOME Outcome = { 0, 0 };
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeAcquireSpinLockAtDpcLevel(&U->Hw);
#ifndef FIXED
    if (U->Ready) {
#else
    if (U->Live) {
#endif
        Outcome = Look(Larkspur);
        Looked = TRUE;
    }
    KeReleaseSpinLockFromDpcLevel(&U->Hw);
    if (!Looked)
        return;
    InitializeListHead(&Leaving);
    while ((Irp = LaneTake(&Larkspur->Wait, NULL)) != NULL)
        InsertTailList(&Leaving, &Irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&Leaving)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Leaving), IRP, Tail.Overlay.ListEntry);
        *(OUTCOME *)Irp->AssociatedIrp.SystemBuffer = Outcome;
        Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(OUTCOME));
    }
}

static VOID LarkspurBorn(UNIT *U)
{
    LARKSPUR *Larkspur = (LARKSPUR *)U;

    LaneInit(&Larkspur->Wait, &U->Guard);
    KeInitializeTimer(&Larkspur->Timer);
    KeInitializeDpc(&Larkspur->TimerDpc, LarkspurTick, Larkspur);
}

static NTSTATUS LarkspurPrepare(UNIT *U)
{
    LARKSPUR *Larkspur = (LARKSPUR *)U;
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * EVERY_MS;
    KeSetTimerEx(&Larkspur->Timer, Due, EVERY_MS, &Larkspur->TimerDpc);
    return STATUS_SUCCESS;
}

static VOID LarkspurRelease(UNIT *U)
{
    KeCancelTimer(&((LARKSPUR *)U)->Timer);
    KeFlushQueuedDpcs();
}

static VOID LarkspurAbandon(UNIT *U)
{
    LaneShut(&((LARKSPUR *)U)->Wait, STATUS_DELETE_PENDING);
}

static NTSTATUS LarkspurCleanup(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    LaneClear(&((LARKSPUR *)U)->Wait, Sp->FileObject, STATUS_CANCELLED);
    return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS LarkspurControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    LARKSPUR *Larkspur = (LARKSPUR *)U;
    ULONG Room = Sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(OUTCOME);
    OUTCOME *To = Irp->AssociatedIrp.SystemBuffer;
    ULONG Number, Kept, Given = 0;
    KIRQL Irql;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LARKSPUR_OUTCOMES:
        if (!Room)
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&U->Hw, &Irql);
        Kept = Larkspur->Made < KEPT ? Larkspur->Made : KEPT;
        if (Kept > Room)
            Kept = Room;
        for (Number = Larkspur->Made - Kept; Number != Larkspur->Made; Number++)
            To[Given++] = Larkspur->Outcome[Number % KEPT];
        KeReleaseSpinLock(&U->Hw, Irql);
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, Given * sizeof(OUTCOME));
    case IOCTL_LARKSPUR_NEXT:
        if (!Room)
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return LaneAdd(&Larkspur->Wait, Irp);
    }
    return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const TRADE LarkspurTrade = {
    .Size = sizeof(LARKSPUR),
    .Interface = &LarkspurGuid,
    .Windows = 1,
    .Span = EDU_BUFFER,
    .Born = LarkspurBorn,
    .Prepare = LarkspurPrepare,
    .Release = LarkspurRelease,
    .Abandon = LarkspurAbandon,
    .Cleanup = LarkspurCleanup,
    .Control = LarkspurControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &LarkspurTrade);
}
