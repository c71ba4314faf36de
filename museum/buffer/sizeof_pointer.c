/*
 * A thermostat: IOCTL_THERMOSTAT_STATE answers a structure of 40 bytes.
 *
 * The bug: the output's length is compared with the size of a pointer to the structure, not of the structure. It shows with an output buffer of 8 to 39
 * bytes.
 *
 * Device: none
 * Rule: pool-overrun, information-too-large
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Thermostat"
#define LINK_NAME L"\\DosDevices\\Thermostat"
#include "../include/legacy.h"

#define IOCTL_THERMOSTAT_STATE CTL_CODE(0x9000u, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_THERMOSTAT_TARGET CTL_CODE(0x9000u, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _STATE {
    LONG64 Measured;
    LONG64 Target;
    LONG64 Lowest;
    LONG64 Highest;
    LONG64 Changes;
} STATE, *PSTATE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSTATE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PSTATE State = Irp->AssociatedIrp.SystemBuffer;

    switch (CodeOf(Stack)) {
    case IOCTL_THERMOSTAT_STATE:
#ifdef FIXED
        if (OutputOf(Stack) < sizeof(*State)) {
#else
        if (OutputOf(Stack) < sizeof(State)) {
#endif
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *State = *Own;
        return Complete(Irp, STATUS_SUCCESS, sizeof(*State));
    case IOCTL_THERMOSTAT_TARGET:
        if (InputOf(Stack) < sizeof(LONG64)) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        Own->Target = *(PLONG64)State;
        Own->Changes++;
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(STATE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
