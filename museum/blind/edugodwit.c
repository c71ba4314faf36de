/*
 * edugodwit: reads and writes the buffer of the edu device by DMA straight from and to the application's pages.
 *
 * The bug: the request is completed before its scatter-gather list is given back, so what was read is copied out of the map registers, if at
 * all, through an MDL and into pages that are the application's no longer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-unlocked-while-mapped
 * Needs: ioctl, device
 */
#include "../include/bay_scatter.h"

static const GUID Guid = { 0xaf010007, 0x51c2, 0x4be0, { 0x9a, 0x01, 0x4d, 0x2e, 0x11, 0x09, 0x71, 0x07 } };

static void TransferDone(TRANSFERS *card, IRP *irp, SCATTER_GATHER_LIST *list, BOOLEAN toDevice, NTSTATUS status, ULONG length)
{
#ifndef FIXED
    AfComplete(irp, status, length);
    card->adapter->DmaOperations->PutScatterGatherList(card->adapter, list, toDevice);
#else
    card->adapter->DmaOperations->PutScatterGatherList(card->adapter, list, toDevice);
    AfComplete(irp, status, length);
#endif
    KeAcquireSpinLockAtDpcLevel(&card->lock);
    card->busy = FALSE;
    KeReleaseSpinLockFromDpcLevel(&card->lock);
    KeInsertQueueDpc(&card->nextDpc, NULL, NULL);
    AfLeave(&card->edu.af);
    IoReleaseRemoveLock(&card->edu.af.remove, irp);
}

static void Flush(AF_DEVICE *af, FILE_OBJECT *file)
{
    AfQueueFlush(&((TRANSFERS *)af)->queue, file);
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
