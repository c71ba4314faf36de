/*
 * The educational device's factorials.
 *
 * The bug: a request for a lower state is marked pending and kept until the requests that wait are done; none of them ends it. It shows with the first
 * change of state.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: power-irp-overdue, stuck, deadlock, irp-never-completed
 * Needs: power
 */
#include "../include/edu.h"

#ifndef FIXED
static PIRP Kept;
#endif

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == DevicePowerState &&
        Stack->Parameters.Power.State.DeviceState != PowerDeviceD0) {
        IoMarkIrpPending(Irp);
        Kept = Irp; /* for a routine that was to be written */
        return STATUS_PENDING;
    }
#endif
    return FdoPower(Device, Irp);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b01c);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    return STATUS_SUCCESS;
}
