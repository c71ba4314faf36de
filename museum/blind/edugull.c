/*
 * edugull: reads and writes the buffer of the edu device by DMA; when an application closes its handle, its requests that wait are cancelled.
 *
 * The bug: on closing, the request under way is cancelled too, its list given back and its pages unlocked, while the device, which cannot be stopped,
 * goes on writing to them.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap
 * Needs: ioctl, cancel, device
 */
#include "../include/bay_scatter.h"

static const GUID Guid = { 0xaf010008, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x08 } };

static void TransferDone(TRANSFERS *card, IRP *irp, SCATTER_GATHER_LIST *list, BOOLEAN toDevice, NTSTATUS status, ULONG length)
{
    card->adapter->DmaOperations->PutScatterGatherList(card->adapter, list, toDevice);
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    card->busy = FALSE;
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    KeInsertQueueDpc(&card->nextDpc, NULL, NULL);
    AfFinish(&card->edu.af, irp, status, length);
}

#ifndef FIXED
static void Abort(TRANSFERS *card, FILE_OBJECT *file)
{
    SCATTER_GATHER_LIST *list = NULL;
    BOOLEAN toDevice = FALSE;
    IRP *irp;
    KIRQL irql;

    KeAcquireSpinLock(&card->lock, &irql);
    irp = card->current;
    if (irp && file && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
        irp = NULL;
    if (irp) {
        card->current = NULL;
        list = card->list;
        toDevice = card->toDevice;
        KeCancelTimer(&card->watch);
    }
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    if (irp)
        TransferDone(card, irp, list, toDevice, STATUS_CANCELLED, 0);
    KeLowerIrql(irql);
}
#endif

static void Flush(AF_DEVICE *af, FILE_OBJECT *file)
{
    TRANSFERS *card = (TRANSFERS *)af;

    AfQueueFlush(&card->queue, file);
#ifndef FIXED
    Abort(card, file);
#endif
}

static const AF_HOOKS AfHooks = {
    .size = sizeof(TRANSFERS), .flags = DO_DIRECT_IO, .interfaceGuid = &Guid, .init = TransferInit, .start = TransferStart,
    .stop = TransferStop, .flush = Flush, .suspend = AfEduSuspend, .resume = AfEduResume, .serve = TransferServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return AfDriver(driver);
}
