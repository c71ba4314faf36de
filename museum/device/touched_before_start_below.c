/*
 * The educational device's factorials.
 *
 * The bug: the driver handles IRP_MN_START_DEVICE on its way down: it maps and reads the card before the bus driver has started it. It shows when the
 * device is started.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: io-space-outside, device-memory-not-mapped, card-without-power, resource-used-after-release
 * Needs: nothing
 */
#include "../include/edu.h"

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PFDO Fdo = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PCM_RESOURCE_LIST List = Stack->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status;

    if (Stack->MinorFunction == IRP_MN_START_DEVICE) {
        Status = List == NULL ? STATUS_DEVICE_CONFIGURATION_ERROR : EduStart(Fdo, &List->List[0].PartialResourceList);
        if (!NT_SUCCESS(Status)) {
            return Complete(Irp, Status, 0);
        }
        Status = FdoForwardAndWait(Fdo, Irp);
        if (NT_SUCCESS(Status)) {
            Fdo->Started = TRUE;
            Fdo->Powered = TRUE;
            ExReInitializeRundownProtection(&Fdo->Gate);
            IoSetDeviceInterfaceState(&Fdo->Interface, TRUE);
        } else {
            EduStop(Fdo, FALSE);
        }
        return Complete(Irp, Status, 0);
    }
#endif
    return FdoPnp(Device, Irp);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b014);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    return STATUS_SUCCESS;
}
