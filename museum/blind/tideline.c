/*
 * tideline: a water level card without an interrupt. A timer reads the level as often as a program has set, sets itself again each time, and tells those who wait for
 * the next level.
 *
 * The bug: before sleep and before a stop the timer is cancelled, and only then noted that it is not to be set again. A reading that is under way on another processor
 * sets the timer behind the cancellation, and the next one reads the card without power, or when its registers are gone.
 *
 * Device: PCI\VEN_1D6A&DEV_0706
 * Rule: card-without-power, freed-active-timer, bad-pointer, device-memory-not-mapped, use-after-free, wild-read
 * Needs: power, removal, schedule
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID TideInterface = { 0x6a1f0d56, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x36 } };

#define IOCTL_TIDE_EVERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* milliseconds */
#define IOCTL_TIDE_LAST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers a LEVEL */

/* of the card */
#define RAW  0x08
#define GAIN 0x10

typedef struct _LEVEL {
    ULONG Readings;
    ULONG Raw;
    ULONG Highest;
} LEVEL;

typedef struct _TIDE {
    STATION Station;
    CARD Card;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;     /* all below */
    BOOLEAN Running;
    ULONG Every;
    LEVEL Level;
    PARK Readers;
} TIDE;

#define REGISTERS(t) (&(t)->Card.Window[0])

/* With the lock held. */
static VOID TideSet(TIDE *T)
{
    LARGE_INTEGER due;
    due.QuadPart = (LONGLONG)T->Every * -10000;
    KeSetTimer(&T->Timer, due, &T->Dpc);
}

static VOID NTAPI TideDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    TIDE *t = Context;
    ULONG raw = CardRead(REGISTERS(t), RAW);
    LEVEL now;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    t->Level.Readings++;
    t->Level.Raw = raw;
    if (raw > t->Level.Highest && raw != 0xFFFFFFFF)
        t->Level.Highest = raw;
    now = t->Level;
    if (t->Running)
        TideSet(t);
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
    while ((irp = ParkTake(&t->Readers, NULL)) != NULL) {
        *(LEVEL *)irp->AssociatedIrp.SystemBuffer = now;
        StationEnd(&t->Station, irp, STATUS_SUCCESS, sizeof now);
    }
}

static VOID TideRun(TIDE *T, BOOLEAN Run)
{
    KIRQL irql;
    KeAcquireSpinLock(&T->Lock, &irql);
    T->Running = Run;
    if (Run)
        TideSet(T);
    KeReleaseSpinLock(&T->Lock, irql);
}

/* Behind it no reading is under way and none comes. */
static VOID TideHalt(TIDE *T)
{
#ifdef FIXED
    TideRun(T, FALSE);
#endif
    KeCancelTimer(&T->Timer);
    KeFlushQueuedDpcs();
#ifndef FIXED
    TideRun(T, FALSE);
#endif
}

static NTSTATUS TideAdded(STATION *S)
{
    TIDE *t = (TIDE *)S;
    KeInitializeSpinLock(&t->Lock);
    KeInitializeTimer(&t->Timer);
    KeInitializeDpc(&t->Dpc, TideDpc, t);
    ParkInit(&t->Readers, StationEnds, S);
    t->Every = 50;
    return STATUS_SUCCESS;
}

static VOID TideWake(STATION *S)
{
    TIDE *t = (TIDE *)S;
    CardWrite(REGISTERS(t), GAIN, 4);
    TideRun(t, TRUE);
}

static NTSTATUS TideStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    TIDE *t = (TIDE *)S;
    NTSTATUS status = CardClaim(&t->Card, Translated);
    if (!NT_SUCCESS(status))
        return status;
    if (!CardHas(&t->Card, 0, 0x20)) {
        CardRelease(&t->Card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    TideWake(S);
    return STATUS_SUCCESS;
}

static VOID TideStop(STATION *S, BOOLEAN Reachable)
{
    TIDE *t = (TIDE *)S;
    UNREFERENCED_PARAMETER(Reachable);
    TideHalt(t);
    CardRelease(&t->Card);
}

static VOID TideSleep(STATION *S)
{
    TideHalt((TIDE *)S);
}

static VOID TideAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    ParkFlush(&((TIDE *)S)->Readers, File, Status);
}

static NTSTATUS TideIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    TIDE *t = (TIDE *)S;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG every;
    KIRQL irql;
    if (Sp->MajorFunction == IRP_MJ_READ) {
        if (Sp->Parameters.Read.Length < sizeof(LEVEL))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return ParkWait(&t->Readers, Irp);
    }
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TIDE_EVERY:
        if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof every)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        every = *(ULONG *)buffer;
        if (every < 10 || every > 60000)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&t->Lock, &irql);
        t->Every = every;
        KeReleaseSpinLock(&t->Lock, irql);
        return StationEnd(S, Irp, STATUS_SUCCESS, 0);
    case IOCTL_TIDE_LAST:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LEVEL))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&t->Lock, &irql);
        *(LEVEL *)buffer = t->Level;
        KeReleaseSpinLock(&t->Lock, irql);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(LEVEL));
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(TIDE),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &TideInterface,
    .Added = TideAdded,
    .Start = TideStart,
    .Stop = TideStop,
    .Sleep = TideSleep,
    .Wake = TideWake,
    .Abandon = TideAbandon,
    .Io = TideIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
