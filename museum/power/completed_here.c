/*
 * A virtual lantern on no bus.
 *
 * The bug: power requests are completed with success by the driver and never passed to the one below. It shows with the first change of state.
 *
 * Device: Root\VirtualLantern
 * Rule: power-request-not-passed-down, pnp-request-not-passed-down, power-irp-overdue
 * Needs: power
 */
#include "../include/function.h"

#define IOCTL_LANTERN_LIGHT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    LONG On;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a013);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifdef FIXED
    return FdoPower(Device, Irp);
#else
    UNREFERENCED_PARAMETER(Device);
    PoStartNextPowerIrp(Irp);
    return Complete(Irp, STATUS_SUCCESS, 0);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_LANTERN_LIGHT) {
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
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
