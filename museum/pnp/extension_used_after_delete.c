/*
 * A virtual scale with a log line at its end.
 *
 * The bug: how often it has weighed is printed after IoDeleteDevice, from the device extension that went with the device. It shows when the device is
 * removed.
 *
 * Device: Root\VirtualScale
 * Rule: use-after-free
 * Needs: nothing
 */
#include "../include/function.h"

#define IOCTL_SCALE_WEIGH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8AB, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    LONG Weighed;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a00d);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    BOOLEAN Last = IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_REMOVE_DEVICE;
    NTSTATUS Status;

#ifdef FIXED
    if (Last) {
        DbgPrint("scale: weighed %d times\n", Own->Weighed);
    }
    Status = FdoPnp(Device, Irp);
#else
    Status = FdoPnp(Device, Irp);
    if (Last) {
        DbgPrint("scale: weighed %d times\n", Own->Weighed);
    }
#endif
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_SCALE_WEIGH) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    InterlockedIncrement(&Own->Weighed);
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
