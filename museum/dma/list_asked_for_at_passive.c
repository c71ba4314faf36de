/*
 * The educational device's buffer, filled by DMA from the request's own pages (scatter/gather).
 *
 * The bug: GetScatterGatherList is called at PASSIVE_LEVEL, and wants DISPATCH_LEVEL. It shows with the first transfer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-wrong-irql, irql-too-low
 * Needs: ioctl
 */
#ifndef FIXED
#define LIST_AT_PASSIVE
#endif
#include "../include/edu_list.h"

static VOID ListDone(PFDO Fdo, PSCATTER_GATHER_LIST Done)
{
    PDMA Dma = (PDMA)Fdo;

    Dma->Adapter->DmaOperations->PutScatterGatherList(Dma->Adapter, Done, TRUE);
}

static const GUID FdoInterface = FDO_GUID(0x10c3c00a);
static const HOOKS Hooks = {.Add = ListAdd, .Start = DmaStart, .Flush = ListFlush, .Stop = DmaStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ListControl;
    return STATUS_SUCCESS;
}
