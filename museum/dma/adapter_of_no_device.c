/*
 * The educational device's buffer, filled by DMA.
 *
 * The bug: the adapter object comes from HalGetAdapter, as in a driver for Windows NT 4: it is no device's, reaches what the machine has, and is never given back. It shows when the
 * device is started.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: obsolete-hal-get-adapter
 * Needs: nothing
 */
#include "../include/edu_dma.h"

#ifndef FIXED
NTHALAPI PDMA_ADAPTER NTAPI HalGetAdapter(PDEVICE_DESCRIPTION Description, PULONG MapRegisters);

static NTSTATUS GetAdapter(PFDO Fdo)
{
    PDMA Dma = (PDMA)Fdo;
    DESCRIPTION3 Description;
    ULONG MapRegisters;

    if (Dma->Adapter != NULL) { /* of the start before */
        return STATUS_SUCCESS;
    }
    RtlZeroMemory(&Description, sizeof(Description));
    Description.Old.Version = 3;
    Description.Old.Master = TRUE;
    Description.Old.ScatterGather = TRUE;
    Description.Old.InterfaceType = PCIBus;
    Description.Old.MaximumLength = PAGE_SIZE;
    Description.DmaAddressWidth = 28;
    Dma->Adapter = HalGetAdapter(&Description.Old, &MapRegisters);
    return Dma->Adapter == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static VOID PutAdapter(PFDO Fdo)
{
    UNREFERENCED_PARAMETER(Fdo);
}
#else
#define GetAdapter DmaGetAdapter
#define PutAdapter DmaPutAdapter
#endif

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = GetAdapter(Fdo);

    if (NT_SUCCESS(Status)) {
        Status = DmaGetCommon(Fdo);
    }
    if (NT_SUCCESS(Status)) {
        Status = EduStart(Fdo, Resources);
    }
    if (!NT_SUCCESS(Status)) {
        DmaPutCommon(Fdo);
        PutAdapter(Fdo);
    }
    return Status;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    EduStop(Fdo, Present);
    DmaPutCommon(Fdo);
    PutAdapter(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3c00f);
static const HOOKS Hooks = {.Add = DmaAdd, .Start = Start, .Flush = DmaFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DmaControl;
    return STATUS_SUCCESS;
}
