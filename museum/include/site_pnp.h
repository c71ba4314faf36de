/* pnp.h: a function driver's plug and play and power, of which it is the policy owner. */

#include <initguid.h>

static NTSTATUS NTAPI PnpWake(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent(context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Sends a request down and waits until the drivers below are done with it; it is ours again then. */
static NTSTATUS PnpBelowFirst(SITE *site, PIRP irp)
{
    KEVENT done;

    KeInitializeEvent(&done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, PnpWake, &done, TRUE, TRUE, TRUE);
    if (IoCallDriver(site->Below, irp) == STATUS_PENDING)
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

static VOID StageEnter(SITE *site)
{
    KeWaitForSingleObject(&site->Stage, Executive, KernelMode, FALSE, NULL);
}

static VOID StageLeave(SITE *site)
{
    KeSetEvent(&site->Stage, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN SiteLive(SITE *site)
{
    KIRQL irql;
    BOOLEAN live;

    KeAcquireSpinLock(&site->GateLock, &irql);
    live = (site->Closed & SHUT_SLEEP) == 0;
    KeReleaseSpinLock(&site->GateLock, irql);
    return live;
}

static VOID PnpHide(SITE *site)
{
    if (site->Shown) {
        site->Shown = FALSE;
        IoSetDeviceInterfaceState(&site->Link, FALSE);
    }
}

/* With the stage. */
static VOID PnpEnd(SITE *site, BOOLEAN live)
{
    if (site->Running) {
        site->Running = FALSE;
        if (site->Script->End != NULL)
            site->Script->End(site, live);
    }
}

static NTSTATUS PnpStart(SITE *site, PIRP irp)
{
    PCM_RESOURCE_LIST resources = IoGetCurrentIrpStackLocation(irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS status = PnpBelowFirst(site, irp);

    StageEnter(site);
    if (NT_SUCCESS(status)) {
        status = site->Script->Begin != NULL ? site->Script->Begin(site, resources) : STATUS_SUCCESS;
        if (NT_SUCCESS(status)) {
            site->Running = TRUE;
            if (!site->Shown) {
                status = IoSetDeviceInterfaceState(&site->Link, TRUE);
                if (NT_SUCCESS(status))
                    site->Shown = TRUE;
                else
                    PnpEnd(site, TRUE);
            }
        }
    }
    if (NT_SUCCESS(status)) {
        StageLeave(site);
        GateOpen(site, SHUT_NEW | SHUT_STOP | SHUT_SLEEP);
        return STATUS_SUCCESS;
    }
    GateClose(site, SHUT_NEW);
    SiteEmpty(site, STATUS_DEVICE_NOT_CONNECTED);
    StageLeave(site);
    return status;
}

static NTSTATUS NTAPI SitePnp(PDEVICE_OBJECT device, PIRP irp)
{
    SITE *site = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&site->Tenure, irp);
    PDEVICE_OBJECT below = site->Below;

    if (!NT_SUCCESS(status))
        return SiteRefuse(irp, status);
    switch (IoGetCurrentIrpStackLocation(irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = PnpStart(site, irp);
        return Finish(site, irp, status, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        GateClose(site, SHUT_STOP);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        PnpBelowFirst(site, irp);
        GateOpen(site, SHUT_STOP);
        return Finish(site, irp, STATUS_SUCCESS, 0);
    case IRP_MN_STOP_DEVICE:
        StageEnter(site);
        GateClose(site, SHUT_STOP);
        PnpEnd(site, SiteLive(site));
        StageLeave(site);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        StageEnter(site);
        GateClose(site, SHUT_GONE);
        PnpEnd(site, FALSE);
        SiteEmpty(site, STATUS_DEVICE_NOT_CONNECTED);
        StageLeave(site);
        PnpHide(site);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        PnpHide(site);
        StageEnter(site);
        GateClose(site, SHUT_GONE);
        PnpEnd(site, SiteLive(site));
        SiteEmpty(site, STATUS_DELETE_PENDING);
        StageLeave(site);
        IoReleaseRemoveLockAndWait(&site->Tenure, irp);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(below, irp);
        IoDetachDevice(below);
        if (site->Script->Buried != NULL)
            site->Script->Buried(site);
        IoFreeWorkItem(site->PowerItem);
        RtlFreeUnicodeString(&site->Link);
        IoDeleteDevice(device);
        return status;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(below, irp);
    IoReleaseRemoveLock(&site->Tenure, irp);
    return status;
}

/* ------------------------------------------------------------------ power */

/* At PASSIVE_LEVEL: the device is about to leave D0. */
static VOID NTAPI PowerDownWork(PDEVICE_OBJECT device, PVOID context)
{
    SITE *site = context;
    PIRP irp = site->DeviceIrp;

    StageEnter(site);
    if (SiteLive(site)) {
        GateClose(site, SHUT_SLEEP);
        if (site->Running && site->Script->Sleep != NULL)
            site->Script->Sleep(site);
    }
    StageLeave(site);
    PoSetPowerState(device, DevicePowerState, IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State);
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    PoCallDriver(site->Below, irp);
    IoReleaseRemoveLock(&site->Tenure, irp);
}

/* At PASSIVE_LEVEL: the device is in D0. */
static VOID NTAPI PowerUpWork(PDEVICE_OBJECT device, PVOID context)
{
    SITE *site = context;
    PIRP irp = site->DeviceIrp;

    StageEnter(site);
    if (!SiteLive(site) && site->Running && site->Script->Wake != NULL)
        site->Script->Wake(site);
    StageLeave(site);
    PoSetPowerState(device, DevicePowerState, IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State);
    GateOpen(site, SHUT_SLEEP);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&site->Tenure, irp);
}

static NTSTATUS NTAPI PowerUpPassed(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    SITE *site = context;

    UNREFERENCED_PARAMETER(device);
    if (!NT_SUCCESS(irp->IoStatus.Status)) {
        PoStartNextPowerIrp(irp);
        IoReleaseRemoveLock(&site->Tenure, irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    site->DeviceIrp = irp;
    IoQueueWorkItem(site->PowerItem, PowerUpWork, DelayedWorkQueue, site);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* The request for the device's own state is done: so is the system's. */
static VOID NTAPI PowerSettled(PDEVICE_OBJECT device, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK done)
{
    SITE *site = context;
    PIRP irp = site->SystemIrp;

    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    UNREFERENCED_PARAMETER(done);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&site->Tenure, irp);
}

static NTSTATUS NTAPI PowerSystemPassed(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    SITE *site = context;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(device);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        state.DeviceState = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState == PowerSystemWorking
            ? PowerDeviceD0 : PowerDeviceD3;
        site->SystemIrp = irp;
        if (PoRequestPowerIrp(site->Physical, IRP_MN_SET_POWER, state, PowerSettled, site, NULL) == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&site->Tenure, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI SitePower(PDEVICE_OBJECT device, PIRP irp)
{
    SITE *site = device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&site->Tenure, irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        return SiteRefuse(irp, status);
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER && stack->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, PowerSystemPassed, site, TRUE, TRUE, TRUE);
        PoCallDriver(site->Below, irp);
        return STATUS_PENDING;
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER && stack->Parameters.Power.State.DeviceState == PowerDeviceD0) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, PowerUpPassed, site, TRUE, TRUE, TRUE);
        PoCallDriver(site->Below, irp);
        return STATUS_PENDING;
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER) {
        IoMarkIrpPending(irp);
        site->DeviceIrp = irp;
        IoQueueWorkItem(site->PowerItem, PowerDownWork, DelayedWorkQueue, site);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(site->Below, irp);
    IoReleaseRemoveLock(&site->Tenure, irp);
    return status;
}

/* ------------------------------------------------------------------ coming and going of the device object */

static NTSTATUS NTAPI SitePassDown(PDEVICE_OBJECT device, PIRP irp)
{
    SITE *site = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&site->Tenure, irp);

    if (!NT_SUCCESS(status))
        return SiteRefuse(irp, status);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(site->Below, irp);
    IoReleaseRemoveLock(&site->Tenure, irp);
    return status;
}

static NTSTATUS NTAPI SiteAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT physical)
{
    PDEVICE_OBJECT self;
    SITE *site;
    NTSTATUS status = IoCreateDevice(driver, SiteScript->Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &self);

    if (!NT_SUCCESS(status))
        return status;
    site = self->DeviceExtension;
    SiteInit(site, self, SHUT_NEW);
    site->Physical = physical;
    site->PowerItem = IoAllocateWorkItem(self);
    if (site->PowerItem == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_item;
    }
    status = IoRegisterDeviceInterface(physical, SiteScript->Interface, NULL, &site->Link);
    if (!NT_SUCCESS(status))
        goto no_interface;
    if (SiteScript->Born != NULL) {
        status = SiteScript->Born(site);
        if (!NT_SUCCESS(status))
            goto not_born;
    }
    site->Below = IoAttachDeviceToDeviceStack(self, physical);
    if (site->Below == NULL) {
        status = STATUS_NO_SUCH_DEVICE;
        goto not_attached;
    }
    self->Flags |= (SiteScript->Direct ? DO_DIRECT_IO : DO_BUFFERED_IO) | DO_POWER_PAGABLE;
    self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

not_attached:
    if (SiteScript->Buried != NULL)
        SiteScript->Buried(site);
not_born:
    RtlFreeUnicodeString(&site->Link);
no_interface:
    IoFreeWorkItem(site->PowerItem);
no_item:
    IoDeleteDevice(self);
    return status;
}

static VOID NTAPI PnpUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
}

static NTSTATUS PnpEntry(PDRIVER_OBJECT driver, const SCRIPT *script)
{
    SiteScript = script;
    SiteDispatch(driver);
    driver->MajorFunction[IRP_MJ_PNP] = SitePnp;
    driver->MajorFunction[IRP_MJ_POWER] = SitePower;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SitePassDown;
    driver->MajorFunction[IRP_MJ_INTERNAL_DEVICE_CONTROL] = SitePassDown;
    driver->DriverExtension->AddDevice = SiteAdd;
    driver->DriverUnload = PnpUnload;
    return STATUS_SUCCESS;
}
