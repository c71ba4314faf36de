/*
 * The educational device's buffer, filled by DMA.
 *
 * The bug: when the device is stopped or loses its power, the driver does not wait for a transfer that is under way: the common buffer is freed, and the card goes
 * on reading it. It shows when the device is stopped during a transfer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap, wild-dma
 * Needs: ioctl, removal
 */
#include "../include/edu_dma.h"

static VOID Flush(PFDO Fdo)
{
#ifdef FIXED
    DmaWaitIdle(Fdo);
#else
    PDMA Dma = (PDMA)Fdo;

    InterlockedExchange(&Dma->Transferring, FALSE);
#endif
    EduFlush(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3c001);
static const HOOKS Hooks = {.Add = DmaAdd, .Start = DmaStart, .Flush = Flush, .Stop = DmaStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DmaControl;
    return STATUS_SUCCESS;
}
