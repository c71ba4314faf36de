/*
 * plxwarm: waits for line 1 of a PLX 9050 board. A program arms the line by one request and waits by another; the first edge behind that ends
 * those that wait, or the next that comes, and the line must be armed again.
 *
 * The bug: whether the line has been up already is looked at before the request is put into the queue, with no lock over both; an interrupt in between finds
 * no request, and the request waits for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: ioctl, schedule, device
 */
#include "../include/bay_plx.h"

#define IOCTL_ARM  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct CARD {
    AF_PLX plx;
    KDPC dpc;
    AF_QUEUE queue;
    KSPIN_LOCK lock;                            /* of what follows */
    BOOLEAN fired;
} CARD;

static const GUID Guid = { 0xaf010021, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x21 } };

static void Cancelled(void *context, IRP *irp)
{
    AfEnd(context, irp, STATUS_CANCELLED, 0);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT interrupt, PVOID context)
{
    CARD *card = context;
    ULONG lines = AfPlxLines(&card->plx);

    UNREFERENCED_PARAMETER(interrupt);
    if (!lines)
        return FALSE;
    card->plx.intcsr &= ~lines;                 /* until it is armed again */
    AfWrite32(card->plx.regs, PLX_INTCSR, card->plx.intcsr);
    KeInsertQueueDpc(&card->dpc, NULL, NULL);
    return TRUE;
}

/* Ends those that wait, if the line was up. */
static void Deliver(CARD *card)
{
    BOOLEAN fired;
    KIRQL irql;
    IRP *irp;

    KeAcquireSpinLock(&card->lock, &irql);
    fired = card->fired;
    irp = fired ? AfQueueGet(&card->queue, NULL) : NULL;
    if (irp)
        card->fired = FALSE;
    KeReleaseSpinLock(&card->lock, irql);
    while (irp) {
        AfEnd(&card->plx.af, irp, STATUS_SUCCESS, 0);
        irp = AfQueueGet(&card->queue, NULL);
    }
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    card->fired = TRUE;
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    Deliver(card);
}

static void Arm(CARD *card)
{
    AF_PLX_CHANGE change = { &card->plx, 0, INT1_ENABLE };
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    card->fired = FALSE;
    KeReleaseSpinLock(&card->lock, irql);
    KeSynchronizeExecution(card->plx.interrupt, AfPlxChange, &change);
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeInitializeDpc(&card->dpc, Dpc, card);
    KeInitializeSpinLock(&card->lock);
    return AfQueueInit(&card->queue, Cancelled, card);
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = AfPlxMap(&card->plx, list);

    if (!NT_SUCCESS(status))
        return status;
    status = AfPlxConnect(&card->plx, Isr);
    if (!NT_SUCCESS(status))
        AfPlxUnmap(&card->plx);
    return status;
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    AfPlxDisconnect(&card->plx);
    AfPlxUnmap(&card->plx);
}

static void Flush(AF_DEVICE *af, FILE_OBJECT *file)
{
    AfQueueFlush(&((CARD *)af)->queue, file);
}

static void Wait(CARD *card, IRP *irp)
{
#ifndef FIXED
    BOOLEAN fired;
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    fired = card->fired;
    card->fired = FALSE;
    KeReleaseSpinLock(&card->lock, irql);
    if (fired)
        AfEnd(&card->plx.af, irp, STATUS_SUCCESS, 0);
    else
        AfQueuePut(&card->queue, irp);
#else
    AfQueuePut(&card->queue, irp);
    Deliver(card);
#endif
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ARM:
        Arm(card);
        AfFinish(af, irp, STATUS_SUCCESS, 0);
        return;
    case IOCTL_WAIT:
        Wait(card, irp);
        AfLeave(af);
        return;
    }
    AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .flags = DO_BUFFERED_IO, .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .flush = Flush, .suspend = AfPlxSuspend, .resume = AfPlxResume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
