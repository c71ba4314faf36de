/*
 * quay_pnp.h: the frame of the team's PnP function drivers.
 *
 * A request passes AiEnter (remove lock + gate) before it touches anything of the device, and AiExit at its end. A request that stays
 * pending leaves the gate with AiLeaveGate when its dispatch routine is through, and gives the remove lock back in AiFinish.
 * The gate is shut and drained before a stop, a removal or a surprise removal is acted on.
 *
 * Hooks (each may be NULL):
 *   Start      PASSIVE, the stack below is started; leaves nothing behind when it fails
 *   Halt       PASSIVE, gate shut and drained; undoes Start; called only after a Start that succeeded
 *   Flush      PASSIVE, gate shut and drained; ends every request still waiting (removal, surprise removal)
 *   Pause      PASSIVE, gate shut and drained: before a query-stop or query-remove is agreed to, and at stop, removal and surprise removal
 *   Resume     PASSIVE, gate open again: after start, cancel-stop, cancel-remove
 *   PowerDown  PASSIVE, before the device leaves D0        (only between Start and Halt)
 *   PowerUp    up to DISPATCH, after the bus went to D0    (only between Start and Halt)
 *   Gone       PASSIVE, no one uses the device any more: release what AddDevice made
 */
#ifndef AI_PNP_H
#define AI_PNP_H
#include "quay_base.h"

typedef enum _AI_STATE { AiAdded, AiStarted, AiStopPending, AiStopped, AiRemovePending, AiSurprise, AiRemoved } AI_STATE;

typedef struct _AI_FDO AI_FDO, *PAI_FDO;

typedef struct _AI_OPS {
    NTSTATUS (*Start)(PAI_FDO, PCM_RESOURCE_LIST translated);
    VOID (*Halt)(PAI_FDO);
    VOID (*Flush)(PAI_FDO);
    VOID (*Pause)(PAI_FDO);
    VOID (*Resume)(PAI_FDO);
    VOID (*PowerDown)(PAI_FDO);
    VOID (*PowerUp)(PAI_FDO);
    VOID (*Gone)(PAI_FDO);
} AI_OPS;

struct _AI_FDO {
    PDEVICE_OBJECT Self, Pdo, Lower;
    const AI_OPS *Ops;
    IO_REMOVE_LOCK RemoveLock;
    KSPIN_LOCK GateLock;            /* State, Active */
    AI_STATE State, Before;         /* Before: the state a query interrupted */
    ULONG Active;
    KEVENT Drained;
    BOOLEAN Hw;                     /* between Start and Halt */
    BOOLEAN LinkOn;
    UNICODE_STRING Link;
    DEVICE_POWER_STATE Power;
    PIRP SystemIrp;                 /* the system power IRP that waits for our device power IRP */
};

/* ---- the gate ---- */

static inline NTSTATUS AiEnter(PAI_FDO f, PIRP irp)
{
    KIRQL q;
    NTSTATUS s = IoAcquireRemoveLock(&f->RemoveLock, irp);

    if (!NT_SUCCESS(s))
        return s;
    KeAcquireSpinLock(&f->GateLock, &q);
    if (f->State == AiStarted)
        f->Active++;
    else
        s = (f->State == AiSurprise || f->State == AiRemoved) ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_NOT_READY;
    KeReleaseSpinLock(&f->GateLock, q);
    if (!NT_SUCCESS(s))
        IoReleaseRemoveLock(&f->RemoveLock, irp);
    return s;
}

static inline VOID AiLeaveGate(PAI_FDO f)
{
    KIRQL q;

    KeAcquireSpinLock(&f->GateLock, &q);
    if (--f->Active == 0)
        KeSetEvent(&f->Drained, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&f->GateLock, q);
}

/* ends a request that has already left the gate */
static inline NTSTATUS AiFinish(PAI_FDO f, PIRP irp, NTSTATUS s, ULONG_PTR info)
{
    AiDone(irp, s, info);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return s;
}

/* ends a request from its own dispatch routine */
static inline NTSTATUS AiExit(PAI_FDO f, PIRP irp, NTSTATUS s, ULONG_PTR info)
{
    AiDone(irp, s, info);
    AiLeaveGate(f);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return s;
}

static inline VOID AiSetState(PAI_FDO f, AI_STATE state)
{
    KIRQL q;

    KeAcquireSpinLock(&f->GateLock, &q);
    f->State = state;
    KeReleaseSpinLock(&f->GateLock, q);
}

static inline VOID AiShutGate(PAI_FDO f, AI_STATE state)
{
    KIRQL q;
    BOOLEAN wait;

    KeAcquireSpinLock(&f->GateLock, &q);
    if (state == AiStopPending || state == AiRemovePending)
        f->Before = f->State;
    f->State = state;
    wait = f->Active != 0;
    if (wait)
        KeClearEvent(&f->Drained);
    KeReleaseSpinLock(&f->GateLock, q);
    if (wait)
        KeWaitForSingleObject(&f->Drained, Executive, KernelMode, FALSE, NULL);
    if (f->Ops->Pause)
        f->Ops->Pause(f);
}

/* ---- PnP ---- */

static inline NTSTATUS NTAPI AiForwarded(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent((PKEVENT)context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS AiForwardWait(PAI_FDO f, PIRP irp)
{
    KEVENT done;
    NTSTATUS s;

    KeInitializeEvent(&done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, AiForwarded, &done, TRUE, TRUE, TRUE);
    s = IoCallDriver(f->Lower, irp);
    if (s == STATUS_PENDING)
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

static inline VOID AiInterface(PAI_FDO f, BOOLEAN on)
{
    if (f->LinkOn != on && NT_SUCCESS(IoSetDeviceInterfaceState(&f->Link, on)))
        f->LinkOn = on;
}

static inline VOID AiHalt(PAI_FDO f)
{
    if (f->Hw) {
        if (f->Ops->Halt)
            f->Ops->Halt(f);
        f->Hw = FALSE;
    }
}

static inline NTSTATUS AiBegin(PAI_FDO f, PCM_RESOURCE_LIST translated)
{
    NTSTATUS s = STATUS_SUCCESS;
    POWER_STATE d0;

    if (f->Ops->Start)
        s = f->Ops->Start(f, translated);
    if (!NT_SUCCESS(s))
        return s;
    f->Hw = TRUE;
    f->Power = PowerDeviceD0;
    d0.DeviceState = PowerDeviceD0;
    PoSetPowerState(f->Self, DevicePowerState, d0);
    AiInterface(f, TRUE);
    if (!f->LinkOn) {
        AiHalt(f);
        return STATUS_UNSUCCESSFUL;
    }
    AiSetState(f, AiStarted);
    if (f->Ops->Resume)
        f->Ops->Resume(f);
    return STATUS_SUCCESS;
}

static inline NTSTATUS AiPassAndRelease(PAI_FDO f, PIRP irp)
{
    NTSTATUS s;

    IoSkipCurrentIrpStackLocation(irp);
    s = IoCallDriver(f->Lower, irp);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return s;
}

static inline VOID AiUnadd(PAI_FDO f)
{
    PDEVICE_OBJECT self = f->Self;

    RtlFreeUnicodeString(&f->Link);
    IoDetachDevice(f->Lower);
    IoDeleteDevice(self);
}

static inline NTSTATUS NTAPI AiPnp(PDEVICE_OBJECT dev, PIRP irp)
{
    PAI_FDO f = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS s = IoAcquireRemoveLock(&f->RemoveLock, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);

    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        s = AiForwardWait(f, irp);
        if (NT_SUCCESS(s))
            s = AiBegin(f, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        return AiFinish(f, irp, s, 0);

    case IRP_MN_QUERY_STOP_DEVICE:
        AiShutGate(f, AiStopPending);
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        AiShutGate(f, AiRemovePending);
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        s = AiForwardWait(f, irp);
        if (f->State == (sl->MinorFunction == IRP_MN_CANCEL_STOP_DEVICE ? AiStopPending : AiRemovePending)) {
            AiSetState(f, f->Before);
            if (f->Before == AiStarted && f->Ops->Resume)
                f->Ops->Resume(f);
        }
        return AiFinish(f, irp, STATUS_SUCCESS, irp->IoStatus.Information);

    case IRP_MN_STOP_DEVICE:
        AiShutGate(f, AiStopped);
        AiHalt(f);
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        AiShutGate(f, AiSurprise);
        AiHalt(f);
        if (f->Ops->Flush)
            f->Ops->Flush(f);
        AiInterface(f, FALSE);
        break;

    case IRP_MN_REMOVE_DEVICE:
        AiShutGate(f, AiRemoved);
        AiHalt(f);
        if (f->Ops->Flush)
            f->Ops->Flush(f);
        AiInterface(f, FALSE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        s = IoCallDriver(f->Lower, irp);
        IoReleaseRemoveLockAndWait(&f->RemoveLock, irp);
        if (f->Ops->Gone)
            f->Ops->Gone(f);
        AiUnadd(f);
        return s;

    default:
        return AiPassAndRelease(f, irp);
    }
    irp->IoStatus.Status = STATUS_SUCCESS;
    return AiPassAndRelease(f, irp);
}

static inline NTSTATUS NTAPI AiSystemControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PAI_FDO f = dev->DeviceExtension;
    NTSTATUS s = IoAcquireRemoveLock(&f->RemoveLock, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    return AiPassAndRelease(f, irp);
}

/* ---- power ---- */

static inline VOID NTAPI AiDeviceSet(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK io)
{
    PAI_FDO f = context;
    PIRP irp = f->SystemIrp;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    f->SystemIrp = NULL;
    irp->IoStatus.Status = io->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
}

static inline NTSTATUS NTAPI AiSystemPassed(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PAI_FDO f = context;
    POWER_STATE d;
    NTSTATUS s = irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(s)) {
        d.DeviceState = AiStack(irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        f->SystemIrp = irp;
        s = PoRequestPowerIrp(f->Pdo, IRP_MN_SET_POWER, d, AiDeviceSet, f, NULL);
        if (s == STATUS_PENDING || NT_SUCCESS(s))
            return STATUS_MORE_PROCESSING_REQUIRED;
        f->SystemIrp = NULL;
        irp->IoStatus.Status = s;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return STATUS_SUCCESS;
}

static inline NTSTATUS NTAPI AiDeviceUp(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PAI_FDO f = context;
    POWER_STATE d = AiStack(irp)->Parameters.Power.State;

    UNREFERENCED_PARAMETER(dev);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        f->Power = d.DeviceState;
        PoSetPowerState(f->Self, DevicePowerState, d);
        if (d.DeviceState == PowerDeviceD0 && f->Hw && f->Ops->PowerUp)
            f->Ops->PowerUp(f);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return STATUS_SUCCESS;
}

static inline NTSTATUS NTAPI AiPower(PDEVICE_OBJECT dev, PIRP irp)
{
    PAI_FDO f = dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    PIO_COMPLETION_ROUTINE then = NULL;
    NTSTATUS s = IoAcquireRemoveLock(&f->RemoveLock, irp);

    if (!NT_SUCCESS(s)) {
        PoStartNextPowerIrp(irp);
        return AiDone(irp, s, 0);
    }
    if (sl->MinorFunction == IRP_MN_SET_POWER) {
        if (sl->Parameters.Power.Type == SystemPowerState) {
            then = AiSystemPassed;
        } else if (sl->Parameters.Power.State.DeviceState < f->Power) {
            then = AiDeviceUp;
        } else if (sl->Parameters.Power.State.DeviceState > f->Power) {
            if (f->Power == PowerDeviceD0 && f->Hw && f->Ops->PowerDown)
                f->Ops->PowerDown(f);
            f->Power = sl->Parameters.Power.State.DeviceState;
            PoSetPowerState(f->Self, DevicePowerState, sl->Parameters.Power.State);
        }
    }
    if (then) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, then, f, TRUE, TRUE, TRUE);
        PoCallDriver(f->Lower, irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    s = PoCallDriver(f->Lower, irp);
    IoReleaseRemoveLock(&f->RemoveLock, irp);
    return s;
}

/* ---- opening, for drivers that keep nothing per handle ---- */

static inline NTSTATUS NTAPI AiOpen(PDEVICE_OBJECT dev, PIRP irp)
{
    PAI_FDO f = dev->DeviceExtension;
    NTSTATUS s = AiEnter(f, irp);

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    return AiExit(f, irp, STATUS_SUCCESS, 0);
}

static inline NTSTATUS NTAPI AiShut(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return AiDone(irp, STATUS_SUCCESS, 0);
}

/* ---- adding and loading ---- */

/* makes the device object and attaches it; the caller fills its part of the extension, then calls AiReady */
static inline NTSTATUS AiAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo, ULONG size, const AI_OPS *ops, const GUID *guid, ULONG flags, PVOID *out)
{
    PDEVICE_OBJECT dev;
    PAI_FDO f;
    NTSTATUS s = IoCreateDevice(drv, size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(s))
        return s;
    f = dev->DeviceExtension;
    f->Self = dev;
    f->Pdo = pdo;
    f->Ops = ops;
    f->Power = PowerDeviceD3;
    IoInitializeRemoveLock(&f->RemoveLock, AI_TAG, 0, 0);
    KeInitializeSpinLock(&f->GateLock);
    KeInitializeEvent(&f->Drained, NotificationEvent, FALSE);
    s = IoRegisterDeviceInterface(pdo, guid, NULL, &f->Link);
    if (!NT_SUCCESS(s)) {
        IoDeleteDevice(dev);
        return s;
    }
    f->Lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (!f->Lower) {
        RtlFreeUnicodeString(&f->Link);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= flags | DO_POWER_PAGABLE;
    *out = f;
    return STATUS_SUCCESS;
}

static inline VOID AiReady(PAI_FDO f)
{
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
}

static inline VOID NTAPI AiUnload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
}

static inline VOID AiEntry(PDRIVER_OBJECT drv, PDRIVER_ADD_DEVICE add, PDRIVER_DISPATCH control)
{
    drv->DriverExtension->AddDevice = add;
    drv->DriverUnload = AiUnload;
    drv->MajorFunction[IRP_MJ_PNP] = AiPnp;
    drv->MajorFunction[IRP_MJ_POWER] = AiPower;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = AiSystemControl;
    drv->MajorFunction[IRP_MJ_CREATE] = AiOpen;
    drv->MajorFunction[IRP_MJ_CLEANUP] = AiShut;
    drv->MajorFunction[IRP_MJ_CLOSE] = AiShut;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = control;
}
#endif
