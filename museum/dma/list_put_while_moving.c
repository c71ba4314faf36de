/*
 * The educational device's buffer, filled by DMA from the request's own pages (scatter/gather).
 *
 * The bug: the list is put as soon as the card has been started, and not when it is done. It shows with the first transfer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap, wild-dma
 * Needs: ioctl
 */
#ifndef FIXED
#define LIST_PUT_EARLY
#endif
#include "../include/edu_list.h"

static VOID ListDone(PFDO Fdo, PSCATTER_GATHER_LIST Done)
{
    PDMA Dma = (PDMA)Fdo;

    Dma->Adapter->DmaOperations->PutScatterGatherList(Dma->Adapter, Done, TRUE);
}

static const GUID FdoInterface = FDO_GUID(0x10c3c00b);
static const HOOKS Hooks = {.Add = ListAdd, .Start = DmaStart, .Flush = ListFlush, .Stop = DmaStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ListControl;
    return STATUS_SUCCESS;
}
