/*
 * Plug and Play, power and handle bookkeeping that our function drivers have in common.
 *
 * A driver puts FDO_KIT first in its device extension and names its hooks. All hooks but PowerUp are
 * called at PASSIVE_LEVEL; PowerUp at <= DISPATCH_LEVEL. Stop is idempotent and ends every use of the hardware.
 */
#pragma once
#include <ddk/wdm.h>

#ifndef NonPagedPoolNx
#define NonPagedPoolNx ((POOL_TYPE)512)
#endif

typedef struct _FDO_HOOKS {
    NTSTATUS (*Start)(PVOID Ext, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated);
    VOID (*Stop)(PVOID Ext, BOOLEAN Gone);     /* release hardware; Gone: it answers no more */
    VOID (*Flush)(PVOID Ext);                  /* fail all that waits, and all that comes */
    VOID (*PowerUp)(PVOID Ext);                /* may be NULL */
    VOID (*PowerDown)(PVOID Ext);              /* may be NULL */
    VOID (*Delete)(PVOID Ext);                 /* may be NULL: free what AddDevice made */
} FDO_HOOKS;

typedef enum _FDO_STATE { FdoAdded, FdoStarted, FdoStopPending, FdoRemovePending, FdoStopped, FdoGone, FdoRemoved } FDO_STATE;

typedef struct _FDO_KIT {
    PDEVICE_OBJECT Self, Pdo, Lower;
    const FDO_HOOKS *Hooks;
    IO_REMOVE_LOCK RemoveLock;
    KSPIN_LOCK StateLock;
    FDO_STATE State;
    ULONG Handles;
    UNICODE_STRING Link;
    DEVICE_POWER_STATE Power;
    SYSTEM_POWER_STATE System;
    DEVICE_POWER_STATE DeviceStates[PowerSystemMaximum];
} FDO_KIT, *PFDO_KIT;

static inline NTSTATUS KitComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static inline FDO_STATE KitSetState(PFDO_KIT Kit, FDO_STATE State)
{
    KIRQL irql;
    FDO_STATE old;
    KeAcquireSpinLock(&Kit->StateLock, &irql);
    old = Kit->State;
    Kit->State = State;
    KeReleaseSpinLock(&Kit->StateLock, irql);
    return old;
}

static inline FDO_STATE KitState(PFDO_KIT Kit)
{
    KIRQL irql;
    FDO_STATE state;
    KeAcquireSpinLock(&Kit->StateLock, &irql);
    state = Kit->State;
    KeReleaseSpinLock(&Kit->StateLock, irql);
    return state;
}

/* Whether Start has made the hardware ready and Stop has not released it yet. */
static inline BOOLEAN KitHasHardware(PFDO_KIT Kit)
{
    FDO_STATE state = KitState(Kit);
    return state == FdoStarted || state == FdoStopPending || state == FdoRemovePending;
}

/* Counts a handle; devices that are about to stop or to go take no new ones. */
static inline NTSTATUS KitOpen(PFDO_KIT Kit)
{
    KIRQL irql;
    NTSTATUS status = STATUS_SUCCESS;
    KeAcquireSpinLock(&Kit->StateLock, &irql);
    if (Kit->State == FdoStarted) Kit->Handles++;
    else status = Kit->State >= FdoGone ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_NOT_READY;
    KeReleaseSpinLock(&Kit->StateLock, irql);
    return status;
}

static inline VOID KitClosed(PFDO_KIT Kit)
{
    KIRQL irql;
    KeAcquireSpinLock(&Kit->StateLock, &irql);
    Kit->Handles--;
    KeReleaseSpinLock(&Kit->StateLock, irql);
}

/* Begins a request of a handle: on success the caller owes an IoReleaseRemoveLock(Irp). */
static inline NTSTATUS KitEnter(PFDO_KIT Kit, PIRP Irp)
{
    NTSTATUS status = IoAcquireRemoveLock(&Kit->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) return status;
    if (KitState(Kit) >= FdoStopped) {
        IoReleaseRemoveLock(&Kit->RemoveLock, Irp);
        return STATUS_NO_SUCH_DEVICE;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI KitSignal(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS KitForwardAndWait(PDEVICE_OBJECT Lower, PIRP Irp)
{
    KEVENT done;
    NTSTATUS status;
    KeInitializeEvent(&done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, KitSignal, &done, TRUE, TRUE, TRUE);
    status = IoCallDriver(Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static inline NTSTATUS KitPass(PFDO_KIT Kit, PIRP Irp)
{
    NTSTATUS status;
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(Kit->Lower, Irp);
    IoReleaseRemoveLock(&Kit->RemoveLock, Irp);
    return status;
}

static inline NTSTATUS KitRefuseIfOpen(PFDO_KIT Kit, FDO_STATE Next)
{
    KIRQL irql;
    NTSTATUS status = STATUS_SUCCESS;
    KeAcquireSpinLock(&Kit->StateLock, &irql);
    if (Kit->Handles != 0) status = STATUS_DEVICE_BUSY;
    else if (Kit->State == FdoStarted) Kit->State = Next;
    KeReleaseSpinLock(&Kit->StateLock, irql);
    return status;
}

static inline VOID KitBackToStarted(PFDO_KIT Kit, FDO_STATE From)
{
    KIRQL irql;
    KeAcquireSpinLock(&Kit->StateLock, &irql);
    if (Kit->State == From) Kit->State = FdoStarted;
    KeReleaseSpinLock(&Kit->StateLock, irql);
}

static NTSTATUS NTAPI KitPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO_KIT kit = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) return KitComplete(Irp, status, 0);
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = KitForwardAndWait(kit->Lower, Irp);
        if (NT_SUCCESS(status)) {
            status = kit->Hooks->Start(kit, sp->Parameters.StartDevice.AllocatedResources,
                                       sp->Parameters.StartDevice.AllocatedResourcesTranslated);
            if (NT_SUCCESS(status)) {
                kit->Power = PowerDeviceD0;
                KitSetState(kit, FdoStarted);
                IoSetDeviceInterfaceState(&kit->Link, TRUE);
            }
        }
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return KitComplete(Irp, status, 0);

    case IRP_MN_QUERY_CAPABILITIES:
        status = KitForwardAndWait(kit->Lower, Irp);
        if (NT_SUCCESS(status)) {
            PDEVICE_CAPABILITIES caps = sp->Parameters.DeviceCapabilities.Capabilities;
            RtlCopyMemory(kit->DeviceStates, caps->DeviceState, sizeof(kit->DeviceStates));
        }
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return KitComplete(Irp, status, Irp->IoStatus.Information);

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        status = KitRefuseIfOpen(kit, sp->MinorFunction == IRP_MN_QUERY_STOP_DEVICE ? FdoStopPending : FdoRemovePending);
        if (!NT_SUCCESS(status)) {
            IoReleaseRemoveLock(&kit->RemoveLock, Irp);
            return KitComplete(Irp, status, 0);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return KitPass(kit, Irp);

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        status = KitForwardAndWait(kit->Lower, Irp);
        KitBackToStarted(kit, sp->MinorFunction == IRP_MN_CANCEL_STOP_DEVICE ? FdoStopPending : FdoRemovePending);
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return KitComplete(Irp, STATUS_SUCCESS, 0);

    case IRP_MN_STOP_DEVICE:
        KitSetState(kit, FdoStopped);
        kit->Hooks->Stop(kit, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return KitPass(kit, Irp);

    case IRP_MN_SURPRISE_REMOVAL:
        KitSetState(kit, FdoGone);
        IoSetDeviceInterfaceState(&kit->Link, FALSE);
        kit->Hooks->Flush(kit);
        kit->Hooks->Stop(kit, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return KitPass(kit, Irp);

    case IRP_MN_REMOVE_DEVICE: {
        FDO_STATE old = KitSetState(kit, FdoRemoved);
        if (old != FdoGone) IoSetDeviceInterfaceState(&kit->Link, FALSE);
        kit->Hooks->Flush(kit);
        IoReleaseRemoveLockAndWait(&kit->RemoveLock, Irp);
        if (old != FdoGone) kit->Hooks->Stop(kit, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(kit->Lower, Irp);
        IoDetachDevice(kit->Lower);
        if (kit->Hooks->Delete) kit->Hooks->Delete(kit);
        RtlFreeUnicodeString(&kit->Link);
        IoDeleteDevice(kit->Self);
        return status;
    }

    default:
        return KitPass(kit, Irp);
    }
}

static NTSTATUS NTAPI KitPoweredUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFDO_KIT kit = Context;
    UNREFERENCED_PARAMETER(Device);

    if (Irp->PendingReturned) IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE state;
        state.DeviceState = PowerDeviceD0;
        kit->Power = PowerDeviceD0;
        PoSetPowerState(kit->Self, DevicePowerState, state);
        if (kit->Hooks->PowerUp && KitHasHardware(kit)) kit->Hooks->PowerUp(kit);
    }
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static VOID NTAPI KitDeviceFollowed(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Result)
{
    PIRP irp = Context;
    PFDO_KIT kit = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);

    irp->IoStatus.Status = Result->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&kit->RemoveLock, irp);
}

static NTSTATUS NTAPI KitSystemChanged(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFDO_KIT kit = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    SYSTEM_POWER_STATE system = sp->Parameters.Power.State.SystemState;
    POWER_STATE state;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Device);

    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        if (Irp->PendingReturned) IoMarkIrpPending(Irp);
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) kit->System = system;
    if (system == PowerSystemWorking) state.DeviceState = PowerDeviceD0;
    else {
        state.DeviceState = kit->DeviceStates[system];
        if (state.DeviceState < PowerDeviceD1) state.DeviceState = PowerDeviceD3;
    }
    status = PoRequestPowerIrp(kit->Pdo, sp->MinorFunction, state, KitDeviceFollowed, Irp, NULL);
    if (status != STATUS_PENDING) {
        if (Irp->PendingReturned) IoMarkIrpPending(Irp);
        Irp->IoStatus.Status = status;
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI KitPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO_KIT kit = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state = sp->Parameters.Power.State;
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return KitComplete(Irp, status, 0);
    }
    if ((sp->MinorFunction == IRP_MN_SET_POWER || sp->MinorFunction == IRP_MN_QUERY_POWER)
        && sp->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        PoStartNextPowerIrp(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, KitSystemChanged, kit, TRUE, TRUE, TRUE);
        PoCallDriver(kit->Lower, Irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (state.DeviceState == PowerDeviceD0 && kit->Power != PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            PoStartNextPowerIrp(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, KitPoweredUp, kit, TRUE, TRUE, TRUE);
            PoCallDriver(kit->Lower, Irp);
            return STATUS_PENDING;
        }
        if (state.DeviceState != PowerDeviceD0) {
            if (kit->Power == PowerDeviceD0 && kit->Hooks->PowerDown && KitHasHardware(kit)) kit->Hooks->PowerDown(kit);
            kit->Power = state.DeviceState;
            PoSetPowerState(Device, DevicePowerState, state);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
    } else if (sp->MinorFunction == IRP_MN_QUERY_POWER) {
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(kit->Lower, Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI KitSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO_KIT kit = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) return KitComplete(Irp, status, 0);
    return KitPass(kit, Irp);
}

/* Makes the device object of a driver; the driver clears DO_DEVICE_INITIALIZING when its extension is ready. */
static inline NTSTATUS KitAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG Size, const GUID *Interface,
                              const FDO_HOOKS *Hooks, ULONG Tag, PFDO_KIT *Result)
{
    PDEVICE_OBJECT device;
    PFDO_KIT kit;
    NTSTATUS status = IoCreateDevice(Driver, Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    if (!NT_SUCCESS(status)) return status;
    kit = device->DeviceExtension;
    RtlZeroMemory(kit, Size);
    kit->Self = device;
    kit->Pdo = Pdo;
    kit->Hooks = Hooks;
    kit->State = FdoAdded;
    kit->Power = PowerDeviceD3;
    kit->System = PowerSystemWorking;
    IoInitializeRemoveLock(&kit->RemoveLock, Tag, 0, 0);
    KeInitializeSpinLock(&kit->StateLock);
    status = IoRegisterDeviceInterface(Pdo, Interface, NULL, &kit->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    kit->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!kit->Lower) {
        RtlFreeUnicodeString(&kit->Link);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_POWER_PAGABLE & kit->Lower->Flags;
    *Result = kit;
    return STATUS_SUCCESS;
}
