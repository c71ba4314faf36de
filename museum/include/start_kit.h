/*
 * start_kit.h - the parts of a simple function driver that are always the same:
 * PnP, power, WMI pass-through, create and close.
 *
 * "struct fdokit" is the first member of the device extension.  The device's
 * power policy is S0 = D0, anything else = D3.
 *
 *   start(x, translated resources)  PASSIVE; cleans up after itself when it fails
 *   stop(x, touch)                  PASSIVE; undoes start, does nothing if there was none
 *   up(x), down(x)                  D0 reached / about to be left; IRQL <= DISPATCH_LEVEL
 *   freed(x)                        PASSIVE; last call, no more requests (may be NULL)
 */
#pragma once
#include <ddk/wdm.h>

struct fdokit {
    PDEVICE_OBJECT  self, pdo, lower;
    IO_REMOVE_LOCK  lock;
    UNICODE_STRING  name;               /* device interface */
    NTSTATUS      (*start)(void *x, PCM_RESOURCE_LIST list);
    void          (*stop)(void *x, BOOLEAN touch);
    void          (*up)(void *x);
    void          (*down)(void *x);
    void          (*freed)(void *x);
    PIRP            sysirp;             /* the power manager sends one at a time */
};

static NTSTATUS fdokit_complete(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI fdokit_create_close(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return fdokit_complete(irp, STATUS_SUCCESS, 0);
}

/* ----------------------------------------------------------------- power */

static VOID NTAPI fdokit_dev_done(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK io)
{
    struct fdokit *k = ctx;
    PIRP irp = k->sysirp;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);

    k->sysirp = NULL;
    PoStartNextPowerIrp(irp);
    irp->IoStatus.Status = io->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&k->lock, irp);
}

static NTSTATUS NTAPI fdokit_sys_done(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    struct fdokit *k = ctx;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE state;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(dev);

    if (NT_SUCCESS(irp->IoStatus.Status)) {
        state.DeviceState = sl->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        k->sysirp = irp;
        status = PoRequestPowerIrp(k->pdo, IRP_MN_SET_POWER, state, fdokit_dev_done, k, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        k->sysirp = NULL;
        irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&k->lock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI fdokit_up_done(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    struct fdokit *k = ctx;
    POWER_STATE d0;

    if (NT_SUCCESS(irp->IoStatus.Status)) {
        d0.DeviceState = PowerDeviceD0;
        PoSetPowerState(dev, DevicePowerState, d0);
        k->up(k);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&k->lock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI fdokit_power(PDEVICE_OBJECT dev, PIRP irp)
{
    struct fdokit *k = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    PIO_COMPLETION_ROUTINE done = NULL;
    NTSTATUS status = IoAcquireRemoveLock(&k->lock, irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        return fdokit_complete(irp, status, 0);
    }

    if (sl->MinorFunction == IRP_MN_SET_POWER && sl->Parameters.Power.Type == SystemPowerState) {
        done = fdokit_sys_done;
    } else if (sl->MinorFunction == IRP_MN_SET_POWER) {
        if (sl->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            done = fdokit_up_done;
        } else {
            k->down(k);
            PoSetPowerState(dev, DevicePowerState, sl->Parameters.Power.State);
        }
    }

    if (done) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, done, k, TRUE, TRUE, TRUE);
        PoCallDriver(k->lower, irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(k->lower, irp);
    IoReleaseRemoveLock(&k->lock, irp);
    return status;
}

/* ------------------------------------------------------------------- PnP */

static NTSTATUS fdokit_pass(struct fdokit *k, PIRP irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(k->lower, irp);
    IoReleaseRemoveLock(&k->lock, irp);
    return status;
}

static NTSTATUS NTAPI fdokit_system_control(PDEVICE_OBJECT dev, PIRP irp)
{
    struct fdokit *k = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&k->lock, irp);

    return NT_SUCCESS(status) ? fdokit_pass(k, irp) : fdokit_complete(irp, status, 0);
}

static NTSTATUS fdokit_start(struct fdokit *k, PIRP irp)
{
    PCM_RESOURCE_LIST list =
        IoGetCurrentIrpStackLocation(irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS status;

    if (!IoForwardIrpSynchronously(k->lower, irp))
        return STATUS_UNSUCCESSFUL;
    status = irp->IoStatus.Status;
    if (!NT_SUCCESS(status))
        return status;
    if (!list || !list->Count)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    status = k->start(k, list);
    if (!NT_SUCCESS(status))
        return status;
    status = IoSetDeviceInterfaceState(&k->name, TRUE);
    if (!NT_SUCCESS(status)) {
        k->stop(k, TRUE);
        return status;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI fdokit_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
    struct fdokit *k = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&k->lock, irp);

    if (!NT_SUCCESS(status))
        return fdokit_complete(irp, status, 0);

    switch (IoGetCurrentIrpStackLocation(irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = fdokit_start(k, irp);
        fdokit_complete(irp, status, 0);
        IoReleaseRemoveLock(&k->lock, irp);
        return status;
    case IRP_MN_STOP_DEVICE:
        k->stop(k, TRUE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&k->name, FALSE);
        k->stop(k, FALSE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&k->name, FALSE);
        k->stop(k, TRUE);
        IoReleaseRemoveLockAndWait(&k->lock, irp);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(k->lower, irp);
        IoDetachDevice(k->lower);
        RtlFreeUnicodeString(&k->name);
        if (k->freed)
            k->freed(k);
        IoDeleteDevice(dev);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    return fdokit_pass(k, irp);
}

/* ----------------------------------------------------------------- entry */

/* The device object is not open for business until its DO_DEVICE_INITIALIZING is cleared. */
static NTSTATUS fdokit_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo, ULONG size, const GUID *guid, ULONG tag, struct fdokit **kit)
{
    PDEVICE_OBJECT dev;
    struct fdokit *k;
    NTSTATUS status;

    status = IoCreateDevice(drv, size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    k = dev->DeviceExtension;
    RtlZeroMemory(k, size);
    k->self = dev;
    k->pdo = pdo;
    IoInitializeRemoveLock(&k->lock, tag, 0, 0);

    status = IoRegisterDeviceInterface(pdo, guid, NULL, &k->name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    k->lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (!k->lower) {
        RtlFreeUnicodeString(&k->name);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    *kit = k;
    return STATUS_SUCCESS;
}

static VOID NTAPI fdokit_unload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

static void fdokit_entry(PDRIVER_OBJECT drv, PDRIVER_ADD_DEVICE add)
{
    drv->MajorFunction[IRP_MJ_CREATE] = fdokit_create_close;
    drv->MajorFunction[IRP_MJ_CLOSE] = fdokit_create_close;
    drv->MajorFunction[IRP_MJ_PNP] = fdokit_pnp;
    drv->MajorFunction[IRP_MJ_POWER] = fdokit_power;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = fdokit_system_control;
    drv->DriverExtension->AddDevice = add;
    drv->DriverUnload = fdokit_unload;
}
