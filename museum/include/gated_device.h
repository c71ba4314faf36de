/*
 * gated_device.h: the PnP and power frame of a function driver (power policy owner), with a gate for requests.
 *
 * A driver supplies the routines declared below. Requests (read, write, device control) pass the gate; while the
 * device is stopped or in a low power state they are held in a cancel-safe queue and are issued again afterwards.
 * Every request holds the remove lock (tag: the request) until BqComplete.
 */
#ifndef BQ_H
#define BQ_H
#include <ddk/wdm.h>

#define BQ_TAG 'mFqB'

#define BQ_NEW     1u     /* not yet started, or stopped */
#define BQ_PAUSED  2u     /* about to be stopped */
#define BQ_POWER   4u     /* not in D0 */
#define BQ_GONE    8u     /* removed */

typedef struct _BQ_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Next;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    KSPIN_LOCK GateLock;
    ULONG Closed;
    LONG Busy;
    KEVENT Idle;
    LIST_ENTRY Held;
    IO_CSQ HeldQueue;
    PIO_WORKITEM PowerWork;
    PIRP PowerIrp;
    BOOLEAN Started;
    BOOLEAN Surprised;
    BOOLEAN Sleeping;                   /* the system has left S0 */
    DEVICE_POWER_STATE Power;
    KMUTEX HwMutex;                     /* start, stop, power up, power down */
} BQ_DEVICE, *PBQ_DEVICE;

/* To be supplied by the driver. */
static NTSTATUS BqInit(PBQ_DEVICE Dev);                                  /* AddDevice; nothing to undo on failure */
static VOID BqUninit(PBQ_DEVICE Dev);                                    /* before the device is deleted */
static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List); /* undoes all when it fails; PASSIVE_LEVEL */
static VOID BqStopHardware(PBQ_DEVICE Dev);                              /* PASSIVE_LEVEL, no request in the gate */
static VOID BqPowerDown(PBQ_DEVICE Dev);                                 /* still in D0, PASSIVE_LEVEL */
static VOID BqPowerUp(PBQ_DEVICE Dev);                                   /* in D0 again, PASSIVE_LEVEL */
static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File);                  /* cancels queued requests (of File, or all) */
static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp);                          /* a request, PASSIVE_LEVEL */

#ifdef BQ_WAIT_WAKE
static NTSTATUS BqWaitWake(PBQ_DEVICE Dev, PIRP Irp);                   /* passes it down, releases the remove lock */
#endif
#ifdef BQ_HELD
static VOID BqHeld(PBQ_DEVICE Dev);                                     /* a request was put into the held ones */
#endif

static ULONG BqExtensionSize;
static ULONG BqDeviceFlags;
static const GUID *BqInterface;

static inline BOOLEAN BqTouchable(PBQ_DEVICE Dev)
{
    return Dev->Power == PowerDeviceD0 && !Dev->Surprised;
}

static inline NTSTATUS BqComplete(PBQ_DEVICE Dev, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return Status;
}

/* ---- the gate ---- */

static inline ULONG BqTry(PBQ_DEVICE Dev)
{
    KIRQL irql;
    ULONG closed;

    KeAcquireSpinLock(&Dev->GateLock, &irql);
    closed = Dev->Closed;
    if (closed == 0 && Dev->Busy++ == 0)
        KeClearEvent(&Dev->Idle);
    KeReleaseSpinLock(&Dev->GateLock, irql);
    return closed;
}

/* For one who is already in the gate: stay in it until a further BqLeave. */
static inline VOID BqStay(PBQ_DEVICE Dev)
{
    KIRQL irql;

    KeAcquireSpinLock(&Dev->GateLock, &irql);
    Dev->Busy++;
    KeReleaseSpinLock(&Dev->GateLock, irql);
}

static inline VOID BqLeave(PBQ_DEVICE Dev)
{
    KIRQL irql;

    KeAcquireSpinLock(&Dev->GateLock, &irql);
    if (--Dev->Busy == 0)
        KeSetEvent(&Dev->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Dev->GateLock, irql);
}

static inline VOID BqShut(PBQ_DEVICE Dev, ULONG Reason)
{
    KIRQL irql;

    KeAcquireSpinLock(&Dev->GateLock, &irql);
    Dev->Closed |= Reason;
    KeReleaseSpinLock(&Dev->GateLock, irql);

    KeWaitForSingleObject(&Dev->Idle, Executive, KernelMode, FALSE, NULL);

    /* the one that set the event has left the lock when we get it */
    KeAcquireSpinLock(&Dev->GateLock, &irql);
    KeReleaseSpinLock(&Dev->GateLock, irql);
}

static inline VOID BqDrain(PBQ_DEVICE Dev)
{
    for (;;) {
        ULONG closed = BqTry(Dev);
        PIRP irp;

        if (closed != 0 && !(closed & BQ_GONE))
            return;
        irp = IoCsqRemoveNextIrp(&Dev->HeldQueue, NULL);
        if (irp != NULL) {
            if (closed != 0)
                BqComplete(Dev, irp, STATUS_DELETE_PENDING, 0);
            else
                BqIo(Dev, irp);
        }
        if (closed == 0)
            BqLeave(Dev);
        if (irp == NULL)
            return;
    }
}

static inline VOID BqOpen(PBQ_DEVICE Dev, ULONG Reasons)
{
    KIRQL irql;

    KeAcquireSpinLock(&Dev->GateLock, &irql);
    Dev->Closed &= ~Reasons;
    KeReleaseSpinLock(&Dev->GateLock, irql);
    BqDrain(Dev);
}

static VOID NTAPI BqHeldInsert(PIO_CSQ Csq, PIRP Irp)
{
    PBQ_DEVICE dev = CONTAINING_RECORD(Csq, BQ_DEVICE, HeldQueue);
    InsertTailList(&dev->Held, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI BqHeldRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI BqHeldPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PBQ_DEVICE dev = CONTAINING_RECORD(Csq, BQ_DEVICE, HeldQueue);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : dev->Held.Flink;

    for (; e != &dev->Held; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (File == NULL || IoGetCurrentIrpStackLocation(irp)->FileObject == (PFILE_OBJECT)File)
            return irp;
    }
    return NULL;
}

static VOID NTAPI BqHeldLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, BQ_DEVICE, HeldQueue)->GateLock, Irql);
}

static VOID NTAPI BqHeldUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, BQ_DEVICE, HeldQueue)->GateLock, Irql);
}

static VOID NTAPI BqHeldCancelled(PIO_CSQ Csq, PIRP Irp)
{
    BqComplete(CONTAINING_RECORD(Csq, BQ_DEVICE, HeldQueue), Irp, STATUS_CANCELLED, 0);
}

/* ---- a cancel-safe queue of waiting requests (they do not stay in the gate) ---- */

typedef struct _BQ_QUEUE {
    IO_CSQ Csq;
    LIST_ENTRY List;
    KSPIN_LOCK Lock;
    PBQ_DEVICE Dev;
} BQ_QUEUE, *PBQ_QUEUE;

static inline VOID NTAPI BqQInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, BQ_QUEUE, Csq)->List, &Irp->Tail.Overlay.ListEntry);
}

static inline PIRP NTAPI BqQPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PBQ_QUEUE q = CONTAINING_RECORD(Csq, BQ_QUEUE, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (File == NULL || IoGetCurrentIrpStackLocation(irp)->FileObject == (PFILE_OBJECT)File)
            return irp;
    }
    return NULL;
}

static inline VOID NTAPI BqQLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, BQ_QUEUE, Csq)->Lock, Irql);
}

static inline VOID NTAPI BqQUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, BQ_QUEUE, Csq)->Lock, Irql);
}

static inline VOID NTAPI BqQCancelled(PIO_CSQ Csq, PIRP Irp)
{
    BqComplete(CONTAINING_RECORD(Csq, BQ_QUEUE, Csq)->Dev, Irp, STATUS_CANCELLED, 0);
}

static inline NTSTATUS BqQueueInit(PBQ_QUEUE Queue, PBQ_DEVICE Dev)
{
    Queue->Dev = Dev;
    InitializeListHead(&Queue->List);
    KeInitializeSpinLock(&Queue->Lock);
    return IoCsqInitialize(&Queue->Csq, BqQInsert, BqHeldRemove, BqQPeek, BqQLock, BqQUnlock, BqQCancelled);
}

static inline VOID BqQueueFlush(PBQ_QUEUE Queue, PFILE_OBJECT File)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&Queue->Csq, File)) != NULL)
        BqQCancelled(&Queue->Csq, irp);
}

/* ---- dispatch ---- */

static NTSTATUS NTAPI BqDispatchIo(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBQ_DEVICE dev = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&dev->RemoveLock, Irp);
    ULONG closed;

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    closed = BqTry(dev);
    if (closed == 0) {
        status = BqIo(dev, Irp);
        BqLeave(dev);
        return status;
    }
    if (closed & BQ_GONE)
        return BqComplete(dev, Irp, STATUS_DELETE_PENDING, 0);

    /* A lock for ourselves: the request may be completed as soon as it is in the queue. */
    status = IoAcquireRemoveLock(&dev->RemoveLock, &dev->HeldQueue);
    if (!NT_SUCCESS(status))
        return BqComplete(dev, Irp, status, 0);
    IoCsqInsertIrp(&dev->HeldQueue, Irp, NULL);
    BqDrain(dev);                       /* the gate may have changed meanwhile */
#ifdef BQ_HELD
    BqHeld(dev);
#endif
    IoReleaseRemoveLock(&dev->RemoveLock, &dev->HeldQueue);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI BqDispatchCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBQ_DEVICE dev = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&dev->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    return BqComplete(dev, Irp, dev->Surprised ? STATUS_DELETE_PENDING : STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BqDispatchClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI BqDispatchCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBQ_DEVICE dev = DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    if (NT_SUCCESS(IoAcquireRemoveLock(&dev->RemoveLock, Irp))) {
        PIRP held;

        while ((held = IoCsqRemoveNextIrp(&dev->HeldQueue, file)) != NULL)
            BqComplete(dev, held, STATUS_CANCELLED, 0);
        BqFlush(dev, file);
        return BqComplete(dev, Irp, STATUS_SUCCESS, 0);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI BqDispatchSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBQ_DEVICE dev = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&dev->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(dev->Next, Irp);
    IoReleaseRemoveLock(&dev->RemoveLock, Irp);
    return status;
}

/* ---- PnP ---- */

static NTSTATUS NTAPI BqForwarded(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS BqForwardAndWait(PBQ_DEVICE Dev, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, BqForwarded, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Dev->Next, Irp);
    if (status == STATUS_PENDING)
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
    return Irp->IoStatus.Status;
}

static VOID BqEnd(PBQ_DEVICE Dev)
{
    BqShut(Dev, BQ_GONE);
    BqDrain(Dev);
    BqFlush(Dev, NULL);
    KeWaitForSingleObject(&Dev->HwMutex, Executive, KernelMode, FALSE, NULL);
    if (Dev->Started) {
        BqStopHardware(Dev);
        Dev->Started = FALSE;
    }
    KeReleaseMutex(&Dev->HwMutex, FALSE);
    if (Dev->Link.Buffer != NULL)
        IoSetDeviceInterfaceState(&Dev->Link, FALSE);
}

static NTSTATUS NTAPI BqDispatchPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBQ_DEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&dev->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }

    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = BqForwardAndWait(dev, Irp);
        if (NT_SUCCESS(status)) {
            KeWaitForSingleObject(&dev->HwMutex, Executive, KernelMode, FALSE, NULL);
            dev->Power = PowerDeviceD0;
            status = BqStartHardware(dev, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
            if (NT_SUCCESS(status))
                dev->Started = TRUE;
            KeReleaseMutex(&dev->HwMutex, FALSE);
        }
        if (NT_SUCCESS(status)) {
            POWER_STATE power;

            power.DeviceState = PowerDeviceD0;
            PoSetPowerState(dev->Self, DevicePowerState, power);
            BqOpen(dev, BQ_NEW | BQ_PAUSED | BQ_POWER);
            if (dev->Link.Buffer != NULL)
                IoSetDeviceInterfaceState(&dev->Link, TRUE);
        }
        return BqComplete(dev, Irp, status, 0);

    case IRP_MN_QUERY_STOP_DEVICE:
        BqShut(dev, BQ_PAUSED);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        status = BqForwardAndWait(dev, Irp);
        BqOpen(dev, BQ_PAUSED);
        return BqComplete(dev, Irp, status, 0);

    case IRP_MN_STOP_DEVICE:
        BqShut(dev, BQ_NEW);
        KeWaitForSingleObject(&dev->HwMutex, Executive, KernelMode, FALSE, NULL);
        if (dev->Started) {
            BqStopHardware(dev);
            dev->Started = FALSE;
        }
        KeReleaseMutex(&dev->HwMutex, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        dev->Surprised = TRUE;
        BqEnd(dev);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        BqEnd(dev);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(dev->Next, Irp);
        IoReleaseRemoveLockAndWait(&dev->RemoveLock, Irp);
        BqUninit(dev);
        if (dev->Link.Buffer != NULL)
            RtlFreeUnicodeString(&dev->Link);
        IoFreeWorkItem(dev->PowerWork);
        IoDetachDevice(dev->Next);
        IoDeleteDevice(dev->Self);
        return status;

    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(dev->Next, Irp);
    IoReleaseRemoveLock(&dev->RemoveLock, Irp);
    return status;
}

/* ---- power ---- */

static VOID NTAPI BqDeviceDone(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context,
                               PIO_STATUS_BLOCK IoStatus)
{
    PIRP irp = Context;                                  /* the system power request */
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PBQ_DEVICE dev = sp->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    irp->IoStatus.Status = IoStatus->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&dev->RemoveLock, irp);
}

static NTSTATUS NTAPI BqSystemDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PBQ_DEVICE dev = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(status)) {
        POWER_STATE state;

        state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(dev->Pdo, sp->MinorFunction, state, BqDeviceDone, Irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&dev->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static VOID NTAPI BqPowerWorker(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PBQ_DEVICE dev = Context;
    PIRP irp = dev->PowerIrp;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(DeviceObject);
    dev->PowerIrp = NULL;
    state.DeviceState = PowerDeviceD0;
    KeWaitForSingleObject(&dev->HwMutex, Executive, KernelMode, FALSE, NULL);
    if (dev->Started && dev->Power != PowerDeviceD0) {
        dev->Power = PowerDeviceD0;
        if (!dev->Surprised)
            BqPowerUp(dev);
        PoSetPowerState(dev->Self, DevicePowerState, state);
    }
    KeReleaseMutex(&dev->HwMutex, FALSE);
    BqOpen(dev, BQ_POWER);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&dev->RemoveLock, irp);
}

static NTSTATUS NTAPI BqPoweredUp(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PBQ_DEVICE dev = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        dev->PowerIrp = Irp;
        IoQueueWorkItem(dev->PowerWork, BqPowerWorker, DelayedWorkQueue, dev);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&dev->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI BqDispatchPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBQ_DEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&dev->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }

#ifdef BQ_WAIT_WAKE
    if (sp->MinorFunction == IRP_MN_WAIT_WAKE)
        return BqWaitWake(dev, Irp);
#endif

    if ((sp->MinorFunction == IRP_MN_SET_POWER || sp->MinorFunction == IRP_MN_QUERY_POWER) &&
        sp->Parameters.Power.Type == SystemPowerState) {
        if (sp->MinorFunction == IRP_MN_SET_POWER)
            dev->Sleeping = sp->Parameters.Power.State.SystemState != PowerSystemWorking;
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, BqSystemDone, dev, TRUE, TRUE, TRUE);
        PoCallDriver(dev->Next, Irp);
        return STATUS_PENDING;
    }

    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == DevicePowerState) {
        if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, BqPoweredUp, dev, TRUE, TRUE, TRUE);
            PoCallDriver(dev->Next, Irp);
            return STATUS_PENDING;
        }
        BqShut(dev, BQ_POWER);
        KeWaitForSingleObject(&dev->HwMutex, Executive, KernelMode, FALSE, NULL);
        if (dev->Started && dev->Power == PowerDeviceD0) {
            if (!dev->Surprised)
                BqPowerDown(dev);
            dev->Power = sp->Parameters.Power.State.DeviceState;
            PoSetPowerState(dev->Self, DevicePowerState, sp->Parameters.Power.State);
        }
        KeReleaseMutex(&dev->HwMutex, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }

    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(dev->Next, Irp);
    IoReleaseRemoveLock(&dev->RemoveLock, Irp);
    return status;
}

/* ---- adding ---- */

static NTSTATUS NTAPI BqAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    PBQ_DEVICE dev;
    NTSTATUS status = IoCreateDevice(DriverObject, BqExtensionSize, NULL, FILE_DEVICE_UNKNOWN,
                                     FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);

    if (!NT_SUCCESS(status))
        return status;
    dev = fdo->DeviceExtension;
    RtlZeroMemory(dev, BqExtensionSize);
    dev->Self = fdo;
    dev->Pdo = Pdo;
    dev->Closed = BQ_NEW;
    dev->Power = PowerDeviceD3;
    IoInitializeRemoveLock(&dev->RemoveLock, BQ_TAG, 0, 0);
    KeInitializeSpinLock(&dev->GateLock);
    KeInitializeMutex(&dev->HwMutex, 0);
    KeInitializeEvent(&dev->Idle, NotificationEvent, TRUE);
    InitializeListHead(&dev->Held);
    IoCsqInitialize(&dev->HeldQueue, BqHeldInsert, BqHeldRemove, BqHeldPeek, BqHeldLock, BqHeldUnlock, BqHeldCancelled);

    dev->PowerWork = IoAllocateWorkItem(fdo);
    if (dev->PowerWork == NULL) {
        IoDeleteDevice(fdo);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    status = BqInit(dev);
    if (!NT_SUCCESS(status)) {
        IoFreeWorkItem(dev->PowerWork);
        IoDeleteDevice(fdo);
        return status;
    }
    dev->Next = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (dev->Next == NULL) {
        BqUninit(dev);
        IoFreeWorkItem(dev->PowerWork);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    status = IoRegisterDeviceInterface(Pdo, BqInterface, NULL, &dev->Link);
    if (!NT_SUCCESS(status)) {
        IoDetachDevice(dev->Next);
        BqUninit(dev);
        IoFreeWorkItem(dev->PowerWork);
        IoDeleteDevice(fdo);
        return status;
    }
    fdo->Flags |= BqDeviceFlags | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI BqUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

static VOID BqEntry(PDRIVER_OBJECT DriverObject, ULONG ExtensionSize, ULONG Flags, const GUID *Interface)
{
    BqExtensionSize = ExtensionSize;
    BqDeviceFlags = Flags;
    BqInterface = Interface;
    DriverObject->DriverExtension->AddDevice = BqAddDevice;
    DriverObject->DriverUnload = BqUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = BqDispatchCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = BqDispatchClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = BqDispatchCleanup;
    DriverObject->MajorFunction[IRP_MJ_READ] = BqDispatchIo;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = BqDispatchIo;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BqDispatchIo;
    DriverObject->MajorFunction[IRP_MJ_PNP] = BqDispatchPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = BqDispatchPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = BqDispatchSystemControl;
}

/* ---- resources ---- */

static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR BqFind(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Index)
{
    PCM_PARTIAL_RESOURCE_LIST part;
    ULONG i;

    if (List == NULL || List->Count == 0)
        return NULL;
    part = &List->List[0].PartialResourceList;
    for (i = 0; i < part->Count; i++) {
        if (part->PartialDescriptors[i].Type == Type && Index-- == 0)
            return &part->PartialDescriptors[i];
    }
    return NULL;
}

static inline NTSTATUS BqConnect(PKINTERRUPT *Interrupt, PKSERVICE_ROUTINE Isr, PVOID Context,
                                 PCM_PARTIAL_RESOURCE_DESCRIPTOR D)
{
    return IoConnectInterrupt(Interrupt, Isr, Context, NULL, D->u.Interrupt.Vector, (KIRQL)D->u.Interrupt.Level,
                              (KIRQL)D->u.Interrupt.Level,
                              (D->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              D->ShareDisposition == CmResourceShareShared, D->u.Interrupt.Affinity, FALSE);
}
#endif
