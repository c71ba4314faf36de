/*
 * EDUTOPAZ: watches over a board in a rack (QEMU's edu): in fixed intervals the driver writes a pattern to the board's liveness
 * register and looks whether its complement comes back. A service asks for the numbers and may set the interval.
 *
 * The bug: the timer goes on when the board is put to sleep, and the DPC touches registers of a card in D3.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_TOPAZ_NUMBERS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TOPAZ_INTERVAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x962, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID TopazFace = { 0x5b1d3c12, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x03 } };

#define EDU_ID       0x00
#define EDU_LIVENESS 0x04
#define EDU_STATUS   0x20

typedef struct NUMBERS {
    ULONG checks;
    ULONG failures;
    ULONG inRow;                /* failures since the last success */
    ULONG sleeps;
} NUMBERS;

typedef struct TOPAZ {
    CARD card;
    WINDOW *regs;
    KTIMER timer;
    KDPC dpc;
    KSPIN_LOCK lock;            /* of what follows, and of the timer's setting */
    NUMBERS numbers;
    ULONG interval;             /* milliseconds */
    ULONG pattern;
} TOPAZ;

static VOID NTAPI TopazCheck(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    TOPAZ *d = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&d->lock);
    d->pattern = d->pattern * 1664525 + 1013904223;
    CardPut(d->regs, EDU_LIVENESS, d->pattern);
    d->numbers.checks++;
    if (CardGet(d->regs, EDU_LIVENESS) == ~d->pattern) {
        d->numbers.inRow = 0;
    } else {
        d->numbers.failures++;
        d->numbers.inRow++;
    }
    KeReleaseSpinLockFromDpcLevel(&d->lock);
}

static VOID TopazWind(TOPAZ *d)
{
    LARGE_INTEGER due;
    KIRQL irql;

    KeAcquireSpinLock(&d->lock, &irql);
    due.QuadPart = -10000LL * d->interval;
    KeSetTimerEx(&d->timer, due, (LONG)d->interval, &d->dpc);
    KeReleaseSpinLock(&d->lock, irql);
}

static NTSTATUS TopazSettle(STEAD *s)
{
    TOPAZ *d = OWN(s, TOPAZ);

    KeInitializeSpinLock(&d->lock);
    KeInitializeTimer(&d->timer);
    KeInitializeDpc(&d->dpc, TopazCheck, d);
    d->interval = 250;
    d->pattern = 0x2545F491;
    return STATUS_SUCCESS;
}

static NTSTATUS TopazBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    TOPAZ *d = OWN(s, TOPAZ);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    d->regs = CardWindow(&d->card, FALSE, 0);
    status = CardMap(d->regs, 0x100);
    if (!NT_SUCCESS(status))
        return status;
    if ((CardGet(d->regs, EDU_ID) & 0xFF) != 0xED) {
        CardUnmap(&d->card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    CardPut(d->regs, EDU_STATUS, 0);    /* this driver has no use for interrupts */
    TopazWind(d);
    return STATUS_SUCCESS;
}

static VOID TopazEnd(STEAD *s, BOOLEAN touch)
{
    TOPAZ *d = OWN(s, TOPAZ);

    UNREFERENCED_PARAMETER(touch);
    KeCancelTimer(&d->timer);
    KeFlushQueuedDpcs();
    CardUnmap(&d->card);
}

static VOID TopazDim(STEAD *s)
{
    TOPAZ *d = OWN(s, TOPAZ);
    KIRQL irql;

#ifdef FIXED
    KeCancelTimer(&d->timer);
    KeFlushQueuedDpcs();
#endif
    KeAcquireSpinLock(&d->lock, &irql);
    d->numbers.sleeps++;
    KeReleaseSpinLock(&d->lock, irql);
}

static VOID TopazLit(STEAD *s)
{
    TOPAZ *d = OWN(s, TOPAZ);

    CardPut(d->regs, EDU_STATUS, 0);
    TopazWind(d);
}

static NTSTATUS TopazServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    TOPAZ *d = OWN(s, TOPAZ);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG interval;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TOPAZ_NUMBERS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(NUMBERS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&d->lock, &irql);
        *(NUMBERS *)buffer = d->numbers;
        KeReleaseSpinLock(&d->lock, irql);
        *info = sizeof(NUMBERS);
        return STATUS_SUCCESS;
    case IOCTL_TOPAZ_INTERVAL:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        interval = *(PULONG)buffer;
        if (interval < 10 || interval > 60000)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&d->lock, &irql);
        d->interval = interval;
        KeReleaseSpinLock(&d->lock, irql);
        TopazWind(d);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT TopazCraft = {
    .own = sizeof(TOPAZ),
    .flags = DO_BUFFERED_IO,
    .face = &TopazFace,
    .settle = TopazSettle,
    .begin = TopazBegin,
    .end = TopazEnd,
    .dim = TopazDim,
    .lit = TopazLit,
    .serve = TopazServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &TopazCraft);
}
