/*
 * Plug and Play of a function driver: start, stop, surprise removal and removal, each of which prepares or releases the hardware and brings the
 * device to D0 or out of it; queries are put to the driver.
 *
 * Pages: Plug and Play and Power Management Callback Sequences, EvtDevicePrepareHardware, EvtDeviceReleaseHardware, EvtDeviceSurpriseRemoval,
 * EvtDeviceQueryStop, EvtDeviceQueryRemove. A driver above the bus completes what it handles on the way down.
 */
#ifndef FRAMEWORK_PNP_H
#define FRAMEWORK_PNP_H

#include "../forward.h"

static VOID SetInterfaces(DEVICE *Device, BOOLEAN On)
{
    PLIST_ENTRY Entry;

    for (Entry = Device->Interfaces.Flink; Entry != &Device->Interfaces; Entry = Entry->Flink) {
        IoSetDeviceInterfaceState(&CONTAINING_RECORD(Entry, DEVICE_INTERFACE, Entry)->Link, On);
    }
}

static VOID ReleaseHardware(DEVICE *Device)
{
    if (!Device->Prepared) {
        return;
    }
    Device->Prepared = FALSE;
    if (Device->Settings.Power.EvtDeviceReleaseHardware != NULL) {
        Device->Settings.Power.EvtDeviceReleaseHardware(HandleOf(&Device->Object), HandleOf(&Device->Translated->Object));
    }
    Delete(&Device->Raw->Object);
    Delete(&Device->Translated->Object);
}

static NTSTATUS PrepareHardware(DEVICE *Device, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    NTSTATUS Status = CopyResources(Device, Raw, &Device->Raw);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = CopyResources(Device, Translated, &Device->Translated);
    if (!NT_SUCCESS(Status)) {
        Delete(&Device->Raw->Object);
        return Status;
    }
    Device->Prepared = TRUE;
    AssignInterrupts(Device, Device->Translated->List);
    if (Device->Settings.Power.EvtDevicePrepareHardware != NULL) {
        Status = Device->Settings.Power.EvtDevicePrepareHardware(HandleOf(&Device->Object), HandleOf(&Device->Raw->Object),
                                                                 HandleOf(&Device->Translated->Object));
    }
    return Status;
}

/* The drivers below have started it. */
static NTSTATUS StartDevice(DEVICE *Device, PIO_STACK_LOCATION Stack)
{
    NTSTATUS Status;

    TakeFree(&Device->State, NULL);
    PowerDown(Device, WdfPowerDeviceD3Final); /* one that runs may be started with other resources */
    ReleaseHardware(Device);
    Status = PrepareHardware(Device, Stack->Parameters.StartDevice.AllocatedResources,
                             Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (NT_SUCCESS(Status)) {
        Status = PowerUp(Device, WdfPowerDeviceD3Final);
    }
    if (NT_SUCCESS(Status)) {
        Device->Started = TRUE;
    } else {
        ReleaseHardware(Device);
    }
    GiveFree(&Device->State);
    if (NT_SUCCESS(Status)) {
        SetInterfaces(Device, TRUE);
    }
    return Status;
}

static VOID StopDevice(DEVICE *Device)
{
    TakeFree(&Device->State, NULL);
    PowerDown(Device, WdfPowerDeviceD3Final);
    ReleaseHardware(Device);
    Device->Started = FALSE;
    GiveFree(&Device->State);
}

/* Those that power management holds, or the others. */
static VOID PurgeQueues(DEVICE *Device, BOOLEAN PowerManaged)
{
    PLIST_ENTRY Entry;

    for (Entry = Device->Queues.Flink; Entry != &Device->Queues; Entry = Entry->Flink) {
        QUEUE *Queue = CONTAINING_RECORD(Entry, QUEUE, Entry);

        if (Queue->PowerManaged == PowerManaged) {
            PurgeQueue(Queue);
        }
    }
}

/* It will not be started again, or is no longer there. */
static VOID TakeDown(DEVICE *Device)
{
    TakeFree(&Device->State, NULL);
    SetInterfaces(Device, FALSE);
    PowerDown(Device, WdfPowerDeviceD3Final);
    ReleaseHardware(Device);
    Device->Started = FALSE;
    PurgeQueues(Device, TRUE);
    GiveFree(&Device->State);
}

/* The last of a device: requests of queues that are not power-managed have waited until now, even for one that was pulled out. */
static VOID Flush(DEVICE *Device)
{
    WDF_PNPPOWER_EVENT_CALLBACKS *Callbacks = &Device->Settings.Power;

    TakeFree(&Device->State, NULL);
    if (Device->SelfManaged && Callbacks->EvtDeviceSelfManagedIoFlush != NULL) {
        Callbacks->EvtDeviceSelfManagedIoFlush(HandleOf(&Device->Object));
    }
    PurgeQueues(Device, FALSE);
    if (Device->SelfManaged && Callbacks->EvtDeviceSelfManagedIoCleanup != NULL) {
        Callbacks->EvtDeviceSelfManagedIoCleanup(HandleOf(&Device->Object));
    }
    Device->SelfManaged = FALSE;
    GiveFree(&Device->State);
}

static NTSTATUS RemoveDevice(DEVICE *Device, PIRP Irp)
{
    NTSTATUS Status;

    WaitUntilEmpty(Device);
    TakeDown(Device);
    Flush(Device);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Device->Lower, Irp);
    Delete(&Device->Object);
    return Status;
}

static NTSTATUS PassOn(DEVICE *Device, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Device->Lower, Irp);
}

static NTSTATUS Succeed(DEVICE *Device, PIRP Irp)
{
    Irp->IoStatus.Status = STATUS_SUCCESS;
    return PassOn(Device, Irp);
}

/* What a driver may refuse. */
static NTSTATUS Query(DEVICE *Device, PIRP Irp, PFN_WDF_DEVICE_STATUS Callback)
{
    NTSTATUS Status = Callback == NULL ? STATUS_SUCCESS : Callback(HandleOf(&Device->Object));

    return NT_SUCCESS(Status) ? Succeed(Device, Irp) : Complete(Irp, Status, Irp->IoStatus.Information);
}

static NTSTATUS Start(DEVICE *Device, PIRP Irp)
{
    NTSTATUS Status = ForwardAndWait(Device->Lower, Irp);

    if (NT_SUCCESS(Status)) {
        Status = StartDevice(Device, IoGetCurrentIrpStackLocation(Irp));
    }
    return Complete(Irp, Status, Irp->IoStatus.Information);
}

static NTSTATUS PnpOf(DEVICE *Device, PIRP Irp)
{
    WDF_PNPPOWER_EVENT_CALLBACKS *Callbacks = &Device->Settings.Power;

    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return Start(Device, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
        return Query(Device, Irp, Callbacks->EvtDeviceQueryStop);
    case IRP_MN_QUERY_REMOVE_DEVICE:
        return Query(Device, Irp, Callbacks->EvtDeviceQueryRemove);
    case IRP_MN_STOP_DEVICE:
        StopDevice(Device);
        return Succeed(Device, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        if (Callbacks->EvtDeviceSurpriseRemoval != NULL) {
            Callbacks->EvtDeviceSurpriseRemoval(HandleOf(&Device->Object));
        }
        TakeDown(Device);
        return Succeed(Device, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        return Succeed(Device, Irp);
    case IRP_MN_QUERY_PNP_DEVICE_STATE:
        if (Device->Failed) {
            Irp->IoStatus.Information |= PNP_DEVICE_FAILED;
            Irp->IoStatus.Status = STATUS_SUCCESS;
        }
        return PassOn(Device, Irp);
    default:
        return PassOn(Device, Irp);
    }
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Wdm, PIRP Irp)
{
    DEVICE *Device = DeviceOf(Wdm);
    NTSTATUS Status;

    if (Device->Lower == NULL) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_REMOVE_DEVICE) {
        return RemoveDevice(Device, Irp);
    }
    if (!Enter(Device)) {
        return Complete(Irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    Status = PnpOf(Device, Irp);
    Leave(Device);
    return Status;
}

#endif
