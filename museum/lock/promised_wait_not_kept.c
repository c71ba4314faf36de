/*
 * A start gun: IOCTL_GUN_FIRE signals an event for those who wait.
 *
 * The bug: KeSetEvent is called with Wait TRUE, which promises a wait at once and leaves the dispatcher lock held, and the routine returns. It shows with the
 * first request.
 *
 * Device: none
 * Rule: wait-promised, irql-changed-by-routine
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\StartGun"
#define LINK_NAME L"\\DosDevices\\StartGun"
#include "../include/legacy.h"

#define IOCTL_GUN_FIRE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA60, METHOD_BUFFERED, FILE_ANY_ACCESS)
#ifdef FIXED
#define PROMISE FALSE
#else
#define PROMISE TRUE
#endif

typedef struct _DEVICE {
    KEVENT Fired;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_GUN_FIRE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    KeSetEvent(&((PDEVICE)Device->DeviceExtension)->Fired, IO_NO_INCREMENT, PROMISE);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeEvent(&((PDEVICE)Device->DeviceExtension)->Fired, NotificationEvent, FALSE);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
