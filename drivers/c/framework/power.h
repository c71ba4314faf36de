/*
 * Power: how a device comes to D0 and leaves it, with its interrupts, queues and callbacks in the documented order, and the power requests that a
 * driver of a power policy owner gets. What changes the device runs at PASSIVE_LEVEL, on a work item where a power request asks for it.
 *
 * A device whose driver has given up the power policy passes the system's requests on, and follows the device's, whichever driver of its stack asks
 * for them.
 *
 * Pages: Power Policy Ownership, A User Starts a Device, A User Unplugs a Device, Power-Up Sequence for a Function or Filter Driver, Power-Down and
 * Removal Sequence for a Function or Filter Driver, EvtDeviceD0Entry, EvtDeviceD0Exit. A power policy owner has its device sleep in D3, and arms
 * nothing.
 */
#ifndef FRAMEWORK_POWER_H
#define FRAMEWORK_POWER_H

static VOID LeaveByIrp(PIRP Irp)
{
    Leave(DeviceOf(IoGetCurrentIrpStackLocation(Irp)->DeviceObject));
}

#define POWER_DONE(Irp) LeaveByIrp(Irp)
#include "../power_policy.h"

static VOID HoldQueues(DEVICE *Device)
{
    PLIST_ENTRY Entry;

    for (Entry = Device->Queues.Flink; Entry != &Device->Queues; Entry = Entry->Flink) {
        QUEUE *Queue = CONTAINING_RECORD(Entry, QUEUE, Entry);

        if (Queue->PowerManaged) {
            HoldQueue(Queue);
        }
    }
}

static VOID ResumeQueues(DEVICE *Device)
{
    PLIST_ENTRY Entry;

    for (Entry = Device->Queues.Flink; Entry != &Device->Queues; Entry = Entry->Flink) {
        QUEUE *Queue = CONTAINING_RECORD(Entry, QUEUE, Entry);

        if (Queue->PowerManaged) {
            ResumeQueue(Queue);
        }
    }
}

static NTSTATUS ChangeD0(PFN_WDF_DEVICE_D0 Callback, DEVICE *Device, WDF_POWER_DEVICE_STATE State)
{
    return Callback == NULL ? STATUS_SUCCESS : Callback(HandleOf(&Device->Object), State);
}

static NTSTATUS StartSelfManaged(DEVICE *Device)
{
    WDF_PNPPOWER_EVENT_CALLBACKS *Callbacks = &Device->Settings.Power;
    PFN_WDF_DEVICE_STATUS Callback = Device->SelfManaged ? Callbacks->EvtDeviceSelfManagedIoRestart : Callbacks->EvtDeviceSelfManagedIoInit;

    Device->SelfManaged = TRUE;
    return Callback == NULL ? STATUS_SUCCESS : Callback(HandleOf(&Device->Object));
}

/* The device has power and its hardware is prepared: it comes to D0 from a state. Its owner holds State. */
static NTSTATUS PowerUp(DEVICE *Device, WDF_POWER_DEVICE_STATE From)
{
    WDF_PNPPOWER_EVENT_CALLBACKS *Callbacks = &Device->Settings.Power;
    NTSTATUS Status = ChangeD0(Callbacks->EvtDeviceD0Entry, Device, From);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = EnableInterrupts(Device);
    if (NT_SUCCESS(Status)) {
        Status = ChangeD0(Callbacks->EvtDeviceD0EntryPostInterruptsEnabled, Device, From);
    }
    if (NT_SUCCESS(Status)) {
        Status = StartSelfManaged(Device);
    }
    if (!NT_SUCCESS(Status)) {
        DisableInterrupts(Device);
        ChangeD0(Callbacks->EvtDeviceD0Exit, Device, WdfPowerDeviceD3Final);
        return Status;
    }
    Device->Powered = TRUE;
    ResumeQueues(Device);
    return STATUS_SUCCESS;
}

/* The device leaves D0. */
static VOID PowerDown(DEVICE *Device, WDF_POWER_DEVICE_STATE To)
{
    WDF_PNPPOWER_EVENT_CALLBACKS *Callbacks = &Device->Settings.Power;

    if (!Device->Powered) {
        return;
    }
    if (Callbacks->EvtDeviceSelfManagedIoSuspend != NULL) {
        Callbacks->EvtDeviceSelfManagedIoSuspend(HandleOf(&Device->Object));
    }
    Device->Powered = FALSE;
    HoldQueues(Device);
    ChangeD0(Callbacks->EvtDeviceD0ExitPreInterruptsDisabled, Device, To);
    DisableInterrupts(Device);
    ChangeD0(Callbacks->EvtDeviceD0Exit, Device, To);
}

/* A device that does not come to D0 again has failed: the PnP manager asks, and removes it. */
static VOID Fail(DEVICE *Device)
{
    Device->Failed = TRUE;
    IoInvalidateDeviceState(Device->Pdo);
}

static NTSTATUS NTAPI DownBelow(PDEVICE_OBJECT Wdm, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Wdm);
    UNREFERENCED_PARAMETER(Irp);
    Leave(Context);
    return STATUS_CONTINUE_COMPLETION;
}

static VOID NTAPI ChangePower(PDEVICE_OBJECT Wdm, PVOID Context)
{
    DEVICE *Device = Context;
    PIRP Irp = Device->PowerIrp;
    POWER_ASKED Asked = PowerAsked(Irp);
    DEVICE_POWER_STATE State = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.DeviceState;

    UNREFERENCED_PARAMETER(Wdm);
    TakeFree(&Device->State, NULL);
    if (Asked == DeviceDown) {
        PowerDown(Device, (WDF_POWER_DEVICE_STATE)(State - PowerDeviceD0 + WdfPowerDeviceD0));
    } else if (Device->Prepared && !Device->Powered && !NT_SUCCESS(PowerUp(Device, WdfPowerDeviceD3))) {
        Fail(Device);
    }
    GiveFree(&Device->State);
    PoStartNextPowerIrp(Irp);
    if (Asked == DeviceDown) {
        PowerBelow(Device->Lower, Irp, DownBelow, Device);
        return;
    }
    LeaveByIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

static VOID ChangePowerLater(DEVICE *Device, PIRP Irp)
{
    Device->PowerIrp = Irp; /* the power manager sends one at a time */
    IoQueueWorkItem(Device->PowerWork, ChangePower, DelayedWorkQueue, Device);
}

static NTSTATUS NTAPI UpBelow(PDEVICE_OBJECT Wdm, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Wdm);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        ChangePowerLater(Context, Irp);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    Leave(Context);
    return STATUS_CONTINUE_COMPLETION;
}

/* Its caller has entered the device. */
static NTSTATUS PassPowerOn(DEVICE *Device, PIRP Irp)
{
    NTSTATUS Status;

    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Device->Lower, Irp);
    Leave(Device);
    return Status;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Wdm, PIRP Irp)
{
    DEVICE *Device = DeviceOf(Wdm);

    if (Device->Lower == NULL || !Enter(Device)) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, Device->Lower == NULL ? STATUS_INVALID_DEVICE_REQUEST : STATUS_NO_SUCH_DEVICE, 0);
    }
    switch (PowerAsked(Irp)) {
    case SystemPower:
        if (!Device->Settings.OwnsPowerPolicy) {
            return PassPowerOn(Device, Irp);
        }
        return PowerBelow(Device->Lower, Irp, SystemBelowDone, Device->Pdo);
    case DeviceUp:
        return PowerBelow(Device->Lower, Irp, UpBelow, Device);
    case DeviceDown:
        IoMarkIrpPending(Irp);
        ChangePowerLater(Device, Irp);
        return STATUS_PENDING;
    default:
        return PassPowerOn(Device, Irp);
    }
}

#endif
