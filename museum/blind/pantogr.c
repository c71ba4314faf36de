/*
 * pantogr: stamps plates. For a stamp the card does two things at once: it moves the 64 bytes of a pattern by DMA into its memory, and computes the serial
 * number of the stamp from the one it is given. The answer is the serial number.
 *
 * The bug: whichever of the two units interrupts first ends the request, with the other one still at work: the next request starts a unit that is busy (and is
 * ignored, or counts the interrupt of the previous stamp as its own), and a stop frees the buffer while the card reads it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored, wild-dma, dma-after-unmap
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_edu.h"

#define IOCTL_PANTOGR_STAMP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_PANTOGR_TOTAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_ACCESS)

#define PATTERN 64
#define PLACES (EDU_MEMORY_SIZE / PATTERN)
#define BOTH (EDU_CAUSE_NUMBER | EDU_CAUSE_DMA)

static const GUID PantoClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x03}};

typedef struct STAMP {
    ULONG Number;
    ULONG Place;
    UCHAR Pattern[PATTERN];
} STAMP;

typedef struct PANTO {
    HULL Hull;
    EDU Edu;
    PLATE Plate;
    KSPIN_LOCK Lock;            /* for all below */
    BOOLEAN Pressing;
    ULONG Seen;                 /* the units that are done */
    ULONG Total, Failed;
} PANTO;

/* With Causes 0 the stamp has failed. */
static VOID PantoEnd(PANTO *x, ULONG Causes)
{
    ULONG serial = 0;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Seen |= Causes & BOTH;
#ifndef FIXED
    if (!x->Pressing || (Causes && !x->Seen)) {
#else
    if (!x->Pressing || (Causes && x->Seen != BOTH)) {
#endif
        KeReleaseSpinLock(&x->Lock, irql);
        return;
    }
    x->Pressing = FALSE;
    if (Causes) {
        serial = HoleGet(&x->Edu.Regs, EDU_NUMBER);
        x->Total++;
    } else {
        x->Failed++;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    irp = PenTake(&x->Hull.Crane, NULL);
    if (irp && Causes) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = serial;
        HullReply(&x->Hull, irp, STATUS_SUCCESS, sizeof(ULONG));
    } else if (irp) {
        HullReply(&x->Hull, irp, STATUS_IO_DEVICE_ERROR, 0);
    }
    HullReady(&x->Hull);
}

static VOID PantoAnswer(PVOID Owner, ULONG Causes)
{
    PantoEnd(Owner, Causes);
}

static VOID PantoBegin(HULL *h, PIRP Irp)
{
    PANTO *x = (PANTO *)h;
    STAMP *stamp = Irp->AssociatedIrp.SystemBuffer;
    ULONG number = stamp->Number, place = stamp->Place;
    KIRQL irql;

    if (HoleGet(&x->Edu.Regs, EDU_ID) == ~0u) {
        HullReply(h, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        HullReady(h);
        return;
    }
    RtlCopyMemory(x->Plate.At + place * PATTERN, stamp->Pattern, PATTERN);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Seen = 0;
    x->Pressing = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    HullHang(h, Irp);                   /* it may be gone now */
    EduMove(&x->Edu, x->Plate.Bus.LowPart + place * PATTERN, EDU_MEMORY + place * PATTERN, PATTERN, FALSE);
    HolePut(&x->Edu.Regs, EDU_STATUS, EDU_STATUS_RING);
    HolePut(&x->Edu.Regs, EDU_NUMBER, number);
}

static NTSTATUS PantoAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    PANTO *x = (PANTO *)h;
    STAMP *stamp = Irp->AssociatedIrp.SystemBuffer;
    PULONG out = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, room;
    KIRQL irql;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = Sl->Parameters.DeviceIoControl.InputBufferLength;
    room = Sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PANTOGR_STAMP:
        if (in < sizeof(STAMP) || room < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (stamp->Place >= PLACES || stamp->Number > 4096)
            return STATUS_INVALID_PARAMETER;
        return HullSail(h, Irp);
    case IOCTL_PANTOGR_TOTAL:
        if (room < 2 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&x->Lock, &irql);
        out[0] = x->Total;
        out[1] = x->Failed;
        KeReleaseSpinLock(&x->Lock, irql);
        *Info = 2 * sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS PantoLay(HULL *h)
{
    KeInitializeSpinLock(&((PANTO *)h)->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS PantoRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    PANTO *x = (PANTO *)h;
    NTSTATUS status = PlateMake(&x->Plate, h->Pdo);

    if (!NT_SUCCESS(status))
        return status;
    status = EduRise(&x->Edu, Resources, PantoAnswer, x);
    if (!NT_SUCCESS(status))
        PlateFree(&x->Plate);
    return status;
}

static BOOLEAN PantoIsPressing(PANTO *x)
{
    BOOLEAN is;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    is = x->Pressing;
    KeReleaseSpinLock(&x->Lock, irql);
    return is;
}

/* Neither unit can be called off: both are waited for as long as there is a card. */
static VOID PantoStill(HULL *h, BOOLEAN touch)
{
    PANTO *x = (PANTO *)h;
    ULONG done = 0;

    if (touch) {
        while (PantoIsPressing(x)) {
            ULONG command = HoleGet(&x->Edu.Regs, EDU_DMA_COMMAND), status = HoleGet(&x->Edu.Regs, EDU_STATUS);

            if (command == ~0u || status == ~0u)
                break;
            if (!(command & EDU_DMA_GO) && !(status & EDU_STATUS_BUSY)) {
                done = BOTH;
                break;
            }
            EduRest(10);
        }
        EduHush(&x->Edu);
    }
    PantoEnd(x, done);
}

static VOID PantoSink(HULL *h, BOOLEAN touch)
{
    PANTO *x = (PANTO *)h;

    EduSink(&x->Edu, touch);
    PlateFree(&x->Plate);
}

static VOID PantoDoze(HULL *h)
{
    BellMute(&((PANTO *)h)->Edu.Bell);
}

static VOID PantoWake(HULL *h)
{
    BellUnmute(&((PANTO *)h)->Edu.Bell);
}

static const HULL_PLAN PantoPlan = {
    .Room = sizeof(PANTO), .Class = &PantoClass, .Patience = 200,
    .Lay = PantoLay, .Rise = PantoRise, .Sink = PantoSink, .Still = PantoStill, .Doze = PantoDoze, .Wake = PantoWake,
    .Ask = PantoAsk, .Begin = PantoBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &PantoPlan);
}
