/*
 * The educational device's factorials.
 *
 * The bug: IRP_MN_SET_POWER for a lower state is failed while handles are open, though a driver must not fail it. It shows with a change of
 * state while a handle is open.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: set-power-failed
 * Needs: power
 */
#include "../include/edu.h"

static LONG Opens;

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == DevicePowerState &&
        Stack->Parameters.Power.State.DeviceState != PowerDeviceD0 && Opens != 0) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, STATUS_DEVICE_BUSY, 0);
    }
#endif
    return FdoPower(Device, Irp);
}

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    InterlockedIncrement(&Opens);
    return FdoFile(Device, Irp);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    InterlockedDecrement(&Opens);
    return FdoFile(Device, Irp);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b01b);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    return STATUS_SUCCESS;
}
