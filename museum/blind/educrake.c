/*
 * educrake: a queue of factorials for the edu device to compute, one at a time, each with a limit of a second.
 *
 * The bug: when a request takes too long, it is completed, but the device stays marked as busy, so that no request after it is ever begun.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: ioctl, failure, device
 */
#include "../include/bay_edu.h"

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS) /* in: ULONG; out: ULONG */

typedef struct CARD {
    AF_EDU edu;
    AF_QUEUE queue;                             /* those in it count as active */
    KDPC nextDpc, watchDpc;
    KTIMER watch;
    KSPIN_LOCK lock;                            /* of what follows */
    BOOLEAN busy;
    IRP *current;
    ULONGLONG deadline;
} CARD;

static const GUID Guid = { 0xaf01000a, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x0a } };

static void Cancelled(void *context, IRP *irp)
{
    AfFinish(context, irp, STATUS_CANCELLED, 0);
}

/* With the lock held. */
static BOOLEAN Begin(CARD *card, IRP *irp)
{
    LARGE_INTEGER due;

    if (AfRead32(card->edu.regs, EDU_STATUS) & STATUS_BUSY)
        return FALSE;
    card->current = irp;
    AfWrite32(card->edu.regs, EDU_STATUS, STATUS_NOTIFY);
    AfWrite32(card->edu.regs, EDU_FACTORIAL, *(ULONG *)irp->AssociatedIrp.SystemBuffer);
    card->deadline = KeQueryInterruptTime() + 10000000;
    due.QuadPart = -10100000LL;
    KeSetTimer(&card->watch, due, &card->watchDpc);
    return TRUE;
}

static VOID NTAPI Next(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    for (;;) {
        BOOLEAN begun;
        IRP *irp;

        KeAcquireSpinLockAtDpcLevel(&card->lock);
        irp = card->busy ? NULL : AfQueueGet(&card->queue, NULL);
        if (!irp) {
            KeReleaseSpinLockFromDpcLevel(&card->lock);
            return;
        }
        begun = Begin(card, irp);
        card->busy = begun;
        KeReleaseSpinLockFromDpcLevel(&card->lock);
        if (begun)
            return;
        AfFinish(&card->edu.af, irp, STATUS_DEVICE_BUSY, 0);
    }
}

static void Done(CARD *card, IRP *irp, NTSTATUS status, ULONG information)
{
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    card->busy = FALSE;
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    KeInsertQueueDpc(&card->nextDpc, NULL, NULL);
    AfFinish(&card->edu.af, irp, status, information);
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;
    IRP *irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    if (!(AfEduRaised(&card->edu) & RAISED_FACTORIAL))
        return;
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    if (card->current && !(AfRead32(card->edu.regs, EDU_STATUS) & STATUS_BUSY)) {
        irp = card->current;
        card->current = NULL;
        KeCancelTimer(&card->watch);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = AfRead32(card->edu.regs, EDU_FACTORIAL);
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (irp)
        Done(card, irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI Watch(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;
    IRP *irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    if (card->current && KeQueryInterruptTime() >= card->deadline) {
        irp = card->current;
        card->current = NULL;
        AfWrite32(card->edu.regs, EDU_STATUS, 0);
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (irp) {
#ifndef FIXED
        AfFinish(&card->edu.af, irp, STATUS_IO_TIMEOUT, 0);
#else
        Done(card, irp, STATUS_IO_TIMEOUT, 0);
#endif
    }
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeInitializeDpc(&card->edu.dpc, Dpc, card);
    KeInitializeDpc(&card->nextDpc, Next, card);
    KeInitializeDpc(&card->watchDpc, Watch, card);
    KeInitializeTimer(&card->watch);
    KeInitializeSpinLock(&card->lock);
    return AfQueueInit(&card->queue, Cancelled, af);
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    return AfEduStart(&((CARD *)af)->edu, list);
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeCancelTimer(&card->watch);
    AfEduStop(&card->edu);
}

static void Flush(AF_DEVICE *af, FILE_OBJECT *file)
{
    AfQueueFlush(&((CARD *)af)->queue, file);
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL || stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACTORIAL) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG)
        || stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        AfFinish(af, irp, STATUS_INVALID_PARAMETER, 0);
        return;
    }
    AfStay(af);                                 /* the request may be gone as soon as it is in the queue */
    AfQueuePut(&card->queue, irp);
    KeInsertQueueDpc(&card->nextDpc, NULL, NULL);
    AfLeave(af);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop, .flush = Flush,
    .suspend = AfEduSuspend, .resume = AfEduResume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
