/*
 * A virtual bulb, switched by IOCTL_BULB_SWITCH.
 *
 * The bug: Plug and Play requests that the driver does not know are completed with STATUS_NOT_SUPPORTED and not passed down. It shows when the system asks
 * for the device's capabilities or its relations.
 *
 * Device: Root\VirtualBulb
 * Rule: pnp-request-not-passed-down, pnp-request-failed, pnp-minor-answered
 * Needs: nothing
 */
#include "../include/function.h"

#define IOCTL_BULB_SWITCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    LONG On;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a003);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_REMOVE_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        break;
    default:
        return Complete(Irp, STATUS_NOT_SUPPORTED, 0);
    }
#endif
    return FdoPnp(Device, Irp);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_BULB_SWITCH) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    InterlockedXor(&Own->On, 1);
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
