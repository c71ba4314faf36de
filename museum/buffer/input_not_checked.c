/*
 * A lamp with a colour and a brightness, set by IOCTL_LAMP_SET.
 *
 * The bug: the settings are read from the system buffer without a look at the input's length, which may be anything, down to no buffer at all. It shows
 * with an input that is too short, or none.
 *
 * Device: none
 * Rule: wild-read, pool-overrun
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Lamp"
#define LINK_NAME L"\\DosDevices\\Lamp"
#include "../include/legacy.h"

#define IOCTL_LAMP_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LAMP_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _LAMP {
    ULONG Colour;
    ULONG Brightness;
    ULONG64 Since;
} LAMP, *PLAMP;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAMP Lamp = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (CodeOf(Stack)) {
    case IOCTL_LAMP_SET:
#ifdef FIXED
        if (InputOf(Stack) < sizeof(LAMP)) {
            return Complete(Irp, STATUS_INFO_LENGTH_MISMATCH, 0);
        }
#endif
        *Lamp = *(PLAMP)Irp->AssociatedIrp.SystemBuffer;
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_LAMP_GET:
        if (OutputOf(Stack) < sizeof(LAMP)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PLAMP)Irp->AssociatedIrp.SystemBuffer = *Lamp;
        return Complete(Irp, STATUS_SUCCESS, sizeof(LAMP));
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(LAMP), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
