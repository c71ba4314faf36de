/*
 * The educational device's buffer, filled by DMA.
 *
 * The bug: the adapter is given back before the common buffer that it is needed for is freed. It shows when the device is stopped.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-adapter-released, common-buffer-leak, bad-common-buffer-free, not-a-dma-adapter, use-after-free
 * Needs: nothing
 */
#include "../include/edu_dma.h"

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
#ifdef FIXED
    EduStop(Fdo, Present);
    DmaPutCommon(Fdo);
    DmaPutAdapter(Fdo);
#else
    PDMA Dma = (PDMA)Fdo;

    EduStop(Fdo, Present);
    Dma->Adapter->DmaOperations->PutDmaAdapter(Dma->Adapter);
    DmaPutCommon(Fdo);
    Dma->Adapter = NULL;
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3c004);
static const HOOKS Hooks = {.Add = DmaAdd, .Start = DmaStart, .Flush = DmaFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DmaControl;
    return STATUS_SUCCESS;
}
