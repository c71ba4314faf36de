/*
 * plxrill: reads a flow meter's samples out of the FIFO on a board behind a PLX PCI 9052. In the board's local space there is the number of bytes in the
 * FIFO (00h), the FIFO itself (04h, 32 bits at a time) and a register that empties it (08h). The FIFO has 1024 bytes; a read offers room for that many at
 * least, and gets what there is.
 *
 * The bug: the driver believes the number of bytes that the board says: if it is more than the FIFO has (all ones, from a board that was pulled out or has
 * lost its clock), what is read goes far beyond the request's buffer.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, wild-write, information-too-large, bad-pointer
 * Needs: device
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_plx.h"

#define RILL_LEVEL      0x00
#define RILL_FIFO       0x04
#define RILL_EMPTY      0x08
#define RILL_WINDOW     0x0C
#define RILL_DEPTH      1024u

#define IOCTL_RILL_LEVEL    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RILL_EMPTY    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E2, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID RillFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x0c } };

typedef struct _DEV {
    FRAME F;
    ULONG Local;                /* the window of the local space; constant while the board is up */
} DEV, *PDEV;

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    PDEV d = (PDEV)F;
    NTSTATUS status = FrameClaim(F, Translated);

    if (!NT_SUCCESS(status))
        return status;
    status = PlxCheck(F);
    d->Local = PlxLocal(F, RILL_WINDOW);
    if (!NT_SUCCESS(status) || d->Local == 0) {
        FrameRelease(F);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    FrameUp(F);
    return STATUS_SUCCESS;
}

static VOID Stop(PFRAME F, BOOLEAN Gone)
{
    FrameDown(F, Gone);
    FrameRelease(F);
}

static NTSTATUS Read(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PDEV d = (PDEV)F;
    PUCHAR out = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG level = 0, i;
    KIRQL irql;

    if (Stack->Parameters.Read.Length < RILL_DEPTH)
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&F->Lock, &irql);
    if (!FrameLive(F))
        status = STATUS_DEVICE_NOT_READY;
    else
        level = Rd32(F, d->Local, RILL_LEVEL);
#ifdef FIXED
    if (level > RILL_DEPTH) {
        status = STATUS_DEVICE_DATA_ERROR;
        level = 0;
    }
#endif
    for (i = 0; i < level; i += sizeof(ULONG)) {
        ULONG word = Rd32(F, d->Local, RILL_FIFO);
        ULONG n = level - i < sizeof word ? level - i : (ULONG)sizeof word;

        RtlCopyMemory(out + i, &word, n);
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, level);
}

static NTSTATUS Level(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    ULONG level = 0;
    KIRQL irql;

    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof level)
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        level = Rd32(F, ((PDEV)F)->Local, RILL_LEVEL);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    if (!NT_SUCCESS(status))
        return Ends(Irp, status, 0);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = level;
    return Ends(Irp, status, sizeof level);
}

static NTSTATUS Empty(PFRAME F, PIRP Irp)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        Wr32(F, ((PDEV)F)->Local, RILL_EMPTY, 1);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, 0);
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RILL_LEVEL:
        return Level(F, Irp, Stack);
    case IOCTL_RILL_EMPTY:
        return Empty(F, Irp);
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &RillFace,
    .Start = Start,
    .Stop = Stop,
    .Read = Read,
    .Control = Control,
};
