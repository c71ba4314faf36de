/*
 * station.h: a PnP function driver's device. The driver's own structure begins with a STATION.
 *
 * A sluice stands before all reads, writes and controls. It is shut for reasons (bits): requests that come then are held, or refused if the
 * reason is final; the one who shuts it waits until no one is inside. Stop, sleep and removal therefore never meet a request in dispatch.
 * Each request holds the remove lock until StationEnd.
 */
#define SHUT_NEW   0x01   /* never started, or its start has failed */
#define SHUT_STOP  0x02
#define SHUT_QUERY 0x04   /* removal was asked for */
#define SHUT_POWER 0x08
#define SHUT_GONE  0x10
#define SHUT_FINAL (SHUT_NEW | SHUT_GONE)

struct _STATION;
typedef struct _STATION_OPS {
    ULONG Size;                                        /* of the driver's structure */
    ULONG Type, Flags;                                 /* of the device object */
    const GUID *Interface;
    NTSTATUS (*Added)(struct _STATION *);              /* each may be NULL; in AddDevice */
    VOID (*Removed)(struct _STATION *);                /* the opposite of Added */
    NTSTATUS (*Start)(struct _STATION *, PCM_RESOURCE_LIST Translated);   /* undoes itself if it fails */
    VOID (*Stop)(struct _STATION *, BOOLEAN Reachable);                   /* Reachable: registers may be touched */
    VOID (*Sleep)(struct _STATION *);
    VOID (*Wake)(struct _STATION *);
    VOID (*Abandon)(struct _STATION *, PFILE_OBJECT File, NTSTATUS);      /* ends what waits, of File or all */
    NTSTATUS (*Open)(struct _STATION *, PFILE_OBJECT);
    VOID (*Close)(struct _STATION *, PFILE_OBJECT);
    NTSTATUS (*Io)(struct _STATION *, PIRP, PIO_STACK_LOCATION);          /* ends the request, or parks it and returns STATUS_PENDING */
} STATION_OPS;

typedef struct _STATION {
    const STATION_OPS *Ops;
    PDEVICE_OBJECT Self, Lower, Pdo;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    BOOLEAN LinkOn;
    /* the sluice */
    KSPIN_LOCK SluiceLock;
    ULONG Shut;
    LONG Inside;
    KEVENT Empty;
    PARK Held;
    /* start, stop, sleep, wake: one at a time */
    KEVENT Turn;
    BOOLEAN Started, Asleep;
    PIO_WORKITEM UpItem;
    PIRP UpIrp;
} STATION;

static const STATION_OPS StationOps;   /* by the driver */

YYFN NTSTATUS StationEnd(STATION *S, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    YyEnd(Irp, Status, Information);
    IoReleaseRemoveLock(&S->RemoveLock, Irp);
    return Status;
}

YYFN VOID StationEnds(PVOID Owner, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    StationEnd(Owner, Irp, Status, Information);
}

static VOID StationTake(PKEVENT Turn)
{
    KeWaitForSingleObject(Turn, Executive, KernelMode, FALSE, NULL);
}

static VOID StationGive(PKEVENT Turn)
{
    KeSetEvent(Turn, IO_NO_INCREMENT, FALSE);
}

/* Returns the reasons for which it is shut; with none the caller is inside. */
static ULONG SluiceEnter(STATION *S)
{
    KIRQL irql;
    ULONG shut;
    KeAcquireSpinLock(&S->SluiceLock, &irql);
    shut = S->Shut;
    if (!shut && S->Inside++ == 0)
        KeClearEvent(&S->Empty);
    KeReleaseSpinLock(&S->SluiceLock, irql);
    return shut;
}

static VOID SluiceLeave(STATION *S)
{
    KIRQL irql;
    KeAcquireSpinLock(&S->SluiceLock, &irql);
    if (--S->Inside == 0)
        KeSetEvent(&S->Empty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&S->SluiceLock, irql);
}

static ULONG SluiceReasons(STATION *S)
{
    KIRQL irql;
    ULONG shut;
    KeAcquireSpinLock(&S->SluiceLock, &irql);
    shut = S->Shut;
    KeReleaseSpinLock(&S->SluiceLock, irql);
    return shut;
}

static VOID SluiceShut(STATION *S, ULONG Reason)
{
    KIRQL irql;
    LONG inside;
    for (;;) {
        KeAcquireSpinLock(&S->SluiceLock, &irql);
        S->Shut |= Reason;
        inside = S->Inside;
        KeReleaseSpinLock(&S->SluiceLock, irql);
        if (!inside)
            return;
        KeWaitForSingleObject(&S->Empty, Executive, KernelMode, FALSE, NULL);
    }
}

static VOID SluiceOpen(STATION *S, ULONG Reasons)
{
    KIRQL irql;
    KeAcquireSpinLock(&S->SluiceLock, &irql);
    S->Shut &= ~Reasons;
    KeReleaseSpinLock(&S->SluiceLock, irql);
}

/* TRUE: the request went through, or was refused. FALSE: it is held. */
static BOOLEAN StationPass(STATION *S, PIRP Irp, NTSTATUS *Status)
{
    ULONG shut = SluiceEnter(S);
    if (!shut) {
        *Status = S->Ops->Io(S, Irp, IoGetCurrentIrpStackLocation(Irp));
        SluiceLeave(S);
        return TRUE;
    }
    if (shut & SHUT_FINAL) {
        *Status = StationEnd(S, Irp, (shut & SHUT_GONE) ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_NOT_READY, 0);
        return TRUE;
    }
    *Status = ParkWait(&S->Held, Irp);
    return FALSE;
}

/* What is held goes on, if the sluice lets it. */
static VOID StationDrain(STATION *S)
{
    PIRP irp;
    NTSTATUS status;
    for (;;) {
        ULONG shut = SluiceReasons(S);
        if (shut && !(shut & SHUT_FINAL))
            return;
        irp = ParkTake(&S->Held, NULL);
        if (!irp)
            return;
        StationPass(S, irp, &status);
    }
}

static NTSTATUS NTAPI StationIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *s = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&s->RemoveLock, Irp), result;
    if (!NT_SUCCESS(status))
        return YyEnd(Irp, status, 0);
    /* keeps the device until this routine is done with it, whatever becomes of the request */
    status = IoAcquireRemoveLock(&s->RemoveLock, &status);
    if (!NT_SUCCESS(status))
        return StationEnd(s, Irp, status, 0);
    if (!StationPass(s, Irp, &result))
        StationDrain(s);   /* the sluice may have opened just before it was held */
    IoReleaseRemoveLock(&s->RemoveLock, &status);
    return result;
}

static NTSTATUS NTAPI StationCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *s = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&s->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return YyEnd(Irp, status, 0);
    if (SluiceReasons(s) & (SHUT_FINAL | SHUT_QUERY))
        return StationEnd(s, Irp, STATUS_DEVICE_NOT_READY, 0);
    sp->FileObject->FsContext = sp->FileObject->FsContext2 = NULL;
    status = s->Ops->Open ? s->Ops->Open(s, sp->FileObject) : STATUS_SUCCESS;
    return StationEnd(s, Irp, status, 0);
}

/* The file object keeps the device, so neither takes the remove lock. */
static NTSTATUS NTAPI StationCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *s = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    InterlockedExchangePointer(&file->FsContext2, s);
    ParkFlush(&s->Held, file, STATUS_CANCELLED);
    if (s->Ops->Abandon)
        s->Ops->Abandon(s, file, STATUS_CANCELLED);
    return YyEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI StationClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *s = Device->DeviceExtension;
    if (s->Ops->Close)
        s->Ops->Close(s, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return YyEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS StationSkip(STATION *S, PIRP Irp)
{
    NTSTATUS status;
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(S->Lower, Irp);
    IoReleaseRemoveLock(&S->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI StationSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *s = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&s->RemoveLock, Irp);
    return NT_SUCCESS(status) ? StationSkip(s, Irp) : YyEnd(Irp, status, 0);
}

static NTSTATUS StationStart(STATION *S, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;
    if (!IoForwardIrpSynchronously(S->Lower, Irp))
        return StationEnd(S, Irp, STATUS_UNSUCCESSFUL, 0);
    status = Irp->IoStatus.Status;
    if (NT_SUCCESS(status)) {
        StationTake(&S->Turn);
        status = S->Ops->Start ? S->Ops->Start(S, sp->Parameters.StartDevice.AllocatedResourcesTranslated) : STATUS_SUCCESS;
        if (NT_SUCCESS(status)) {
            S->Started = TRUE;
            S->Asleep = FALSE;
            SluiceOpen(S, SHUT_NEW | SHUT_STOP | SHUT_QUERY | SHUT_POWER);
            if (!S->LinkOn) {
                status = IoSetDeviceInterfaceState(&S->Link, TRUE);
                S->LinkOn = NT_SUCCESS(status);
            }
            if (!NT_SUCCESS(status)) {
                SluiceShut(S, SHUT_NEW);
                if (S->Ops->Stop)
                    S->Ops->Stop(S, TRUE);
                S->Started = FALSE;
            }
        } else {
            SluiceShut(S, SHUT_NEW);
        }
        StationGive(&S->Turn);
        StationDrain(S);
        if (!NT_SUCCESS(status) && S->Ops->Abandon)
            S->Ops->Abandon(S, NULL, STATUS_DEVICE_NOT_READY);
    }
    if (NT_SUCCESS(status))
        status = STATUS_SUCCESS;
    return StationEnd(S, Irp, status, 0);
}

static VOID StationLeave(STATION *S, BOOLEAN Orderly)
{
    SluiceShut(S, SHUT_GONE);
    StationTake(&S->Turn);
    if (S->LinkOn) {
        IoSetDeviceInterfaceState(&S->Link, FALSE);
        S->LinkOn = FALSE;
    }
    if (S->Started) {
        if (S->Ops->Stop)
            S->Ops->Stop(S, (BOOLEAN)(Orderly && !S->Asleep));
        S->Started = FALSE;
    }
    StationGive(&S->Turn);
    StationDrain(S);
    if (S->Ops->Abandon)
        S->Ops->Abandon(S, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID StationDelete(STATION *S)
{
    if (S->Ops->Removed)
        S->Ops->Removed(S);
    RtlFreeUnicodeString(&S->Link);
    IoFreeWorkItem(S->UpItem);
    IoDeleteDevice(S->Self);
}

static NTSTATUS NTAPI StationPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *s = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&s->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return YyEnd(Irp, status, 0);
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return StationStart(s, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
        SluiceShut(s, SHUT_STOP);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return StationSkip(s, Irp);
    case IRP_MN_QUERY_REMOVE_DEVICE:
        SluiceShut(s, SHUT_QUERY);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return StationSkip(s, Irp);
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        if (IoForwardIrpSynchronously(s->Lower, Irp)) {
            SluiceOpen(s, sp->MinorFunction == IRP_MN_CANCEL_STOP_DEVICE ? SHUT_STOP : SHUT_QUERY);
            StationDrain(s);
        }
        return StationEnd(s, Irp, STATUS_SUCCESS, 0);
    case IRP_MN_STOP_DEVICE:
        SluiceShut(s, SHUT_STOP);
        StationTake(&s->Turn);
        if (s->Started) {
            if (s->Ops->Stop)
                s->Ops->Stop(s, !s->Asleep);
            s->Started = FALSE;
        }
        StationGive(&s->Turn);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return StationSkip(s, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        StationLeave(s, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return StationSkip(s, Irp);
    case IRP_MN_REMOVE_DEVICE:
        StationLeave(s, TRUE);
        IoReleaseRemoveLockAndWait(&s->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(s->Lower, Irp);
        IoDetachDevice(s->Lower);
        StationDelete(s);
        return status;
    default:
        return StationSkip(s, Irp);
    }
}

/* The device's own request for power is done, so that of the system is. */
static VOID NTAPI StationDeviceDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    PIRP irp = Context;
    STATION *s = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Io);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&s->RemoveLock, irp);
}

static NTSTATUS NTAPI StationSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    STATION *s = Context;
    POWER_STATE to;
    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        to.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        if (PoRequestPowerIrp(s->Pdo, IRP_MN_SET_POWER, to, StationDeviceDone, Irp, NULL) == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&s->RemoveLock, Irp);
    return STATUS_SUCCESS;
}

static VOID NTAPI StationUpWork(PDEVICE_OBJECT Device, PVOID Context)
{
    STATION *s = Context;
    PIRP irp = s->UpIrp;
    POWER_STATE d0;
    UNREFERENCED_PARAMETER(Device);
    d0.DeviceState = PowerDeviceD0;
    StationTake(&s->Turn);
    if (s->Started && s->Asleep && s->Ops->Wake)
        s->Ops->Wake(s);
    s->Asleep = FALSE;
    StationGive(&s->Turn);
    PoSetPowerState(s->Self, DevicePowerState, d0);
    SluiceOpen(s, SHUT_POWER);
    StationDrain(s);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&s->RemoveLock, irp);
}

/* At up to DISPATCH_LEVEL, so the rest is a work item's. */
static NTSTATUS NTAPI StationUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    STATION *s = Context;
    UNREFERENCED_PARAMETER(Device);
    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        PoStartNextPowerIrp(Irp);
        IoReleaseRemoveLock(&s->RemoveLock, Irp);
        return STATUS_SUCCESS;
    }
    s->UpIrp = Irp;
    IoQueueWorkItem(s->UpItem, StationUpWork, CriticalWorkQueue, s);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI StationPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *s = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&s->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return YyEnd(Irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER &&
        (sp->Parameters.Power.Type == SystemPowerState || sp->Parameters.Power.State.DeviceState == PowerDeviceD0)) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, sp->Parameters.Power.Type == SystemPowerState ? StationSystemDone : StationUp, s, TRUE, TRUE, TRUE);
        PoCallDriver(s->Lower, Irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        SluiceShut(s, SHUT_POWER);
        StationTake(&s->Turn);
        if (s->Started && !s->Asleep && s->Ops->Sleep)
            s->Ops->Sleep(s);
        s->Asleep = TRUE;
        StationGive(&s->Turn);
        PoSetPowerState(s->Self, DevicePowerState, sp->Parameters.Power.State);
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(s->Lower, Irp);
    IoReleaseRemoveLock(&s->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI StationAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    STATION *s;
    NTSTATUS status = IoCreateDevice(Driver, StationOps.Size, NULL, StationOps.Type, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    s = device->DeviceExtension;
    RtlZeroMemory(s, StationOps.Size);
    s->Ops = &StationOps;
    s->Self = device;
    s->Pdo = Pdo;
    s->Shut = SHUT_NEW;
    IoInitializeRemoveLock(&s->RemoveLock, YY_TAG, 0, 0);
    KeInitializeSpinLock(&s->SluiceLock);
    KeInitializeEvent(&s->Empty, NotificationEvent, TRUE);
    KeInitializeEvent(&s->Turn, SynchronizationEvent, TRUE);
    ParkInit(&s->Held, StationEnds, s);
    s->UpItem = IoAllocateWorkItem(device);
    if (!s->UpItem) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_item;
    }
    status = IoRegisterDeviceInterface(Pdo, s->Ops->Interface, NULL, &s->Link);
    if (!NT_SUCCESS(status))
        goto no_link;
    status = s->Ops->Added ? s->Ops->Added(s) : STATUS_SUCCESS;
    if (!NT_SUCCESS(status))
        goto not_added;
    device->Flags |= s->Ops->Flags | DO_POWER_PAGABLE;
    s->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!s->Lower) {
        StationDelete(s);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
not_added:
    RtlFreeUnicodeString(&s->Link);
no_link:
    IoFreeWorkItem(s->UpItem);
no_item:
    IoDeleteDevice(device);
    return status;
}

static VOID NTAPI StationUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static NTSTATUS StationEntry(PDRIVER_OBJECT Driver)
{
    Driver->DriverExtension->AddDevice = StationAdd;
    Driver->DriverUnload = StationUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = StationCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = StationCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = StationClose;
    Driver->MajorFunction[IRP_MJ_READ] = StationIo;
    Driver->MajorFunction[IRP_MJ_WRITE] = StationIo;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = StationIo;
    Driver->MajorFunction[IRP_MJ_PNP] = StationPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = StationPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = StationSystemControl;
    return STATUS_SUCCESS;
}
