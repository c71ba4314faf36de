/*
 * plxfinch: applications wait for either of the two lines of a PLX 9050 board; a line is armed when a program waits for it, and masked
 * by the interrupt until the next one does.
 *
 * The bug: arming changes INTCSR and its copy without the interrupt's lock, so an arming or masking that happens at the same time on another
 * processor is undone: a waiter's line stays masked for good.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: data-race, register-update-race
 * Needs: ioctl, schedule, device
 */
#include "../include/bay_plx.h"

#define IOCTL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG line, 1 or 2 */

typedef struct CARD {
    AF_PLX plx;
    ULONG up;                                   /* of the interrupt lock */
    KDPC dpc;
    AF_QUEUE queue[2];
} CARD;

static const GUID Guid = { 0xaf010001, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x01 } };

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
    card->plx.intcsr &= ~lines;
    AfWrite32(card->plx.regs, PLX_INTCSR, card->plx.intcsr);
    card->up |= lines;
    KeInsertQueueDpc(&card->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;
    ULONG up, i;
    KIRQL irql;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    irql = KeAcquireInterruptSpinLock(card->plx.interrupt);
    up = card->up;
    card->up = 0;
    KeReleaseInterruptSpinLock(card->plx.interrupt, irql);
    for (i = 0; i < 2; ++i) {
        IRP *irp;

        if (!(up & (i ? INT2_ENABLE : INT1_ENABLE)))
            continue;
        while ((irp = AfQueueGet(&card->queue[i], NULL)) != NULL)
            AfEnd(&card->plx.af, irp, STATUS_SUCCESS, 0);
    }
}

static NTSTATUS Init(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;
    NTSTATUS status;

    KeInitializeDpc(&card->dpc, Dpc, card);
    status = AfQueueInit(&card->queue[0], Cancelled, af);
    if (NT_SUCCESS(status))
        status = AfQueueInit(&card->queue[1], Cancelled, af);
    return status;
}

static NTSTATUS Start(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list)
{
    CARD *card = (CARD *)af;
    NTSTATUS status = AfPlxMap(&card->plx, list);

    if (!NT_SUCCESS(status))
        return status;
    card->up = 0;
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
    CARD *card = (CARD *)af;

    AfQueueFlush(&card->queue[0], file);
    AfQueueFlush(&card->queue[1], file);
}

static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;
    AF_PLX_CHANGE change;
    ULONG line;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL || stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_WAIT) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG)) {
        AfFinish(af, irp, STATUS_INVALID_PARAMETER, 0);
        return;
    }
    line = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
    if (line != 1 && line != 2) {
        AfFinish(af, irp, STATUS_INVALID_PARAMETER, 0);
        return;
    }
    AfQueuePut(&card->queue[line - 1], irp);
    change.plx = &card->plx;
    change.clear = 0;
    change.set = line == 1 ? INT1_ENABLE : INT2_ENABLE;
#ifndef FIXED
    AfPlxChange(&change);
#else
    KeSynchronizeExecution(card->plx.interrupt, AfPlxChange, &change);
#endif
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
