/*
 * abbey: lets programs compute factorials on the educational card, one after the other. Requests wait in a lane; the one that the card works for can be
 * cancelled as well, and the card's result is dropped then.
 *
 * The bug: the cancel routine of the request that the card works for completes it, and leaves the pointer to it in the extension. When the card is done, the DPC
 * takes the request for the one to be completed.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, not-an-irp, request-forgotten, irp-never-completed
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_edu.h"

#define LARGEST 12              /* whose factorial has 32 bits */

#define IOCTL_ABBEY_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_READ_DATA | FILE_WRITE_DATA)

static const GUID AbbeyGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x05 } };

typedef struct _ABBEY {
    UNIT Unit;
    LANE Wait;
    PIRP Active;                /* Unit.Hw: what the card works for; NULL if that has been cancelled */
    BOOLEAN Busy;               /* Unit.Hw: the card computes */
} ABBEY;

static VOID Go(ABBEY *Abbey);

static VOID AbbeyBorn(UNIT *U)
{
    LaneInit(&((ABBEY *)U)->Wait, &U->Guard);
}

/* Hw is held: gives the request to the card. */
static VOID Compute(ABBEY *Abbey, PIRP Irp)
{
    Abbey->Busy = TRUE;
    Poke(&Abbey->Unit, EDU_FACTORIAL, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
}

/* Hw is held: the request that the card works for, now the caller's; NULL if there is none, or its cancel routine has it. */
static PIRP TakeActive(ABBEY *Abbey, PFILE_OBJECT File)
{
    PIRP Irp = Abbey->Active;

    if (!Irp || (File && IoGetCurrentIrpStackLocation(Irp)->FileObject != File))
        return NULL;
    if (!IoSetCancelRoutine(Irp, NULL))
        return NULL;
    Abbey->Active = NULL;
    return Irp;
}

static VOID NTAPI CancelActive(PDEVICE_OBJECT Device, PIRP Irp)
{
    ABBEY *Abbey = Device->DeviceExtension;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
#ifdef FIXED
    {
        KIRQL Irql;

        KeAcquireSpinLock(&Abbey->Unit.Hw, &Irql);
        if (Abbey->Active == Irp)
            Abbey->Active = NULL;
        KeReleaseSpinLock(&Abbey->Unit.Hw, Irql);
    }
#endif
    Go(Abbey);
    Finish(&Abbey->Unit.Guard, Irp, STATUS_CANCELLED, 0);
}

/* Has the card work for the next one, if it can. */
static VOID Go(ABBEY *Abbey)
{
    UNIT *U = &Abbey->Unit;
    PIRP Irp;
    KIRQL Irql;

    for (;;) {
        KeAcquireSpinLock(&U->Hw, &Irql);
        Irp = NULL;
        if (U->Live && !Abbey->Busy && !Abbey->Active)
            Irp = LaneTake(&Abbey->Wait, NULL);
        if (!Irp) {
            KeReleaseSpinLock(&U->Hw, Irql);
            return;
        }
        IoSetCancelRoutine(Irp, CancelActive);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
            KeReleaseSpinLock(&U->Hw, Irql);
            Finish(&U->Guard, Irp, STATUS_CANCELLED, 0);
            continue;
        }
        Abbey->Active = Irp;    /* where its cancel routine runs by now, that waits for Hw and takes it out again */
        Compute(Abbey, Irp);
        KeReleaseSpinLock(&U->Hw, Irql);
        return;
    }
}

static VOID AbbeyOn(UNIT *U)
{
    EduQuiet(U);
    Poke(U, EDU_STATUS, EDU_IRQ_FACTORIAL);
    ((ABBEY *)U)->Busy = (Peek(U, EDU_STATUS) & EDU_COMPUTING) != 0;
}

/* The card has been asleep, or deaf: what it worked for is given to it again, unless it still computes. */
static VOID AbbeyResume(UNIT *U)
{
    ABBEY *Abbey = (ABBEY *)U;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    if (U->Live && !Abbey->Busy && Abbey->Active)
        Compute(Abbey, Abbey->Active);
    KeReleaseSpinLock(&U->Hw, Irql);
    Go(Abbey);
}

static BOOLEAN AbbeyIsr(UNIT *U)
{
    if (!EduCauses(U))
        return FALSE;
    KeInsertQueueDpc(&U->Dpc, NULL, NULL);
    return TRUE;
}

static VOID AbbeyDpc(UNIT *U)
{
    ABBEY *Abbey = (ABBEY *)U;
    PIRP Irp = NULL;
    ULONG Result = 0;

    KeAcquireSpinLockAtDpcLevel(&U->Hw);
    if (U->Live && Abbey->Busy && !(Peek(U, EDU_STATUS) & EDU_COMPUTING)) {
        Abbey->Busy = FALSE;
        Result = Peek(U, EDU_FACTORIAL);
        Irp = TakeActive(Abbey, NULL);
    }
    KeReleaseSpinLockFromDpcLevel(&U->Hw);
    if (Irp) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Result;
        Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    Go(Abbey);
}

/* Ends what waits and what is worked for, through File or all. */
static VOID Clear(ABBEY *Abbey, PFILE_OBJECT File, NTSTATUS Status)
{
    UNIT *U = &Abbey->Unit;
    PIRP Irp;
    KIRQL Irql;

    LaneClear(&Abbey->Wait, File, Status);
    KeAcquireSpinLock(&U->Hw, &Irql);
    Irp = TakeActive(Abbey, File);
    KeReleaseSpinLock(&U->Hw, Irql);
    if (Irp)
        Finish(&U->Guard, Irp, Status, 0);
    Go(Abbey);
}

static VOID AbbeyAbandon(UNIT *U)
{
    ABBEY *Abbey = (ABBEY *)U;

    LaneShut(&Abbey->Wait, STATUS_DELETE_PENDING);
    Clear(Abbey, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS AbbeyCleanup(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    Clear((ABBEY *)U, Sp->FileObject, STATUS_CANCELLED);
    return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS AbbeyControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    ABBEY *Abbey = (ABBEY *)U;
    NTSTATUS Status;

    if (Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_ABBEY_FACTORIAL)
        return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Sp->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG) ||
        *(PULONG)Irp->AssociatedIrp.SystemBuffer > LARGEST)
        return Finish(&U->Guard, Irp, STATUS_INVALID_PARAMETER, 0);
    if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    Status = LaneAdd(&Abbey->Wait, Irp);
    Go(Abbey);
    return Status;
}

static const TRADE AbbeyTrade = {
    .Size = sizeof(ABBEY),
    .Interface = &AbbeyGuid,
    .Windows = 1,
    .Span = EDU_BUFFER,
    .Born = AbbeyBorn,
    .On = AbbeyOn,
    .Off = EduQuiet,
    .Resume = AbbeyResume,
    .Isr = AbbeyIsr,
    .Dpc = AbbeyDpc,
    .Abandon = AbbeyAbandon,
    .Cleanup = AbbeyCleanup,
    .Control = AbbeyControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &AbbeyTrade);
}
