/*
 * The educational device's buffer, filled by DMA.
 *
 * The bug: the adapter object is not given back when the device is stopped. It shows when it is.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-adapter-leak
 * Needs: nothing
 */
#include "../include/edu_dma.h"

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    EduStop(Fdo, Present);
    DmaPutCommon(Fdo);
#ifdef FIXED
    DmaPutAdapter(Fdo);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3c003);
static const HOOKS Hooks = {.Add = DmaAdd, .Start = DmaStart, .Flush = DmaFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DmaControl;
    return STATUS_SUCCESS;
}
