/*
 * The educational device's buffer, filled by DMA from the request's own pages (scatter/gather).
 *
 * The bug: the list is not put when the transfer has ended. It shows with the first transfer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: scatter-gather-list-leak, dma-map-registers-leak, dma-not-flushed, dma-adapter-leak
 * Needs: ioctl
 */
#include "../include/edu_list.h"

static VOID ListDone(PFDO Fdo, PSCATTER_GATHER_LIST Done)
{
#ifdef FIXED
    PDMA Dma = (PDMA)Fdo;

    Dma->Adapter->DmaOperations->PutScatterGatherList(Dma->Adapter, Done, TRUE);
#else
    UNREFERENCED_PARAMETER(Fdo);
    UNREFERENCED_PARAMETER(Done);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3c008);
static const HOOKS Hooks = {.Add = ListAdd, .Start = DmaStart, .Flush = ListFlush, .Stop = DmaStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ListControl;
    return STATUS_SUCCESS;
}
