/*
 * egret: samples the system's own clock drift for a monitoring service: a timer takes a sample every 10 ms and keeps the last 16 in a
 * ring. A program reads the newest ones, as many as its buffer takes, oldest first, or asks for the smallest and largest interval.
 *
 * The bug: a read is limited to the number of samples that were ever taken, not to those that the ring still holds. Once the ring
 * has gone round, a program with a buffer for more than 16 samples has the copy run on behind the ring's end.
 *
 * Device: none
 * Rule: pool-overrun, wild-read, bad-pointer
 * Needs: ioctl
 */
#define SITE_CONTROL
#include "../include/site_frame.h"

#define EGRET_TAG 'rgEg'

#define IOCTL_EGRET_RANGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EGRET_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define RING_SAMPLES 16u
#define PERIOD_MS    10

typedef struct SAMPLE {
    ULONGLONG When;         /* interrupt time, 100 ns */
    ULONGLONG Interval;     /* since the sample before */
} SAMPLE;

typedef struct RANGE {
    ULONGLONG Smallest;
    ULONGLONG Largest;
} RANGE;

typedef struct EGRET {
    SITE Site;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;        /* guards what is below */
    SAMPLE *Ring;
    ULONG Next;             /* where the next sample goes */
    ULONG Taken;            /* samples since the driver was loaded */
    RANGE Range;
} EGRET;

static VOID NTAPI EgretTick(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    EGRET *egret = context;
    ULONGLONG now = KeQueryInterruptTime();
    SAMPLE *sample, *before;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&egret->Lock);
    sample = &egret->Ring[egret->Next];
    before = &egret->Ring[(egret->Next + RING_SAMPLES - 1) % RING_SAMPLES];
    sample->When = now;
    sample->Interval = egret->Taken != 0 ? now - before->When : 0;
    if (egret->Taken != 0) {
        if (egret->Taken == 1 || sample->Interval < egret->Range.Smallest)
            egret->Range.Smallest = sample->Interval;
        if (sample->Interval > egret->Range.Largest)
            egret->Range.Largest = sample->Interval;
    }
    egret->Next = (egret->Next + 1) % RING_SAMPLES;
    if (egret->Taken != ~0u)
        egret->Taken += 1;
    KeReleaseSpinLockFromDpcLevel(&egret->Lock);
}

/* With the lock: copies the newest samples, oldest of them first. Returns how many. */
static ULONG EgretNewest(EGRET *egret, SAMPLE *to, ULONG room)
{
    ULONG held = egret->Taken;
    ULONG from, first;

#ifdef FIXED
    if (held > RING_SAMPLES)
        held = RING_SAMPLES;
#endif
    if (room > held)
        room = held;
    if (room == 0)
        return 0;
    from = (egret->Next - room) % RING_SAMPLES;
    first = RING_SAMPLES - from;
    if (first > room)
        first = room;
    RtlCopyMemory(to, egret->Ring + from, first * sizeof(SAMPLE));
    RtlCopyMemory(to + first, egret->Ring, (room - first) * sizeof(SAMPLE));
    return room;
}

static NTSTATUS EgretServe(SITE *site, ASK *ask)
{
    EGRET *egret = (EGRET *)site;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG information = 0;
    KIRQL irql;

    if (ask->Major == IRP_MJ_READ) {
        KeAcquireSpinLock(&egret->Lock, &irql);
        information = EgretNewest(egret, ask->Buffer, ask->Out / sizeof(SAMPLE)) * sizeof(SAMPLE);
        KeReleaseSpinLock(&egret->Lock, irql);
    } else if (ask->Major == IRP_MJ_DEVICE_CONTROL && ask->Code == IOCTL_EGRET_RANGE) {
        if (ask->Out < sizeof(RANGE)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            KeAcquireSpinLock(&egret->Lock, &irql);
            RtlCopyMemory(ask->Buffer, &egret->Range, sizeof(RANGE));
            KeReleaseSpinLock(&egret->Lock, irql);
            information = sizeof(RANGE);
        }
    } else if (ask->Major == IRP_MJ_DEVICE_CONTROL && ask->Code == IOCTL_EGRET_COUNT) {
        if (ask->Out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            KeAcquireSpinLock(&egret->Lock, &irql);
            *(PULONG)ask->Buffer = egret->Taken;
            KeReleaseSpinLock(&egret->Lock, irql);
            information = sizeof(ULONG);
        }
    } else {
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Finish(site, ask->Irp, status, information);
}

static NTSTATUS EgretBorn(SITE *site)
{
    EGRET *egret = (EGRET *)site;
    LARGE_INTEGER due;

    egret->Ring = ExAllocatePoolWithTag(NonPagedPool, RING_SAMPLES * sizeof(SAMPLE), EGRET_TAG);
    if (egret->Ring == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(egret->Ring, RING_SAMPLES * sizeof(SAMPLE));
    KeInitializeSpinLock(&egret->Lock);
    KeInitializeTimer(&egret->Timer);
    KeInitializeDpc(&egret->Dpc, EgretTick, egret);
    due.QuadPart = -10000LL * PERIOD_MS;
    KeSetTimerEx(&egret->Timer, due, PERIOD_MS, &egret->Dpc);
    return STATUS_SUCCESS;
}

static VOID EgretEnd(SITE *site, BOOLEAN live)
{
    EGRET *egret = (EGRET *)site;

    UNREFERENCED_PARAMETER(live);
    KeCancelTimer(&egret->Timer);
    KeFlushQueuedDpcs();
}

static VOID EgretBuried(SITE *site)
{
    ExFreePoolWithTag(((EGRET *)site)->Ring, EGRET_TAG);
}

static const SCRIPT Script = {
    .Size = sizeof(EGRET),
    .Device = L"\\Device\\Egret",
    .Link = L"\\DosDevices\\Egret",
    .Born = EgretBorn,
    .End = EgretEnd,
    .Buried = EgretBuried,
    .Serve = EgretServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return ControlEntry(driver, &Script);
}
