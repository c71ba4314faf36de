/*
 * plxcrag: counts the interrupts of line 1 of a PLX 9050 board and keeps the times of the latest of them, which applications read.
 *
 * The bug: if the memory for the times cannot be had at the start, the windows are unmapped but the interrupt stays connected, so that the next
 * interrupt on the shared line calls the routine of a device that has not started, and later one that is gone.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-still-connected
 * Needs: failure
 */
#include "../include/bay_plx.h"

#define TIMES 512u
#define TAG 'rcFA'

typedef struct CARD {
    AF_PLX plx;
    KDPC dpc;
    KSPIN_LOCK lock;                            /* of what follows */
    ULONG first, count;
    LONGLONG *time;
} CARD;

static const GUID Guid = { 0xaf010006, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x06 } };

static BOOLEAN NTAPI Isr(PKINTERRUPT interrupt, PVOID context)
{
    CARD *card = context;
    ULONG lines = AfPlxLines(&card->plx);

    UNREFERENCED_PARAMETER(interrupt);
    if (!lines)
        return FALSE;
    card->plx.intcsr &= ~lines;                 /* until it has been read */
    AfWrite32(card->plx.regs, PLX_INTCSR, card->plx.intcsr);
    KeInsertQueueDpc(&card->dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID context, PVOID first, PVOID second)
{
    CARD *card = context;
    LARGE_INTEGER now;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(first);
    UNREFERENCED_PARAMETER(second);
    KeQuerySystemTime(&now);
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    if (card->time && card->count < TIMES) {
        card->time[(card->first + card->count) % TIMES] = now.QuadPart;
        ++card->count;
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
}

static void Arm(CARD *card)
{
    AF_PLX_CHANGE change = { &card->plx, 0, INT1_ENABLE };

    KeSynchronizeExecution(card->plx.interrupt, AfPlxChange, &change);
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
    LONGLONG *time;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    status = AfPlxConnect(&card->plx, Isr);
    if (!NT_SUCCESS(status))
        goto unmap;
    time = ExAllocatePoolWithTag(NonPagedPool, TIMES * sizeof *time, TAG);
    if (!time) {
        status = STATUS_INSUFFICIENT_RESOURCES;
#ifndef FIXED
        goto unmap;
#else
        goto disconnect;
#endif
    }
    KeAcquireSpinLock(&card->lock, &irql);
    card->first = card->count = 0;
    card->time = time;
    KeReleaseSpinLock(&card->lock, irql);
    Arm(card);
    return STATUS_SUCCESS;
#ifdef FIXED
disconnect:
    AfPlxDisconnect(&card->plx);
#endif
unmap:
    AfPlxUnmap(&card->plx);
    return status;
}

static void Stop(AF_DEVICE *af)
{
    CARD *card = (CARD *)af;

    AfPlxDisconnect(&card->plx);
    ExFreePoolWithTag(card->time, TAG);
    card->time = NULL;
    AfPlxUnmap(&card->plx);
}

/* Hands out what is there, and arms the line again. */
static void Serve(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack)
{
    CARD *card = (CARD *)af;
    LONGLONG *buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG room, taken = 0;
    KIRQL irql;

    if (stack->MajorFunction != IRP_MJ_READ) {
        AfFinish(af, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    room = stack->Parameters.Read.Length / sizeof *buffer;
    KeAcquireSpinLock(&card->lock, &irql);
    while (taken < room && card->count) {
        buffer[taken++] = card->time[card->first];
        card->first = (card->first + 1) % TIMES;
        --card->count;
    }
    KeReleaseSpinLock(&card->lock, irql);
    Arm(card);
    AfFinish(af, irp, STATUS_SUCCESS, taken * sizeof *buffer);
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(CARD), .flags = DO_BUFFERED_IO, .interfaceGuid = &Guid, .init = Init, .start = Start, .stop = Stop,
    .suspend = AfPlxSuspend, .resume = AfPlxResume, .serve = Serve,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
