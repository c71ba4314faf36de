/*
 * What these drivers share: a control device made in DriverEntry, and the PnP, power and
 * WMI dispatch of a function driver. What a driver is about is in its own file.
 */
#ifndef SHARED_FRAME_H
#define SHARED_FRAME_H
#include <ddk/wdm.h>

#define KITFN static __attribute__((unused))
#define KIT_TAG 'tiKK'

#ifndef FILE_DEVICE_SECURE_OPEN
#define FILE_DEVICE_SECURE_OPEN 0x00000100
#endif

KITFN NTSTATUS KitComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- control devices ------------------------------------------------------------------------------------------- */

/* Makes \Device\X with its link. The device is still being initialised when this returns: the caller clears the flag. */
KITFN NTSTATUS KitCreateControl(PDRIVER_OBJECT Driver, PCWSTR Name, PCWSTR Link, ULONG ExtensionSize, PDEVICE_OBJECT *Device)
{
    UNICODE_STRING name, link;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Name);
    RtlInitUnicodeString(&link, Link);
    status = IoCreateDevice(Driver, ExtensionSize, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(*Device);
        *Device = NULL;
    }
    return status;
}

KITFN VOID KitDeleteControl(PDEVICE_OBJECT Device, PCWSTR Link)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Device);
}

/* For IRP_MJ_CREATE, CLEANUP and CLOSE of devices that keep nothing for each handle. */
KITFN NTSTATUS NTAPI KitSucceed(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

/* ---- function drivers ------------------------------------------------------------------------------------------ */

typedef enum _KIT_STATE { KitAdded, KitStarted, KitStopped, KitRemovePending, KitGone, KitRemoved } KIT_STATE;

typedef struct _KIT_OPS {
    /* PASSIVE_LEVEL. Takes the hardware into use; undoes what it did when it fails. */
    NTSTATUS (*Start)(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated);
    /* PASSIVE_LEVEL. Refuses requests from here on and completes all that are pending. May be called twice. */
    VOID (*Drain)(PDEVICE_OBJECT Device);
    /* PASSIVE_LEVEL. Gives the hardware back; Present: it still answers. Called once for each good Start. */
    VOID (*Stop)(PDEVICE_OBJECT Device, BOOLEAN Present);
    /* PASSIVE_LEVEL: about to leave D0; <= DISPATCH_LEVEL: has come back to D0. */
    VOID (*Down)(PDEVICE_OBJECT Device);
    VOID (*Up)(PDEVICE_OBJECT Device);
} KIT_OPS;

/* The first member of every function driver's device extension. */
typedef struct _KIT {
    PDEVICE_OBJECT Self, Pdo, Lower;
    const KIT_OPS *Ops;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    volatile LONG State;
    LONG Previous;
    BOOLEAN Started;
    BOOLEAN Surprised;
    DEVICE_POWER_STATE DState;
    DEVICE_POWER_STATE Map[POWER_SYSTEM_MAXIMUM];
    SYSTEM_POWER_STATE SystemWake;
    PIRP SystemIrp;
    volatile LONG Asleep; /* the system is, or is about to be */
} KIT;

/* Completes a request that holds the remove lock. */
KITFN NTSTATUS KitFinish(KIT *K, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KitComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&K->RemoveLock, Irp);
    return Status;
}

KITFN NTSTATUS KitAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG ExtensionSize, const KIT_OPS *Ops, const GUID *Interface, ULONG Flags, PDEVICE_OBJECT *Device)
{
    KIT *k;
    NTSTATUS status;

    status = IoCreateDevice(Driver, ExtensionSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    k = (*Device)->DeviceExtension;
    k->Self = *Device;
    k->Pdo = Pdo;
    k->Ops = Ops;
    k->State = KitAdded;
    k->DState = PowerDeviceD0;
    IoInitializeRemoveLock(&k->RemoveLock, KIT_TAG, 0, 0);
    status = IoRegisterDeviceInterface(Pdo, Interface, NULL, &k->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(*Device);
        return status;
    }
    k->Lower = IoAttachDeviceToDeviceStack(*Device, Pdo);
    if (k->Lower == NULL) {
        RtlFreeUnicodeString(&k->Link);
        IoDeleteDevice(*Device);
        return STATUS_NO_SUCH_DEVICE;
    }
    (*Device)->Flags |= Flags | DO_POWER_PAGABLE;
    return STATUS_SUCCESS;
}

/* Undoes KitAdd in an AddDevice that cannot go on. */
KITFN NTSTATUS KitUndo(PDEVICE_OBJECT Device, NTSTATUS Status)
{
    KIT *k = Device->DeviceExtension;

    IoDetachDevice(k->Lower);
    RtlFreeUnicodeString(&k->Link);
    IoDeleteDevice(Device);
    return Status;
}

KITFN NTSTATUS NTAPI KitWake(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned) {
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    }
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Sends the request down and has it back. PASSIVE_LEVEL. */
KITFN NTSTATUS KitForwardAndWait(PDEVICE_OBJECT Lower, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, KitWake, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

KITFN VOID KitHalt(KIT *K, BOOLEAN Present)
{
    K->Ops->Drain(K->Self);
    if (K->Started) {
        K->Started = FALSE;
        K->Ops->Stop(K->Self, Present);
    }
}

KITFN NTSTATUS NTAPI KitPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIT *k = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE_OBJECT lower = k->Lower;
    POWER_STATE power;
    NTSTATUS status;
    ULONG i;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = KitForwardAndWait(lower, Irp);
        if (NT_SUCCESS(status)) {
            status = k->Ops->Start(Device, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
            if (NT_SUCCESS(status)) {
                k->Started = TRUE;
                k->DState = PowerDeviceD0;
                power.DeviceState = PowerDeviceD0;
                PoSetPowerState(Device, DevicePowerState, power);
                k->State = KitStarted;
                (void)IoSetDeviceInterfaceState(&k->Link, TRUE);
            }
        }
        break;

    case IRP_MN_QUERY_CAPABILITIES:
        status = KitForwardAndWait(lower, Irp);
        if (NT_SUCCESS(status)) {
            for (i = 0; i < POWER_SYSTEM_MAXIMUM; i++) {
                k->Map[i] = sp->Parameters.DeviceCapabilities.Capabilities->DeviceState[i];
            }
            k->SystemWake = sp->Parameters.DeviceCapabilities.Capabilities->SystemWake;
        }
        break;

    case IRP_MN_QUERY_STOP_DEVICE:
        /* These drivers do not hold requests back while resources move: they say no. */
        status = STATUS_UNSUCCESSFUL;
        break;

    case IRP_MN_STOP_DEVICE:
        k->State = KitStopped;
        KitHalt(k, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        goto pass;

    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        goto pass;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        k->Previous = k->State;
        k->State = KitRemovePending;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        goto pass;

    case IRP_MN_CANCEL_REMOVE_DEVICE:
        status = KitForwardAndWait(lower, Irp);
        if (k->State == KitRemovePending) {
            k->State = k->Previous;
        }
        status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        k->State = KitGone;
        k->Surprised = TRUE;
        (void)IoSetDeviceInterfaceState(&k->Link, FALSE);
        KitHalt(k, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        goto pass;

    case IRP_MN_REMOVE_DEVICE:
        k->State = KitRemoved;
        if (!k->Surprised) {
            (void)IoSetDeviceInterfaceState(&k->Link, FALSE);
        }
        k->Ops->Drain(Device);
        IoReleaseRemoveLockAndWait(&k->RemoveLock, Irp);
        KitHalt(k, (BOOLEAN)!k->Surprised);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(lower, Irp);
        IoDetachDevice(lower);
        RtlFreeUnicodeString(&k->Link);
        IoDeleteDevice(Device);
        return status;

    default:
        goto pass;
    }
    Irp->IoStatus.Status = status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return status;

pass:
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(lower, Irp);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return status;
}

/* ---- power ----------------------------------------------------------------------------------------------------- */

/* The D request that answers a system request is over: so is the system request. */
KITFN VOID NTAPI KitDeviceDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    KIT *k = Context;
    PIRP irp = k->SystemIrp;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    k->SystemIrp = NULL;
    irp->IoStatus.Status = IoStatus->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&k->RemoveLock, irp);
}

KITFN NTSTATUS NTAPI KitSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    KIT *k = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    SYSTEM_POWER_STATE system = sp->Parameters.Power.State.SystemState;
    POWER_STATE power;
    NTSTATUS status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(status)) {
        power.DeviceState = PowerDeviceD3;
        if (system == PowerSystemWorking) {
            power.DeviceState = PowerDeviceD0;
        } else if (system < PowerSystemMaximum && k->Map[system] != PowerDeviceUnspecified) {
            power.DeviceState = k->Map[system];
        }
        k->SystemIrp = Irp;
        status = PoRequestPowerIrp(k->Pdo, IRP_MN_SET_POWER, power, KitDeviceDone, k, NULL);
        if (status == STATUS_PENDING) {
            return STATUS_MORE_PROCESSING_REQUIRED;
        }
        k->SystemIrp = NULL;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

KITFN NTSTATUS NTAPI KitUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    KIT *k = Context;
    POWER_STATE power;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        k->DState = PowerDeviceD0;
        k->Ops->Up(k->Self);
        power.DeviceState = PowerDeviceD0;
        PoSetPowerState(k->Self, DevicePowerState, power);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* Power of a card: this driver is the power policy owner of its stack. */
KITFN NTSTATUS NTAPI KitPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIT *k = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE routine;
    POWER_STATE power;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return KitComplete(Irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        power = sp->Parameters.Power.State;
        if (sp->Parameters.Power.Type == SystemPowerState) {
            InterlockedExchange(&k->Asleep, power.SystemState != PowerSystemWorking);
            routine = KitSystemDone;
        } else if (power.DeviceState == PowerDeviceD0) {
            routine = KitUpDone;
        } else {
            if (k->DState == PowerDeviceD0) {
                k->Ops->Down(Device);
            }
            k->DState = power.DeviceState;
            PoSetPowerState(Device, DevicePowerState, power);
            routine = NULL;
        }
        if (routine != NULL) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, routine, k, TRUE, TRUE, TRUE);
            PoCallDriver(k->Lower, Irp);
            return STATUS_PENDING;
        }
    }
    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction != IRP_MN_WAIT_WAKE) {
        PoStartNextPowerIrp(Irp);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(k->Lower, Irp);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return status;
}

/* Power of a device without hardware: it goes by. */
KITFN NTSTATUS NTAPI KitPowerPass(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIT *k = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return KitComplete(Irp, status, 0);
    }
    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction != IRP_MN_WAIT_WAKE) {
        PoStartNextPowerIrp(Irp);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(k->Lower, Irp);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return status;
}

/* Any request this driver has no interest in. */
KITFN NTSTATUS NTAPI KitPass(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIT *k = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(k->Lower, Irp);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return status;
}

KITFN NTSTATUS NTAPI KitOpen(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIT *k = Device->DeviceExtension;

    return KitComplete(Irp, k->State == KitStarted ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY, 0);
}

KITFN VOID NTAPI KitUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

KITFN VOID KitDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE Add, PDRIVER_DISPATCH Control, BOOLEAN Hardware)
{
    Driver->DriverExtension->AddDevice = Add;
    Driver->DriverUnload = KitUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = KitOpen;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->MajorFunction[IRP_MJ_PNP] = KitPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = Hardware ? KitPower : KitPowerPass;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KitPass;
}

/* The N-th resource of a type in the translated list, or NULL. */
KITFN PCM_PARTIAL_RESOURCE_DESCRIPTOR KitResource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG N)
{
    PCM_PARTIAL_RESOURCE_LIST partial;
    ULONG i;

    if (List == NULL || List->Count == 0) {
        return NULL;
    }
    partial = &List->List[0].PartialResourceList;
    for (i = 0; i < partial->Count; i++) {
        if (partial->PartialDescriptors[i].Type == Type && N-- == 0) {
            return &partial->PartialDescriptors[i];
        }
    }
    return NULL;
}

KITFN NTSTATUS KitConnect(PKINTERRUPT *Interrupt, PKSERVICE_ROUTINE Routine, PVOID Context, PCM_PARTIAL_RESOURCE_DESCRIPTOR D)
{
    return IoConnectInterrupt(Interrupt, Routine, Context, NULL, D->u.Interrupt.Vector, (KIRQL)D->u.Interrupt.Level,
                              (KIRQL)D->u.Interrupt.Level, (D->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              (BOOLEAN)(D->ShareDisposition == CmResourceShareShared), D->u.Interrupt.Affinity, FALSE);
}
#endif
