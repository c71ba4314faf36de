/*
 * eduwaitr: has the edu device compute factorials; the application's thread waits in the driver for the interrupt that tells the end.
 *
 * The bug: the wait can be broken off by an APC or the thread's end, but only a timeout is thought of then, so the device keeps a pointer to
 * the event and the result on a stack that has been left, and the interrupt writes there.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: user-wait-on-stack
 * Needs: ioctl, cancel, device
 */
#include "../include/bay_edu.h"

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS) /* in: ULONG; out: ULONG */

typedef struct WAITER {
    KEVENT event;
    ULONG result;
} WAITER;

typedef struct CARD {
    AF_EDU edu;
    KEVENT turn;
    KSPIN_LOCK lock;
    WAITER *waiter;                             /* of the lock */
} CARD;

static const GUID Guid = { 0xaf010009, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x09 } };

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    if (!(AfEduRaised(&card->edu) & RAISED_FACTORIAL))
        return;
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    if (card->waiter && !(AfRead32(card->edu.regs, EDU_STATUS) & STATUS_BUSY)) {
        card->waiter->result = AfRead32(card->edu.regs, EDU_FACTORIAL);
        KeSetEvent(&card->waiter->event, IO_NO_INCREMENT, FALSE);
        card->waiter = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    KeInitializeDpc(&card->edu.dpc, Dpc, card);
    KeInitializeEvent(&card->turn, SynchronizationEvent, TRUE);
    KeInitializeSpinLock(&card->lock);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    return AfEduStart(&((CARD *)af)->edu, list);
}

static void Stop(AF_DEVICE *af)
{
    AfEduStop(&((CARD *)af)->edu);
}

static NTSTATUS Compute(CARD *card, ULONG of, ULONG *result)
{
    NTSTATUS status = STATUS_DEVICE_BUSY;
    LARGE_INTEGER limit;
    BOOLEAN begun = FALSE;
    WAITER waiter;
    KIRQL irql;

    KeInitializeEvent(&waiter.event, NotificationEvent, FALSE);
    waiter.result = 0;
    KeAcquireSpinLock(&card->lock, &irql);
    if (!(AfRead32(card->edu.regs, EDU_STATUS) & STATUS_BUSY)) {
        card->waiter = &waiter;
        AfWrite32(card->edu.regs, EDU_STATUS, STATUS_NOTIFY);
        AfWrite32(card->edu.regs, EDU_FACTORIAL, of);
        begun = TRUE;
    }
    KeReleaseSpinLock(&card->lock, irql);
    if (!begun)
        return status;
    limit.QuadPart = -10000000;
#ifndef FIXED
    status = KeWaitForSingleObject(&waiter.event, UserRequest, UserMode, TRUE, &limit);
#else
    status = KeWaitForSingleObject(&waiter.event, Executive, KernelMode, FALSE, &limit);
#endif
    if (status == STATUS_TIMEOUT) {
        KeAcquireSpinLock(&card->lock, &irql);
        if (card->waiter)
            card->waiter = NULL;
        else
            status = STATUS_SUCCESS;            /* just in time */
        AfWrite32(card->edu.regs, EDU_STATUS, 0);
        KeReleaseSpinLock(&card->lock, irql);
    }
    *result = waiter.result;
    if (status == STATUS_TIMEOUT)
        return STATUS_IO_TIMEOUT;
    return status == STATUS_SUCCESS ? status : STATUS_CANCELLED;
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;
    NTSTATUS status;
    ULONG result = 0;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL || stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACTORIAL) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG)
        || stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        AfFinish(af, irp, STATUS_INVALID_PARAMETER, 0);
        return;
    }
    KeWaitForSingleObject(&card->turn, Executive, KernelMode, FALSE, NULL);
    status = Compute(card, *(ULONG *)irp->AssociatedIrp.SystemBuffer, &result);
    KeSetEvent(&card->turn, IO_NO_INCREMENT, FALSE);
    if (NT_SUCCESS(status))
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = result;
    AfFinish(af, irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .suspend = AfEduSuspend, .resume = AfEduResume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
