/*
 * A virtual device that holds its jobs back from the question of its removal on.
 *
 * The bug: IRP_MN_CANCEL_REMOVE_DEVICE does not let them go on: they and all that come later wait for ever. It shows with a job after a removal that was
 * asked for and called off.
 *
 * Device: Root\HoldingAtRemoval
 * Rule: request-forgotten
 * Needs: removal, ioctl
 */
#include "../include/holding.h"

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHOLDING Own = Device->DeviceExtension;

    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_QUERY_REMOVE_DEVICE:
        InterlockedExchange(&Own->Held, TRUE);
        break;
#ifdef FIXED
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        HoldingGoOn(Own);
        break;
#endif
    }
    return FdoPnp(Device, Irp);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0e3);
static const HOOKS Hooks = {.Add = HoldingAdd, .Flush = HoldingFlush};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    HoldingDriver(Driver);
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    return STATUS_SUCCESS;
}
