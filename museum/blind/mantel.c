/*
 * mantel: factorials by the educational card for a clock's chimes, which must not wait: a request that the card has not answered within a second ends with
 * STATUS_IO_TIMEOUT. Requests wait in a lane; the one that the card works for ends by the card or by the limit.
 *
 * The bug: the timer's DPC takes the active request without the lock under which the interrupt's DPC takes it. When the limit and the answer meet on two
 * processors, both complete the request.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, data-race, use-after-free
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_edu.h"

#define LARGEST 12
#define LIMIT_MS 1000
#define AGAIN_MS 20

#define IOCTL_MANTEL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_READ_DATA | FILE_WRITE_DATA)

static const GUID MantelGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x06 } };

typedef struct _MANTEL {
    UNIT Unit;
    LANE Wait;
    KTIMER Timer;
    KDPC TimerDpc;
    LONGLONG Frequency;
    PIRP Active;                /* Unit.Hw, as all below: what the card works for and has not been given up */
    BOOLEAN Busy;               /* the card computes, for Active or for one that was given up */
    LONGLONG Deadline;          /* of Active */
} MANTEL;

static VOID Go(MANTEL *Mantel);

static VOID Arm(MANTEL *Mantel, ULONG Milliseconds)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * Milliseconds;
    KeSetTimer(&Mantel->Timer, Due, &Mantel->TimerDpc);
}

/* Hw is held: the request that the card works for, now the caller's. */
static PIRP TakeActive(MANTEL *Mantel, PFILE_OBJECT File)
{
    PIRP Irp = Mantel->Active;

    if (!Irp || (File && IoGetCurrentIrpStackLocation(Irp)->FileObject != File))
        return NULL;
    Mantel->Active = NULL;
    KeCancelTimer(&Mantel->Timer);
    return Irp;
}

static VOID NTAPI MantelLimit(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    MANTEL *Mantel = Context;
    UNIT *U = &Mantel->Unit;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&U->Hw);
#endif
    if (U->Live && Mantel->Active) {
        /* the timer may have been the one of a request that has ended meanwhile */
        if (KeQueryPerformanceCounter(NULL).QuadPart < Mantel->Deadline) {
            Arm(Mantel, AGAIN_MS);
        } else {
            Irp = Mantel->Active;
            Mantel->Active = NULL;
        }
    }
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&U->Hw);
#endif
    if (Irp)
        Finish(&U->Guard, Irp, STATUS_IO_TIMEOUT, 0);
    Go(Mantel);
}

static VOID MantelBorn(UNIT *U)
{
    MANTEL *Mantel = (MANTEL *)U;
    LARGE_INTEGER Frequency;

    LaneInit(&Mantel->Wait, &U->Guard);
    KeInitializeTimer(&Mantel->Timer);
    KeInitializeDpc(&Mantel->TimerDpc, MantelLimit, Mantel);
    KeQueryPerformanceCounter(&Frequency);
    Mantel->Frequency = Frequency.QuadPart;
}

/* Has the card work for the next one, if it can. */
static VOID Go(MANTEL *Mantel)
{
    UNIT *U = &Mantel->Unit;
    PIRP Irp;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    if (U->Live && !Mantel->Active) {
        if (Mantel->Busy && !(Peek(U, EDU_STATUS) & EDU_COMPUTING))
            Mantel->Busy = FALSE;
        if (!Mantel->Busy) {
            Irp = LaneTake(&Mantel->Wait, NULL);
            if (Irp) {
                Mantel->Active = Irp;
                Mantel->Busy = TRUE;
                Mantel->Deadline = KeQueryPerformanceCounter(NULL).QuadPart + Mantel->Frequency * LIMIT_MS / 1000;
                Poke(U, EDU_FACTORIAL, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
                Arm(Mantel, LIMIT_MS);
            }
        }
    }
    KeReleaseSpinLock(&U->Hw, Irql);
}

static VOID MantelRelease(UNIT *U)
{
    KeCancelTimer(&((MANTEL *)U)->Timer);
    KeFlushQueuedDpcs();
}

static VOID MantelOn(UNIT *U)
{
    EduQuiet(U);
    Poke(U, EDU_STATUS, EDU_IRQ_FACTORIAL);
    ((MANTEL *)U)->Busy = (Peek(U, EDU_STATUS) & EDU_COMPUTING) != 0;
}

static VOID MantelResume(UNIT *U)
{
    Go((MANTEL *)U);
}

/* The card is deaf: what it worked for waits again, where it can be cancelled. */
static VOID MantelPaused(UNIT *U)
{
    MANTEL *Mantel = (MANTEL *)U;
    PIRP Irp;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    Irp = TakeActive(Mantel, NULL);
    KeReleaseSpinLock(&U->Hw, Irql);
    if (Irp)
        LaneAdd(&Mantel->Wait, Irp);
}

static BOOLEAN MantelIsr(UNIT *U)
{
    if (!EduCauses(U))
        return FALSE;
    KeInsertQueueDpc(&U->Dpc, NULL, NULL);
    return TRUE;
}

static VOID MantelDpc(UNIT *U)
{
    MANTEL *Mantel = (MANTEL *)U;
    PIRP Irp = NULL;
    ULONG Result = 0;

    KeAcquireSpinLockAtDpcLevel(&U->Hw);
    if (U->Live && Mantel->Busy && !(Peek(U, EDU_STATUS) & EDU_COMPUTING)) {
        Mantel->Busy = FALSE;
        Result = Peek(U, EDU_FACTORIAL);
        Irp = TakeActive(Mantel, NULL);
    }
    KeReleaseSpinLockFromDpcLevel(&U->Hw);
    if (Irp) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Result;
        Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    Go(Mantel);
}

static VOID Clear(MANTEL *Mantel, PFILE_OBJECT File, NTSTATUS Status)
{
    UNIT *U = &Mantel->Unit;
    PIRP Irp;
    KIRQL Irql;

    LaneClear(&Mantel->Wait, File, Status);
    KeAcquireSpinLock(&U->Hw, &Irql);
    Irp = TakeActive(Mantel, File);
    KeReleaseSpinLock(&U->Hw, Irql);
    if (Irp)
        Finish(&U->Guard, Irp, Status, 0);
    Go(Mantel);
}

static VOID MantelAbandon(UNIT *U)
{
    LaneShut(&((MANTEL *)U)->Wait, STATUS_DELETE_PENDING);
    Clear((MANTEL *)U, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS MantelCleanup(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    Clear((MANTEL *)U, Sp->FileObject, STATUS_CANCELLED);
    return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS MantelControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    MANTEL *Mantel = (MANTEL *)U;
    NTSTATUS Status;

    if (Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_MANTEL_FACTORIAL)
        return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Sp->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG) ||
        *(PULONG)Irp->AssociatedIrp.SystemBuffer > LARGEST)
        return Finish(&U->Guard, Irp, STATUS_INVALID_PARAMETER, 0);
    if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    Status = LaneAdd(&Mantel->Wait, Irp);
    Go(Mantel);
    return Status;
}

static const TRADE MantelTrade = {
    .Size = sizeof(MANTEL),
    .Interface = &MantelGuid,
    .Windows = 1,
    .Span = EDU_BUFFER,
    .Born = MantelBorn,
    .Release = MantelRelease,
    .On = MantelOn,
    .Off = EduQuiet,
    .Resume = MantelResume,
    .Paused = MantelPaused,
    .Isr = MantelIsr,
    .Dpc = MantelDpc,
    .Abandon = MantelAbandon,
    .Cleanup = MantelCleanup,
    .Control = MantelControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &MantelTrade);
}
