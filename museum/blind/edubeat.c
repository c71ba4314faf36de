/*
 * edubeat: watches whether an edu card is alive: a timer writes a pattern into the liveness register 20 times a second and looks for its inverse; a
 * program reads the counts and may ask for a beat of its own.
 *
 * The bug: when the device is stopped, the timer of the beats is cancelled but a DPC of it that is queued or running is not awaited before the
 * registers are unmapped; it then writes into memory that is not mapped any more.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-write, wild-read, device-memory-not-mapped
 * Needs: schedule
 */
#include "../include/served_by_ticks.h"

#define EDU_ID 0x00
#define EDU_LIVE 0x04
#define EDU_IS 0x010000edu
#define WINDOW 0x100

#define IOCTL_BEAT_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB00, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BEAT_NOW CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB01, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BEAT_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB02, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID BeatInterface = { 0x6d1d0a56, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x06 } };

typedef struct _COUNTS {
    ULONG Good;
    ULONG Wrong; /* answered, but not the inverse */
    ULONG Silent; /* all ones */
} COUNTS, *PCOUNTS;

typedef struct _DEV {
    BF B;
    PVOID Regs;
    KTIMER BeatTimer;
    KDPC BeatDpc;
    KSPIN_LOCK BeatLock; /* the following; taken behind B.Lock */
    BOOLEAN Awake;
    ULONG Pattern;
    COUNTS Counts;
} DEV, *PDEV;

/* Under BeatLock, awake. */
static BOOLEAN Beat(PDEV d)
{
    ULONG answer;

    d->Pattern = (d->Pattern * 1664525u + 1013904223u) | 1; /* its inverse is never all ones */
    BfOut(d->Regs, EDU_LIVE, d->Pattern);
    answer = BfIn(d->Regs, EDU_LIVE);
    if (answer == ~d->Pattern) {
        d->Counts.Good++;
        return TRUE;
    }
    if (answer == ~0u)
        d->Counts.Silent++;
    else
        d->Counts.Wrong++;
    return FALSE;
}

static VOID NTAPI BeatTick(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PDEV d = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&d->BeatLock);
    if (d->Awake)
        Beat(d);
    KeReleaseSpinLockFromDpcLevel(&d->BeatLock);
}

static VOID SetAwake(PDEV d, BOOLEAN awake)
{
    KIRQL q;

    KeAcquireSpinLock(&d->BeatLock, &q);
    d->Awake = awake;
    KeReleaseSpinLock(&d->BeatLock, q);
}

static NTSTATUS Start(PBF b, PBF_RES res)
{
    PDEV d = (PDEV)b;
    LARGE_INTEGER due;

    if (res->Windows < 1 || res->Window[0].Size < WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(res->Window[0].At, WINDOW, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (BfIn(d->Regs, EDU_ID) != EDU_IS) {
        MmUnmapIoSpace(d->Regs, WINDOW);
        d->Regs = NULL;
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    SetAwake(d, TRUE);
    due.QuadPart = -500000;
    KeSetTimerEx(&d->BeatTimer, due, 50, &d->BeatDpc);
    return STATUS_SUCCESS;
}

static VOID Stop(PBF b)
{
    PDEV d = (PDEV)b;

    KeCancelTimer(&d->BeatTimer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    MmUnmapIoSpace(d->Regs, WINDOW);
    d->Regs = NULL;
}

static VOID PowerDown(PBF b)
{
    SetAwake((PDEV)b, FALSE);
}

static VOID PowerUp(PBF b)
{
    SetAwake((PDEV)b, TRUE);
}

static NTSTATUS StartIo(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    BOOLEAN good;

    KeAcquireSpinLockAtDpcLevel(&d->BeatLock);
    good = Beat(d);
    KeReleaseSpinLockFromDpcLevel(&d->BeatLock);
    *(PULONG)irp->AssociatedIrp.SystemBuffer = good;
    irp->IoStatus.Information = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static VOID Expire(PBF b, PIRP irp)
{
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0); /* no request is ever left under way */
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    COUNTS counts;
    KIRQL q;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BEAT_COUNTS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(counts))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&d->BeatLock, &q);
        counts = d->Counts;
        KeReleaseSpinLock(&d->BeatLock, q);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &counts, sizeof(counts));
        irp->IoStatus.Information = sizeof(counts);
        return STATUS_SUCCESS;

    case IOCTL_BEAT_NOW:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return BF_QUEUE;

    case IOCTL_BEAT_RESET:
        KeAcquireSpinLock(&d->BeatLock, &q);
        RtlZeroMemory(&d->Counts, sizeof(d->Counts));
        KeReleaseSpinLock(&d->BeatLock, q);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS Add(PBF b)
{
    PDEV d = (PDEV)b;

    KeInitializeSpinLock(&d->BeatLock);
    KeInitializeTimer(&d->BeatTimer);
    KeInitializeDpc(&d->BeatDpc, BeatTick, d);
    return STATUS_SUCCESS;
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &BeatInterface,
    .Limit = 20,
    .Add = Add,
    .Start = Start,
    .Stop = Stop,
    .PowerDown = PowerDown,
    .PowerUp = PowerUp,
    .StartIo = StartIo,
    .Expire = Expire,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
