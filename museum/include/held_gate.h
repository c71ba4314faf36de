/*
 * xframe.h: the frame of a PnP function driver: add, start, stop, remove, power and a queue of requests.
 *
 * The driver supplies the Dev... routines below and calls XfInit from DriverEntry. Its device extension begins with an XF.
 *
 * A request is looked at by DevCheck at once. STATUS_PENDING from it puts the request into the queue; any other status completes it, with the
 * information DevCheck has left in the request; XF_TAKEN says that DevCheck has marked it pending, entered the remove lock for it and owns it.
 *
 * DevIo gets queued requests one by one, at most Depth of them at a time, at DISPATCH_LEVEL, only while the device is started, in D0 and
 * not about to be stopped; each ends in XfFinish. Every one of them must end within a bounded time by itself: stop, power-down and removal wait
 * for it.
 *
 * With XF_PARKING defined, XfPark (from DevCheck: return XfPark(x, Irp)) lets a request wait, also while the device is stopped or asleep, until
 * DevTake says that there is something for it; XfServe looks again. DevTake runs with x->Lock held, so what it looks at belongs under that lock.
 * DevCheck may be called at PASSIVE_LEVEL only, in a critical region (a thread suspended in it would hold up the removal).
 *
 * DevStart, DevStop, DevUp and DevDown run at PASSIVE_LEVEL, one at a time, and never while a request is with DevIo.
 */
#ifndef XFRAME_H
#define XFRAME_H

#define XF_TAG 'rFmX'
#define XF_TAKEN ((NTSTATUS)0x2FFF0001L)

#define XF_HOLD_PNP 1
#define XF_HOLD_POWER 2

typedef struct _XF {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Lower;
    PDEVICE_OBJECT Pdo;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    KMUTEX State;       /* guards the next six */
    BOOLEAN Started;
    BOOLEAN Powered;
    BOOLEAN Surprised;
    BOOLEAN Paused;     /* a query for stop or remove was answered with yes */
    BOOLEAN Listed;     /* the interface is enabled */
    BOOLEAN Made;       /* DevInit has succeeded */
    PIO_WORKITEM PowerWork;
    PIRP PowerIrp;
    KSPIN_LOCK Lock;    /* guards all that follows */
    IO_CSQ Csq;
    LIST_ENTRY Waiting;
#ifdef XF_PARKING
    IO_CSQ Parking;
    LIST_ENTRY Parked;
    PIRP Served;
#endif
    ULONG Hold;
    BOOLEAN Gone;
    BOOLEAN Pumping;
    BOOLEAN Again;
    ULONG Active;
    ULONG Depth;
    KEVENT Idle;
} XF, *PXF;

static NTSTATUS DevInit(PXF x);                               /* once, when the device is added */
static VOID DevFree(PXF x);                                   /* once, when it is removed */
static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List);      /* translated resources; the device is in D0 */
static VOID DevStop(PXF x, BOOLEAN Alive);                    /* gives everything back; registers only if Alive */
static VOID DevUp(PXF x);                                     /* the device is back in D0 */
static VOID DevDown(PXF x);                                   /* it is about to leave D0 */
static VOID DevGone(PXF x);                                   /* it is gone or will be: end what waits outside the queue */
static NTSTATUS DevCheck(PXF x, PIRP Irp);
static VOID DevIo(PXF x, PIRP Irp);
#ifdef XF_PARKING
static BOOLEAN DevTake(PXF x, PIRP Irp, BOOLEAN Take); /* is there something for it? Take: put it and the IoStatus into the request */
#endif

static ULONG XfSize;
static const GUID *XfGuid;
static ULONG XfFlags;

static inline NTSTATUS XfEnter(PXF x)
{
    return IoAcquireRemoveLock(&x->RemoveLock, x);
}

static inline VOID XfLeave(PXF x)
{
    IoReleaseRemoveLock(&x->RemoveLock, x);
}

static inline NTSTATUS XfComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* The Number-th resource of a type, or NULL. */
static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR XfResource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Number)
{
    PCM_FULL_RESOURCE_DESCRIPTOR Full;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG n;

    if (List == NULL || List->Count == 0)
        return NULL;
    Full = (PVOID)((PUCHAR)List + FIELD_OFFSET(CM_RESOURCE_LIST, List));
    d = (PVOID)((PUCHAR)&Full->PartialResourceList + FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
    for (n = Full->PartialResourceList.Count; n != 0; n--, d++) {
        if (d->Type == Type) {
            if (Number == 0)
                return d;
            Number--;
        }
    }
    return NULL;
}

/* ---------------------------------------------------------------- the queue */

static NTSTATUS NTAPI XfCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PXF x = CONTAINING_RECORD(Csq, XF, Csq);

    UNREFERENCED_PARAMETER(Context);
    if (x->Gone)
        return STATUS_NO_SUCH_DEVICE;
    InsertTailList(&x->Waiting, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI XfCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI XfCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PXF x = CONTAINING_RECORD(Csq, XF, Csq);
    PLIST_ENTRY e = Irp == NULL ? x->Waiting.Flink : Irp->Tail.Overlay.ListEntry.Flink;

    for (; e != &x->Waiting; e = e->Flink) {
        Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (Context == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == (PFILE_OBJECT)Context)
            return Irp;
    }
    return NULL;
}

static VOID NTAPI XfCsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, XF, Csq)->Lock, Irql);
}

static VOID NTAPI XfCsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, XF, Csq)->Lock, Irql);
}

static VOID NTAPI XfCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PXF x = CONTAINING_RECORD(Csq, XF, Csq);

    XfComplete(Irp, STATUS_CANCELLED, 0);
    XfLeave(x);
}

/* Hands waiting requests to DevIo. One thread at a time; others only tell it to look again. The caller is inside the remove lock. */
static VOID XfPump(PXF x)
{
    KIRQL Irql;
    PIRP Irp;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql); /* not to be suspended or preempted half-way */
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Pumping) {
        x->Again = TRUE;
        KeReleaseSpinLockFromDpcLevel(&x->Lock);
        KeLowerIrql(Irql);
        return;
    }
    x->Pumping = TRUE;
    do {
        x->Again = FALSE;
        while (x->Active < x->Depth && x->Hold == 0 && !x->Gone) {
            x->Active++;
            KeClearEvent(&x->Idle);
            KeReleaseSpinLockFromDpcLevel(&x->Lock);
            Irp = IoCsqRemoveNextIrp(&x->Csq, NULL);
            if (Irp != NULL)
                DevIo(x, Irp);
            KeAcquireSpinLockAtDpcLevel(&x->Lock);
            if (Irp == NULL) {
                if (--x->Active == 0)
                    KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
                break;
            }
        }
    } while (x->Again);
    x->Pumping = FALSE;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    KeLowerIrql(Irql);
}

/* Ends a request that DevIo was given. IRQL <= DISPATCH_LEVEL, no locks held. */
static inline VOID XfFinish(PXF x, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    XfComplete(Irp, Status, Information);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (--x->Active == 0)
        KeSetEvent(&x->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    XfPump(x);
    XfLeave(x);
    KeLowerIrql(Irql);
}

static VOID XfHold(PXF x, ULONG Reason)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Hold |= Reason;
    KeReleaseSpinLock(&x->Lock, Irql);
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID XfResume(PXF x, ULONG Reason)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Hold &= ~Reason;
    KeReleaseSpinLock(&x->Lock, Irql);
    XfPump(x);
}

static VOID XfFlush(PXF x, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Csq, File)) != NULL) {
        XfComplete(Irp, Status, 0);
        XfLeave(x);
    }
}

#ifdef XF_PARKING

static NTSTATUS NTAPI XfParkInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PXF x = CONTAINING_RECORD(Csq, XF, Parking);

    UNREFERENCED_PARAMETER(Context);
    if (x->Gone)
        return STATUS_NO_SUCH_DEVICE;
    if (DevTake(x, Irp, TRUE))
        return STATUS_RETRY; /* no need to wait */
    InsertTailList(&x->Parked, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

/* Whom the peek before has found something for gets it now, under the same hold of the lock. */
static VOID NTAPI XfParkRemove(PIO_CSQ Csq, PIRP Irp)
{
    PXF x = CONTAINING_RECORD(Csq, XF, Parking);

    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    if (Irp == x->Served)
        DevTake(x, Irp, TRUE);
    x->Served = NULL;
}

/* Context: a file object, x itself for "those for which there is something", or NULL for all */
static PIRP NTAPI XfParkPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PXF x = CONTAINING_RECORD(Csq, XF, Parking);
    PLIST_ENTRY e = Irp == NULL ? x->Parked.Flink : Irp->Tail.Overlay.ListEntry.Flink;

    x->Served = NULL;
    for (; e != &x->Parked; e = e->Flink) {
        Irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (Context == x) {
            if (DevTake(x, Irp, FALSE)) {
                x->Served = Irp;
                return Irp;
            }
        } else if (Context == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == (PFILE_OBJECT)Context) {
            return Irp;
        }
    }
    return NULL;
}

static VOID NTAPI XfParkLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, XF, Parking)->Lock, Irql);
}

static VOID NTAPI XfParkUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, XF, Parking)->Lock, Irql);
}

static VOID NTAPI XfParkCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PXF x = CONTAINING_RECORD(Csq, XF, Parking);

    XfComplete(Irp, STATUS_CANCELLED, 0);
    XfLeave(x);
}

static NTSTATUS XfPark(PXF x, PIRP Irp)
{
    NTSTATUS Status = XfEnter(x);

    if (!NT_SUCCESS(Status))
        return Status;
    IoMarkIrpPending(Irp);
    Status = IoCsqInsertIrpEx(&x->Parking, Irp, NULL, NULL);
    if (!NT_SUCCESS(Status)) {
        if (Status == STATUS_RETRY)
            IoCompleteRequest(Irp, IO_NO_INCREMENT);
        else
            XfComplete(Irp, Status, 0);
        XfLeave(x);
    }
    return XF_TAKEN;
}

/* The caller is inside the remove lock, or DevStop waits for it. */
static VOID XfServe(PXF x)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Parking, x)) != NULL) {
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        XfLeave(x);
    }
}

static VOID XfParkFlush(PXF x, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Parking, File)) != NULL) {
        XfComplete(Irp, Status, 0);
        XfLeave(x);
    }
}

#endif

/* ---------------------------------------------------------------- requests */

static NTSTATUS XfRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PXF x = Device->DeviceExtension;
    NTSTATUS Status, Inserted;

    Irp->IoStatus.Information = 0;
    Status = XfEnter(x);
    if (!NT_SUCCESS(Status))
        return XfComplete(Irp, Status, 0);
    Status = DevCheck(x, Irp);
    if (Status == XF_TAKEN) {
        XfLeave(x);
        return STATUS_PENDING;
    }
    if (Status == STATUS_PENDING) {
        Status = XfEnter(x); /* for the request in the queue */
        if (NT_SUCCESS(Status)) {
            IoMarkIrpPending(Irp);
            Inserted = IoCsqInsertIrpEx(&x->Csq, Irp, NULL, NULL);
            if (NT_SUCCESS(Inserted)) {
                XfPump(x);
            } else {
                XfComplete(Irp, Inserted, 0);
                XfLeave(x);
            }
            XfLeave(x);
            return STATUS_PENDING;
        }
        Irp->IoStatus.Information = 0;
    }
    XfComplete(Irp, Status, Irp->IoStatus.Information);
    XfLeave(x);
    return Status;
}

/* In a critical region: a suspended thread must not hold up stop and removal. */
static NTSTATUS NTAPI XfDispatchIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    NTSTATUS Status;

    KeEnterCriticalRegion();
    Status = XfRequest(Device, Irp);
    KeLeaveCriticalRegion();
    return Status;
}

static NTSTATUS NTAPI XfDispatchOpen(PDEVICE_OBJECT Device, PIRP Irp)
{
    PXF x = Device->DeviceExtension;
    NTSTATUS Status;

    KeEnterCriticalRegion();
    Status = XfEnter(x);
    if (NT_SUCCESS(Status)) {
        Status = x->Gone ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS;
        XfLeave(x);
    }
    KeLeaveCriticalRegion();
    return XfComplete(Irp, Status, 0);
}

static NTSTATUS NTAPI XfDispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PXF x = Device->DeviceExtension;

    KeEnterCriticalRegion();
    if (NT_SUCCESS(XfEnter(x))) {
        XfFlush(x, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
#ifdef XF_PARKING
        XfParkFlush(x, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
#endif
        XfLeave(x);
    }
    KeLeaveCriticalRegion();
    return XfComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI XfDispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return XfComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI XfDispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PXF x = Device->DeviceExtension;
    NTSTATUS Status = XfEnter(x);

    if (!NT_SUCCESS(Status))
        return XfComplete(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Lower, Irp);
    XfLeave(x);
    return Status;
}

/* ---------------------------------------------------------------- Plug and Play */

static NTSTATUS NTAPI XfWake(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS XfSendAndWait(PXF x, PIRP Irp)
{
    KEVENT Event;
    NTSTATUS Status;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, XfWake, &Event, TRUE, TRUE, TRUE);
    Status = IoCallDriver(x->Lower, Irp);
    if (Status == STATUS_PENDING)
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
    return Irp->IoStatus.Status;
}

static NTSTATUS XfStart(PXF x, PCM_RESOURCE_LIST List)
{
    NTSTATUS Status;

    KeWaitForSingleObject(&x->State, Executive, KernelMode, FALSE, NULL);
    Status = DevStart(x, List);
    if (NT_SUCCESS(Status)) {
        x->Started = TRUE;
        x->Powered = TRUE;
        x->Paused = FALSE;
        if (!x->Listed) {
            Status = IoSetDeviceInterfaceState(&x->Link, TRUE);
            if (NT_SUCCESS(Status)) {
                x->Listed = TRUE;
            } else {
                DevStop(x, TRUE);
                x->Started = FALSE;
            }
        }
        if (x->Started)
            XfResume(x, XF_HOLD_PNP | XF_HOLD_POWER);
    }
    KeReleaseMutex(&x->State, FALSE);
    return NT_SUCCESS(Status) ? STATUS_SUCCESS : Status;
}

/* Takes the device out of service for good. */
static VOID XfEnd(PXF x, BOOLEAN Surprise)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Gone = TRUE;
    KeReleaseSpinLock(&x->Lock, Irql);
    DevGone(x);
    KeWaitForSingleObject(&x->State, Executive, KernelMode, FALSE, NULL);
    if (Surprise)
        x->Surprised = TRUE;
    XfFlush(x, NULL, STATUS_NO_SUCH_DEVICE);
#ifdef XF_PARKING
    XfParkFlush(x, NULL, STATUS_NO_SUCH_DEVICE);
#endif
    KeWaitForSingleObject(&x->Idle, Executive, KernelMode, FALSE, NULL);
    if (x->Started) {
        DevStop(x, !x->Surprised && x->Powered);
        x->Started = FALSE;
    }
    if (x->Listed) {
        IoSetDeviceInterfaceState(&x->Link, FALSE);
        x->Listed = FALSE;
    }
    KeReleaseMutex(&x->State, FALSE);
}

static VOID XfDiscard(PXF x)
{
    if (x->Made)
        DevFree(x);
    if (x->PowerWork != NULL)
        IoFreeWorkItem(x->PowerWork);
    if (x->Link.Buffer != NULL)
        RtlFreeUnicodeString(&x->Link);
    if (x->Lower != NULL)
        IoDetachDevice(x->Lower);
    IoDeleteDevice(x->Self);
}

static NTSTATUS NTAPI XfDispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PXF x = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = XfEnter(x);

    if (!NT_SUCCESS(Status)) {
        Irp->IoStatus.Status = Status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return Status;
    }
    switch (s->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = XfSendAndWait(x, Irp);
        if (NT_SUCCESS(Status))
            Status = XfStart(x, s->Parameters.StartDevice.AllocatedResourcesTranslated);
        Irp->IoStatus.Status = Status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        XfLeave(x);
        return Status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        KeWaitForSingleObject(&x->State, Executive, KernelMode, FALSE, NULL);
        XfHold(x, XF_HOLD_PNP);
        x->Paused = TRUE;
        KeReleaseMutex(&x->State, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Status = XfSendAndWait(x, Irp);
        KeWaitForSingleObject(&x->State, Executive, KernelMode, FALSE, NULL);
        if (x->Paused) {
            x->Paused = FALSE;
            if (x->Started)
                XfResume(x, XF_HOLD_PNP);
        }
        KeReleaseMutex(&x->State, FALSE);
        Status = STATUS_SUCCESS;
        Irp->IoStatus.Status = Status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        XfLeave(x);
        return Status;

    case IRP_MN_STOP_DEVICE:
        KeWaitForSingleObject(&x->State, Executive, KernelMode, FALSE, NULL);
        XfHold(x, XF_HOLD_PNP);
        if (x->Started) {
            DevStop(x, x->Powered);
            x->Started = FALSE;
        }
        x->Paused = FALSE;
        KeReleaseMutex(&x->State, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        XfEnd(x, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        XfEnd(x, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(x->Lower, Irp);
        IoReleaseRemoveLockAndWait(&x->RemoveLock, x);
        XfDiscard(x);
        return Status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->Lower, Irp);
    XfLeave(x);
    return Status;
}

/* ---------------------------------------------------------------- power */

/* Leaving D0 before the request goes down, or back in D0 after it has come up. */
static VOID NTAPI XfPowerWork(PDEVICE_OBJECT Device, PVOID Context)
{
    PXF x = Device->DeviceExtension;
    PIRP Irp = x->PowerIrp;
    POWER_STATE State = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State;

    UNREFERENCED_PARAMETER(Context);
    KeWaitForSingleObject(&x->State, Executive, KernelMode, FALSE, NULL);
    if (State.DeviceState == PowerDeviceD0) {
        if (x->Started && !x->Powered && !x->Gone)
            DevUp(x);
        x->Powered = TRUE;
        PoSetPowerState(x->Self, DevicePowerState, State);
        XfResume(x, XF_HOLD_POWER);
        KeReleaseMutex(&x->State, FALSE);
        PoStartNextPowerIrp(Irp);
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    } else {
        XfHold(x, XF_HOLD_POWER);
        if (x->Started && x->Powered && !x->Gone)
            DevDown(x);
        x->Powered = FALSE;
        PoSetPowerState(x->Self, DevicePowerState, State);
        KeReleaseMutex(&x->State, FALSE);
        PoStartNextPowerIrp(Irp);
        IoSkipCurrentIrpStackLocation(Irp);
        PoCallDriver(x->Lower, Irp);
    }
    XfLeave(x);
}

static NTSTATUS NTAPI XfUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PXF x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->PowerIrp = Irp;
        IoQueueWorkItem(x->PowerWork, XfPowerWork, DelayedWorkQueue, NULL);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    XfLeave(x);
    return STATUS_CONTINUE_COMPLETION;
}

static VOID NTAPI XfDeviceDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    PIRP Irp = Context; /* the system power request */
    PXF x = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Irp->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    XfLeave(x);
}

static NTSTATUS NTAPI XfSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PXF x = Context;
    POWER_STATE State;
    NTSTATUS Status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        State.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->Self, IRP_MN_SET_POWER, State, XfDeviceDone, Irp, NULL);
        if (Status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    XfLeave(x);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI XfDispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PXF x = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = XfEnter(x);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = Status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return Status;
    }
    if (s->MinorFunction == IRP_MN_SET_POWER) {
        IoMarkIrpPending(Irp);
        if (s->Parameters.Power.Type == SystemPowerState) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, XfSystemDone, x, TRUE, TRUE, TRUE);
            PoCallDriver(x->Lower, Irp);
        } else if (s->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, XfUpDone, x, TRUE, TRUE, TRUE);
            PoCallDriver(x->Lower, Irp);
        } else {
            x->PowerIrp = Irp;
            IoQueueWorkItem(x->PowerWork, XfPowerWork, DelayedWorkQueue, NULL);
        }
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->Lower, Irp);
    XfLeave(x);
    return Status;
}

/* ---------------------------------------------------------------- add and unload */

static NTSTATUS NTAPI XfAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    PXF x;
    NTSTATUS Status = IoCreateDevice(Driver, XfSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status))
        return Status;
    x = Device->DeviceExtension;
    RtlZeroMemory(x, XfSize);
    x->Self = Device;
    x->Pdo = Pdo;
    x->Depth = 1;
    x->Hold = XF_HOLD_PNP;
    IoInitializeRemoveLock(&x->RemoveLock, XF_TAG, 0, 0);
    KeInitializeMutex(&x->State, 0);
    KeInitializeSpinLock(&x->Lock);
    KeInitializeEvent(&x->Idle, NotificationEvent, TRUE);
    InitializeListHead(&x->Waiting);
    Status = IoCsqInitializeEx(&x->Csq, XfCsqInsert, XfCsqRemove, XfCsqPeek, XfCsqLock, XfCsqUnlock, XfCsqCancelled);
#ifdef XF_PARKING
    InitializeListHead(&x->Parked);
    if (NT_SUCCESS(Status))
        Status = IoCsqInitializeEx(&x->Parking, XfParkInsert, XfParkRemove, XfParkPeek, XfParkLock, XfParkUnlock, XfParkCancelled);
#endif
    if (NT_SUCCESS(Status)) {
        x->PowerWork = IoAllocateWorkItem(Device);
        if (x->PowerWork == NULL)
            Status = STATUS_INSUFFICIENT_RESOURCES;
    }
    if (NT_SUCCESS(Status)) {
        Status = DevInit(x);
        if (NT_SUCCESS(Status))
            x->Made = TRUE;
    }
    if (NT_SUCCESS(Status)) {
        x->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
        if (x->Lower == NULL)
            Status = STATUS_NO_SUCH_DEVICE;
    }
    if (NT_SUCCESS(Status)) {
        Status = IoRegisterDeviceInterface(Pdo, XfGuid, NULL, &x->Link);
        if (!NT_SUCCESS(Status))
            x->Link.Buffer = NULL;
    }
    if (!NT_SUCCESS(Status)) {
        XfDiscard(x);
        return Status;
    }
    Device->Flags |= XfFlags | (x->Lower->Flags & DO_POWER_PAGABLE);
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI XfUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    KeFlushQueuedDpcs();
}

static VOID XfInit(PDRIVER_OBJECT Driver, ULONG Size, const GUID *Guid, ULONG Flags)
{
    XfSize = Size;
    XfGuid = Guid;
    XfFlags = Flags;
    Driver->DriverExtension->AddDevice = XfAddDevice;
    Driver->DriverUnload = XfUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = XfDispatchOpen;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = XfDispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = XfDispatchClose;
    Driver->MajorFunction[IRP_MJ_READ] = XfDispatchIo;
    Driver->MajorFunction[IRP_MJ_WRITE] = XfDispatchIo;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = XfDispatchIo;
    Driver->MajorFunction[IRP_MJ_PNP] = XfDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = XfDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = XfDispatchSystemControl;
}

#endif
