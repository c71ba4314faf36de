/*
 * What the owner of a device's power policy does with requests for a state of the system: they go down first; when one has come back, the
 * device is asked for the state that belongs to it (D0 for working, D3 for all others), and the system's request ends with that one.
 * Included behind the DDK's declarations, and behind a macro POWER_DONE(Irp): what else the driver does when it is done with a power request.
 *
 * Pages: Handling IRP_MN_SET_POWER for System Power States, Handling IRP_MN_SET_POWER for Device Power States.
 */
#ifndef POWER_POLICY_H
#define POWER_POLICY_H

/* The device is in its state, or refuses to go there: so ends the system's request. */
static VOID NTAPI DeviceFollowed(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PIRP Irp = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Irp->IoStatus.Status = Block->Status;
    PoStartNextPowerIrp(Irp);
    POWER_DONE(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI SystemBelowDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Pdo)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE State;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(Pdo, Stack->MinorFunction, State, DeviceFollowed, Irp, NULL);
        if (Status == STATUS_PENDING) {
            return STATUS_MORE_PROCESSING_REQUIRED;
        }
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    POWER_DONE(Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* Passes a power request down; the routine gets it when it comes back. */
static NTSTATUS PowerBelow(PDEVICE_OBJECT Lower, PIRP Irp, PIO_COMPLETION_ROUTINE Routine, PVOID Context)
{
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Routine, Context, TRUE, TRUE, TRUE);
    PoCallDriver(Lower, Irp);
    return STATUS_PENDING;
}

typedef enum _POWER_ASKED { OtherPower, SystemPower, DeviceUp, DeviceDown } POWER_ASKED;

/* What a power request is about. */
static POWER_ASKED PowerAsked(PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Sets = Stack->MinorFunction == IRP_MN_SET_POWER;

    if (!Sets && Stack->MinorFunction != IRP_MN_QUERY_POWER) {
        return OtherPower;
    }
    if (Stack->Parameters.Power.Type == SystemPowerState) {
        return SystemPower;
    }
    if (!Sets) {
        return OtherPower;
    }
    return Stack->Parameters.Power.State.DeviceState == PowerDeviceD0 ? DeviceUp : DeviceDown;
}

#endif
