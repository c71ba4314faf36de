/*
 * A camera's frame: IOCTL_FRAME_GRAB fills the caller's buffer, which is described by an MDL.
 *
 * The bug: the MDL is mapped without a look whether there is one: with an output of no bytes Irp->MdlAddress is NULL. It shows with an output length
 * of 0.
 *
 * Device: none
 * Rule: wild-read, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Frame"
#define LINK_NAME L"\\DosDevices\\Frame"
#include "../include/legacy.h"

#define IOCTL_FRAME_GRAB CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_OUT_DIRECT, FILE_READ_ACCESS)

typedef struct _DEVICE {
    LONG Frames;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Camera = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PUCHAR Pixels;

    if (CodeOf(Stack) != IOCTL_FRAME_GRAB) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
#ifdef FIXED
    if (Irp->MdlAddress == NULL) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
#endif
    Pixels = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (Pixels == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlFillMemory(Pixels, OutputOf(Stack), (UCHAR)InterlockedIncrement(&Camera->Frames));
    return Complete(Irp, STATUS_SUCCESS, OutputOf(Stack));
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
