/* Power requests: passed down, or, where the driver owns the power policy, turned into a device's. */
#ifndef CORRECT_PNP_POWER_H
#define CORRECT_PNP_POWER_H

static NTSTATUS NTAPI DispatchShutdown(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    DbgPrint("shutdown\n");
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* The device request has ended: so does the system request that it was made for. */
static VOID NTAPI DevicePowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                  PIO_STATUS_BLOCK Block)
{
    PIRP Irp = Context;
    PDEVICE_EXTENSION Extension = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    DbgPrint("device power %u: 0x%08x\n", State.DeviceState, Block->Status);
    Irp->IoStatus.Status = Block->Status;
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
}

/* The system request has come back up: a device request for it. */
static NTSTATUS NTAPI SystemPowerBelowDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE State;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(Extension->Pdo, Stack->MinorFunction, State, DevicePowerDone, Irp, NULL);
        if (Status == STATUS_PENDING) {
            return STATUS_MORE_PROCESSING_REQUIRED;
        }
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static VOID TellPower(PIO_STACK_LOCATION Stack)
{
    DbgPrint("power %s %u to %u, action %u\n", Stack->MinorFunction == IRP_MN_SET_POWER ? "set" : "query",
             Stack->Parameters.Power.Type, Stack->Parameters.Power.State.SystemState,
             Stack->Parameters.Power.ShutdownType);
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);
    UCHAR Minor = Stack->MinorFunction;

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, Status, 0);
    }
    if (Minor == IRP_MN_SET_POWER || Minor == IRP_MN_QUERY_POWER) {
        TellPower(Stack);
        if ((Extension->Idioms & IDIOM_POWER_OWNER) && Stack->Parameters.Power.Type == SystemPowerState) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, SystemPowerBelowDone, Extension, TRUE, TRUE, TRUE);
            PoCallDriver(Extension->Lower, Irp);
            return STATUS_PENDING;
        }
        if (Minor == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == DevicePowerState) {
            PoSetPowerState(Extension->Self, DevicePowerState, Stack->Parameters.Power.State);
        }
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Extension->Lower, Irp);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

#endif
