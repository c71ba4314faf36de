/*
 * The educational device's factorials.
 *
 * The bug: the card's registers are set up when the request for D0 comes, on its way down, and not when it has come back: the card has no power yet. It shows
 * with a change to D0.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power
 */
#include "../include/edu.h"

static VOID SetUp(PFDO Fdo)
{
    CardWrite(Fdo, EDU_LIVENESS, 0x12345678);
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PFDO Fdo = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == DevicePowerState &&
        Stack->Parameters.Power.State.DeviceState == PowerDeviceD0 && Fdo->Started && !Fdo->Powered) {
        SetUp(Fdo);
    }
#endif
    return FdoPower(Device, Irp);
}

static VOID PowerUp(PFDO Fdo)
{
    EduPowerUp(Fdo);
#ifdef FIXED
    SetUp(Fdo);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3b01d);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = PowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    return STATUS_SUCCESS;
}
