/*
 * PLXKITE: four isolated inputs behind a PLX PCI 9052, at the chip's own user pins, with a strobe at LINTi1 that says that they have
 * changed. Programs wait for the next change by an IOCTL that stays pending, or look at the inputs at once.
 *
 * The bug: the line of waiting requests is set up anew whenever the device is started; requests that wait while the device is stopped
 * and started again for a rebalance are lost.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: irp-never-completed, irp-forgotten, request-forgotten, request-pending-after-remove, request-pending-after-surprise-removal, list-corrupt, list-damaged, stuck
 * Needs: ioctl, removal
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_KITE_NEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_KITE_LOOK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x972, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID KiteFace = { 0x5b1d3c13, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x04 } };

#define INTCSR 0x4C
#define CNTRL  0x50

#define INT1_ENABLE   0x001
#define INT1_HIGH     0x002
#define INT1_STATUS   0x004
#define PCI_ENABLE    0x040
#define INT1_EDGE     0x100
#define INT1_CLEAR    0x400
#define LISTEN (INT1_ENABLE | INT1_HIGH | PCI_ENABLE | INT1_EDGE)
#define MUTE   (INT1_HIGH | INT1_EDGE)

typedef struct CHANGE {
    ULONG count;
    ULONG inputs;
} CHANGE;

typedef struct KITE {
    CARD card;
    WINDOW *chip;
    LINE watchers;
    LONG count;
    KDPC dpc;
} KITE;

static ULONG KiteInputs(KITE *d)
{
    ULONG control = CardGet(d->chip, CNTRL);

    return ((control >> 2) & 1) | ((control >> 4) & 2) | ((control >> 6) & 4) | ((control >> 8) & 8);
}

static BOOLEAN KiteIsr(PVOID context)
{
    KITE *d = context;
    ULONG csr = CardGet(d->chip, INTCSR);

    if (csr == 0xFFFFFFFF || (csr & (INT1_ENABLE | INT1_STATUS)) != (INT1_ENABLE | INT1_STATUS))
        return FALSE;
    CardPut(d->chip, INTCSR, LISTEN | INT1_CLEAR);
    InterlockedIncrement(&d->count);
    KeInsertQueueDpc(&d->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI KiteDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    KITE *d = context;
    CHANGE change;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    change.count = (ULONG)InterlockedCompareExchange(&d->count, 0, 0);
    change.inputs = KiteInputs(d);
    while ((irp = LineTake(&d->watchers)) != NULL) {
        *(CHANGE *)irp->AssociatedIrp.SystemBuffer = change;
        IrpEnd(d->watchers.guard, irp, STATUS_SUCCESS, sizeof(CHANGE));
    }
}

static NTSTATUS KiteSettle(STEAD *s)
{
    KITE *d = OWN(s, KITE);

    LineReady(&d->watchers, &s->guard);
    KeInitializeDpc(&d->dpc, KiteDpc, d);
    return STATUS_SUCCESS;
}

static NTSTATUS KiteBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    KITE *d = OWN(s, KITE);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(raw);
    CardRead(&d->card, translated);
    d->chip = CardWindow(&d->card, FALSE, 0);
    status = CardMap(d->chip, 0x54);
    if (!NT_SUCCESS(status))
        return status;
#ifndef FIXED
    /* a new beginning: whatever an earlier start has left is not of this card any more */
    LineReady(&d->watchers, &s->guard);
#endif
    InterlockedExchange(&d->count, 0);
    CardPut(d->chip, INTCSR, MUTE | INT1_CLEAR);
    status = CardConnect(&d->card, KiteIsr, d);
    if (!NT_SUCCESS(status)) {
        CardUnmap(&d->card);
        return status;
    }
    CardPut(d->chip, INTCSR, LISTEN);
    return STATUS_SUCCESS;
}

/* Under the interrupt's lock: the service routine writes INTCSR, too. */
static BOOLEAN NTAPI KiteMuteNow(PVOID context)
{
    KITE *d = context;

    CardPut(d->chip, INTCSR, MUTE | INT1_CLEAR);
    CardGet(d->chip, INTCSR);
    d->card.deaf = TRUE;
    return TRUE;
}

static VOID KiteMute(KITE *d, BOOLEAN touch)
{
    if (touch)
        KeSynchronizeExecution(d->card.irq, KiteMuteNow, d);
    else
        CardDeafen(&d->card);
}

static VOID KiteEnd(STEAD *s, BOOLEAN touch)
{
    KITE *d = OWN(s, KITE);

    KiteMute(d, touch);
    CardDisconnect(&d->card);
    KeFlushQueuedDpcs();
    CardUnmap(&d->card);
}

static VOID KiteDim(STEAD *s)
{
    KiteMute(OWN(s, KITE), TRUE);
    KeFlushQueuedDpcs();
}

static VOID KiteLit(STEAD *s)
{
    KITE *d = OWN(s, KITE);

    CardPut(d->chip, INTCSR, MUTE | INT1_CLEAR);
    CardHear(&d->card);
    CardPut(d->chip, INTCSR, LISTEN);
}

static VOID KiteForsake(STEAD *s)
{
    LineClose(&OWN(s, KITE)->watchers, STATUS_NO_SUCH_DEVICE);
}

static VOID KiteLeave(STEAD *s, PFILE_OBJECT file)
{
    LineDrop(&OWN(s, KITE)->watchers, file, STATUS_CANCELLED);
}

static NTSTATUS KiteServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    KITE *d = OWN(s, KITE);
    CHANGE *out = irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KITE_NEXT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CHANGE))
            return STATUS_BUFFER_TOO_SMALL;
        return LineJoin(&d->watchers, irp);
    case IOCTL_KITE_LOOK:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CHANGE))
            return STATUS_BUFFER_TOO_SMALL;
        out->count = (ULONG)InterlockedCompareExchange(&d->count, 0, 0);
        out->inputs = KiteInputs(d);
        *info = sizeof(CHANGE);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const CRAFT KiteCraft = {
    .own = sizeof(KITE),
    .flags = DO_BUFFERED_IO,
    .face = &KiteFace,
    .settle = KiteSettle,
    .begin = KiteBegin,
    .end = KiteEnd,
    .dim = KiteDim,
    .lit = KiteLit,
    .forsake = KiteForsake,
    .leave = KiteLeave,
    .serve = KiteServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &KiteCraft);
}
