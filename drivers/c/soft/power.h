/*
 * Power requests of a device of soft.sys, at whichever level they come: DISPATCH_LEVEL where no device object of the stack says DO_POWER_PAGABLE. The
 * driver asks for one itself when an application does (IOCTL_SOFT_POWER), and holds the remove lock until it has ended.
 *
 * Pages: Dispatch Routines and IRQLs, Setting Device Object Flags for Power Management, PoRequestPowerIrp function.
 */
#ifndef SOFT_POWER_H
#define SOFT_POWER_H

/* May be paged out: nothing for a request that comes at DISPATCH_LEVEL. */
__attribute__((section("PAGEPOWR"), noinline)) static ULONG PagedState(PIO_STACK_LOCATION Stack)
{
    return Stack->Parameters.Power.State.DeviceState - PowerDeviceD0;
}

static NTSTATUS NTAPI PowerIsBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* A mistake where the flag is clear: waits for the drivers below in the dispatch routine. */
static NTSTATUS WaitForPower(PSOFT Soft, PIRP Irp)
{
    NTSTATUS Status;
    KEVENT Done;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, PowerIsBack, &Done, TRUE, TRUE, TRUE);
    PoCallDriver(Soft->Lower, Irp);
    KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
    Status = Irp->IoStatus.Status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSOFT Soft = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->MinorFunction == IRP_MN_QUERY_POWER && Stack->Parameters.Power.Type == DevicePowerState) {
        DbgPrint("soft %d is asked for D%d at level %u\n", Soft->Number, Stack->Parameters.Power.State.DeviceState - PowerDeviceD0,
                 KeGetCurrentIrql());
    } else if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == SystemPowerState) {
        DbgPrint("soft %d goes to S%d\n", Soft->Number, Stack->Parameters.Power.State.SystemState - PowerSystemWorking);
    } else if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        DbgPrint("soft %d goes to D%d at level %u\n", Soft->Number, Stack->Parameters.Power.State.DeviceState - PowerDeviceD0,
                 KeGetCurrentIrql());
        if ((Soft->Manners & MISTAKE_PAGED) && PagedState(Stack) > 3) {
            DbgPrint("soft %d: there is no such state\n", Soft->Number);
        }
    }
    PoStartNextPowerIrp(Irp);
    if (Stack->MinorFunction == IRP_MN_SET_POWER && (Soft->Manners & MISTAKE_WAITS)) {
        return WaitForPower(Soft, Irp);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    return PoCallDriver(Soft->Lower, Irp);
}

static VOID NTAPI PowerHasChanged(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PSOFT Soft = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(Block);
    DbgPrint("soft %d is in D%d\n", Soft->Number, State.DeviceState - PowerDeviceD0);
    IoReleaseRemoveLock(&Soft->RemoveLock, Soft);
}

/* The caller holds the remove lock, and lets go of it before the request has ended. */
static NTSTATUS AskForPower(PSOFT Soft, ULONG DeviceState)
{
    POWER_STATE State;
    NTSTATUS Status = IoAcquireRemoveLock(&Soft->RemoveLock, Soft);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    State.DeviceState = (DEVICE_POWER_STATE)DeviceState;
    Status = PoRequestPowerIrp(Soft->Pdo, IRP_MN_SET_POWER, State, PowerHasChanged, Soft, NULL);
    if (Status != STATUS_PENDING) {
        IoReleaseRemoveLock(&Soft->RemoveLock, Soft);
        return Status;
    }
    return STATUS_SUCCESS;
}

#endif
