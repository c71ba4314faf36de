/*
 * The frame of a function driver: PnP, power, remove lock and a gate. Requests pass the gate and count as active until AfFinish or
 * AfLeave; while the device is stopped, asleep or about to be removed they wait in front of it, and can be cancelled there.
 */
#pragma once
#include "bay_queue.h"

#ifndef STATUS_DEVICE_HARDWARE_ERROR
#define STATUS_DEVICE_HARDWARE_ERROR ((NTSTATUS)0xC0000483)
#endif

typedef struct AF_DEVICE AF_DEVICE;

#define AF_HELD_START  1u                       /* not started */
#define AF_HELD_STOP   2u                       /* to be stopped, or stopped */
#define AF_HELD_REMOVE 4u                       /* to be removed */
#define AF_HELD_POWER  8u                       /* asleep */

typedef struct AF_HOOKS {
    ULONG size;                                 /* of the extension, whose first member is an AF_DEVICE */
    ULONG flags;                                /* DO_DIRECT_IO, DO_BUFFERED_IO */
    const GUID *interfaceGuid;
    NTSTATUS (*init)(AF_DEVICE *af);            /* at AddDevice */
    NTSTATUS (*start)(AF_DEVICE *af, CM_PARTIAL_RESOURCE_LIST *list);
    void (*stop)(AF_DEVICE *af);                /* gives back what start took; AfReachable says if registers may be touched */
    void (*flush)(AF_DEVICE *af, FILE_OBJECT *file);    /* ends requests that wait for something; NULL: all; may be called again */
    void (*suspend)(AF_DEVICE *af);             /* out of D0; the gate is shut */
    void (*resume)(AF_DEVICE *af);              /* in D0 again */
    void (*hold)(AF_DEVICE *af);                /* asked if it can be removed; the gate is shut */
    void (*unhold)(AF_DEVICE *af);              /* will not be removed after all */
    void (*serve)(AF_DEVICE *af, IRP *irp, IO_STACK_LOCATION *stack);   /* PASSIVE_LEVEL, marked pending already */
} AF_HOOKS;

struct AF_DEVICE {
    DEVICE_OBJECT *self, *pdo, *below;
    IO_REMOVE_LOCK remove;
    UNICODE_STRING name;                        /* of the device interface */
    BOOLEAN enabled, started, absent;
    DEVICE_POWER_STATE power;
    KEVENT turn;                                /* start, stop, suspend and resume exclude each other */
    PIO_WORKITEM wake;
    KSPIN_LOCK lock;                            /* of what follows */
    BOOLEAN gone;
    ULONG held, active;
    KEVENT idle;
    LIST_ENTRY waiting;
    IO_CSQ csq;
};

static const AF_HOOKS AfHooks;

static inline BOOLEAN AfReachable(AF_DEVICE *af)
{
    return !af->absent && af->power == PowerDeviceD0;
}

static inline void AfComplete(IRP *irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, NT_SUCCESS(status) ? IO_NO_INCREMENT + 1 : IO_NO_INCREMENT);
}

/* Completes a request that is not counted as active. */
static inline void AfEnd(AF_DEVICE *af, IRP *irp, NTSTATUS status, ULONG_PTR information)
{
    AfComplete(irp, status, information);
    IoReleaseRemoveLock(&af->remove, irp);
}

static inline void AfLeave(AF_DEVICE *af)
{
    KIRQL irql;

    KeAcquireSpinLock(&af->lock, &irql);
    if (--af->active == 0)
        KeSetEvent(&af->idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&af->lock, irql);
}

/* Counts once more one that is active already. */
static inline void AfStay(AF_DEVICE *af)
{
    KIRQL irql;

    KeAcquireSpinLock(&af->lock, &irql);
    ++af->active;
    KeReleaseSpinLock(&af->lock, irql);
}

/* Completes an active request. */
static inline void AfFinish(AF_DEVICE *af, IRP *irp, NTSTATUS status, ULONG_PTR information)
{
    AfComplete(irp, status, information);
    AfLeave(af);
    IoReleaseRemoveLock(&af->remove, irp);
}

static inline NTSTATUS NTAPI AfWaitInsert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    AF_DEVICE *af = CONTAINING_RECORD(csq, AF_DEVICE, csq);

    UNREFERENCED_PARAMETER(context);
    if (af->gone)
        return STATUS_DELETE_PENDING;
    if (!af->held)
        return STATUS_RETRY;
    InsertTailList(&af->waiting, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static inline PIRP NTAPI AfWaitPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    return AfqPeekIn(&CONTAINING_RECORD(csq, AF_DEVICE, csq)->waiting, irp, AfqOfFile, context);
}

static inline VOID NTAPI AfWaitAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, AF_DEVICE, csq)->lock, irql);
}

static inline VOID NTAPI AfWaitRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, AF_DEVICE, csq)->lock, irql);
}

static inline VOID NTAPI AfWaitCancelled(PIO_CSQ csq, PIRP irp)
{
    AfEnd(CONTAINING_RECORD(csq, AF_DEVICE, csq), irp, STATUS_CANCELLED, 0);
}

/* Through the gate or in front of it; the request is marked pending and holds the remove lock. */
static inline void AfSubmit(AF_DEVICE *af, IRP *irp)
{
    for (;;) {
        NTSTATUS status;
        KIRQL irql;

        KeAcquireSpinLock(&af->lock, &irql);
        if (af->gone) {
            KeReleaseSpinLock(&af->lock, irql);
            AfEnd(af, irp, STATUS_DELETE_PENDING, 0);
            return;
        }
        if (!af->held) {
            if (af->active++ == 0)
                KeClearEvent(&af->idle);
            KeReleaseSpinLock(&af->lock, irql);
            AfHooks.serve(af, irp, IoGetCurrentIrpStackLocation(irp));
            return;
        }
        KeReleaseSpinLock(&af->lock, irql);
        status = IoCsqInsertIrpEx(&af->csq, irp, NULL, NULL);
        if (NT_SUCCESS(status))
            return;
        if (status != STATUS_RETRY) {
            AfEnd(af, irp, status, 0);
            return;
        }
    }
}

/* Waits until no request is active; the lock is taken once more so that the last to leave is out of it. */
static inline void AfAwaitIdle(AF_DEVICE *af)
{
    KIRQL irql;

    KeWaitForSingleObject(&af->idle, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&af->lock, &irql);
    KeReleaseSpinLock(&af->lock, irql);
}

static inline void AfHold(AF_DEVICE *af, ULONG why)
{
    KIRQL irql;

    KeAcquireSpinLock(&af->lock, &irql);
    af->held |= why;
    KeReleaseSpinLock(&af->lock, irql);
}

static inline void AfShut(AF_DEVICE *af, ULONG why)
{
    AfHold(af, why);
    AfAwaitIdle(af);
}

/* Returns what of `why` had been set. */
static inline ULONG AfOpen(AF_DEVICE *af, ULONG why)
{
    KIRQL irql;
    ULONG was;

    KeAcquireSpinLock(&af->lock, &irql);
    was = af->held & why;
    af->held &= ~why;
    KeReleaseSpinLock(&af->lock, irql);
    for (;;) {
        BOOLEAN open;
        IRP *irp;

        KeAcquireSpinLock(&af->lock, &irql);
        open = !af->held && !af->gone;
        KeReleaseSpinLock(&af->lock, irql);
        if (!open)
            break;
        irp = IoCsqRemoveNextIrp(&af->csq, NULL);
        if (!irp)
            break;
        AfSubmit(af, irp);
    }
    return was;
}

/* No more requests: ends those that wait, awaits those that are active. */
static inline void AfGone(AF_DEVICE *af)
{
    KIRQL irql;
    IRP *irp;

    KeAcquireSpinLock(&af->lock, &irql);
    af->gone = TRUE;
    KeReleaseSpinLock(&af->lock, irql);
    while ((irp = IoCsqRemoveNextIrp(&af->csq, NULL)) != NULL)
        AfEnd(af, irp, STATUS_DELETE_PENDING, 0);
    if (AfHooks.flush)
        AfHooks.flush(af, NULL);
    AfAwaitIdle(af);
    if (AfHooks.flush)
        AfHooks.flush(af, NULL);
}

static inline void AfTakeTurn(AF_DEVICE *af)
{
    KeWaitForSingleObject(&af->turn, Executive, KernelMode, FALSE, NULL);
}

static inline void AfEndTurn(AF_DEVICE *af)
{
    KeSetEvent(&af->turn, IO_NO_INCREMENT, FALSE);
}

static inline void AfDisable(AF_DEVICE *af)
{
    if (af->enabled) {
        IoSetDeviceInterfaceState(&af->name, FALSE);
        af->enabled = FALSE;
    }
}

static inline void AfHalt(AF_DEVICE *af)
{
    AfTakeTurn(af);
    if (af->started) {
        AfHooks.stop(af);
        af->started = FALSE;
    }
    AfEndTurn(af);
}

static inline NTSTATUS NTAPI AfForwarded(PDEVICE_OBJECT self, PIRP irp, PVOID event)
{
    UNREFERENCED_PARAMETER(self);
    if (irp->PendingReturned)
        KeSetEvent((KEVENT *)event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS AfForward(AF_DEVICE *af, IRP *irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, AfForwarded, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(af->below, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = irp->IoStatus.Status;
    }
    return status;
}

static inline NTSTATUS AfStart(AF_DEVICE *af, IRP *irp)
{
    CM_RESOURCE_LIST *list = IoGetCurrentIrpStackLocation(irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS status = AfForward(af, irp);
    POWER_STATE state;

    if (!NT_SUCCESS(status))
        return status;
    if (!list || list->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    state.DeviceState = PowerDeviceD0;
    PoSetPowerState(af->self, DevicePowerState, state);
    AfTakeTurn(af);
    af->power = PowerDeviceD0;
    status = AfHooks.start(af, &list->List[0].PartialResourceList);
    if (NT_SUCCESS(status))
        af->started = TRUE;
    AfEndTurn(af);
    if (!NT_SUCCESS(status))
        return status;
    if (!af->enabled) {
        status = IoSetDeviceInterfaceState(&af->name, TRUE);
        if (!NT_SUCCESS(status)) {
            AfHalt(af);
            return status;
        }
        af->enabled = TRUE;
    }
    AfOpen(af, AF_HELD_START | AF_HELD_STOP | AF_HELD_REMOVE);
    return STATUS_SUCCESS;
}

static inline NTSTATUS NTAPI AfPnp(PDEVICE_OBJECT self, PIRP irp)
{
    AF_DEVICE *af = self->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&af->remove, irp);

    if (!NT_SUCCESS(status)) {
        AfComplete(irp, status, 0);
        return status;
    }
    switch (IoGetCurrentIrpStackLocation(irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = AfStart(af, irp);
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&af->remove, irp);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
        AfShut(af, AF_HELD_STOP);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
        AfShut(af, AF_HELD_REMOVE);
        if (af->started && AfHooks.hold)
            AfHooks.hold(af);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        status = AfForward(af, irp);
        if (IoGetCurrentIrpStackLocation(irp)->MinorFunction == IRP_MN_CANCEL_STOP_DEVICE) {
            AfOpen(af, AF_HELD_STOP);
        } else if (AfOpen(af, AF_HELD_REMOVE) && af->started && AfHooks.unhold) {
            AfHooks.unhold(af);
        }
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&af->remove, irp);
        return status;
    case IRP_MN_STOP_DEVICE:
        AfShut(af, AF_HELD_STOP);
        AfHalt(af);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        af->absent = TRUE;
        AfGone(af);
        AfDisable(af);
        AfHalt(af);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        AfGone(af);
        AfDisable(af);
        IoReleaseRemoveLockAndWait(&af->remove, irp);
        AfHalt(af);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(af->below, irp);
        IoDetachDevice(af->below);
        RtlFreeUnicodeString(&af->name);
        IoFreeWorkItem(af->wake);
        IoDeleteDevice(self);
        return status;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(af->below, irp);
    IoReleaseRemoveLock(&af->remove, irp);
    return status;
}

/* The device power request that a system power request asked for is done; the latter's context holds the latter. */
static inline VOID NTAPI AfPowerAsked(PDEVICE_OBJECT target, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK result)
{
    IRP *irp = context;
    AF_DEVICE *af = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(target);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    irp->IoStatus.Status = result->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&af->remove, irp);
}

static inline NTSTATUS NTAPI AfSystemDone(PDEVICE_OBJECT self, PIRP irp, PVOID context)
{
    AF_DEVICE *af = self->DeviceExtension;
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(context);
    if (NT_SUCCESS(status)) {
        POWER_STATE state;

        state.DeviceState = stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(af->pdo, stack->MinorFunction, state, AfPowerAsked, irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&af->remove, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline VOID NTAPI AfWake(PDEVICE_OBJECT self, PVOID context)
{
    AF_DEVICE *af = self->DeviceExtension;
    IRP *irp = context;
    POWER_STATE state;

    AfTakeTurn(af);
    if (af->started && !af->absent && af->power != PowerDeviceD0 && AfHooks.resume)
        AfHooks.resume(af);
    af->power = PowerDeviceD0;
    AfEndTurn(af);
    state.DeviceState = PowerDeviceD0;
    PoSetPowerState(self, DevicePowerState, state);
    AfOpen(af, AF_HELD_POWER);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&af->remove, irp);
}

static inline NTSTATUS NTAPI AfAwake(PDEVICE_OBJECT self, PIRP irp, PVOID context)
{
    AF_DEVICE *af = self->DeviceExtension;

    UNREFERENCED_PARAMETER(context);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        IoQueueWorkItem(af->wake, AfWake, CriticalWorkQueue, irp);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&af->remove, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline void AfSleep(AF_DEVICE *af, POWER_STATE state)
{
    AfShut(af, AF_HELD_POWER);
    AfTakeTurn(af);
    if (af->started && !af->absent && af->power == PowerDeviceD0 && AfHooks.suspend)
        AfHooks.suspend(af);
    af->power = state.DeviceState;
    AfEndTurn(af);
    PoSetPowerState(af->self, DevicePowerState, state);
}

static inline NTSTATUS NTAPI AfPower(PDEVICE_OBJECT self, PIRP irp)
{
    AF_DEVICE *af = self->DeviceExtension;
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&af->remove, irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        AfComplete(irp, status, 0);
        return status;
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER || stack->MinorFunction == IRP_MN_QUERY_POWER) {
        BOOLEAN wakes = stack->MinorFunction == IRP_MN_SET_POWER && stack->Parameters.Power.State.DeviceState == PowerDeviceD0;

        if (stack->Parameters.Power.Type == SystemPowerState || wakes) {
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, stack->Parameters.Power.Type == SystemPowerState ? AfSystemDone : AfAwake, NULL,
                                   TRUE, TRUE, TRUE);
            PoCallDriver(af->below, irp);
            return STATUS_PENDING;
        }
        if (stack->MinorFunction == IRP_MN_SET_POWER)
            AfSleep(af, stack->Parameters.Power.State);
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(af->below, irp);
    IoReleaseRemoveLock(&af->remove, irp);
    return status;
}

static inline NTSTATUS NTAPI AfPass(PDEVICE_OBJECT self, PIRP irp)
{
    AF_DEVICE *af = self->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&af->remove, irp);

    if (!NT_SUCCESS(status)) {
        AfComplete(irp, status, 0);
        return status;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(af->below, irp);
    IoReleaseRemoveLock(&af->remove, irp);
    return status;
}

static inline NTSTATUS NTAPI AfCreate(PDEVICE_OBJECT self, PIRP irp)
{
    AF_DEVICE *af = self->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&af->remove, irp);

    if (NT_SUCCESS(status)) {
        if (af->gone)
            status = STATUS_DELETE_PENDING;
        AfEnd(af, irp, status, 0);
    } else {
        AfComplete(irp, status, 0);
    }
    return status;
}

static inline NTSTATUS NTAPI AfClose(PDEVICE_OBJECT self, PIRP irp)
{
    UNREFERENCED_PARAMETER(self);
    AfComplete(irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static inline NTSTATUS NTAPI AfCleanup(PDEVICE_OBJECT self, PIRP irp)
{
    AF_DEVICE *af = self->DeviceExtension;
    FILE_OBJECT *file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    NTSTATUS status = IoAcquireRemoveLock(&af->remove, irp);
    IRP *other;

    if (!NT_SUCCESS(status)) {                  /* removed: nothing waits any more */
        AfComplete(irp, STATUS_SUCCESS, 0);
        return STATUS_SUCCESS;
    }
    while ((other = IoCsqRemoveNextIrp(&af->csq, file)) != NULL)
        AfEnd(af, other, STATUS_CANCELLED, 0);
    if (AfHooks.flush)
        AfHooks.flush(af, file);
    AfEnd(af, irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static inline NTSTATUS NTAPI AfRequest(PDEVICE_OBJECT self, PIRP irp)
{
    AF_DEVICE *af = self->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&af->remove, irp);

    if (!NT_SUCCESS(status)) {
        AfComplete(irp, status, 0);
        return status;
    }
    IoMarkIrpPending(irp);
    KeEnterCriticalRegion();                    /* a thread that is suspended in a request would hold up removal and sleep */
    AfSubmit(af, irp);
    KeLeaveCriticalRegion();
    return STATUS_PENDING;
}

static inline NTSTATUS NTAPI AfAddDevice(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    DEVICE_OBJECT *self;
    AF_DEVICE *af;
    NTSTATUS status = IoCreateDevice(driver, AfHooks.size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &self);

    if (!NT_SUCCESS(status))
        return status;
    af = self->DeviceExtension;
    RtlZeroMemory(af, AfHooks.size);
    af->self = self;
    af->pdo = pdo;
    af->power = PowerDeviceD3;
    af->held = AF_HELD_START;
    IoInitializeRemoveLock(&af->remove, 'nPfA', 0, 0);
    KeInitializeEvent(&af->turn, SynchronizationEvent, TRUE);
    KeInitializeEvent(&af->idle, NotificationEvent, TRUE);
    KeInitializeSpinLock(&af->lock);
    InitializeListHead(&af->waiting);
    status = IoCsqInitializeEx(&af->csq, AfWaitInsert, AfqRemove, AfWaitPeek, AfWaitAcquire, AfWaitRelease, AfWaitCancelled);
    if (!NT_SUCCESS(status))
        goto delete;
    status = AfHooks.init(af);
    if (!NT_SUCCESS(status))
        goto delete;
    status = STATUS_INSUFFICIENT_RESOURCES;
    af->wake = IoAllocateWorkItem(self);
    if (!af->wake)
        goto delete;
    status = IoRegisterDeviceInterface(pdo, AfHooks.interfaceGuid, NULL, &af->name);
    if (!NT_SUCCESS(status))
        goto item;
    af->below = IoAttachDeviceToDeviceStack(self, pdo);
    if (!af->below) {
        status = STATUS_NO_SUCH_DEVICE;
        goto name;
    }
    self->Flags |= AfHooks.flags | DO_POWER_PAGABLE;
    self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
name:
    RtlFreeUnicodeString(&af->name);
item:
    IoFreeWorkItem(af->wake);
delete:
    IoDeleteDevice(self);
    return status;
}

static inline VOID NTAPI AfUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
}

static inline NTSTATUS AfDriver(DRIVER_OBJECT *driver)
{
    driver->DriverExtension->AddDevice = AfAddDevice;
    driver->DriverUnload = AfUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = AfCreate;
    driver->MajorFunction[IRP_MJ_CLOSE] = AfClose;
    driver->MajorFunction[IRP_MJ_CLEANUP] = AfCleanup;
    driver->MajorFunction[IRP_MJ_READ] = AfRequest;
    driver->MajorFunction[IRP_MJ_WRITE] = AfRequest;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AfRequest;
    driver->MajorFunction[IRP_MJ_PNP] = AfPnp;
    driver->MajorFunction[IRP_MJ_POWER] = AfPower;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = AfPass;
    return STATUS_SUCCESS;
}

static inline void AfBarrier(void)
{
    __sync_synchronize();
}

static inline ULONG AfRead32(PUCHAR base, ULONG offset)
{
    return READ_REGISTER_ULONG((PULONG)(base + offset));
}

static inline void AfWrite32(PUCHAR base, ULONG offset, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(base + offset), value);
}
