/*
 * plxheron: one application at a time waits for line 1 of a PLX 9050 board; the waiting request has a cancel routine of the driver's own.
 *
 * The bug: what takes the waiting request does not look if its cancel routine was still set; if it is being cancelled at that moment, both
 * complete it.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: double-completion, use-after-free
 * Needs: ioctl, cancel, schedule, device
 */
#include "../include/bay_plx.h"

#define IOCTL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct CARD {
    AF_PLX plx;
    KDPC dpc;
    KSPIN_LOCK lock;
    IRP *current;                               /* of the lock */
} CARD;

static const GUID Guid = { 0xaf010003, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x03 } };

static VOID NTAPI Cancel(PDEVICE_OBJECT self, PIRP irp)
{
    CARD *card = self->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&card->lock, &irql);
    if (card->current == irp)
        card->current = NULL;
    KeReleaseSpinLock(&card->lock, irql);
    AfEnd(&card->plx.af, irp, STATUS_CANCELLED, 0);
}

/* Takes the waiting request, if it belongs to the file (NULL: any) and is not being cancelled. */
static IRP *Take(CARD *card, FILE_OBJECT *file)
{
    IRP *irp;
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    irp = card->current;
    if (irp && file && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
        irp = NULL;
    if (irp) {
#ifndef FIXED
        IoSetCancelRoutine(irp, NULL);
        card->current = NULL;
#else
        if (IoSetCancelRoutine(irp, NULL))
            card->current = NULL;
        else
            irp = NULL;                         /* the cancel routine waits for the lock, and will complete it */
#endif
    }
    KeReleaseSpinLock(&card->lock, irql);
    return irp;
}

static BOOLEAN NTAPI Isr(PKINTERRUPT interrupt, PVOID context)
{
    CARD *card = context;
    ULONG lines = AfPlxLines(&card->plx);

    UNREFERENCED_PARAMETER(interrupt);
    if (!lines)
        return FALSE;
    card->plx.intcsr &= ~lines;
    AfWrite32(card->plx.regs, PLX_INTCSR, card->plx.intcsr);
    KeInsertQueueDpc(&card->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;
    IRP *irp = Take(card, NULL);

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    if (irp)
        AfEnd(&card->plx.af, irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeInitializeDpc(&card->dpc, Dpc, card);
    KeInitializeSpinLock(&card->lock);
    return STATUS_SUCCESS;
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
    IRP *irp = Take((CARD *)af, file);

    if (irp)
        AfEnd(af, irp, STATUS_CANCELLED, 0);
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = STATUS_PENDING;
    AF_PLX_CHANGE change;
    KIRQL irql;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL || stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_WAIT) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    KeAcquireSpinLock(&card->lock, &irql);
    if (card->current) {
        status = STATUS_DEVICE_BUSY;
    } else {
        IoSetCancelRoutine(irp, Cancel);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL))
            status = STATUS_CANCELLED;
        else
            card->current = irp;                /* or the cancel routine, which waits for the lock, takes it away */
    }
    KeReleaseSpinLock(&card->lock, irql);
    if (status != STATUS_PENDING) {
        AfFinish(af, irp, status, 0);
        return;
    }
    change.plx = &card->plx;
    change.clear = 0;
    change.set = INT1_ENABLE;
    KeSynchronizeExecution(card->plx.interrupt, AfPlxChange, &change);
    AfLeave(af);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop, .flush = Flush,
    .suspend = AfPlxSuspend, .resume = AfPlxResume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
