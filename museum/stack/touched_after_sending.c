/*
 * A device on another one, which adds up how many bytes came back.
 *
 * The bug: the dispatch routine looks at the request after IoCallDriver, when the lower driver may have completed it. It shows with the first request that is
 * completed at once.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Adder"
#define LINK_NAME L"\\DosDevices\\Adder"
#include "../include/stacked.h"

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    ULONG Expected = OutputOf(IoGetCurrentIrpStackLocation(Irp));
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Layer->Lower, Irp);
    if (Status == STATUS_SUCCESS) {
#ifdef FIXED
        InterlockedExchangeAdd(&Layer->Sent, (LONG)Expected);
#else
        InterlockedExchangeAdd(&Layer->Sent, (LONG)min(Irp->IoStatus.Information, Expected));
#endif
    }
    return Status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
