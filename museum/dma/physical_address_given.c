/*
 * The educational device's buffer, filled by DMA.
 *
 * The bug: the card is given the physical address of the request's own buffer, by MmGetPhysicalAddress, and not a logical one. It shows with the first transfer: on
 * a machine with an IOMMU, or where the buffer lies higher than the card can reach, it reads something else.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-by-physical-address, wild-dma, register-refused
 * Needs: ioctl
 */
#include "../include/edu_dma.h"

/* Of ntddk.h. */
NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID BaseAddress);

static VOID Store(PFDO Fdo, PVOID Bytes, ULONG Length)
{
    PDMA Dma = (PDMA)Fdo;

    RtlCopyMemory(Dma->Common, Bytes, Length);
#ifdef FIXED
    DmaBegin(Fdo, (ULONG64)Dma->CommonAddress.QuadPart, Length);
#else
    DmaBegin(Fdo, (ULONG64)MmGetPhysicalAddress(Bytes).QuadPart, Length);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    return DmaControlBy(Device, Irp, Store);
}

static const GUID FdoInterface = FDO_GUID(0x10c3c005);
static const HOOKS Hooks = {.Add = DmaAdd, .Start = DmaStart, .Flush = DmaFlush, .Stop = DmaStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
