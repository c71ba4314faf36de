/*
 * SUMCARD: an arithmetic coprocessor board (QEMU's edu) that computes factorials. Programs hand in a number and get the result; the
 * requests wait in a line, the card interrupts when one is done, and a time limit ends those that the card forgets.
 *
 * The bug: the DPC of the time limit takes the current request without the lock under which the interrupt's DPC takes it; if the
 * answer comes just as the time is over, both complete it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, use-after-free, data-race, write-after-free
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/stead.h"
#include "../include/stead_card.h"

#define IOCTL_SUM_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID SumFace = { 0x5b1d3c10, 0x9f21, 0x4a5e, { 0x8a, 0x10, 0x3e, 0x77, 0x10, 0x4d, 0x21, 0x01 } };

#define EDU_ID      0x00
#define EDU_FACT    0x08
#define EDU_STATUS  0x20
#define EDU_CAUSE   0x24
#define EDU_ACK     0x64

#define STATUS_COMPUTING 0x01
#define STATUS_INTERRUPT 0x80
#define CAUSE_DONE       0x01

#define LIMIT_MS 200
#define HIGHEST 1000

typedef struct SUM {
    CARD card;
    WINDOW *regs;
    LINE jobs;
    KSPIN_LOCK lock;            /* of current, deadline, running */
    PIRP current;               /* what the card computes */
    ULONGLONG deadline;
    BOOLEAN running;
    LONG causes;                /* from the service routine to its DPC */
    KDPC doneDpc;
    KTIMER limit;
    KDPC limitDpc;
} SUM;

static BOOLEAN SumIsr(PVOID context)
{
    SUM *d = context;
    ULONG cause = CardGet(d->regs, EDU_CAUSE);

    if (cause == 0 || cause == 0xFFFFFFFF)
        return FALSE;
    CardPut(d->regs, EDU_ACK, cause);
    InterlockedOr(&d->causes, (LONG)cause);
    KeInsertQueueDpc(&d->doneDpc, NULL, NULL);
    return TRUE;
}

/* Gives the card the next number if it has none. */
static VOID SumPump(SUM *d)
{
    LARGE_INTEGER due;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&d->lock, &irql);
    while (d->running && d->current == NULL && (irp = LineTake(&d->jobs)) != NULL) {
        if (CardGet(d->regs, EDU_STATUS) & STATUS_COMPUTING) {
            /* a number that was given up, or there is no card any more */
            KeReleaseSpinLock(&d->lock, irql);
            IrpEnd(d->jobs.guard, irp, STATUS_DEVICE_BUSY, 0);
            KeAcquireSpinLock(&d->lock, &irql);
            continue;
        }
        d->current = irp;
        d->deadline = KeQueryInterruptTime() + LIMIT_MS * 10000ULL;
        CardPut(d->regs, EDU_FACT, *(PULONG)irp->AssociatedIrp.SystemBuffer);
        due.QuadPart = -10000LL * LIMIT_MS;
        KeSetTimer(&d->limit, due, &d->limitDpc);
    }
    KeReleaseSpinLock(&d->lock, irql);
}

static VOID NTAPI SumDone(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    SUM *d = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    if ((InterlockedExchange(&d->causes, 0) & CAUSE_DONE) == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&d->lock);
    if (d->current != NULL && (CardGet(d->regs, EDU_STATUS) & STATUS_COMPUTING) == 0) {
        irp = d->current;
        d->current = NULL;
        KeCancelTimer(&d->limit);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = CardGet(d->regs, EDU_FACT);
    }
    KeReleaseSpinLockFromDpcLevel(&d->lock);
    if (irp != NULL)
        IrpEnd(d->jobs.guard, irp, STATUS_SUCCESS, sizeof(ULONG));
    SumPump(d);
}

static VOID NTAPI SumLate(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    SUM *d = context;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
#ifndef FIXED
    irp = d->current;
    if (irp != NULL && KeQueryInterruptTime() >= d->deadline)
        d->current = NULL;
    else
        irp = NULL;
#else
    KeAcquireSpinLockAtDpcLevel(&d->lock);
    irp = d->current;
    if (irp != NULL && KeQueryInterruptTime() >= d->deadline)
        d->current = NULL;
    else
        irp = NULL;
    KeReleaseSpinLockFromDpcLevel(&d->lock);
#endif
    if (irp != NULL)
        IrpEnd(d->jobs.guard, irp, STATUS_IO_TIMEOUT, 0);
    SumPump(d);
}

/* What the card has raised by now is taken, and the service routine touches nothing from here on. */
static BOOLEAN NTAPI SumHush(PVOID context)
{
    SUM *d = context;

    SumIsr(d);
    d->card.deaf = TRUE;
    return TRUE;
}

/* No number is given to the card from now on; the one that it has may be done within 20 ms, or waits for the next time. */
static VOID SumQuiet(SUM *d, BOOLEAN touch)
{
    LARGE_INTEGER step;
    ULONG i;
    BOOLEAN busy;
    KIRQL irql;
    PIRP irp;

    step.QuadPart = -10000;
    KeAcquireSpinLock(&d->lock, &irql);
    d->running = FALSE;
    KeReleaseSpinLock(&d->lock, irql);
    for (i = 0; touch && i < 20; i++) {
        KeAcquireSpinLock(&d->lock, &irql);
        busy = d->current != NULL;
        KeReleaseSpinLock(&d->lock, irql);
        if (!busy)
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &step);
    }
    if (touch) {
        CardPut(d->regs, EDU_STATUS, 0);
        CardGet(d->regs, EDU_STATUS);
        KeSynchronizeExecution(d->card.irq, SumHush, d);
    } else {
        CardDeafen(&d->card);
    }
    KeCancelTimer(&d->limit);
    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&d->lock, &irql);
    irp = d->current;
    d->current = NULL;
    KeReleaseSpinLock(&d->lock, irql);
    if (irp != NULL)
        LineJoin(&d->jobs, irp);
}

static VOID SumGo(SUM *d)
{
    KIRQL irql;

    CardPut(d->regs, EDU_ACK, CardGet(d->regs, EDU_CAUSE));
    CardHear(&d->card);
    CardPut(d->regs, EDU_STATUS, STATUS_INTERRUPT);
    KeAcquireSpinLock(&d->lock, &irql);
    d->running = TRUE;
    KeReleaseSpinLock(&d->lock, irql);
    SumPump(d);
}

static NTSTATUS SumSettle(STEAD *s)
{
    SUM *d = OWN(s, SUM);

    LineReady(&d->jobs, &s->guard);
    KeInitializeSpinLock(&d->lock);
    KeInitializeDpc(&d->doneDpc, SumDone, d);
    KeInitializeTimer(&d->limit);
    KeInitializeDpc(&d->limitDpc, SumLate, d);
    return STATUS_SUCCESS;
}

static NTSTATUS SumBegin(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated)
{
    SUM *d = OWN(s, SUM);
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
    CardPut(d->regs, EDU_STATUS, 0);
    CardPut(d->regs, EDU_ACK, CardGet(d->regs, EDU_CAUSE));
    d->causes = 0;
    status = CardConnect(&d->card, SumIsr, d);
    if (!NT_SUCCESS(status)) {
        CardUnmap(&d->card);
        return status;
    }
    SumGo(d);
    return STATUS_SUCCESS;
}

static VOID SumEnd(STEAD *s, BOOLEAN touch)
{
    SUM *d = OWN(s, SUM);

    SumQuiet(d, touch);
    CardDisconnect(&d->card);
    KeFlushQueuedDpcs();
    CardUnmap(&d->card);
}

static VOID SumDim(STEAD *s)
{
    SumQuiet(OWN(s, SUM), TRUE);
}

static VOID SumLit(STEAD *s)
{
    SumGo(OWN(s, SUM));
}

static VOID SumForsake(STEAD *s)
{
    LineClose(&OWN(s, SUM)->jobs, STATUS_NO_SUCH_DEVICE);
}

static VOID SumLeave(STEAD *s, PFILE_OBJECT file)
{
    LineDrop(&OWN(s, SUM)->jobs, file, STATUS_CANCELLED);
}

static NTSTATUS SumServe(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    SUM *d = OWN(s, SUM);

    UNREFERENCED_PARAMETER(info);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL || sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_SUM_FACTORIAL)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    if (*(PULONG)irp->AssociatedIrp.SystemBuffer > HIGHEST)
        return STATUS_INVALID_PARAMETER;
    LineJoin(&d->jobs, irp);
    SumPump(d);
    return STATUS_PENDING;
}

static const CRAFT SumCraft = {
    .own = sizeof(SUM),
    .flags = DO_BUFFERED_IO,
    .face = &SumFace,
    .settle = SumSettle,
    .begin = SumBegin,
    .end = SumEnd,
    .dim = SumDim,
    .lit = SumLit,
    .forsake = SumForsake,
    .leave = SumLeave,
    .serve = SumServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return SteadFound(driver, &SumCraft);
}
