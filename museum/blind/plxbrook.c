/*
 * plxbrook: samples the two lines of a PLX 9050 board (their status bits in INTCSR) with a periodic timer; applications start and stop
 * the sampling and read what has been sampled.
 *
 * The bug: the timer is cancelled only when the device is gone for good, not when it is stopped to have its resources moved, so it samples
 * through a window that is unmapped.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped, freed-active-timer
 * Needs: ioctl, removal
 */
#include "../include/bay_plx.h"

#define IOCTL_RUN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG ms, 0 to stop */

#define SAMPLES 1024u

typedef struct CARD {
    AF_PLX plx;
    KTIMER timer;
    KDPC dpc;
    KEVENT turn;                                /* of period, and of setting the timer */
    ULONG period;
    KSPIN_LOCK lock;                            /* of what follows */
    BOOLEAN awake;
    ULONG first, count;
    UCHAR sample[SAMPLES];
} CARD;

static const GUID Guid = { 0xaf010004, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x04 } };

static VOID NTAPI Sample(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    if (card->awake && card->count < SAMPLES) {
        ULONG value = AfRead32(card->plx.regs, PLX_INTCSR);

        if (value != 0xFFFFFFFF) {
            card->sample[(card->first + card->count) % SAMPLES] =
                (UCHAR)((value & INT1_STATUS ? 1 : 0) | (value & INT2_STATUS ? 2 : 0));
            ++card->count;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
}

static void SetAwake(CARD *card, BOOLEAN awake)
{
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    card->awake = awake;
    KeReleaseSpinLock(&card->lock, irql);
}

static void Quiet(CARD *card)
{
    KeCancelTimer(&card->timer);
    KeFlushQueuedDpcs();
}

static void Run(CARD *card)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * card->period;
    if (card->period)
        KeSetTimerEx(&card->timer, due, (LONG)card->period, &card->dpc);
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeInitializeTimer(&card->timer);
    KeInitializeDpc(&card->dpc, Sample, card);
    KeInitializeEvent(&card->turn, SynchronizationEvent, TRUE);
    KeInitializeSpinLock(&card->lock);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = AfPlxMap(&card->plx, list);

    if (!NT_SUCCESS(status))
        return status;
    SetAwake(card, TRUE);
    Run(card);
    return STATUS_SUCCESS;
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

#ifndef FIXED
    if (af->gone)
#endif
        Quiet(card);
    AfPlxUnmap(&card->plx);
}

static void Suspend(AF_DEVICE *af)
{
    SetAwake((CARD *)af, FALSE);
}

static void Resume(AF_DEVICE *af)
{
    SetAwake((CARD *)af, TRUE);
}

static NTSTATUS SetPeriod(CARD *card, ULONG milliseconds)
{
    if (milliseconds > 10000)
        return STATUS_INVALID_PARAMETER;
    KeWaitForSingleObject(&card->turn, Executive, KernelMode, FALSE, NULL);
    Quiet(card);
    card->period = milliseconds;
    Run(card);
    KeSetEvent(&card->turn, IO_NO_INCREMENT, FALSE);
    return STATUS_SUCCESS;
}

static ULONG Read(CARD *card, UCHAR *buffer, ULONG room)
{
    ULONG taken = 0;
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    while (taken < room && card->count) {
        buffer[taken++] = card->sample[card->first];
        card->first = (card->first + 1) % SAMPLES;
        --card->count;
    }
    KeReleaseSpinLock(&card->lock, irql);
    return taken;
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;
    ULONG information = 0;

    if (stack->MajorFunction == IRP_MJ_READ) {
        if (stack->Parameters.Read.Length)
            information = Read(card, irp->AssociatedIrp.SystemBuffer, stack->Parameters.Read.Length);
        status = STATUS_SUCCESS;
    } else if (stack->MajorFunction == IRP_MJ_DEVICE_CONTROL && stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_RUN) {
        status = STATUS_INVALID_PARAMETER;
        if (stack->Parameters.DeviceIoControl.InputBufferLength == sizeof(ULONG))
            status = SetPeriod(card, *(ULONG *)irp->AssociatedIrp.SystemBuffer);
    }
    AfFinish(af, irp, status, information);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .flags = DO_BUFFERED_IO, .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .suspend = Suspend, .resume = Resume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
