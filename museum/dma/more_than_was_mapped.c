/*
 * The educational device's buffer, filled by DMA.
 *
 * The bug: the card is always given 4096 bytes from where the data begin, which is behind a header of 16 bytes in the common buffer: the last 16 are beyond it. It
 * shows with the first transfer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-dma, dma-behind-mapping, dma-after-unmap
 * Needs: ioctl
 */
#include "../include/edu_dma.h"

#define HEADER 16

static VOID Store(PFDO Fdo, PVOID Bytes, ULONG Length)
{
    PDMA Dma = (PDMA)Fdo;

    RtlCopyMemory(Dma->Common + HEADER, Bytes, Length);
#ifdef FIXED
    DmaBegin(Fdo, (ULONG64)Dma->CommonAddress.QuadPart + HEADER, PAGE_SIZE - HEADER);
#else
    DmaBegin(Fdo, (ULONG64)Dma->CommonAddress.QuadPart + HEADER, PAGE_SIZE);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    return DmaControlBy(Device, Irp, Store);
}

static const GUID FdoInterface = FDO_GUID(0x10c3c006);
static const HOOKS Hooks = {.Add = DmaAdd, .Start = DmaStart, .Flush = DmaFlush, .Stop = DmaStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DmaDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
