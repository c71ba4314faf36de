/*
 * heliogr: sends a flash with a mirror (a code at the chip's user pins 0 and 1) and waits for the other hill to answer, by an edge on the first interrupt line,
 * for as long as the program says, at most one second. A program can have the chip answer itself, to try the way.
 *
 * The bug: the timer's DPC takes the request away without the lock below which the interrupt's DPC and the cancel routine do, and does not look whether its
 * cancel routine is still there: an answer or a cancellation that comes as the time is up completes the request a second time.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: double-completion, irp-in-use, data-race, cancel-after-completion, use-after-free
 * Needs: ioctl, schedule, cancel, device
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_plx.h"

#define IOCTL_HELIOGR_FLASH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9b0, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)

static const GUID HelClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x0d}};

typedef struct FLASH {
    ULONG Code;                 /* 0 to 3 */
    ULONG Wait;                 /* milliseconds, 1 to 1000 */
    ULONG Try;                  /* not 0: the chip answers */
} FLASH;

typedef struct HEL {
    HULL Hull;
    PLX Plx;
    KTIMER Timer;
    KDPC Late;
    KSPIN_LOCK Lock;            /* for all below */
    BOOLEAN Waiting;
    PIRP Sent;                  /* NULL: cancelled */
    ULONG64 Began, Until;
} HEL;

/* The request, if it is not being cancelled. Lock is held. */
static PIRP HelTake(HEL *x)
{
    PIRP irp = x->Sent;

    x->Sent = NULL;
    return irp && IoSetCancelRoutine(irp, NULL) ? irp : NULL;
}

static VOID HelReply(HEL *x, PIRP Irp, NTSTATUS Status, ULONG64 Took)
{
    if (Irp && NT_SUCCESS(Status)) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = (ULONG)(Took / 10);
        HullReply(&x->Hull, Irp, Status, sizeof(ULONG));
    } else if (Irp) {
        HullReply(&x->Hull, Irp, Status, 0);
    }
    HullReady(&x->Hull);
}

static VOID HelEnd(HEL *x, NTSTATUS Status)
{
    ULONG64 now = KeQueryInterruptTime(), began;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (!x->Waiting || (Status == STATUS_IO_TIMEOUT && now < x->Until)) {       /* a timer of the flash before */
        KeReleaseSpinLock(&x->Lock, irql);
        return;
    }
    x->Waiting = FALSE;
    began = x->Began;
    irp = HelTake(x);
    KeCancelTimer(&x->Timer);
    KeReleaseSpinLock(&x->Lock, irql);
    HelReply(x, irp, Status, now - began);
}

static VOID NTAPI HelLate(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    HEL *x = Context;

    (void)Dpc;
    (void)A;
    (void)B;
#ifndef FIXED
    PIRP irp;

    if (!x->Waiting || KeQueryInterruptTime() < x->Until)
        return;
    irp = x->Sent;
    if (irp)
        IoSetCancelRoutine(irp, NULL);
    x->Sent = NULL;
    x->Waiting = FALSE;
    HelReply(x, irp, STATUS_IO_TIMEOUT, 0);
#else
    HelEnd(x, STATUS_IO_TIMEOUT);
#endif
}

static VOID HelAnswer(PVOID Owner, ULONG Causes)
{
    if (Causes & (PLX_CAUSE_LINE1 | PLX_CAUSE_SOFT))
        HelEnd(Owner, STATUS_SUCCESS);
}

/* The mirror stays where it is until the time is up, or the answer comes. */
static VOID NTAPI HelCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    HEL *x = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Sent == Irp)
        x->Sent = NULL;
    KeReleaseSpinLock(&x->Lock, irql);
    HullReply(&x->Hull, Irp, STATUS_CANCELLED, 0);
}

static VOID HelBegin(HULL *h, PIRP Irp)
{
    HEL *x = (HEL *)h;
    FLASH flash = *(FLASH *)Irp->AssociatedIrp.SystemBuffer;
    ULONG pins = HoleGet(&x->Plx.Regs, PLX_CNTRL);
    BOOLEAN cancelled = FALSE;
    LARGE_INTEGER due;
    KIRQL irql;

    if (pins == ~0u) {
        HullReply(h, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        HullReady(h);
        return;
    }
    due.QuadPart = -10000LL * flash.Wait;
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Sent = Irp;
    IoSetCancelRoutine(Irp, HelCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        x->Sent = NULL;
        cancelled = TRUE;
    } else {
        x->Waiting = TRUE;
        x->Began = KeQueryInterruptTime();
        x->Until = x->Began + flash.Wait * 10000ull;
        KeSetTimer(&x->Timer, due, &x->Late);
        pins &= ~(PLX_USER_MODE(0) | PLX_USER_MODE(1) | PLX_USER_DATA(0) | PLX_USER_DATA(1));
        pins |= PLX_USER_OUT(0) | PLX_USER_OUT(1);
        pins |= ((flash.Code & 1) ? PLX_USER_DATA(0) : 0) | ((flash.Code & 2) ? PLX_USER_DATA(1) : 0);
        HolePut(&x->Plx.Regs, PLX_CNTRL, pins);
    }
    KeReleaseSpinLock(&x->Lock, irql);
    if (cancelled) {
        HullReply(h, Irp, STATUS_CANCELLED, 0);
        HullReady(h);
    } else if (flash.Try) {
        PlxChange(&x->Plx, 0, PLX_SOFT);
    }
}

static NTSTATUS HelAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    FLASH *flash = Irp->AssociatedIrp.SystemBuffer;

    (void)Info;
    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL || Sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_HELIOGR_FLASH)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (Sl->Parameters.DeviceIoControl.InputBufferLength < sizeof *flash || Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    if (flash->Code > 3 || !flash->Wait || flash->Wait > 1000)
        return STATUS_INVALID_PARAMETER;
    return HullSail(h, Irp);
}

static NTSTATUS HelLay(HULL *h)
{
    HEL *x = (HEL *)h;

    KeInitializeSpinLock(&x->Lock);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Late, HelLate, x);
    return STATUS_SUCCESS;
}

static NTSTATUS HelRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    HEL *x = (HEL *)h;
    NTSTATUS status = PlxMap(&x->Plx, Resources);

    if (!NT_SUCCESS(status))
        return status;
    status = PlxListen(&x->Plx, Resources, PLX_LINE1_ON, HelAnswer, x);
    if (!NT_SUCCESS(status))
        HoleShut(&x->Plx.Regs);
    return status;
}

static VOID HelStill(HULL *h, BOOLEAN touch)
{
    HEL *x = (HEL *)h;

    (void)touch;
    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
    HelEnd(x, STATUS_DEVICE_NOT_READY);
}

static VOID HelSink(HULL *h, BOOLEAN touch)
{
    HEL *x = (HEL *)h;

    PlxDeafen(&x->Plx, touch);
    HoleShut(&x->Plx.Regs);
}

static VOID HelDoze(HULL *h)
{
    HEL *x = (HEL *)h;

    PlxSilence(&x->Plx);
    BellMute(&x->Plx.Bell);
}

static VOID HelWake(HULL *h)
{
    PlxWake(&((HEL *)h)->Plx);
}

/* A file is closed, or the device goes: who still waits waits no longer. */
static VOID HelDrop(HULL *h, PFILE_OBJECT File, NTSTATUS Status)
{
    HEL *x = (HEL *)h;
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Sent && (!File || IoGetCurrentIrpStackLocation(x->Sent)->FileObject == File))
        irp = HelTake(x);
    KeReleaseSpinLock(&x->Lock, irql);
    if (irp)
        HullReply(h, irp, Status, 0);
}

static const HULL_PLAN HelPlan = {
    .Room = sizeof(HEL), .Class = &HelClass, .Patience = 1200,
    .Lay = HelLay, .Rise = HelRise, .Sink = HelSink, .Still = HelStill, .Doze = HelDoze, .Wake = HelWake,
    .Drop = HelDrop, .Ask = HelAsk, .Begin = HelBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &HelPlan);
}
