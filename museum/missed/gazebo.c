/*
 * gazebo: a rain gauge in the garden. Each tip of its bucket is an edge on the board's first interrupt line, each knock of the watchman one on the second.
 * Programs ask how often it tipped, start again at nothing, or wait for the next tip.
 *
 * The bug: the interrupt line is shared, and the service routine does not know that the card sleeps: each interrupt of another device on the line has it read
 * registers of a card that is in D3.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power
 * Needs: power, device
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_plx.h"

#define IOCTL_GAZEBO_TIPS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x990, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GAZEBO_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x991, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GAZEBO_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x992, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GAZEBO_TRY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x993, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID GazClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x0b}};

typedef struct TIPS {
    ULONG64 Last;               /* when */
    ULONG Rain, Knocks, Tries;
    ULONG Reserved;
} TIPS;

typedef struct GAZ {
    HULL Hull;
    PLX Plx;
    PEN Benches;                /* who waits for rain */
    KSPIN_LOCK Lock;
    TIPS Tips;
} GAZ;

static VOID GazTips(GAZ *x, TIPS *Tips)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    *Tips = x->Tips;
    KeReleaseSpinLock(&x->Lock, irql);
}

static VOID GazAnswer(PVOID Owner, ULONG Causes)
{
    GAZ *x = Owner;
    TIPS tips;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Tips.Last = KeQueryInterruptTime();
    if (Causes & PLX_CAUSE_LINE1)
        x->Tips.Rain++;
    if (Causes & PLX_CAUSE_LINE2)
        x->Tips.Knocks++;
    if (Causes & PLX_CAUSE_SOFT)
        x->Tips.Tries++;
    tips = x->Tips;
    KeReleaseSpinLock(&x->Lock, irql);
    if (!(Causes & (PLX_CAUSE_LINE1 | PLX_CAUSE_SOFT)))
        return;
    while ((irp = PenTake(&x->Benches, NULL)) != NULL) {
        *(TIPS *)irp->AssociatedIrp.SystemBuffer = tips;
        HullReply(&x->Hull, irp, STATUS_SUCCESS, sizeof tips);
    }
}

/* Only a try needs the card. */
static VOID GazBegin(HULL *h, PIRP Irp)
{
    PlxChange(&((GAZ *)h)->Plx, 0, PLX_SOFT);
    HullReply(h, Irp, STATUS_SUCCESS, 0);
    HullReady(h);
}

static NTSTATUS GazAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    GAZ *x = (GAZ *)h;
    ULONG room;
    KIRQL irql;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    room = Sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GAZEBO_TIPS:
        if (room < sizeof(TIPS))
            return STATUS_BUFFER_TOO_SMALL;
        GazTips(x, Irp->AssociatedIrp.SystemBuffer);
        *Info = sizeof(TIPS);
        return STATUS_SUCCESS;
    case IOCTL_GAZEBO_EMPTY:
        KeAcquireSpinLock(&x->Lock, &irql);
        x->Tips.Rain = x->Tips.Knocks = x->Tips.Tries = 0;
        KeReleaseSpinLock(&x->Lock, irql);
        return STATUS_SUCCESS;
    case IOCTL_GAZEBO_WAIT:
        if (room < sizeof(TIPS))
            return STATUS_BUFFER_TOO_SMALL;
        IoMarkIrpPending(Irp);
        PenAdd(&x->Benches, Irp);
        return STATUS_PENDING;
    case IOCTL_GAZEBO_TRY:
        return HullSail(h, Irp);
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS GazLay(HULL *h)
{
    GAZ *x = (GAZ *)h;

    KeInitializeSpinLock(&x->Lock);
    PenMake(&x->Benches, HullFinish, h);
    return STATUS_SUCCESS;
}

static NTSTATUS GazRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    GAZ *x = (GAZ *)h;
    NTSTATUS status = PlxMap(&x->Plx, Resources);

    if (!NT_SUCCESS(status))
        return status;
    status = PlxListen(&x->Plx, Resources, PLX_LINE1_ON | PLX_LINE2_ON, GazAnswer, x);
    if (!NT_SUCCESS(status))
        HoleShut(&x->Plx.Regs);
    return status;
}

static VOID GazSink(HULL *h, BOOLEAN touch)
{
    GAZ *x = (GAZ *)h;

    PlxDeafen(&x->Plx, touch);
    HoleShut(&x->Plx.Regs);
}

static VOID GazDoze(HULL *h)
{
    GAZ *x = (GAZ *)h;

    PlxSilence(&x->Plx);
#ifdef FIXED
    BellMute(&x->Plx.Bell);
#endif
}

static VOID GazWake(HULL *h)
{
    PlxWake(&((GAZ *)h)->Plx);
}

static VOID GazDrop(HULL *h, PFILE_OBJECT File, NTSTATUS Status)
{
    GAZ *x = (GAZ *)h;

    if (!File)
        PenShut(&x->Benches, Status);
    PenDrain(&x->Benches, File, Status);
}

static const HULL_PLAN GazPlan = {
    .Room = sizeof(GAZ), .Class = &GazClass,
    .Lay = GazLay, .Rise = GazRise, .Sink = GazSink, .Doze = GazDoze, .Wake = GazWake,
    .Drop = GazDrop, .Ask = GazAsk, .Begin = GazBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &GazPlan);
}
