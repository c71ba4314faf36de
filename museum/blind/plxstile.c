/*
 * plxstile: applications wait until the inputs of a PLX 9050 board (status of its two lines in INTCSR) differ from what they last saw;
 * a timer polls while a program waits, and rests while the device is about to be removed.
 *
 * The bug: when the timer is stopped for a removal that is asked for, it is not noted as stopped, so after the removal has been called off no one
 * starts it again and the requests that wait are never completed.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: ioctl, removal
 */
#include "../include/bay_plx.h"

#define IOCTL_CHANGED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* in: ULONG seen; out: ULONG now */

#define POLL 20

typedef struct CARD {
    AF_PLX plx;
    AF_QUEUE queue;
    KTIMER timer;
    KDPC dpc;
    KSPIN_LOCK lock;                            /* of what follows */
    BOOLEAN rests, polling;
} CARD;

static const GUID Guid = { 0xaf010005, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x05 } };

/* What to look for in the queue: requests of a file, or (NULL) those that saw something else than is now. */
typedef struct WANTED {
    FILE_OBJECT *file;
    ULONG now;
} WANTED;

static BOOLEAN Match(IRP *irp, PVOID context)
{
    WANTED *wanted = context;

    if (wanted->file)
        return IoGetCurrentIrpStackLocation(irp)->FileObject == wanted->file;
    return *(ULONG *)irp->AssociatedIrp.SystemBuffer != wanted->now;
}

static void Cancelled(void *context, IRP *irp)
{
    AfEnd(context, irp, STATUS_CANCELLED, 0);
}

/* Sets the timer unless it is set or has to rest. */
static void Kick(CARD *card)
{
    LARGE_INTEGER due;
    KIRQL irql;

    due.QuadPart = -10000LL * POLL;
    KeAcquireSpinLock(&card->lock, &irql);
    if (!card->rests && !card->polling) {
        card->polling = TRUE;
        KeSetTimer(&card->timer, due, &card->dpc);
    }
    KeReleaseSpinLock(&card->lock, irql);
}

static VOID NTAPI Poll(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;
    BOOLEAN rests;
    ULONG value;
    IRP *irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    card->polling = FALSE;
    rests = card->rests;
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (rests)
        return;
    value = AfRead32(card->plx.regs, PLX_INTCSR);
    if (value != 0xFFFFFFFF) {
        WANTED wanted = { NULL, (value & INT1_STATUS ? 1 : 0) | (value & INT2_STATUS ? 2 : 0) };

        while ((irp = AfQueueGet(&card->queue, &wanted)) != NULL) {
            *(ULONG *)irp->AssociatedIrp.SystemBuffer = wanted.now;
            AfEnd(&card->plx.af, irp, STATUS_SUCCESS, sizeof(ULONG));
        }
    }
    if (!AfQueueEmpty(&card->queue))
        Kick(card);
}

/* Until Go; the DPC does not run any more. */
static void Rest(CARD *card)
{
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    card->rests = TRUE;
    KeReleaseSpinLock(&card->lock, irql);
    KeCancelTimer(&card->timer);
    KeFlushQueuedDpcs();
}

static void NotPolling(CARD *card)
{
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    card->polling = FALSE;
    KeReleaseSpinLock(&card->lock, irql);
}

static void Go(CARD *card)
{
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    card->rests = FALSE;
    KeReleaseSpinLock(&card->lock, irql);
    if (!AfQueueEmpty(&card->queue))
        Kick(card);
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;
    NTSTATUS status;

    card->rests = TRUE;
    KeInitializeSpinLock(&card->lock);
    KeInitializeTimer(&card->timer);
    KeInitializeDpc(&card->dpc, Poll, card);
    status = AfQueueInit(&card->queue, Cancelled, af);
    card->queue.match = Match;
    return status;
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = AfPlxMap(&card->plx, list);

    if (NT_SUCCESS(status))
        Go(card);
    return status;
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    Rest(card);
    NotPolling(card);
    AfPlxUnmap(&card->plx);
}

static void Suspend(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    Rest(card);
    NotPolling(card);
}

static void Resume(AF_DEVICE *af)
{
    Go((CARD *)af);
}

static void Hold(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    Rest(card);
#ifdef FIXED
    NotPolling(card);
#endif
}

static void Unhold(AF_DEVICE *af)
{
    Go((CARD *)af);
}

static void Flush(AF_DEVICE *af, FILE_OBJECT *file)
{
    WANTED wanted = { file, 0 };

    AfQueueFlush(&((CARD *)af)->queue, file ? &wanted : NULL);
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = STATUS_PENDING;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL || stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_CHANGED)
        status = STATUS_INVALID_DEVICE_REQUEST;
    else if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG))
        status = STATUS_INVALID_PARAMETER;
    else if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        status = STATUS_BUFFER_TOO_SMALL;
    if (status != STATUS_PENDING) {
        AfFinish(af, irp, status, 0);
        return;
    }
    AfQueuePut(&card->queue, irp);
    Kick(card);
    AfLeave(af);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop, .flush = Flush,
    .suspend = Suspend, .resume = Resume, .hold = Hold, .unhold = Unhold, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
