/*
 * plxgorse: lets a diagnostic program look into a board behind a PLX PCI 9052: it reads bytes, words and doublewords in any of the board's windows, and
 * writes them in those of the local spaces.
 *
 * The bug: of an offset it is only looked whether it lies in the window, not whether all bytes of the word or doubleword do: the access at a window's end
 * goes beyond it.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_plx.h"

#define IOCTL_GORSE_WINDOWS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GORSE_PEEK    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GORSE_POKE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C3, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID GorseFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x09 } };

typedef struct _PLACE {
    ULONG Offset;
    UCHAR Window;
    UCHAR Width;                /* 1, 2, 4; 0 is 4 */
    USHORT Reserved;
    ULONG Value;                /* to be written; need not be there for a read */
} PLACE;

typedef struct _DEV {
    FRAME F;
} DEV, *PDEV;

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    NTSTATUS status = FrameClaim(F, Translated);

    if (!NT_SUCCESS(status))
        return status;
    status = PlxCheck(F);
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

/* Under the lock: may that be accessed? */
static NTSTATUS Check(PFRAME F, const PLACE *Place, ULONG Width, BOOLEAN Write)
{
    WINDOW *w;

    if (!FrameLive(F))
        return STATUS_DEVICE_NOT_READY;
    if (Place->Window >= F->Windows || (Width != 1 && Width != 2 && Width != 4))
        return STATUS_INVALID_PARAMETER;
    w = &F->Window[Place->Window];
    if (Write && (Place->Window == 0 || (Place->Window == 1 && w->Port)))
        return STATUS_ACCESS_DENIED;            /* the bridge's own registers */
#ifndef FIXED
    if (Place->Offset >= w->Length)
        return STATUS_INVALID_PARAMETER;
#else
    if (Place->Offset >= w->Length || w->Length - Place->Offset < Width || Place->Offset % Width != 0)
        return STATUS_INVALID_PARAMETER;
#endif
    return STATUS_SUCCESS;
}

static ULONG Peek(WINDOW *W, ULONG Offset, ULONG Width)
{
    PUCHAR at = W->At + Offset;

    switch (Width) {
    case 1:
        return W->Port ? READ_PORT_UCHAR(at) : READ_REGISTER_UCHAR(at);
    case 2:
        return W->Port ? READ_PORT_USHORT((PUSHORT)at) : READ_REGISTER_USHORT((PUSHORT)at);
    }
    return W->Port ? READ_PORT_ULONG((PULONG)at) : READ_REGISTER_ULONG((PULONG)at);
}

static VOID Poke(WINDOW *W, ULONG Offset, ULONG Width, ULONG Value)
{
    PUCHAR at = W->At + Offset;

    switch (Width) {
    case 1:
        if (W->Port)
            WRITE_PORT_UCHAR(at, (UCHAR)Value);
        else
            WRITE_REGISTER_UCHAR(at, (UCHAR)Value);
        break;
    case 2:
        if (W->Port)
            WRITE_PORT_USHORT((PUSHORT)at, (USHORT)Value);
        else
            WRITE_REGISTER_USHORT((PUSHORT)at, (USHORT)Value);
        break;
    default:
        if (W->Port)
            WRITE_PORT_ULONG((PULONG)at, Value);
        else
            WRITE_REGISTER_ULONG((PULONG)at, Value);
        break;
    }
}

static NTSTATUS Access(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack, BOOLEAN Write)
{
    ULONG in = Stack->Parameters.DeviceIoControl.InputBufferLength, width, value = 0;
    PLACE place = { 0, 0, 0, 0, 0 };
    NTSTATUS status;
    KIRQL irql;

    if (in < (Write ? sizeof place : FIELD_OFFSET(PLACE, Value)))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (!Write && Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    RtlCopyMemory(&place, Irp->AssociatedIrp.SystemBuffer, Write ? sizeof place : FIELD_OFFSET(PLACE, Value));
    width = place.Width ? place.Width : 4;
    KeAcquireSpinLock(&F->Lock, &irql);
    status = Check(F, &place, width, Write);
    if (NT_SUCCESS(status) && Write)
        Poke(&F->Window[place.Window], place.Offset, width, place.Value);
    else if (NT_SUCCESS(status))
        value = Peek(&F->Window[place.Window], place.Offset, width);
    KeReleaseSpinLock(&F->Lock, irql);
    if (!NT_SUCCESS(status) || Write)
        return Ends(Irp, status, 0);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = value;
    return Ends(Irp, status, sizeof value);
}

/* The windows' lengths, as many as there is room for. */
static NTSTATUS Windows(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    ULONG room = Stack->Parameters.DeviceIoControl.OutputBufferLength / sizeof(ULONG), n = 0;
    PULONG out = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    if (F->Up) {
        for (; n < room && n < F->Windows; n++)
            out[n] = F->Window[n].Length;
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, status, n * sizeof(ULONG));
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GORSE_WINDOWS:
        return Windows(F, Irp, Stack);
    case IOCTL_GORSE_PEEK:
        return Access(F, Irp, Stack, FALSE);
    case IOCTL_GORSE_POKE:
        return Access(F, Irp, Stack, TRUE);
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &GorseFace,
    .Start = Start,
    .Stop = Stop,
    .Control = Control,
};
