/*
 * plxheath: the gate of a mountain railway, on a board behind a PLX PCI 9052: each train gives an edge of LINTi1, and the service routine answers with a
 * change of the user pin 1, by which the board knows that it was counted. The user pin 0 is a lamp that programs switch.
 *
 * The bug: programs switch the lamp by reading, changing and writing CNTRL under a spin lock, but not under the interrupt's: if a train comes in between, the
 * service routine's change of the same register is undone.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_plx.h"

#define IOCTL_HEATH_LAMP    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HEATH_TRAINS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D2, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID HeathFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x0a } };

typedef struct _DEV {
    FRAME F;
    volatile LONG Trains;
    BOOLEAN Lamp;               /* F.Lock: as it was switched last */
} DEV, *PDEV;

/* What is to be done with the lamp, for Switch. */
typedef struct _LAMP {
    PFRAME F;
    BOOLEAN On;
} LAMP;

static BOOLEAN NTAPI Switch(PVOID Context)
{
    LAMP *lamp = Context;
    ULONG cntrl = PlxRd(lamp->F, PLX_CNTRL);

    if (cntrl == PLX_ALL_ONES)
        return FALSE;
    if (lamp->On)
        cntrl |= PLX_USER0_DATA;
    else
        cntrl &= ~PLX_USER0_DATA;
    PlxWr(lamp->F, PLX_CNTRL, cntrl);
    return TRUE;
}

static BOOLEAN Isr(PFRAME F)
{
    ULONG cntrl;

    if (!PlxEdge(F))
        return FALSE;
    InterlockedIncrement(&((PDEV)F)->Trains);
    cntrl = PlxRd(F, PLX_CNTRL);
    if (cntrl != PLX_ALL_ONES)
        PlxWr(F, PLX_CNTRL, cntrl ^ PLX_USER1_DATA);
    return TRUE;
}

/* Under F->Lock and the interrupt's. */
static VOID Listen(PFRAME F, BOOLEAN On)
{
    ULONG cntrl;

    PlxListen(F, On);
    if (!On)
        return;
    cntrl = PlxRd(F, PLX_CNTRL);
    if (cntrl == PLX_ALL_ONES)
        return;
    cntrl &= ~(PLX_USER0_SELECT | PLX_USER0_DATA | PLX_USER1_SELECT);
    cntrl |= PLX_USER0_OUT | PLX_USER1_OUT;
    if (((PDEV)F)->Lamp)
        cntrl |= PLX_USER0_DATA;
    PlxWr(F, PLX_CNTRL, cntrl);
}

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    NTSTATUS status = FrameClaim(F, Translated);

    if (!NT_SUCCESS(status))
        return status;
    status = PlxCheck(F);
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

static NTSTATUS Lamp(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    LAMP lamp;
    KIRQL irql;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(UCHAR))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    lamp.F = F;
    lamp.On = *(PUCHAR)Irp->AssociatedIrp.SystemBuffer != 0;
    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        ((PDEV)F)->Lamp = lamp.On;
#ifndef FIXED
        Switch(&lamp);
#else
        KeSynchronizeExecution(F->Interrupt, Switch, &lamp);
#endif
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, 0);
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HEATH_LAMP:
        return Lamp(F, Irp, Stack);
    case IOCTL_HEATH_TRAINS:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
            return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = InterlockedCompareExchange(&((PDEV)F)->Trains, 0, 0);
        return Ends(Irp, STATUS_SUCCESS, sizeof(LONG));
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &HeathFace,
    .Start = Start,
    .Stop = Stop,
    .Isr = Isr,
    .Listen = Listen,
    .Control = Control,
};
