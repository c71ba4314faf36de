/*
 * vane: a weather vane whose four contacts are at the chip's user pins; a timer looks at them ten times a second. A gust is an edge on the first interrupt
 * line. Programs ask for the direction, and wait for a gust.
 *
 * The bug: the timer is set before the interrupt is connected, and a start that fails there unmaps the registers but leaves the timer set: its DPC reads what
 * is not mapped any more, in a device that may be deleted.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: freed-active-timer, wild-read, bad-pointer, use-after-free, device-memory-not-mapped
 * Needs: failure, device
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_plx.h"

#define IOCTL_VANE_DIRECTION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_VANE_GUST      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9a1, METHOD_BUFFERED, FILE_READ_ACCESS)

#define LOOKS 100               /* milliseconds between two of them */

static const GUID VaneClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x0c}};

typedef struct WIND {
    ULONG Direction;            /* a bit for each contact */
    ULONG Looks;
    ULONG Turns;                /* looks that found another direction than the one before */
    ULONG Gusts;
} WIND;

typedef struct VANE {
    HULL Hull;
    PLX Plx;
    KTIMER Timer;
    KDPC Look;
    PEN Kites;                  /* who waits for a gust */
    KSPIN_LOCK Lock;
    WIND Wind;
} VANE;

static VOID NTAPI VaneLook(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    VANE *x = Context;
    ULONG pins = HoleGet(&x->Plx.Regs, PLX_CNTRL), direction = 0, i;

    (void)Dpc;
    (void)A;
    (void)B;
    if (pins == ~0u)
        return;
    for (i = 0; i < 4; i++)
        if (pins & PLX_USER_DATA(i))
            direction |= 1u << i;
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Wind.Looks++ && x->Wind.Direction != direction)
        x->Wind.Turns++;
    x->Wind.Direction = direction;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
}

static VOID VaneArm(VANE *x)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * LOOKS;
    KeSetTimerEx(&x->Timer, due, LOOKS, &x->Look);
}

/* No look is taken when this returns, and none will be. PASSIVE_LEVEL. */
static VOID VaneDisarm(VANE *x)
{
    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
}

static WIND VaneWind(VANE *x, BOOLEAN Gust)
{
    WIND wind;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (Gust)
        x->Wind.Gusts++;
    wind = x->Wind;
    KeReleaseSpinLock(&x->Lock, irql);
    return wind;
}

static VOID VaneAnswer(PVOID Owner, ULONG Causes)
{
    VANE *x = Owner;
    WIND wind;
    PIRP irp;

    if (!(Causes & PLX_CAUSE_LINE1))
        return;
    wind = VaneWind(x, TRUE);
    while ((irp = PenTake(&x->Kites, NULL)) != NULL) {
        *(WIND *)irp->AssociatedIrp.SystemBuffer = wind;
        HullReply(&x->Hull, irp, STATUS_SUCCESS, sizeof wind);
    }
}

static NTSTATUS VaneAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    VANE *x = (VANE *)h;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VANE_DIRECTION:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(WIND))
            return STATUS_BUFFER_TOO_SMALL;
        *(WIND *)Irp->AssociatedIrp.SystemBuffer = VaneWind(x, FALSE);
        *Info = sizeof(WIND);
        return STATUS_SUCCESS;
    case IOCTL_VANE_GUST:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(WIND))
            return STATUS_BUFFER_TOO_SMALL;
        IoMarkIrpPending(Irp);
        PenAdd(&x->Kites, Irp);
        return STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS VaneLay(HULL *h)
{
    VANE *x = (VANE *)h;

    KeInitializeSpinLock(&x->Lock);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Look, VaneLook, x);
    PenMake(&x->Kites, HullFinish, h);
    return STATUS_SUCCESS;
}

/* The pins are inputs. */
static VOID VanePins(VANE *x)
{
    ULONG pins = HoleGet(&x->Plx.Regs, PLX_CNTRL);

    if (pins != ~0u)
        HolePut(&x->Plx.Regs, PLX_CNTRL, pins & ~PLX_USER_ALL);
}

static NTSTATUS VaneRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    VANE *x = (VANE *)h;
    NTSTATUS status = PlxMap(&x->Plx, Resources);

    if (!NT_SUCCESS(status))
        return status;
    VanePins(x);
    VaneArm(x);                         /* the first look is taken when the first program asks */
    status = PlxListen(&x->Plx, Resources, PLX_LINE1_ON, VaneAnswer, x);
    if (!NT_SUCCESS(status)) {
#ifdef FIXED
        VaneDisarm(x);
#endif
        HoleShut(&x->Plx.Regs);
    }
    return status;
}

static VOID VaneGo(HULL *h)
{
    VaneArm((VANE *)h);
}

static VOID VaneStill(HULL *h, BOOLEAN touch)
{
    (void)touch;
    VaneDisarm((VANE *)h);
}

static VOID VaneSink(HULL *h, BOOLEAN touch)
{
    VANE *x = (VANE *)h;

    PlxDeafen(&x->Plx, touch);
    HoleShut(&x->Plx.Regs);
}

static VOID VaneDoze(HULL *h)
{
    VANE *x = (VANE *)h;

    PlxSilence(&x->Plx);
    BellMute(&x->Plx.Bell);
}

static VOID VaneWake(HULL *h)
{
    VANE *x = (VANE *)h;

    VanePins(x);
    PlxWake(&x->Plx);
}

static VOID VaneDrop(HULL *h, PFILE_OBJECT File, NTSTATUS Status)
{
    VANE *x = (VANE *)h;

    if (!File)
        PenShut(&x->Kites, Status);
    PenDrain(&x->Kites, File, Status);
}

static const HULL_PLAN VanePlan = {
    .Room = sizeof(VANE), .Class = &VaneClass,
    .Lay = VaneLay, .Rise = VaneRise, .Sink = VaneSink, .Go = VaneGo, .Still = VaneStill, .Doze = VaneDoze, .Wake = VaneWake,
    .Drop = VaneDrop, .Ask = VaneAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &VanePlan);
}
