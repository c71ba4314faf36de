/*
 * edutwig: two things that QEMU's educational card does at a time: it computes factorials, one after the other, and it has a bell, which programs ring and
 * for which others wait.
 *
 * The bug: the service routine notes the card's causes for the DPC in place of those of the interrupt before, instead of adding them: if two interrupts
 * come before the DPC runs, the first one's causes are lost, and the request that depended on them is never answered.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed, request-timed-out, request-forgotten, wake-up-lost, stuck
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_edu.h"

#define CAUSE_FACT  0x00000001u
#define CAUSE_BELL  0x00001000u

#define IOCTL_TWIG_FACTORIAL    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TWIG_RING         CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TWIG_LISTEN       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x893, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID TwigFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x06 } };

typedef struct _DEV {
    FRAME F;                    /* its shelf has the factorials */
    EDU_FACT Fact;              /* F.Lock */
    SHELF Listeners;
    volatile LONG Causes;       /* from the service routine to the DPC */
    volatile LONG Rung;
} DEV, *PDEV;

/* Under the interrupt's lock. */
static VOID Note(PDEV D, ULONG Causes)
{
#ifndef FIXED
    InterlockedExchange(&D->Causes, (LONG)Causes);
#else
    InterlockedOr(&D->Causes, (LONG)Causes);
#endif
    KeInsertQueueDpc(&D->F.Dpc, NULL, NULL);
}

static BOOLEAN Isr(PFRAME F)
{
    ULONG causes = EduCauses(F);

    if (causes == 0)
        return FALSE;
    Note((PDEV)F, causes);
    return TRUE;
}

/* As EduListen, but what the card had to say at that moment counts. */
static VOID Listen(PFRAME F, BOOLEAN On)
{
    ULONG causes;

    if (!On)
        EduWr(F, EDU_STATUS, 0);
    causes = EduCauses(F);
    if (causes)
        Note((PDEV)F, causes);
    if (On)
        EduWr(F, EDU_STATUS, EDU_FACT_IRQ);
    EduRd(F, EDU_CAUSES);
}

static VOID Dpc(PFRAME F)
{
    PDEV d = (PDEV)F;
    ULONG causes = (ULONG)InterlockedExchange(&d->Causes, 0);

    if (causes & CAUSE_FACT)
        EduFactDpc(F, &d->Fact);
    if (causes & CAUSE_BELL) {
        ULONG rung = (ULONG)InterlockedIncrement(&d->Rung);
        PIRP irp;

        while ((irp = ShelfTake(&d->Listeners, 0, NULL)) != NULL) {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = rung;
            ShelfEnd(&d->Listeners, irp, STATUS_SUCCESS, sizeof rung);
        }
    }
}

static NTSTATUS Ring(PFRAME F, PIRP Irp)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        EduWr(F, EDU_RAISE, CAUSE_BELL);
        EduRd(F, EDU_CAUSES);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, 0);
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PDEV d = (PDEV)F;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TWIG_FACTORIAL:
        return EduFactRequest(F, &d->Fact, Irp, Stack);
    case IOCTL_TWIG_RING:
        return Ring(F, Irp);
    case IOCTL_TWIG_LISTEN:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return FramePark(F, &d->Listeners, Irp, 0);
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS Setup(PFRAME F)
{
    return ShelfInit(&((PDEV)F)->Listeners, &F->Gate);
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

static VOID Abandon(PFRAME F)
{
    ShelfShut(&((PDEV)F)->Listeners, STATUS_DELETE_PENDING);
}

static VOID Cleanup(PFRAME F, PFILE_OBJECT File)
{
    ShelfFlush(&((PDEV)F)->Listeners, File, STATUS_CANCELLED);
}

static VOID Ready(PFRAME F)
{
    EduFactReady(F, &((PDEV)F)->Fact);
}

static VOID Lull(PFRAME F, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(Touch);
    EduFactLull(F, &((PDEV)F)->Fact);
}

static VOID Kick(PFRAME F)
{
    EduFactKick(F, &((PDEV)F)->Fact);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &TwigFace,
    .Setup = Setup,
    .Start = Start,
    .Stop = Stop,
    .Abandon = Abandon,
    .Isr = Isr,
    .Listen = Listen,
    .Ready = Ready,
    .Lull = Lull,
    .Kick = Kick,
    .Dpc = Dpc,
    .Control = Control,
    .Cleanup = Cleanup,
};
