/*
 * edufern: factorials from QEMU's educational card, for a queue of requests. Before the card is stopped or removed the driver lets it finish what it
 * computes, so that the program that waits for it gets its answer.
 *
 * The bug: the driver waits for the card's busy bit to go without a limit, and also when the card has been pulled out: all its registers read as ones then,
 * the bit among them, and the removal never ends.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: endless-loop, stuck, livelock
 * Needs: removal
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_edu.h"

#define IOCTL_FERN_FACTORIAL    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FERN_STATE        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID FernFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x07 } };

typedef struct _DEV {
    FRAME F;
    EDU_FACT Fact;              /* F.Lock */
} DEV, *PDEV;

/* What IOCTL_FERN_STATE answers. */
typedef struct _FERN_STATE {
    ULONG Identification;
    ULONG Busy;
} FERN_STATE;

static BOOLEAN Computing(PFRAME F)
{
    BOOLEAN computing = FALSE;
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F))
        computing = (EduRd(F, EDU_STATUS) & EDU_COMPUTING) != 0;
    KeReleaseSpinLock(&F->Lock, irql);
    return computing;
}

static VOID Pause(VOID)
{
    LARGE_INTEGER time;

    time.QuadPart = -10000LL * 5;
    KeDelayExecutionThread(KernelMode, FALSE, &time);
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
#ifndef FIXED
    while (Computing(F))
        Pause();
#else
    ULONG i;

    for (i = 0; !Gone && i < 100 && Computing(F); i++)
        Pause();
#endif
    FrameDown(F, Gone);
    FrameRelease(F);
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

static VOID Dpc(PFRAME F)
{
    EduFactDpc(F, &((PDEV)F)->Fact);
}

static NTSTATUS State(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    FERN_STATE state;
    KIRQL irql;

    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof state)
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    RtlZeroMemory(&state, sizeof state);
    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        state.Identification = EduRd(F, EDU_ID);
        state.Busy = ((PDEV)F)->Fact.Busy;
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    if (!NT_SUCCESS(status))
        return Ends(Irp, status, 0);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &state, sizeof state);
    return Ends(Irp, status, sizeof state);
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FERN_FACTORIAL:
        return EduFactRequest(F, &((PDEV)F)->Fact, Irp, Stack);
    case IOCTL_FERN_STATE:
        return State(F, Irp, Stack);
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &FernFace,
    .Start = Start,
    .Stop = Stop,
    .Isr = EduIsr,
    .Listen = EduListen,
    .Ready = Ready,
    .Lull = Lull,
    .Kick = Kick,
    .Dpc = Dpc,
    .Control = Control,
};
