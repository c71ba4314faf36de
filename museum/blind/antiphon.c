/*
 * antiphon: two choirs sing on the board's two interrupt lines. A program says to which of them it listens, can intone (the chip's software interrupt, to
 * test the way), and learns what was sung since it listened last, or waits for it.
 *
 * The bug: a program's changes of INTCSR are made below a spin lock which the service routine, that changes INTCSR as well, does not know: one of the two
 * changes is lost, a choir stays dumb or an intonation comes again.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_plx.h"

#define IOCTL_ANTIPHON_LISTEN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x980, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ANTIPHON_INTONE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x981, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ANTIPHON_HEAR   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x982, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID AntiClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x0a}};

typedef struct SONG {
    ULONG Voices;               /* PLX_CAUSE_... */
    ULONG Verses;               /* how often we were interrupted since it listened last */
} SONG;

typedef struct ANTI {
    HULL Hull;
    PLX Plx;
    PEN Ears;
    KSPIN_LOCK Lock;
    SONG Sung;
} ANTI;

static VOID AntiServe(ANTI *x)
{
    for (;;) {
        SONG song;
        KIRQL irql;
        PIRP irp;

        KeAcquireSpinLock(&x->Lock, &irql);
        irp = x->Sung.Verses ? PenTake(&x->Ears, NULL) : NULL;
        if (!irp) {
            KeReleaseSpinLock(&x->Lock, irql);
            return;
        }
        song = x->Sung;
        x->Sung.Voices = x->Sung.Verses = 0;
        KeReleaseSpinLock(&x->Lock, irql);
        *(SONG *)irp->AssociatedIrp.SystemBuffer = song;
        HullReply(&x->Hull, irp, STATUS_SUCCESS, sizeof song);
    }
}

static VOID AntiAnswer(PVOID Owner, ULONG Causes)
{
    ANTI *x = Owner;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Sung.Voices |= Causes;
    x->Sung.Verses++;
    KeReleaseSpinLock(&x->Lock, irql);
    AntiServe(x);
}

static VOID AntiChange(ANTI *x, ULONG Clear, ULONG Set)
{
#ifndef FIXED
    ULONG csr;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    csr = HoleGet(&x->Plx.Regs, PLX_INTCSR);
    if (csr != ~0u)
        HolePut(&x->Plx.Regs, PLX_INTCSR, (csr & ~(Clear | PLX_CLEARS)) | Set);
    KeReleaseSpinLock(&x->Lock, irql);
#else
    PlxChange(&x->Plx, Clear, Set);
#endif
}

static VOID AntiBegin(HULL *h, PIRP Irp)
{
    ANTI *x = (ANTI *)h;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);

    if (sl->Parameters.DeviceIoControl.IoControlCode == IOCTL_ANTIPHON_LISTEN) {
        ULONG voices = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        ULONG on = ((voices & PLX_CAUSE_LINE1) ? PLX_LINE1_ON : 0) | ((voices & PLX_CAUSE_LINE2) ? PLX_LINE2_ON : 0);

        x->Plx.Wanted = on | PLX_PCI_ON | PLX_EDGES;
        AntiChange(x, PLX_LINE1_ON | PLX_LINE2_ON, on);
    } else {
        AntiChange(x, 0, PLX_SOFT);
    }
    HullReply(h, Irp, STATUS_SUCCESS, 0);
    HullReady(h);
}

static NTSTATUS AntiAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    ANTI *x = (ANTI *)h;

    (void)Info;
    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ANTIPHON_LISTEN:
        if (Sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*(PULONG)Irp->AssociatedIrp.SystemBuffer & ~(ULONG)(PLX_CAUSE_LINE1 | PLX_CAUSE_LINE2))
            return STATUS_INVALID_PARAMETER;
        return HullSail(h, Irp);
    case IOCTL_ANTIPHON_INTONE:
        return HullSail(h, Irp);
    case IOCTL_ANTIPHON_HEAR:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SONG))
            return STATUS_BUFFER_TOO_SMALL;
        IoMarkIrpPending(Irp);
        PenAdd(&x->Ears, Irp);
        AntiServe(x);
        return STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS AntiLay(HULL *h)
{
    ANTI *x = (ANTI *)h;

    KeInitializeSpinLock(&x->Lock);
    PenMake(&x->Ears, HullFinish, h);
    return STATUS_SUCCESS;
}

static NTSTATUS AntiRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    ANTI *x = (ANTI *)h;
    NTSTATUS status = PlxMap(&x->Plx, Resources);

    if (!NT_SUCCESS(status))
        return status;
    status = PlxListen(&x->Plx, Resources, PLX_LINE1_ON, AntiAnswer, x);
    if (!NT_SUCCESS(status))
        HoleShut(&x->Plx.Regs);
    return status;
}

static VOID AntiSink(HULL *h, BOOLEAN touch)
{
    ANTI *x = (ANTI *)h;

    PlxDeafen(&x->Plx, touch);
    HoleShut(&x->Plx.Regs);
}

static VOID AntiDoze(HULL *h)
{
    ANTI *x = (ANTI *)h;

    PlxSilence(&x->Plx);
    BellMute(&x->Plx.Bell);
}

static VOID AntiWake(HULL *h)
{
    PlxWake(&((ANTI *)h)->Plx);
}

static VOID AntiDrop(HULL *h, PFILE_OBJECT File, NTSTATUS Status)
{
    ANTI *x = (ANTI *)h;

    if (!File)
        PenShut(&x->Ears, Status);
    PenDrain(&x->Ears, File, Status);
}

static const HULL_PLAN AntiPlan = {
    .Room = sizeof(ANTI), .Class = &AntiClass,
    .Lay = AntiLay, .Rise = AntiRise, .Sink = AntiSink, .Doze = AntiDoze, .Wake = AntiWake,
    .Drop = AntiDrop, .Ask = AntiAsk, .Begin = AntiBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &AntiPlan);
}
