/*
 * eduwren: factorials from QEMU's educational card for one program at a time: there is no queue, a second request is refused as long as the first one is
 * not answered. The request has a cancel routine of its own while the card works for it.
 *
 * The bug: the DPC that answers the request takes the cancel routine away, but does not look whether it was still there: if the request is just being
 * cancelled, both the DPC and the cancel routine complete it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, cancel-after-completion, use-after-free
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_edu.h"

#define IOCTL_WREN_FACTORIAL    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID WrenFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x05 } };

typedef struct _DEV {
    FRAME F;                    /* its lock is that of all that follows */
    PIRP Current;               /* the request; has a cancel routine and holds the gate */
    ULONG Number;               /* what it wants to know the factorial of */
    BOOLEAN Busy;               /* the card computes */
    BOOLEAN Ghost;              /* but not for Current */
} DEV, *PDEV;

static VOID Finish(PFRAME F, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Ends(Irp, Status, Information);
    IoReleaseRemoveLock(&F->Gate, Irp);
}

/* Under the lock. */
static VOID Begin(PDEV D)
{
    if (FrameLive(&D->F) && D->Current && !D->Busy) {
        D->Busy = TRUE;
        D->Ghost = FALSE;
        EduWr(&D->F, EDU_NUMBER, D->Number);
    }
}

/* Under the lock: the current request, which is not current any more. */
static PIRP Detach(PDEV D)
{
    PIRP irp = D->Current;

    D->Current = NULL;
    D->Ghost = D->Busy;
    return irp;
}

static VOID NTAPI Cancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&d->F.Lock, &irql);
    if (d->Current == Irp)
        Detach(d);
    KeReleaseSpinLock(&d->F.Lock, irql);
    Finish(&d->F, Irp, STATUS_CANCELLED, 0);
}

/* Ends the current request if it is this file's, or anyone's where File is NULL. */
static VOID GiveUp(PDEV D, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&D->F.Lock, &irql);
    if (D->Current && (!File || IoGetCurrentIrpStackLocation(D->Current)->FileObject == File))
        irp = Detach(D);
    KeReleaseSpinLock(&D->F.Lock, irql);
    if (irp && IoSetCancelRoutine(irp, NULL))
        Finish(&D->F, irp, Status, 0);
}

static VOID Dpc(PFRAME F)
{
    PDEV d = (PDEV)F;
    ULONG result = 0;
    PIRP irp = NULL;

    KeAcquireSpinLockAtDpcLevel(&F->Lock);
    if (FrameLive(F) && d->Busy && !(EduRd(F, EDU_STATUS) & EDU_COMPUTING)) {
        d->Busy = FALSE;
        if (!d->Ghost) {
            result = EduRd(F, EDU_NUMBER);
            irp = Detach(d);
#ifndef FIXED
            if (irp)
                IoSetCancelRoutine(irp, NULL);
#else
            if (irp && !IoSetCancelRoutine(irp, NULL))
                irp = NULL;     /* the cancel routine completes it */
#endif
        }
        d->Ghost = FALSE;
        Begin(d);
    }
    KeReleaseSpinLockFromDpcLevel(&F->Lock);
    if (!irp)
        return;
    *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
    Finish(F, irp, STATUS_SUCCESS, sizeof result);
}

static VOID Ready(PFRAME F)
{
    PDEV d = (PDEV)F;

    d->Busy = d->Ghost = (EduRd(F, EDU_STATUS) & EDU_COMPUTING) != 0;
    Begin(d);
}

/* A request stays, and is begun anew. */
static VOID Lull(PFRAME F, BOOLEAN Touch)
{
    PDEV d = (PDEV)F;

    UNREFERENCED_PARAMETER(Touch);
    d->Busy = d->Ghost = FALSE;
}

static NTSTATUS Factorial(PDEV D, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status;
    ULONG number;
    KIRQL irql;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    number = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (number > EDU_FACT_MAX)
        return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
    status = IoAcquireRemoveLock(&D->F.Gate, Irp);
    if (!NT_SUCCESS(status))
        return Ends(Irp, status, 0);
    KeAcquireSpinLock(&D->F.Lock, &irql);
    if (!FrameLive(&D->F) || D->Current) {
        status = D->Current ? STATUS_DEVICE_BUSY : STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&D->F.Lock, irql);
        Finish(&D->F, Irp, status, 0);
        return status;
    }
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, Cancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&D->F.Lock, irql);
        Finish(&D->F, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    D->Current = Irp;
    D->Number = number;
    D->Ghost = D->Busy;
    Begin(D);
    KeReleaseSpinLock(&D->F.Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    if (Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_WREN_FACTORIAL)
        return Factorial((PDEV)F, Irp, Stack);
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID Cleanup(PFRAME F, PFILE_OBJECT File)
{
    GiveUp((PDEV)F, File, STATUS_CANCELLED);
}

static VOID Abandon(PFRAME F)
{
    GiveUp((PDEV)F, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    NTSTATUS status = FrameClaim(F, Translated);

    if (!NT_SUCCESS(status))
        return status;
    status = EduCheck(F);
    if (NT_SUCCESS(status))
        status = FrameConnect(F);
    if (!NT_SUCCESS(status)) {
        FrameRelease(F);
        return status;
    }
    FrameUp(F);
    return STATUS_SUCCESS;
}

static VOID Stop(PFRAME F, BOOLEAN Gone)
{
    FrameDown(F, Gone);
    FrameRelease(F);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &WrenFace,
    .Start = Start,
    .Stop = Stop,
    .Abandon = Abandon,
    .Isr = EduIsr,
    .Listen = EduListen,
    .Ready = Ready,
    .Lull = Lull,
    .Dpc = Dpc,
    .Control = Control,
    .Cleanup = Cleanup,
};
