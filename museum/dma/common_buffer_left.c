/*
 * The educational device's buffer, filled by DMA.
 *
 * The bug: the common buffer is not freed when the device is stopped. It shows when it is.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: common-buffer-leak, contiguous-memory-leak
 * Needs: nothing
 */
#include "../include/edu_dma.h"

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    EduStop(Fdo, Present);
#ifdef FIXED
    DmaPutCommon(Fdo);
#endif
    DmaPutAdapter(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3c002);
static const HOOKS Hooks = {.Add = DmaAdd, .Start = DmaStart, .Flush = DmaFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DmaControl;
    return STATUS_SUCCESS;
}
