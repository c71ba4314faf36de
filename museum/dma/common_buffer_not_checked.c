/*
 * The educational device's buffer, filled by DMA.
 *
 * The bug: what AllocateCommonBuffer returns is cleared without a look. It shows when there is no memory that the card can reach.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-write, bad-pointer
 * Needs: failure
 */
#include "../include/edu_dma.h"

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDMA Dma = (PDMA)Fdo;
    NTSTATUS Status = DmaGetAdapter(Fdo);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = DmaGetCommon(Fdo);
#ifdef FIXED
    if (!NT_SUCCESS(Status)) {
        DmaPutAdapter(Fdo);
        return Status;
    }
#endif
    RtlZeroMemory(Dma->Common, PAGE_SIZE);
    Status = EduStart(Fdo, Resources);
    if (!NT_SUCCESS(Status)) {
        DmaPutCommon(Fdo);
        DmaPutAdapter(Fdo);
    }
    return Status;
}

static const GUID FdoInterface = FDO_GUID(0x10c3c007);
static const HOOKS Hooks = {.Add = DmaAdd, .Start = Start, .Flush = DmaFlush, .Stop = DmaStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DmaControl;
    return STATUS_SUCCESS;
}
