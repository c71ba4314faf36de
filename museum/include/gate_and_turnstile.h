/*
 * frame.h: what the drivers of this collection share.
 *
 *   FR_QUEUE  requests that wait, cancel-safe
 *   FR_DEV    a PnP device: a gate (rundown protection) that is open while the device works, and
 *             a turnstile for what changes its state (start, stop, power, removal)
 *   FR_WIN    a window of registers, of memory or ports
 *   FR_IRQ    a line interrupt that does not touch a sleeping card
 *   FrDoor    a control device made by DriverEntry
 */
#ifndef FRAME_ZZ_H
#define FRAME_ZZ_H

#include <ddk/wdm.h>

#define FR_TAG 'ZmrF'
#define FRFN static __attribute__((unused))

typedef struct FR_DEV FR_DEV;

/* ---- requests that wait ------------------------------------------------------------------ */

typedef struct FR_QUEUE {
    IO_CSQ csq;
    LIST_ENTRY list;
    KSPIN_LOCK guard;
    FR_DEV *dev;                        /* NULL: of a control device */
    void (*dropped)(FR_DEV *dev, PIRP irp);     /* a request was cancelled: called before it is completed */
} FR_QUEUE;

/* A request keeps its place in the queue while it goes through stages, so it can be cancelled in each. */
#define FR_STAGE(irp_) ((irp_)->Tail.Overlay.DriverContext[0])
#define FR_WAITS ((PVOID)0)
#define FR_WORKS ((PVOID)1)

/* Which request: all conditions that are there must hold. */
typedef struct FR_PICK {
    PFILE_OBJECT file;
    BOOLEAN staged;
    PVOID stage;
    BOOLEAN (*fits)(PIRP irp, PVOID context);
    PVOID context;
} FR_PICK;

typedef struct FR_OPS {
    const GUID *guid;
    ULONG size;                         /* of the extension, which begins with an FR_DEV */
    ULONG flags;                        /* DO_BUFFERED_IO or DO_DIRECT_IO */
    NTSTATUS (*make)(FR_DEV *dev);      /* AddDevice */
    void (*unmake)(FR_DEV *dev);        /* the device object goes */
    NTSTATUS (*start)(FR_DEV *dev, PCM_RESOURCE_LIST list);   /* takes resources, or undoes all */
    void (*release)(FR_DEV *dev);       /* gives back what start took */
    void (*run)(FR_DEV *dev);           /* the device is in D0 */
    void (*halt)(FR_DEV *dev, BOOLEAN present);               /* it will not be; none is in io */
    void (*flush)(FR_DEV *dev, NTSTATUS status);              /* ends all requests kept */
    NTSTATUS (*open)(FR_DEV *dev, PFILE_OBJECT file);
    void (*cleanup)(FR_DEV *dev, PFILE_OBJECT file);
    void (*close)(FR_DEV *dev, PFILE_OBJECT file);
    NTSTATUS (*io)(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info);
} FR_OPS;

#define FR_SHUT 0       /* requests fail */
#define FR_HELD 1       /* requests wait for the gate */
#define FR_OPEN 2

struct FR_DEV {
    PDEVICE_OBJECT self, pdo, lower;
    IO_REMOVE_LOCK lock;
    UNICODE_STRING iface;
    BOOLEAN published, powered, closed;
    volatile LONG started;
    volatile LONG mode;
    EX_RUNDOWN_REF gate;
    KEVENT turn;
    FR_QUEUE held;
    PIO_WORKITEM riser;
    PIRP rising;
    PIRP sys;
};

static const FR_OPS *FrOps __attribute__((unused));

FRFN void FrFinish(FR_DEV *dev, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    if (dev)
        IoReleaseRemoveLock(&dev->lock, irp);
}

#define FR_Q(csq_) CONTAINING_RECORD(csq_, FR_QUEUE, csq)

FRFN VOID NTAPI FrqInsert(PIO_CSQ csq, PIRP irp)
{
    InsertTailList(&FR_Q(csq)->list, &irp->Tail.Overlay.ListEntry);
}

FRFN VOID NTAPI FrqRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

FRFN PIRP NTAPI FrqPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    FR_QUEUE *q = FR_Q(csq);
    const FR_PICK *pick = context;
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : q->list.Flink;
    for (; e != &q->list; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (pick->file && IoGetCurrentIrpStackLocation(next)->FileObject != pick->file)
            continue;
        if (pick->staged && FR_STAGE(next) != pick->stage)
            continue;
        if (pick->fits && !pick->fits(next, pick->context))
            continue;
        return next;
    }
    return NULL;
}

FRFN VOID NTAPI FrqLock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&FR_Q(csq)->guard, irql);
}

FRFN VOID NTAPI FrqUnlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&FR_Q(csq)->guard, irql);
}

FRFN VOID NTAPI FrqCancelled(PIO_CSQ csq, PIRP irp)
{
    FR_QUEUE *q = FR_Q(csq);
    if (q->dropped)
        q->dropped(q->dev, irp);
    FrFinish(q->dev, irp, STATUS_CANCELLED, 0);
}

FRFN void FrQueue(FR_QUEUE *q, FR_DEV *dev)
{
    InitializeListHead(&q->list);
    KeInitializeSpinLock(&q->guard);
    q->dev = dev;
    q->dropped = NULL;
    IoCsqInitialize(&q->csq, FrqInsert, FrqRemove, FrqPeek, FrqLock, FrqUnlock, FrqCancelled);
}

/* Marks the request pending: the caller returns STATUS_PENDING. */
FRFN void FrPut(FR_QUEUE *q, PIRP irp)
{
    FR_STAGE(irp) = FR_WAITS;
    IoCsqInsertIrp(&q->csq, irp, NULL);
}

FRFN PIRP FrTake(FR_QUEUE *q, PFILE_OBJECT file)
{
    FR_PICK pick = { .file = file };
    return IoCsqRemoveNextIrp(&q->csq, &pick);
}

FRFN PIRP FrTakeStage(FR_QUEUE *q, PVOID stage)
{
    FR_PICK pick = { .staged = TRUE, .stage = stage };
    return IoCsqRemoveNextIrp(&q->csq, &pick);
}

FRFN PIRP FrTakeIf(FR_QUEUE *q, BOOLEAN (*fits)(PIRP, PVOID), PVOID context)
{
    FR_PICK pick = { .fits = fits, .context = context };
    return IoCsqRemoveNextIrp(&q->csq, &pick);
}

/* Moves the first request of one stage to another and has it looked at, all under the queue's lock. */
FRFN BOOLEAN FrStep(FR_QUEUE *q, PVOID from, PVOID to, void (*look)(PIRP irp, PVOID context), PVOID context)
{
    FR_PICK pick = { .staged = TRUE, .stage = from };
    KIRQL irql;
    PIRP irp;
    KeAcquireSpinLock(&q->guard, &irql);
    irp = FrqPeek(&q->csq, NULL, &pick);
    if (irp) {
        FR_STAGE(irp) = to;
        if (look)
            look(irp, context);
    }
    KeReleaseSpinLock(&q->guard, irql);
    return irp != NULL;
}

FRFN BOOLEAN FrEmpty(FR_QUEUE *q)
{
    KIRQL irql;
    BOOLEAN empty;
    KeAcquireSpinLock(&q->guard, &irql);
    empty = IsListEmpty(&q->list);
    KeReleaseSpinLock(&q->guard, irql);
    return empty;
}

FRFN void FrSweep(FR_QUEUE *q, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;
    while ((irp = FrTake(q, file)) != NULL)
        FrFinish(q->dev, irp, status, 0);
}

/* ---- the gate ---------------------------------------------------------------------------- */

FRFN LONG FrMode(FR_DEV *dev)
{
    return InterlockedCompareExchange(&dev->mode, 0, 0);
}

FRFN void FrTurnTake(FR_DEV *dev)
{
    KeWaitForSingleObject(&dev->turn, Executive, KernelMode, FALSE, NULL);
}

FRFN void FrTurnGive(FR_DEV *dev)
{
    KeSetEvent(&dev->turn, IO_NO_INCREMENT, FALSE);
}

FRFN NTSTATUS FrServe(FR_DEV *dev, PIRP irp)
{
    ULONG_PTR info = 0;
    NTSTATUS status = FrOps->io(dev, irp, IoGetCurrentIrpStackLocation(irp), &info);
    if (status != STATUS_PENDING)
        FrFinish(dev, irp, status, info);
    return status;
}

FRFN void FrDrain(FR_DEV *dev)
{
    while (ExAcquireRundownProtection(&dev->gate)) {
        PIRP irp = FrTake(&dev->held, NULL);
        if (irp)
            FrServe(dev, irp);
        ExReleaseRundownProtection(&dev->gate);
        if (!irp)
            break;
    }
}

FRFN void FrGateShut(FR_DEV *dev, LONG mode)
{
    InterlockedExchange(&dev->mode, mode);
    if (!dev->closed) {
        ExWaitForRundownProtectionRelease(&dev->gate);
        ExRundownCompleted(&dev->gate);
        dev->closed = TRUE;
    }
}

FRFN void FrGateOpen(FR_DEV *dev)
{
    dev->closed = FALSE;
    ExReInitializeRundownProtection(&dev->gate);
    InterlockedExchange(&dev->mode, FR_OPEN);
    FrDrain(dev);
}

FRFN NTSTATUS NTAPI FrIo(PDEVICE_OBJECT self, PIRP irp)
{
    FR_DEV *dev = self->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&dev->lock, irp);
    if (!NT_SUCCESS(status)) {
        irp->IoStatus.Status = status;
        irp->IoStatus.Information = 0;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return status;
    }
    if (ExAcquireRundownProtection(&dev->gate)) {
        status = FrServe(dev, irp);
        ExReleaseRundownProtection(&dev->gate);
        return status;
    }
    if (FrMode(dev) == FR_SHUT || !NT_SUCCESS(IoAcquireRemoveLock(&dev->lock, &dev->held))) {
        FrFinish(dev, irp, STATUS_NO_SUCH_DEVICE, 0);
        return STATUS_NO_SUCH_DEVICE;
    }
    FrPut(&dev->held, irp);
    switch (FrMode(dev)) {              /* it may have changed before the request was there */
    case FR_OPEN:
        FrDrain(dev);
        break;
    case FR_SHUT:
        FrSweep(&dev->held, NULL, STATUS_NO_SUCH_DEVICE);
        break;
    }
    IoReleaseRemoveLock(&dev->lock, &dev->held);
    return STATUS_PENDING;
}

FRFN NTSTATUS NTAPI FrFile(PDEVICE_OBJECT self, PIRP irp)
{
    FR_DEV *dev = self->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = STATUS_SUCCESS;
    switch (at->MajorFunction) {
    case IRP_MJ_CREATE:
        status = IoAcquireRemoveLock(&dev->lock, irp);
        if (NT_SUCCESS(status)) {
            if (FrMode(dev) == FR_SHUT)
                status = STATUS_NO_SUCH_DEVICE;
            else if (FrOps->open)
                status = FrOps->open(dev, at->FileObject);
            FrFinish(dev, irp, status, 0);
            return status;
        }
        break;
    case IRP_MJ_CLEANUP:
        FrSweep(&dev->held, at->FileObject, STATUS_CANCELLED);
        if (FrOps->cleanup)
            FrOps->cleanup(dev, at->FileObject);
        break;
    case IRP_MJ_CLOSE:
        if (FrOps->close)
            FrOps->close(dev, at->FileObject);
        break;
    }
    FrFinish(NULL, irp, status, 0);
    return status;
}

/* ---- Plug and Play ----------------------------------------------------------------------- */

FRFN NTSTATUS NTAPI FrSignal(PDEVICE_OBJECT self, PIRP irp, PVOID event)
{
    UNREFERENCED_PARAMETER(self);
    if (irp->PendingReturned)
        KeSetEvent((PKEVENT)event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

FRFN NTSTATUS FrBelowFirst(FR_DEV *dev, PIRP irp)
{
    KEVENT event;
    NTSTATUS status;
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, FrSignal, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(dev->lower, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = irp->IoStatus.Status;
    }
    return status;
}

FRFN void FrPublish(FR_DEV *dev, BOOLEAN on)
{
    if (dev->published && !on) {
        IoSetDeviceInterfaceState(&dev->iface, FALSE);
        dev->published = FALSE;
    }
}

FRFN NTSTATUS FrStart(FR_DEV *dev, PCM_RESOURCE_LIST list)
{
    POWER_STATE d0;
    NTSTATUS status = FrOps->start ? FrOps->start(dev, list) : STATUS_SUCCESS;
    if (NT_SUCCESS(status)) {
        d0.DeviceState = PowerDeviceD0;
        PoSetPowerState(dev->self, DevicePowerState, d0);
        if (FrOps->run)
            FrOps->run(dev);
        dev->powered = TRUE;
        InterlockedExchange(&dev->started, 1);
        FrGateOpen(dev);
        if (!dev->published) {
            status = IoSetDeviceInterfaceState(&dev->iface, TRUE);
            if (NT_SUCCESS(status)) {
                dev->published = TRUE;
                return STATUS_SUCCESS;
            }
            FrGateShut(dev, FR_SHUT);
            if (FrOps->halt)
                FrOps->halt(dev, TRUE);
            if (FrOps->release)
                FrOps->release(dev);
            dev->powered = FALSE;
            InterlockedExchange(&dev->started, 0);
        } else
            return STATUS_SUCCESS;
    }
    FrGateShut(dev, FR_SHUT);
    FrSweep(&dev->held, NULL, STATUS_NO_SUCH_DEVICE);
    return status;
}

FRFN void FrStop(FR_DEV *dev, LONG mode, BOOLEAN present)
{
    FrGateShut(dev, mode);
    if (dev->started) {
        if (dev->powered && FrOps->halt)
            FrOps->halt(dev, present);
        if (FrOps->release)
            FrOps->release(dev);
        dev->powered = FALSE;
        InterlockedExchange(&dev->started, 0);
    }
    if (mode == FR_SHUT) {
        FrSweep(&dev->held, NULL, STATUS_NO_SUCH_DEVICE);
        if (FrOps->flush)
            FrOps->flush(dev, STATUS_NO_SUCH_DEVICE);
    }
}

FRFN NTSTATUS NTAPI FrPnp(PDEVICE_OBJECT self, PIRP irp)
{
    FR_DEV *dev = self->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&dev->lock, irp);
    if (!NT_SUCCESS(status)) {
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return status;
    }
    switch (at->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = FrBelowFirst(dev, irp);
        if (NT_SUCCESS(status)) {
            FrTurnTake(dev);
            status = FrStart(dev, at->Parameters.StartDevice.AllocatedResourcesTranslated);
            FrTurnGive(dev);
        }
        FrFinish(dev, irp, status, 0);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        FrTurnTake(dev);
        FrStop(dev, dev->started ? FR_HELD : FR_SHUT, TRUE);
        FrTurnGive(dev);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        FrTurnTake(dev);
        FrPublish(dev, FALSE);
        FrStop(dev, FR_SHUT, FALSE);
        FrTurnGive(dev);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        FrTurnTake(dev);
        FrPublish(dev, FALSE);
        FrStop(dev, FR_SHUT, TRUE);
        FrTurnGive(dev);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(dev->lower, irp);
        IoReleaseRemoveLockAndWait(&dev->lock, irp);
        IoDetachDevice(dev->lower);
        if (FrOps->unmake)
            FrOps->unmake(dev);
        IoFreeWorkItem(dev->riser);
        RtlFreeUnicodeString(&dev->iface);
        IoDeleteDevice(self);
        return status;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(dev->lower, irp);
    IoReleaseRemoveLock(&dev->lock, irp);
    return status;
}

FRFN NTSTATUS NTAPI FrWmi(PDEVICE_OBJECT self, PIRP irp)
{
    FR_DEV *dev = self->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&dev->lock, irp);
    if (!NT_SUCCESS(status)) {
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(dev->lower, irp);
    IoReleaseRemoveLock(&dev->lock, irp);
    return status;
}

/* ---- power: this driver owns the policy --------------------------------------------------- */

FRFN VOID NTAPI FrSysOver(PDEVICE_OBJECT pdo, UCHAR minor, POWER_STATE state, PVOID context,
                          PIO_STATUS_BLOCK io)
{
    FR_DEV *dev = context;
    PIRP irp = dev->sys;
    UNREFERENCED_PARAMETER(pdo);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    UNREFERENCED_PARAMETER(io);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&dev->lock, irp);
}

FRFN NTSTATUS NTAPI FrSysBack(PDEVICE_OBJECT self, PIRP irp, PVOID context)
{
    FR_DEV *dev = context;
    POWER_STATE want;
    UNREFERENCED_PARAMETER(self);
    if (NT_SUCCESS(irp->IoStatus.Status) && InterlockedCompareExchange(&dev->started, 0, 0)) {
        SYSTEM_POWER_STATE s = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState;
        want.DeviceState = s == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        dev->sys = irp;
        if (PoRequestPowerIrp(dev->pdo, IRP_MN_SET_POWER, want, FrSysOver, dev, NULL) == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&dev->lock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

FRFN VOID NTAPI FrRise(PDEVICE_OBJECT self, PVOID context)
{
    FR_DEV *dev = context;
    PIRP irp = dev->rising;
    POWER_STATE d0;
    UNREFERENCED_PARAMETER(self);
    d0.DeviceState = PowerDeviceD0;
    FrTurnTake(dev);
    PoSetPowerState(dev->self, DevicePowerState, d0);
    if (dev->started && !dev->powered) {
        if (FrOps->run)
            FrOps->run(dev);
        dev->powered = TRUE;
        FrGateOpen(dev);
    }
    FrTurnGive(dev);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&dev->lock, irp);
}

FRFN NTSTATUS NTAPI FrD0Back(PDEVICE_OBJECT self, PIRP irp, PVOID context)
{
    FR_DEV *dev = context;
    UNREFERENCED_PARAMETER(self);
    if (!NT_SUCCESS(irp->IoStatus.Status)) {
        PoStartNextPowerIrp(irp);
        IoReleaseRemoveLock(&dev->lock, irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    dev->rising = irp;
    IoQueueWorkItem(dev->riser, FrRise, DelayedWorkQueue, dev);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

FRFN NTSTATUS NTAPI FrPower(PDEVICE_OBJECT self, PIRP irp)
{
    FR_DEV *dev = self->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&dev->lock, irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return status;
    }
    if (at->MinorFunction == IRP_MN_SET_POWER) {
        if (at->Parameters.Power.Type == SystemPowerState
            || at->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            BOOLEAN sys = at->Parameters.Power.Type == SystemPowerState;
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, sys ? FrSysBack : FrD0Back, dev, TRUE, TRUE, TRUE);
            PoCallDriver(dev->lower, irp);
            return STATUS_PENDING;
        }
        FrTurnTake(dev);
        if (dev->started && dev->powered) {
            FrGateShut(dev, FR_HELD);
            if (FrOps->halt)
                FrOps->halt(dev, TRUE);
            dev->powered = FALSE;
        }
        PoSetPowerState(self, DevicePowerState, at->Parameters.Power.State);
        FrTurnGive(dev);
        irp->IoStatus.Status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(dev->lower, irp);
    IoReleaseRemoveLock(&dev->lock, irp);
    return status;
}

/* ---- the driver --------------------------------------------------------------------------- */

FRFN NTSTATUS NTAPI FrAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT self;
    FR_DEV *dev;
    NTSTATUS status = IoCreateDevice(driver, FrOps->size, NULL, FILE_DEVICE_UNKNOWN,
                                     FILE_DEVICE_SECURE_OPEN, FALSE, &self);
    if (!NT_SUCCESS(status))
        return status;
    dev = self->DeviceExtension;
    RtlZeroMemory(dev, FrOps->size);
    dev->self = self;
    dev->pdo = pdo;
    IoInitializeRemoveLock(&dev->lock, FR_TAG, 0, 0);
    KeInitializeEvent(&dev->turn, SynchronizationEvent, TRUE);
    FrQueue(&dev->held, dev);
    ExInitializeRundownProtection(&dev->gate);
    ExWaitForRundownProtectionRelease(&dev->gate);
    ExRundownCompleted(&dev->gate);
    dev->closed = TRUE;
    dev->mode = FR_SHUT;
    dev->riser = IoAllocateWorkItem(self);
    if (!dev->riser) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_item;
    }
    status = IoRegisterDeviceInterface(pdo, FrOps->guid, NULL, &dev->iface);
    if (!NT_SUCCESS(status))
        goto no_name;
    if (FrOps->make) {
        status = FrOps->make(dev);
        if (!NT_SUCCESS(status))
            goto not_made;
    }
    dev->lower = IoAttachDeviceToDeviceStack(self, pdo);
    if (!dev->lower) {
        status = STATUS_NO_SUCH_DEVICE;
        goto not_attached;
    }
    self->Flags |= FrOps->flags | DO_POWER_PAGABLE;
    self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
not_attached:
    if (FrOps->unmake)
        FrOps->unmake(dev);
not_made:
    RtlFreeUnicodeString(&dev->iface);
no_name:
    IoFreeWorkItem(dev->riser);
no_item:
    IoDeleteDevice(self);
    return status;
}

FRFN VOID NTAPI FrUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
}

FRFN NTSTATUS FrDriver(PDRIVER_OBJECT driver, const FR_OPS *ops)
{
    FrOps = ops;
    driver->DriverExtension->AddDevice = FrAdd;
    driver->DriverUnload = FrUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = FrFile;
    driver->MajorFunction[IRP_MJ_CLEANUP] = FrFile;
    driver->MajorFunction[IRP_MJ_CLOSE] = FrFile;
    driver->MajorFunction[IRP_MJ_READ] = FrIo;
    driver->MajorFunction[IRP_MJ_WRITE] = FrIo;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FrIo;
    driver->MajorFunction[IRP_MJ_PNP] = FrPnp;
    driver->MajorFunction[IRP_MJ_POWER] = FrPower;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FrWmi;
    return STATUS_SUCCESS;
}

/* ---- resources ---------------------------------------------------------------------------- */

typedef struct FR_WIN {
    PUCHAR at;              /* memory: mapped; ports: the first */
    ULONG length;
    BOOLEAN memory;
} FR_WIN;

/* The nth window (from 0) of ports or memory, in the order of the base address registers. */
FRFN PCM_PARTIAL_RESOURCE_DESCRIPTOR FrFind(PCM_RESOURCE_LIST list, BOOLEAN line, ULONG nth)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, end;
    if (!list || list->Count < 1)
        return NULL;
    d = list->List[0].PartialResourceList.PartialDescriptors;
    for (end = d + list->List[0].PartialResourceList.Count; d < end; d++) {
        if (line ? d->Type != CmResourceTypeInterrupt
                 : d->Type != CmResourceTypeMemory && d->Type != CmResourceTypePort)
            continue;
        if (nth-- == 0)
            return d;
    }
    return NULL;
}

FRFN NTSTATUS FrMap(FR_WIN *win, PCM_RESOURCE_LIST list, ULONG nth, ULONG least)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = FrFind(list, FALSE, nth);
    if (!d || d->u.Memory.Length < least)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    win->length = d->u.Memory.Length;
    win->memory = d->Type == CmResourceTypeMemory;
    if (!win->memory)
        win->at = (PUCHAR)(ULONG_PTR)d->u.Port.Start.QuadPart;
    else {
        win->at = MmMapIoSpace(d->u.Memory.Start, win->length, MmNonCached);
        if (!win->at)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

FRFN void FrUnmap(FR_WIN *win)
{
    if (win->at && win->memory)
        MmUnmapIoSpace(win->at, win->length);
    win->at = NULL;
}

FRFN ULONG FrRd(FR_WIN *win, ULONG offset)
{
    return win->memory ? READ_REGISTER_ULONG((PULONG)(win->at + offset))
                       : READ_PORT_ULONG((PULONG)(win->at + offset));
}

FRFN void FrWr(FR_WIN *win, ULONG offset, ULONG value)
{
    if (win->memory)
        WRITE_REGISTER_ULONG((PULONG)(win->at + offset), value);
    else
        WRITE_PORT_ULONG((PULONG)(win->at + offset), value);
}

FRFN NTSTATUS FrLine(FR_DEV *dev, PCM_RESOURCE_LIST list, PKSERVICE_ROUTINE isr, PVOID context,
                     PKINTERRUPT *line)
{
    IO_CONNECT_INTERRUPT_PARAMETERS p;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = FrFind(list, TRUE, 0);
    if (!d)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&p, sizeof p);
    p.Version = CONNECT_FULLY_SPECIFIED;
    p.FullySpecified.PhysicalDeviceObject = dev->pdo;
    p.FullySpecified.InterruptObject = line;
    p.FullySpecified.ServiceRoutine = isr;
    p.FullySpecified.ServiceContext = context;
    p.FullySpecified.SynchronizeIrql = (KIRQL)d->u.Interrupt.Level;
    p.FullySpecified.Irql = (KIRQL)d->u.Interrupt.Level;
    p.FullySpecified.ShareVector = (BOOLEAN)(d->ShareDisposition == CmResourceShareShared);
    p.FullySpecified.Vector = d->u.Interrupt.Vector;
    p.FullySpecified.InterruptMode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
    p.FullySpecified.ProcessorEnableMask = d->u.Interrupt.Affinity;
    return IoConnectInterruptEx(&p);
}

FRFN void FrUnline(PKINTERRUPT *line)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS p;
    if (*line) {
        RtlZeroMemory(&p, sizeof p);
        p.Version = CONNECT_FULLY_SPECIFIED;
        p.ConnectionContext.InterruptObject = *line;
        IoDisconnectInterruptEx(&p);
        *line = NULL;
    }
}

/* The line is connected all the time, but its routine asks the card only between wake and sleep. */
typedef struct FR_IRQ {
    FR_DEV *dev;
    PKINTERRUPT line;
    BOOLEAN awake;
    BOOLEAN (*isr)(FR_DEV *dev);
    void (*arm)(FR_DEV *dev, BOOLEAN on);       /* the card's own enable, at DIRQL */
} FR_IRQ;

typedef struct FR_IRQ_TURN {
    FR_IRQ *irq;
    BOOLEAN on, touch;
} FR_IRQ_TURN;

FRFN BOOLEAN NTAPI FrIrqService(PKINTERRUPT line, PVOID context)
{
    FR_IRQ *irq = context;
    UNREFERENCED_PARAMETER(line);
    return irq->awake ? irq->isr(irq->dev) : FALSE;
}

FRFN BOOLEAN NTAPI FrIrqTurn(PVOID context)
{
    FR_IRQ_TURN *t = context;
    if (t->on)
        t->irq->awake = TRUE;
    if (t->touch && t->irq->arm)
        t->irq->arm(t->irq->dev, t->on);
    if (!t->on)
        t->irq->awake = FALSE;
    return TRUE;
}

FRFN void FrIrqSwitch(FR_IRQ *irq, BOOLEAN on, BOOLEAN touch)
{
    FR_IRQ_TURN t;
    t.irq = irq;
    t.on = on;
    t.touch = touch;
    KeSynchronizeExecution(irq->line, FrIrqTurn, &t);
}

FRFN NTSTATUS FrIrqConnect(FR_IRQ *irq, FR_DEV *dev, PCM_RESOURCE_LIST list,
                           BOOLEAN (*isr)(FR_DEV *), void (*arm)(FR_DEV *, BOOLEAN))
{
    irq->dev = dev;
    irq->awake = FALSE;
    irq->isr = isr;
    irq->arm = arm;
    return FrLine(dev, list, FrIrqService, irq, &irq->line);
}

FRFN void FrIrqDisconnect(FR_IRQ *irq)
{
    FrUnline(&irq->line);
}

/* ---- control devices ----------------------------------------------------------------------- */

FRFN NTSTATUS FrDoor(PDRIVER_OBJECT driver, PCWSTR name, PCWSTR link, ULONG size, PDEVICE_OBJECT *made)
{
    UNICODE_STRING n, l;
    NTSTATUS status;
    RtlInitUnicodeString(&n, name);
    status = IoCreateDevice(driver, size, &n, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, made);
    if (!NT_SUCCESS(status))
        return status;
    RtlZeroMemory((*made)->DeviceExtension, size);
    (*made)->Flags |= DO_BUFFERED_IO;
    if (link) {
        RtlInitUnicodeString(&l, link);
        status = IoCreateSymbolicLink(&l, &n);
        if (!NT_SUCCESS(status)) {
            IoDeleteDevice(*made);
            *made = NULL;
        }
    }
    return status;
}

FRFN void FrDoorGone(PDEVICE_OBJECT made, PCWSTR link)
{
    UNICODE_STRING l;
    if (link) {
        RtlInitUnicodeString(&l, link);
        IoDeleteSymbolicLink(&l);
    }
    IoDeleteDevice(made);
}

/* Relative time for timers and waits. */
FRFN LARGE_INTEGER FrMs(LONG ms)
{
    LARGE_INTEGER t;
    t.QuadPart = -10000LL * ms;
    return t;
}

#endif
