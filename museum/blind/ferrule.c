/*
 * ferrule: a gate's motor on a board behind a PLX PCI 9052. A program gives the motor a pulse of some milliseconds by the first user pin, and waits for the
 * limit switch, which is the first local interrupt. The device must not lose power in the middle of a pulse, so a request for D3 waits while there is any
 * activity.
 *
 * The bug: a request that waits for the limit switch counts as activity as well, until it ends. As long as a program waits, and no one moves the gate, the request
 * for D3 is held, and the computer does not go to sleep.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: power-irp-overdue, irp-never-completed
 * Needs: ioctl, power
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_plx.h"

#define LONGEST_PULSE_MS 500
#define MOTOR 0                 /* its user pin */

#define IOCTL_FERRULE_PULSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_FERRULE_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_FERRULE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID FerruleGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x0c } };

typedef struct _FERRULE {
    UNIT Unit;
    LANE Waiters;
    KTIMER Timer;
    KDPC TimerDpc;
    ULONG Reached;              /* Unit.Hw, as all below: how often the limit switch was, without its bounces */
    PIRP Pulse;                 /* during which the motor has current */
    ULONG Busy;                 /* activities */
    BOOLEAN Sinking;            /* a request for D3 is here, or has been */
    PIRP Held;                  /* which waits for the end of all activity */
} FERRULE;

/* An activity begins, unless the device sleeps or is about to. */
static BOOLEAN Begin(FERRULE *Ferrule)
{
    UNIT *U = &Ferrule->Unit;
    BOOLEAN May;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    May = U->Live && !Ferrule->Sinking;
    if (May)
        Ferrule->Busy++;
    KeReleaseSpinLock(&U->Hw, Irql);
    return May;
}

static VOID End(FERRULE *Ferrule)
{
    UNIT *U = &Ferrule->Unit;
    PIRP Held = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    if (!--Ferrule->Busy) {
        Held = Ferrule->Held;
        Ferrule->Held = NULL;
    }
    KeReleaseSpinLock(&U->Hw, Irql);
    if (Held)
        UnitSinkLater(U, Held);
}

static BOOLEAN FerruleHold(UNIT *U, PIRP Irp)
{
    FERRULE *Ferrule = (FERRULE *)U;
    BOOLEAN Hold = FALSE;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    Ferrule->Sinking = TRUE;
    if (Ferrule->Busy) {
        Ferrule->Held = Irp;
        Hold = TRUE;
    }
    KeReleaseSpinLock(&U->Hw, Irql);
    return Hold;
}

#ifndef FIXED
/* One that waits for the limit switch is about to end. */
static VOID WaiterEnds(LANE *Lane)
{
    End(CONTAINING_RECORD(Lane, FERRULE, Waiters));
}
#endif

/* Hw is held, and the card has power. */
static VOID Motor(UNIT *U, BOOLEAN On)
{
    ULONG Value = Peek(U, PLX_CNTRL);

    Value &= ~(USER_SELECT(MOTOR) | USER_DATA(MOTOR));
    Value |= USER_OUT(MOTOR) | (On ? USER_DATA(MOTOR) : 0);
    Poke(U, PLX_CNTRL, Value);
}

/* The pulse, if there is one, is over. */
static VOID EndPulse(FERRULE *Ferrule, NTSTATUS Status)
{
    UNIT *U = &Ferrule->Unit;
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&U->Hw, &Irql);
    Irp = Ferrule->Pulse;
    Ferrule->Pulse = NULL;
    if (Irp && U->Live)
        Motor(U, FALSE);
    KeReleaseSpinLock(&U->Hw, Irql);
    if (Irp) {
        Finish(&U->Guard, Irp, Status, 0);
        End(Ferrule);
    }
}

static VOID NTAPI FerruleTimer(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    EndPulse(Context, STATUS_SUCCESS);
}

static VOID FerruleBorn(UNIT *U)
{
    FERRULE *Ferrule = (FERRULE *)U;

    LaneInit(&Ferrule->Waiters, &U->Guard);
#ifndef FIXED
    Ferrule->Waiters.Drop = WaiterEnds;
#endif
    KeInitializeTimer(&Ferrule->Timer);
    KeInitializeDpc(&Ferrule->TimerDpc, FerruleTimer, Ferrule);
}

static VOID FerruleRelease(UNIT *U)
{
    KeCancelTimer(&((FERRULE *)U)->Timer);
    KeFlushQueuedDpcs();
}

static VOID FerruleOn(UNIT *U)
{
    ((FERRULE *)U)->Sinking = FALSE;
    Motor(U, FALSE);
    Poke(U, PLX_INTCSR, PLX_FIRST_INPUT | INT1_CLEAR);
}

static VOID FerruleOff(UNIT *U)
{
    PlxQuiet(U);
    Motor(U, FALSE);
}

/* The device is stopped or gone, and the motor is off: behind Hold it is not in the middle of a pulse for any other reason. */
static VOID FerrulePaused(UNIT *U)
{
    FERRULE *Ferrule = (FERRULE *)U;

    KeCancelTimer(&Ferrule->Timer);
    EndPulse(Ferrule, STATUS_DEVICE_NOT_READY);
}

static BOOLEAN FerruleIsr(UNIT *U)
{
    if (!PlxFirstInput(U))
        return FALSE;
    KeInsertQueueDpc(&U->Dpc, NULL, NULL);
    return TRUE;
}

static VOID FerruleDpc(UNIT *U)
{
    FERRULE *Ferrule = (FERRULE *)U;
    LIST_ENTRY Leaving;
    ULONG Reached;
    PIRP Irp;

    KeAcquireSpinLockAtDpcLevel(&U->Hw);
    Reached = ++Ferrule->Reached;
    KeReleaseSpinLockFromDpcLevel(&U->Hw);
    InitializeListHead(&Leaving);
    while ((Irp = LaneTake(&Ferrule->Waiters, NULL)) != NULL)
        InsertTailList(&Leaving, &Irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&Leaving)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Leaving), IRP, Tail.Overlay.ListEntry);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Reached;
        Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(ULONG));
#ifndef FIXED
        End(Ferrule);
#endif
    }
}

static VOID FerruleAbandon(UNIT *U)
{
    LaneShut(&((FERRULE *)U)->Waiters, STATUS_DELETE_PENDING);
}

static NTSTATUS FerruleCleanup(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    LaneClear(&((FERRULE *)U)->Waiters, Sp->FileObject, STATUS_CANCELLED);
    return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);     /* a pulse ends soon, and by itself */
}

static NTSTATUS Pulse(FERRULE *Ferrule, PIRP Irp)
{
    UNIT *U = &Ferrule->Unit;
    NTSTATUS Status = STATUS_PENDING;
    LARGE_INTEGER Due;
    KIRQL Irql;

    Due.QuadPart = -10000LL * *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (!Begin(Ferrule))
        return Finish(&U->Guard, Irp, STATUS_DEVICE_NOT_READY, 0);
    KeAcquireSpinLock(&U->Hw, &Irql);
    if (!U->Live) {
        Status = STATUS_DEVICE_NOT_READY;
    } else if (Ferrule->Pulse) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        IoMarkIrpPending(Irp);
        Ferrule->Pulse = Irp;
        Motor(U, TRUE);
        KeSetTimer(&Ferrule->Timer, Due, &Ferrule->TimerDpc);
    }
    KeReleaseSpinLock(&U->Hw, Irql);
    if (Status != STATUS_PENDING) {
        Finish(&U->Guard, Irp, Status, 0);
        End(Ferrule);
    }
    return Status;
}

static NTSTATUS FerruleControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    FERRULE *Ferrule = (FERRULE *)U;
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Data = Irp->AssociatedIrp.SystemBuffer;
    KIRQL Irql;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FERRULE_PULSE:
        if (In != sizeof(ULONG) || !*Data || *Data > LONGEST_PULSE_MS)
            return Finish(&U->Guard, Irp, STATUS_INVALID_PARAMETER, 0);
        return Pulse(Ferrule, Irp);
    case IOCTL_FERRULE_AWAIT:
        if (Out < sizeof(ULONG))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (!Begin(Ferrule))
            return Finish(&U->Guard, Irp, STATUS_DEVICE_NOT_READY, 0);
#ifdef FIXED
        End(Ferrule);           /* from here on it only waits */
#endif
        return LaneAdd(&Ferrule->Waiters, Irp);
    case IOCTL_FERRULE_COUNT:
        if (Out < sizeof(ULONG))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&U->Hw, &Irql);
        *Data = Ferrule->Reached;
        KeReleaseSpinLock(&U->Hw, Irql);
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const TRADE FerruleTrade = {
    .Size = sizeof(FERRULE),
    .Interface = &FerruleGuid,
    .Windows = 1,
    .Span = PLX_SPAN,
    .Born = FerruleBorn,
    .Release = FerruleRelease,
    .On = FerruleOn,
    .Off = FerruleOff,
    .Paused = FerrulePaused,
    .Isr = FerruleIsr,
    .Dpc = FerruleDpc,
    .Hold = FerruleHold,
    .Abandon = FerruleAbandon,
    .Cleanup = FerruleCleanup,
    .Control = FerruleControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &FerruleTrade);
}
