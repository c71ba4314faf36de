/*
 * A meter: IOCTL_METER_READ answers four readings into the caller's own pages.
 *
 * The bug: the code is METHOD_OUT_DIRECT, whose output is behind the MDL, and the driver writes it to the system buffer, which is the input: NULL where
 * there is no input. It shows with every request.
 *
 * Device: none
 * Rule: wild-write, bad-pointer, pool-overrun, output-never-stored
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Meter"
#define LINK_NAME L"\\DosDevices\\Meter"
#include "../include/legacy.h"

#define IOCTL_METER_READ CTL_CODE(0x8337u, 0xC40, METHOD_OUT_DIRECT, FILE_READ_ACCESS)

typedef struct _DEVICE {
    LONG64 Readings[4];
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Meter = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Output;

    if (CodeOf(Stack) != IOCTL_METER_READ) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(Meter->Readings)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
#ifdef FIXED
    Output = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (Output == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
#else
    Output = Irp->AssociatedIrp.SystemBuffer;
#endif
    Meter->Readings[0]++;
    RtlCopyMemory(Output, Meter->Readings, sizeof(Meter->Readings));
    return Complete(Irp, STATUS_SUCCESS, sizeof(Meter->Readings));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_DIRECT_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
