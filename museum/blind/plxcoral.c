/*
 * PLXCORAL: two light barriers at LINTi1 and LINTi2 of a PLX PCI 9052. Each crossing is counted; the barriers bounce, so a source
 * rests for some milliseconds behind an interrupt. A program says which of the two are watched.
 *
 * The bug: the IOCTL that selects the sources reads, changes and writes INTCSR under a spin lock that the service routine, which does
 * the same, does not take: what the service routine has done in between is undone.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost, data-race
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_CORAL_SELECT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9A1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CORAL_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9A2, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID CoralFace = { 0x5b1d3c16, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x07 } };

#define INTCSR 0x4C
#define EN1     0x001
#define HIGH1   0x002
#define STAT1   0x004
#define EN2     0x008
#define HIGH2   0x010
#define STAT2   0x020
#define PCIEN   0x040
#define EDGE1   0x100
#define EDGE2   0x200
#define CLEAR1  0x400
#define CLEAR2  0x800
#define SETUP   (HIGH1 | HIGH2 | EDGE1 | EDGE2)

#define REST_MS 5

typedef struct COUNTS {
    LONG crossings[2];
    ULONG watched;
} COUNTS;

typedef struct CORAL {
    CARD card;
    WINDOW *chip;
    LONG crossings[2];
    ULONG watched;              /* EN1, EN2: what the program has selected */
    ULONG resting;              /* EN1, EN2: what has bounced */
    KSPIN_LOCK lock;            /* one selection at a time */
    KDPC dpc;
    KTIMER rest;
    KDPC restDpc;
} CORAL;

typedef struct SELECT {
    CORAL *d;
    ULONG sources;
} SELECT;

static VOID CoralApply(CORAL *d)
{
    ULONG csr = CardGet(d->chip, INTCSR);

    csr &= ~(ULONG)(EN1 | EN2 | CLEAR1 | CLEAR2);
    csr |= d->watched & ~d->resting;
    CardPut(d->chip, INTCSR, csr);
}

static BOOLEAN CoralIsr(PVOID context)
{
    CORAL *d = context;
    ULONG csr = CardGet(d->chip, INTCSR);
    ULONG sources = 0, clear = 0;

    if (csr == 0xFFFFFFFF)
        return FALSE;
    if ((csr & (EN1 | STAT1)) == (EN1 | STAT1)) {
        sources |= EN1;
        clear |= CLEAR1;
        InterlockedIncrement(&d->crossings[0]);
    }
    if ((csr & (EN2 | STAT2)) == (EN2 | STAT2)) {
        sources |= EN2;
        clear |= CLEAR2;
        InterlockedIncrement(&d->crossings[1]);
    }
    if (sources == 0)
        return FALSE;
    d->resting |= sources;
    CardPut(d->chip, INTCSR, (csr & ~(sources | CLEAR1 | CLEAR2)) | clear);
    KeInsertQueueDpc(&d->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI CoralDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    CORAL *d = context;
    LARGE_INTEGER due;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    due.QuadPart = -10000LL * REST_MS;
    KeSetTimer(&d->rest, due, &d->restDpc);
}

static BOOLEAN NTAPI CoralRested(PVOID context)
{
    CORAL *d = context;

    if (!d->card.deaf) {
        d->resting = 0;
        CoralApply(d);
    }
    return TRUE;
}

static VOID NTAPI CoralRestOver(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    CORAL *d = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeSynchronizeExecution(d->card.irq, CoralRested, d);
}

static BOOLEAN NTAPI CoralSelected(PVOID context)
{
    SELECT *select = context;

    select->d->watched = select->sources;
    CoralApply(select->d);
    return TRUE;
}

static VOID CoralSelect(CORAL *d, ULONG sources)
{
    SELECT select;
    KIRQL irql;

    select.d = d;
    select.sources = sources;
#ifndef FIXED
    KeAcquireSpinLock(&d->lock, &irql);
    CoralSelected(&select);
    KeReleaseSpinLock(&d->lock, irql);
#else
    UNREFERENCED_PARAMETER(irql);
    KeSynchronizeExecution(d->card.irq, CoralSelected, &select);
#endif
}

static NTSTATUS CoralSettle(STEAD *s)
{
    CORAL *d = OWN(s, CORAL);

    KeInitializeSpinLock(&d->lock);
    KeInitializeDpc(&d->dpc, CoralDpc, d);
    KeInitializeTimer(&d->rest);
    KeInitializeDpc(&d->restDpc, CoralRestOver, d);
    d->watched = EN1 | EN2;
    return STATUS_SUCCESS;
}

static BOOLEAN NTAPI CoralOpenEyes(PVOID context)
{
    CORAL *d = context;

    d->resting = 0;
    CardPut(d->chip, INTCSR, SETUP | CLEAR1 | CLEAR2);
    CardPut(d->chip, INTCSR, SETUP | PCIEN | d->watched);
    return TRUE;
}

static BOOLEAN NTAPI CoralShutEyes(PVOID context)
{
    CORAL *d = context;

    CardPut(d->chip, INTCSR, SETUP | CLEAR1 | CLEAR2);
    CardGet(d->chip, INTCSR);
    d->card.deaf = TRUE;
    return TRUE;
}

/* No interrupts, DPCs or timers from here on. */
static VOID CoralQuiet(CORAL *d, BOOLEAN touch)
{
    if (touch)
        KeSynchronizeExecution(d->card.irq, CoralShutEyes, d);
    else
        CardDeafen(&d->card);
    KeFlushQueuedDpcs();        /* may set the timer */
    KeCancelTimer(&d->rest);
    KeFlushQueuedDpcs();
}

static NTSTATUS CoralBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    CORAL *d = OWN(s, CORAL);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    d->chip = CardWindow(&d->card, FALSE, 0);
    status = CardMap(d->chip, 0x54);
    if (!NT_SUCCESS(status))
        return status;
    CardPut(d->chip, INTCSR, SETUP | CLEAR1 | CLEAR2);
    status = CardConnect(&d->card, CoralIsr, d);
    if (!NT_SUCCESS(status)) {
        CardUnmap(&d->card);
        return status;
    }
    KeSynchronizeExecution(d->card.irq, CoralOpenEyes, d);
    return STATUS_SUCCESS;
}

static VOID CoralEnd(STEAD *s, BOOLEAN touch)
{
    CORAL *d = OWN(s, CORAL);

    CoralQuiet(d, touch);
    CardDisconnect(&d->card);
    CardUnmap(&d->card);
}

static VOID CoralDim(STEAD *s)
{
    CoralQuiet(OWN(s, CORAL), TRUE);
}

static VOID CoralLit(STEAD *s)
{
    CORAL *d = OWN(s, CORAL);

    CardHear(&d->card);
    KeSynchronizeExecution(d->card.irq, CoralOpenEyes, d);
}

static BOOLEAN NTAPI CoralWatched(PVOID context)
{
    SELECT *select = context;

    select->sources = select->d->watched;
    return TRUE;
}

static NTSTATUS CoralServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    CORAL *d = OWN(s, CORAL);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    COUNTS *counts = buffer;
    SELECT select;
    ULONG which;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CORAL_SELECT:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        which = *(PULONG)buffer;
        if (which > 3)
            return STATUS_INVALID_PARAMETER;
        CoralSelect(d, ((which & 1) ? EN1 : 0) | ((which & 2) ? EN2 : 0));
        return STATUS_SUCCESS;
    case IOCTL_CORAL_COUNTS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS))
            return STATUS_BUFFER_TOO_SMALL;
        select.d = d;
        KeSynchronizeExecution(d->card.irq, CoralWatched, &select);
        counts->crossings[0] = InterlockedCompareExchange(&d->crossings[0], 0, 0);
        counts->crossings[1] = InterlockedCompareExchange(&d->crossings[1], 0, 0);
        counts->watched = ((select.sources & EN1) ? 1 : 0) | ((select.sources & EN2) ? 2 : 0);
        *info = sizeof(COUNTS);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT CoralCraft = {
    .own = sizeof(CORAL),
    .flags = DO_BUFFERED_IO,
    .face = &CoralFace,
    .settle = CoralSettle,
    .begin = CoralBegin,
    .end = CoralEnd,
    .dim = CoralDim,
    .lit = CoralLit,
    .serve = CoralServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &CoralCraft);
}
