/*
 * A device on another one, which passes everything on.
 *
 * The bug: IoCallDriver is called without a next stack location: neither copied nor skipped to. It shows with the first request.
 *
 * Device: none
 * Rule: irp-damaged, irp-location-not-set
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Passage"
#define LINK_NAME L"\\DosDevices\\Passage"
#include "../include/stacked.h"

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;

    InterlockedIncrement(&Layer->Sent);
#ifdef FIXED
    IoSkipCurrentIrpStackLocation(Irp);
#endif
    return IoCallDriver(Layer->Lower, Irp);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
