/*
 * isobar: a barometer behind the card's liveness register. A program sets the period at which it is sampled; a timer's DPC takes three readings,
 * and reads return the samples in order, waiting for the next where there is none.
 *
 * The bug: before the card goes to D3 the timer is cancelled, but a DPC that runs already on another processor (or is queued there) is not waited for,
 * and takes its readings from a card that has no power.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: ioctl, power, schedule, device
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_edu.h"

#define IOCTL_ISOBAR_PERIOD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ISOBAR_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_READ_ACCESS)

#define READINGS 3
#define SHELVES 32

static const GUID IsoClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x02}};

typedef struct SAMPLE {
    ULONG64 Time;
    ULONG Reading[READINGS];
    ULONG Number;
} SAMPLE;

typedef struct COUNTS {
    ULONG Taken, Lost, Kept, Period;
} COUNTS;

typedef struct ISO {
    HULL Hull;
    PORTHOLE Regs;
    KTIMER Timer;
    KDPC Dpc;
    PEN Eager;                  /* reads that wait for a sample */
    KSPIN_LOCK Lock;            /* for all below */
    ULONG Period;               /* milliseconds; 0: not sampled */
    SAMPLE Shelf[SHELVES];
    ULONG First, Kept, Taken, Lost;
} ISO;

static VOID IsoServe(ISO *x)
{
    for (;;) {
        SAMPLE sample;
        KIRQL irql;
        PIRP irp;

        KeAcquireSpinLock(&x->Lock, &irql);
        irp = x->Kept ? PenTake(&x->Eager, NULL) : NULL;
        if (!irp) {
            KeReleaseSpinLock(&x->Lock, irql);
            return;
        }
        sample = x->Shelf[x->First];
        x->First = (x->First + 1) % SHELVES;
        x->Kept--;
        KeReleaseSpinLock(&x->Lock, irql);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &sample, sizeof sample);
        HullReply(&x->Hull, irp, STATUS_SUCCESS, sizeof sample);
    }
}

static VOID NTAPI IsoDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    ISO *x = Context;
    SAMPLE sample;
    ULONG i;

    (void)Dpc;
    (void)A;
    (void)B;
    sample.Time = KeQueryInterruptTime();
    for (i = 0; i < READINGS; i++) {
        HolePut(&x->Regs, EDU_LIVE, (ULONG)sample.Time + i);
        KeStallExecutionProcessor(2);           /* the sensor settles */
        sample.Reading[i] = HoleGet(&x->Regs, EDU_LIVE);
    }
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    sample.Number = x->Taken++;
    if (x->Kept == SHELVES) {
        x->First = (x->First + 1) % SHELVES;
        x->Kept--;
        x->Lost++;
    }
    x->Shelf[(x->First + x->Kept++) % SHELVES] = sample;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    IsoServe(x);
}

static VOID IsoArm(ISO *x)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * x->Period;
    KeSetTimerEx(&x->Timer, due, (LONG)x->Period, &x->Dpc);
}

/* Only the period has to do with the hardware. */
static VOID IsoBegin(HULL *h, PIRP Irp)
{
    ISO *x = (ISO *)h;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Period = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (x->Period)
        IsoArm(x);
    else
        KeCancelTimer(&x->Timer);
    KeReleaseSpinLock(&x->Lock, irql);
    HullReply(h, Irp, STATUS_SUCCESS, 0);
    HullReady(h);
}

static NTSTATUS IsoAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    ISO *x = (ISO *)h;
    COUNTS counts;
    ULONG period;
    KIRQL irql;

    if (Sl->MajorFunction == IRP_MJ_READ) {
        if (Sl->Parameters.Read.Length < sizeof(SAMPLE))
            return STATUS_BUFFER_TOO_SMALL;
        IoMarkIrpPending(Irp);
        PenAdd(&x->Eager, Irp);
        IsoServe(x);
        return STATUS_PENDING;
    }
    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ISOBAR_PERIOD:
        if (Sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        period = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (period && (period < 10 || period > 60000))
            return STATUS_INVALID_PARAMETER;
        return HullSail(h, Irp);
    case IOCTL_ISOBAR_COUNTS:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof counts)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&x->Lock, &irql);
        counts.Taken = x->Taken;
        counts.Lost = x->Lost;
        counts.Kept = x->Kept;
        counts.Period = x->Period;
        KeReleaseSpinLock(&x->Lock, irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &counts, sizeof counts);
        *Info = sizeof counts;
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS IsoLay(HULL *h)
{
    ISO *x = (ISO *)h;

    KeInitializeSpinLock(&x->Lock);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Dpc, IsoDpc, x);
    PenMake(&x->Eager, HullFinish, h);
    return STATUS_SUCCESS;
}

static NTSTATUS IsoRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    ISO *x = (ISO *)h;
    NTSTATUS status = HoleOpen(&x->Regs, Resources, 0x100);

    if (!NT_SUCCESS(status))
        return status;
    if ((HoleGet(&x->Regs, EDU_ID) & 0xff) != 0xed) {
        HoleShut(&x->Regs);
        return STATUS_NO_SUCH_DEVICE;
    }
    return STATUS_SUCCESS;
}

static VOID IsoGo(HULL *h)
{
    ISO *x = (ISO *)h;

    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Period)
        IsoArm(x);
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
}

static VOID IsoStill(HULL *h, BOOLEAN touch)
{
    ISO *x = (ISO *)h;

    (void)touch;
    KeCancelTimer(&x->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
}

static VOID IsoSink(HULL *h, BOOLEAN touch)
{
    ISO *x = (ISO *)h;

    (void)touch;
    KeFlushQueuedDpcs();
    HoleShut(&x->Regs);
}

static VOID IsoDrop(HULL *h, PFILE_OBJECT File, NTSTATUS Status)
{
    ISO *x = (ISO *)h;

    if (!File)
        PenShut(&x->Eager, Status);
    PenDrain(&x->Eager, File, Status);
}

static const HULL_PLAN IsoPlan = {
    .Room = sizeof(ISO), .Class = &IsoClass,
    .Lay = IsoLay, .Rise = IsoRise, .Sink = IsoSink, .Go = IsoGo, .Still = IsoStill,
    .Drop = IsoDrop, .Ask = IsoAsk, .Begin = IsoBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &IsoPlan);
}
