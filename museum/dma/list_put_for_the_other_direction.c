/*
 * The educational device's buffer, filled by DMA from the request's own pages (scatter/gather).
 *
 * The bug: the list was got for a transfer to the device and is put as one from it. It shows with the first transfer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-wrong-direction
 * Needs: ioctl
 */
#include "../include/edu_list.h"

static VOID ListDone(PFDO Fdo, PSCATTER_GATHER_LIST Done)
{
    PDMA Dma = (PDMA)Fdo;

#ifdef FIXED
    Dma->Adapter->DmaOperations->PutScatterGatherList(Dma->Adapter, Done, TRUE);
#else
    Dma->Adapter->DmaOperations->PutScatterGatherList(Dma->Adapter, Done, FALSE);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3c009);
static const HOOKS Hooks = {.Add = ListAdd, .Start = DmaStart, .Flush = ListFlush, .Stop = DmaStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ListControl;
    return STATUS_SUCCESS;
}
