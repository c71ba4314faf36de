/*
 * hold_frame.h: Plug and Play, power and removal for a plain function driver. The device extension of a driver begins with a KIT, and the driver supplies the
 * hooks below. Requests come in by KitEnter and are refused while the device is not started, stopped, asleep or gone.
 */
#pragma once
#include <ddk/wdm.h>

#define HOLD_START 1u               /* not started yet */
#define HOLD_STOP  2u               /* stopped for a rebalance, or about to be */
#define HOLD_POWER 4u               /* below D0 */
#define HOLD_GONE  8u               /* removed, or pulled out */

typedef struct _KIT {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;            /* of the device interface */
    KSPIN_LOCK Lock;                /* Holds, Users */
    ULONG Holds;
    ULONG Users;                    /* dispatch routines at work */
    KEVENT Idle;                    /* no users */
    BOOLEAN Started;                /* KitStart has succeeded and KitStop was not called since */
    volatile BOOLEAN Removing;      /* removal was asked for: it is not opened any more */
    DEVICE_POWER_STATE Power;
} KIT, *PKIT;

/* Hooks of the driver. */
static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated);   /* PASSIVE_LEVEL; releases what it took if it fails */
static void KitStop(PKIT Kit);                                             /* PASSIVE_LEVEL, no users */
static void KitDrain(PKIT Kit);                                            /* PASSIVE_LEVEL, no users: completes what pends */
static void KitSuspend(PKIT Kit);                                          /* PASSIVE_LEVEL, no users: leaves D0 */
static void KitResume(PKIT Kit);                                           /* up to DISPATCH_LEVEL: back in D0 */
#ifdef KIT_FREE
static void KIT_FREE(PKIT Kit);                                            /* PASSIVE_LEVEL: all requests have ended */
#endif

static NTSTATUS KitComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Lets a request in. It holds the remove lock until KitFinish or KitDone. */
static inline NTSTATUS KitEnter(PKIT Kit, PIRP Irp)
{
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&Kit->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&Kit->Lock, &irql);
    if (Kit->Holds & HOLD_GONE)
        status = STATUS_NO_SUCH_DEVICE;
    else if (Kit->Holds)
        status = STATUS_DEVICE_NOT_READY;
    else if (Kit->Users++ == 0)
        KeClearEvent(&Kit->Idle);
    KeReleaseSpinLock(&Kit->Lock, irql);
    if (!NT_SUCCESS(status))
        IoReleaseRemoveLock(&Kit->RemoveLock, Irp);
    return status;
}

/* The dispatch routine is done with the device; a request that pends keeps the remove lock. */
static inline void KitLeave(PKIT Kit)
{
    KIRQL irql;

    KeAcquireSpinLock(&Kit->Lock, &irql);
    if (--Kit->Users == 0)
        KeSetEvent(&Kit->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Kit->Lock, irql);
}

/* Completes a request that pended. */
static inline void KitDone(PKIT Kit, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KitComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Kit->RemoveLock, Irp);
}

/* Completes a request in its dispatch routine. */
static inline NTSTATUS KitFinish(PKIT Kit, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KitLeave(Kit);
    KitDone(Kit, Irp, Status, Information);
    return Status;
}

/* Refuses requests from here on and waits for those that are being dispatched. */
static void KitHold(PKIT Kit, ULONG Why)
{
    KIRQL irql;

    KeAcquireSpinLock(&Kit->Lock, &irql);
    Kit->Holds |= Why;
    KeReleaseSpinLock(&Kit->Lock, irql);
    KeWaitForSingleObject(&Kit->Idle, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&Kit->Lock, &irql);       /* the last user has let go of the lock */
    KeReleaseSpinLock(&Kit->Lock, irql);
}

static void KitUnhold(PKIT Kit, ULONG Why)
{
    KIRQL irql;

    KeAcquireSpinLock(&Kit->Lock, &irql);
    Kit->Holds &= ~Why;
    KeReleaseSpinLock(&Kit->Lock, irql);
}

static void KitHalt(PKIT Kit, ULONG Why)
{
    KitHold(Kit, Why);
    KitDrain(Kit);
    if (Kit->Started) {
        KitStop(Kit);
        Kit->Started = FALSE;
    }
}

static NTSTATUS KitPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PKIT kit = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PCM_RESOURCE_LIST list;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);

    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        list = sp->Parameters.StartDevice.AllocatedResourcesTranslated;
        status = IoForwardIrpSynchronously(kit->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status))
            status = KitStart(kit, list != NULL && list->Count != 0 ? &list->List[0].PartialResourceList : NULL);
        if (NT_SUCCESS(status)) {
            kit->Started = TRUE;
            kit->Power = PowerDeviceD0;
            KitUnhold(kit, HOLD_START | HOLD_STOP | HOLD_POWER);
            if (kit->Link.Buffer != NULL)
                IoSetDeviceInterfaceState(&kit->Link, TRUE);
        }
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
        KitHold(kit, HOLD_STOP);
        KitDrain(kit);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
        (void)IoForwardIrpSynchronously(kit->Lower, Irp);
        KitUnhold(kit, HOLD_STOP);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return STATUS_SUCCESS;

    case IRP_MN_STOP_DEVICE:
        KitHalt(kit, HOLD_STOP);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        kit->Removing = TRUE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_REMOVE_DEVICE:
        (void)IoForwardIrpSynchronously(kit->Lower, Irp);
        kit->Removing = FALSE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return STATUS_SUCCESS;

    case IRP_MN_SURPRISE_REMOVAL:
        if (kit->Link.Buffer != NULL)
            IoSetDeviceInterfaceState(&kit->Link, FALSE);
        KitHalt(kit, HOLD_GONE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        if (kit->Link.Buffer != NULL)
            IoSetDeviceInterfaceState(&kit->Link, FALSE);
        KitHalt(kit, HOLD_GONE);
        IoReleaseRemoveLockAndWait(&kit->RemoveLock, Irp);
#ifdef KIT_FREE
        KIT_FREE(kit);
#endif
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(kit->Lower, Irp);
        IoDetachDevice(kit->Lower);
        if (kit->Link.Buffer != NULL)
            RtlFreeUnicodeString(&kit->Link);
        IoDeleteDevice(kit->Self);
        return status;

    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (sp->Parameters.UsageNotification.InPath) {      /* no special files on this device */
            KitComplete(Irp, STATUS_UNSUCCESSFUL, 0);
            IoReleaseRemoveLock(&kit->RemoveLock, Irp);
            return STATUS_UNSUCCESSFUL;
        }
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(kit->Lower, Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return status;
}

/* The device has reached the state that a system power request asked for: the system request ends. */
static VOID NTAPI KitDevicePowered(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Result)
{
    PIRP irp = Context;
    PKIT kit = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Pdo);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    irp->IoStatus.Status = Result->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&kit->RemoveLock, irp);
}

static NTSTATUS NTAPI KitSystemPowered(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PKIT kit = Context;
    POWER_STATE state;
    NTSTATUS status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(status)) {
        state.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(kit->Pdo, IRP_MN_SET_POWER, state, KitDevicePowered, Irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI KitUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PKIT kit = Context;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status) && kit->Power != PowerDeviceD0) {
        state.DeviceState = kit->Power = PowerDeviceD0;
        if (kit->Started)
            KitResume(kit);
        PoSetPowerState(kit->Self, DevicePowerState, state);
        KitUnhold(kit, HOLD_POWER);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI KitPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PKIT kit = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE done = NULL;
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return KitComplete(Irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState)
            done = KitSystemPowered;
        else if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0)
            done = KitUp;
        else {
            if (kit->Power == PowerDeviceD0) {
                KitHold(kit, HOLD_POWER);
                KitDrain(kit);
                if (kit->Started)
                    KitSuspend(kit);
                PoSetPowerState(Device, DevicePowerState, sp->Parameters.Power.State);
            }
            kit->Power = sp->Parameters.Power.State.DeviceState;
        }
    }
    if (done != NULL) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, done, kit, TRUE, TRUE, TRUE);
        PoCallDriver(kit->Lower, Irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(kit->Lower, Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI KitSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PKIT kit = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(kit->Lower, Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return status;
}

/* Makes and attaches the device object. The caller sets up the rest of its extension and clears DO_DEVICE_INITIALIZING. */
static NTSTATUS KitAttach(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG ExtensionSize, ULONG Tag, const GUID *Interface, PDEVICE_OBJECT *Device)
{
    PDEVICE_OBJECT device;
    PKIT kit;
    NTSTATUS status;

    status = IoCreateDevice(Driver, ExtensionSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    kit = device->DeviceExtension;
    RtlZeroMemory(kit, ExtensionSize);
    kit->Self = device;
    kit->Pdo = Pdo;
    kit->Holds = HOLD_START;
    kit->Power = PowerDeviceD3;
    KeInitializeSpinLock(&kit->Lock);
    KeInitializeEvent(&kit->Idle, NotificationEvent, TRUE);
    IoInitializeRemoveLock(&kit->RemoveLock, Tag, 0, 0);
    status = IoRegisterDeviceInterface(Pdo, Interface, NULL, &kit->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    kit->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (kit->Lower == NULL) {
        RtlFreeUnicodeString(&kit->Link);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_POWER_PAGABLE;
    *Device = device;
    return STATUS_SUCCESS;
}

/* Create, close and cleanup of a driver that keeps nothing by handle. */
static inline NTSTATUS NTAPI KitCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PKIT kit = Device->DeviceExtension;
    NTSTATUS status;

    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction != IRP_MJ_CREATE)
        return KitComplete(Irp, STATUS_SUCCESS, 0);
    status = KitEnter(kit, Irp);
    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    return KitFinish(kit, Irp, kit->Removing ? STATUS_DELETE_PENDING : STATUS_SUCCESS, 0);
}

static void KitInitialize(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE AddDevice, PDRIVER_UNLOAD Unload)
{
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_PNP] = KitPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = KitPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KitSystemControl;
}
