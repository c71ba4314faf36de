/*
 * frame.h: what the drivers of this set share. Three parts:
 *
 *   LANE     a line of requests that can be cancelled at any time, on IO_CSQ. Its lock may guard the driver's own state, too.
 *   desk_*   a control device that a driver makes for itself in DriverEntry.
 *   STATION  the PnP and power frame of a function driver; the driver fills in DUTIES.
 */
#ifndef STATION_FRAME_H
#define STATION_FRAME_H

#define FRAME static inline __attribute__((unused))
#define FRAME_TAG 'XtaS'

/* ------------------------------------------------------------------ lane */

typedef struct _LANE LANE;

struct _LANE {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY Line;
    PIRP Front;                                 /* the one that someone works at while it stays in the line; under Lock */
    BOOLEAN Shut;                               /* under Lock */
    NTSTATUS Why;
    PIO_REMOVE_LOCK Hold;                       /* each request in the line holds it; NULL: control device */
    VOID (*Arrive)(LANE *Lane, PIRP Irp);       /* with Lock held, when it is in the line; may be NULL */
    VOID (*Farewell)(LANE *Lane, PIRP Irp);     /* before a request is completed, without the lock; may be NULL */
};

enum pick_kind { PICK_ANY, PICK_FRONT, PICK_FILE, PICK_MARK, PICK_INFORMED };      /* MARK: What in DriverContext[0]; INFORMED: something in [1] */

typedef struct _PICK {
    enum pick_kind Kind;
    PVOID What;
} PICK;

FRAME VOID lane_finish(LANE *Lane, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    PIO_REMOVE_LOCK hold = Lane->Hold;

    if (Lane->Farewell != NULL)
        Lane->Farewell(Lane, Irp);
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    if (hold != NULL)
        IoReleaseRemoveLock(hold, Irp);
}

FRAME NTSTATUS NTAPI lane_csq_insert(PIO_CSQ Csq, PIRP Irp, PVOID AtHead)
{
    LANE *lane = CONTAINING_RECORD(Csq, LANE, Csq);

    if (lane->Shut)
        return lane->Why;
    if (AtHead != NULL)
        InsertHeadList(&lane->Line, &Irp->Tail.Overlay.ListEntry);
    else
        InsertTailList(&lane->Line, &Irp->Tail.Overlay.ListEntry);
    if (lane->Arrive != NULL)
        lane->Arrive(lane, Irp);
    return STATUS_SUCCESS;
}

FRAME VOID NTAPI lane_csq_remove(PIO_CSQ Csq, PIRP Irp)
{
    LANE *lane = CONTAINING_RECORD(Csq, LANE, Csq);

    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    if (lane->Front == Irp)
        lane->Front = NULL;
}

FRAME PIRP NTAPI lane_csq_peek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    LANE *lane = CONTAINING_RECORD(Csq, LANE, Csq);
    PICK *pick = Context;
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : lane->Line.Flink;

    for (; e != &lane->Line; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        switch (pick->Kind) {
        case PICK_ANY:
            return irp;
        case PICK_FRONT:
            if (irp == lane->Front)
                return irp;
            break;
        case PICK_FILE:
            if (IoGetCurrentIrpStackLocation(irp)->FileObject == pick->What)
                return irp;
            break;
        case PICK_MARK:
            if (irp->Tail.Overlay.DriverContext[0] == pick->What)
                return irp;
            break;
        case PICK_INFORMED:
            if (irp->Tail.Overlay.DriverContext[1] != NULL)
                return irp;
            break;
        }
    }
    return NULL;
}

FRAME VOID NTAPI lane_csq_acquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, LANE, Csq)->Lock, Irql);
}

FRAME VOID NTAPI lane_csq_release(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, LANE, Csq)->Lock, Irql);
}

FRAME VOID NTAPI lane_csq_cancelled(PIO_CSQ Csq, PIRP Irp)
{
    lane_finish(CONTAINING_RECORD(Csq, LANE, Csq), Irp, STATUS_CANCELLED, 0);
}

FRAME VOID lane_setup(LANE *Lane, PIO_REMOVE_LOCK Hold)
{
    RtlZeroMemory(Lane, sizeof(*Lane));
    KeInitializeSpinLock(&Lane->Lock);
    InitializeListHead(&Lane->Line);
    Lane->Hold = Hold;
    IoCsqInitializeEx(&Lane->Csq, lane_csq_insert, lane_csq_remove, lane_csq_peek, lane_csq_acquire, lane_csq_release,
                      lane_csq_cancelled);
}

/* Puts a request into the line. Always STATUS_PENDING, and the request is no longer the caller's. */
FRAME NTSTATUS lane_park(LANE *Lane, PIRP Irp)
{
    NTSTATUS status;

    IoMarkIrpPending(Irp);
    if (Lane->Hold != NULL) {
        status = IoAcquireRemoveLock(Lane->Hold, Irp);
        if (!NT_SUCCESS(status)) {
            Irp->IoStatus.Status = status;
            Irp->IoStatus.Information = 0;
            IoCompleteRequest(Irp, IO_NO_INCREMENT);
            return STATUS_PENDING;
        }
    }
    status = IoCsqInsertIrpEx(&Lane->Csq, Irp, NULL, NULL);
    if (status != STATUS_SUCCESS)
        lane_finish(Lane, Irp, status, 0);
    return STATUS_PENDING;
}

/* Back to the beginning of the line, of one that had been taken from it. */
FRAME VOID lane_return(LANE *Lane, PIRP Irp)
{
    NTSTATUS status = IoCsqInsertIrpEx(&Lane->Csq, Irp, NULL, Lane);

    if (status != STATUS_SUCCESS)
        lane_finish(Lane, Irp, status, 0);
}

FRAME PIRP lane_take(LANE *Lane, enum pick_kind Kind, PVOID What)
{
    PICK pick = { Kind, What };

    return IoCsqRemoveNextIrp(&Lane->Csq, &pick);
}

/* All of a handle's requests. */
FRAME VOID lane_purge_file(LANE *Lane, PFILE_OBJECT File)
{
    PIRP irp;

    while ((irp = lane_take(Lane, PICK_FILE, File)) != NULL)
        lane_finish(Lane, irp, STATUS_CANCELLED, 0);
}

FRAME VOID lane_purge(LANE *Lane, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = lane_take(Lane, PICK_ANY, NULL)) != NULL)
        lane_finish(Lane, irp, Status, 0);
}

/* No more requests, and an end to those that wait. */
FRAME VOID lane_shut(LANE *Lane, NTSTATUS Status)
{
    KIRQL irql;

    KeAcquireSpinLock(&Lane->Lock, &irql);
    Lane->Shut = TRUE;
    Lane->Why = Status;
    KeReleaseSpinLock(&Lane->Lock, irql);
    lane_purge(Lane, Status);
}

FRAME PIRP lane_first_locked(LANE *Lane)
{
    if (IsListEmpty(&Lane->Line))
        return NULL;
    return CONTAINING_RECORD(Lane->Line.Flink, IRP, Tail.Overlay.ListEntry);
}

/* ------------------------------------------------------------------ desk */

FRAME NTSTATUS desk_make(PDRIVER_OBJECT Driver, PCWSTR Name, ULONG Bytes, ULONG IoFlags, PDEVICE_OBJECT *Device)
{
    UNICODE_STRING name;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Name);
    status = IoCreateDevice(Driver, Bytes, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (!NT_SUCCESS(status))
        return status;
    RtlZeroMemory((*Device)->DeviceExtension, Bytes);
    (*Device)->Flags |= IoFlags;
    return STATUS_SUCCESS;
}

/* Last step of DriverEntry: programs can find it from here on. */
FRAME NTSTATUS desk_publish(PCWSTR Link, PCWSTR Name)
{
    UNICODE_STRING link, name;

    RtlInitUnicodeString(&link, Link);
    RtlInitUnicodeString(&name, Name);
    return IoCreateSymbolicLink(&link, &name);
}

FRAME VOID desk_withdraw(PCWSTR Link)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
}

FRAME NTSTATUS desk_reply(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

FRAME NTSTATUS NTAPI desk_nod(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return desk_reply(Irp, STATUS_SUCCESS, 0);
}

/* --------------------------------------------------------------- station */

typedef struct _STATION STATION;

typedef struct _DUTIES {
    ULONG Bytes;                                /* of the whole device extension, which begins with a STATION */
    ULONG IoFlags;
    const GUID *Face;
    NTSTATUS (*Prepare)(STATION *St);           /* at the end of AddDevice */
    VOID (*Dispose)(STATION *St);               /* before the device is deleted */
    NTSTATUS (*Engage)(STATION *St, PCM_RESOURCE_LIST Translated);      /* undoes all of its own when it fails */
    VOID (*Release)(STATION *St, BOOLEAN Present);
    VOID (*Sleep)(STATION *St);                 /* PASSIVE_LEVEL, still in D0 */
    VOID (*Wake)(STATION *St);                  /* up to DISPATCH_LEVEL, in D0 again */
    VOID (*Pause)(STATION *St);                 /* QUERY_STOP, QUERY_REMOVE */
    VOID (*Resume)(STATION *St, UCHAR Minor);   /* CANCEL_STOP, CANCEL_REMOVE */
    VOID (*Strand)(STATION *St, NTSTATUS Why);  /* device is going: end what waits elsewhere than in Lane */
    VOID (*Depart)(STATION *St, PFILE_OBJECT File);     /* a handle is closed: the same for its requests */
    NTSTATUS (*Serve)(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp);    /* frame completes unless STATUS_PENDING */
} DUTIES;

struct _STATION {
    PDEVICE_OBJECT Self, Pdo, Lower;
    const DUTIES *Duties;
    IO_REMOVE_LOCK Hold;
    LANE Lane;
    UNICODE_STRING Link;
    BOOLEAN Shown;              /* the interface is enabled */
    BOOLEAN Engaged;            /* Engage has succeeded, Release was not called yet */
    volatile BOOLEAN Leaving;   /* between QUERY_REMOVE and its outcome */
    volatile BOOLEAN Gone;      /* taken away, or being removed */
    DEVICE_POWER_STATE Dx;
};

FRAME PCM_PARTIAL_RESOURCE_DESCRIPTOR station_resource(PCM_RESOURCE_LIST List, UCHAR Type, ULONG Index)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, End;

    if (List == NULL || List->Count == 0)
        return NULL;
    d = List->List[0].PartialResourceList.PartialDescriptors;
    for (End = d + List->List[0].PartialResourceList.Count; d < End; d++) {
        if (d->Type == Type && Index-- == 0)
            return d;
    }
    return NULL;
}

FRAME NTSTATUS station_connect(PCM_PARTIAL_RESOURCE_DESCRIPTOR D, PKSERVICE_ROUTINE Routine, PVOID Context, PKINTERRUPT *Interrupt)
{
    return IoConnectInterrupt(Interrupt, Routine, Context, NULL, D->u.Interrupt.Vector, (KIRQL)D->u.Interrupt.Level,
                              (KIRQL)D->u.Interrupt.Level,
                              (D->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              D->ShareDisposition == CmResourceShareShared, D->u.Interrupt.Affinity, FALSE);
}

FRAME NTSTATUS NTAPI station_forwarded(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

FRAME NTSTATUS station_forward(STATION *St, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, station_forwarded, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(St->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

FRAME VOID station_hide(STATION *St)
{
    if (St->Shown) {
        St->Shown = FALSE;
        IoSetDeviceInterfaceState(&St->Link, FALSE);
    }
}

FRAME VOID station_strand(STATION *St, NTSTATUS Why)
{
    St->Gone = TRUE;
    station_hide(St);
    lane_shut(&St->Lane, Why);
    if (St->Duties->Strand != NULL)
        St->Duties->Strand(St, Why);
}

FRAME NTSTATUS station_start(STATION *St, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    POWER_STATE state;
    NTSTATUS status = station_forward(St, Irp);

    if (!NT_SUCCESS(status))
        return status;
    state.DeviceState = PowerDeviceD0;
    PoSetPowerState(St->Self, DevicePowerState, state);
    St->Dx = PowerDeviceD0;
    status = St->Duties->Engage(St, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (!NT_SUCCESS(status))
        return status;
    St->Engaged = TRUE;
    St->Leaving = FALSE;
    if (!St->Shown) {
        status = IoSetDeviceInterfaceState(&St->Link, TRUE);
        if (!NT_SUCCESS(status)) {
            St->Engaged = FALSE;
            St->Duties->Release(St, TRUE);
            return status;
        }
        St->Shown = TRUE;
    }
    return STATUS_SUCCESS;
}

FRAME NTSTATUS NTAPI station_pnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *st = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&st->Hold, Irp);
    BOOLEAN present;

    if (!NT_SUCCESS(status))
        return desk_reply(Irp, status, 0);
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = station_start(st, Irp, sp);
        desk_reply(Irp, status, 0);
        IoReleaseRemoveLock(&st->Hold, Irp);
        return status;

    case IRP_MN_QUERY_REMOVE_DEVICE:
        st->Leaving = TRUE;
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
        if (st->Duties->Pause != NULL)
            st->Duties->Pause(st);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
        status = station_forward(st, Irp);
        if (sp->MinorFunction == IRP_MN_CANCEL_REMOVE_DEVICE)
            st->Leaving = FALSE;
        if (st->Duties->Resume != NULL)
            st->Duties->Resume(st, sp->MinorFunction);
        desk_reply(Irp, STATUS_SUCCESS, 0);
        IoReleaseRemoveLock(&st->Hold, Irp);
        return STATUS_SUCCESS;

    case IRP_MN_STOP_DEVICE:
        if (st->Engaged) {
            st->Engaged = FALSE;
            st->Duties->Release(st, TRUE);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        station_strand(st, STATUS_NO_SUCH_DEVICE);
        if (st->Engaged) {
            st->Engaged = FALSE;
            st->Duties->Release(st, FALSE);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        present = !st->Gone;
        station_strand(st, STATUS_DELETE_PENDING);
        IoReleaseRemoveLockAndWait(&st->Hold, Irp);
        if (st->Engaged) {
            st->Engaged = FALSE;
            st->Duties->Release(st, present);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(st->Lower, Irp);
        IoDetachDevice(st->Lower);
        if (st->Duties->Dispose != NULL)
            st->Duties->Dispose(st);
        RtlFreeUnicodeString(&st->Link);
        IoDeleteDevice(Device);
        return status;

    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (sp->Parameters.UsageNotification.InPath) {      /* nothing for page files and their kind */
            desk_reply(Irp, STATUS_UNSUCCESSFUL, 0);
            IoReleaseRemoveLock(&st->Hold, Irp);
            return STATUS_UNSUCCESSFUL;
        }
        break;

    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(st->Lower, Irp);
    IoReleaseRemoveLock(&st->Hold, Irp);
    return status;
}

/* The device's own request, which the system's has made us ask for, is over. */
FRAME VOID NTAPI station_requested(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    PIRP system = Context;
    STATION *st = IoGetCurrentIrpStackLocation(system)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(State);
    if (Minor == IRP_MN_QUERY_POWER)
        system->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(system);
    IoCompleteRequest(system, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&st->Hold, system);
}

FRAME NTSTATUS NTAPI station_system_done(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    STATION *st = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(st->Pdo, sp->MinorFunction, state, station_requested, Irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        if (sp->MinorFunction == IRP_MN_QUERY_POWER)
            Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&st->Hold, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

FRAME NTSTATUS NTAPI station_powered(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    STATION *st = Context;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        state.DeviceState = PowerDeviceD0;
        PoSetPowerState(st->Self, DevicePowerState, state);
        if (st->Dx != PowerDeviceD0) {
            st->Dx = PowerDeviceD0;
            if (st->Engaged && st->Duties->Wake != NULL)
                st->Duties->Wake(st);
        }
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&st->Hold, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

FRAME NTSTATUS NTAPI station_power(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *st = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&st->Hold, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return desk_reply(Irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER || sp->MinorFunction == IRP_MN_QUERY_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, station_system_done, st, TRUE, TRUE, TRUE);
            PoCallDriver(st->Lower, Irp);
            return STATUS_PENDING;
        }
        if (sp->MinorFunction == IRP_MN_SET_POWER) {
            if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
                IoMarkIrpPending(Irp);
                IoCopyCurrentIrpStackLocationToNext(Irp);
                IoSetCompletionRoutine(Irp, station_powered, st, TRUE, TRUE, TRUE);
                PoCallDriver(st->Lower, Irp);
                return STATUS_PENDING;
            }
            if (st->Dx == PowerDeviceD0 && st->Engaged && st->Duties->Sleep != NULL)
                st->Duties->Sleep(st);
            st->Dx = sp->Parameters.Power.State.DeviceState;
            PoSetPowerState(Device, DevicePowerState, sp->Parameters.Power.State);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(st->Lower, Irp);
    IoReleaseRemoveLock(&st->Hold, Irp);
    return status;
}

FRAME NTSTATUS NTAPI station_wmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *st = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&st->Hold, Irp);

    if (!NT_SUCCESS(status))
        return desk_reply(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(st->Lower, Irp);
    IoReleaseRemoveLock(&st->Hold, Irp);
    return status;
}

/* Create, read, write and control: held here while they are in the driver's hands, and by the lane while they wait. */
FRAME NTSTATUS NTAPI station_io(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *st = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&st->Hold, sp);

    if (!NT_SUCCESS(status))
        return desk_reply(Irp, status, 0);
    Irp->IoStatus.Information = 0;
    if (st->Gone)
        status = STATUS_NO_SUCH_DEVICE;
    else if (sp->MajorFunction == IRP_MJ_CREATE)
        status = st->Leaving ? STATUS_DELETE_PENDING : STATUS_SUCCESS;
    else
        status = st->Duties->Serve(st, Irp, sp);
    if (status != STATUS_PENDING) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    IoReleaseRemoveLock(&st->Hold, sp);
    return status;
}

FRAME NTSTATUS NTAPI station_cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    STATION *st = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    lane_purge_file(&st->Lane, file);
    if (st->Duties->Depart != NULL)
        st->Duties->Depart(st, file);
    return desk_reply(Irp, STATUS_SUCCESS, 0);
}

FRAME NTSTATUS station_add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, const DUTIES *Duties)
{
    PDEVICE_OBJECT device;
    STATION *st;
    NTSTATUS status = IoCreateDevice(Driver, Duties->Bytes, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    if (!NT_SUCCESS(status))
        return status;
    st = device->DeviceExtension;
    RtlZeroMemory(st, Duties->Bytes);
    st->Self = device;
    st->Pdo = Pdo;
    st->Duties = Duties;
    st->Dx = PowerDeviceD3;
    IoInitializeRemoveLock(&st->Hold, FRAME_TAG, 0, 0);
    lane_setup(&st->Lane, &st->Hold);
    status = IoRegisterDeviceInterface(Pdo, Duties->Face, NULL, &st->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    st->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (st->Lower == NULL) {
        RtlFreeUnicodeString(&st->Link);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_POWER_PAGABLE | Duties->IoFlags;
    if (Duties->Prepare != NULL) {
        status = Duties->Prepare(st);
        if (!NT_SUCCESS(status)) {
            IoDetachDevice(st->Lower);
            RtlFreeUnicodeString(&st->Link);
            IoDeleteDevice(device);
            return status;
        }
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

FRAME VOID station_majors(PDRIVER_OBJECT Driver)
{
    Driver->MajorFunction[IRP_MJ_CREATE] = station_io;
    Driver->MajorFunction[IRP_MJ_READ] = station_io;
    Driver->MajorFunction[IRP_MJ_WRITE] = station_io;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = station_io;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = station_cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_PNP] = station_pnp;
    Driver->MajorFunction[IRP_MJ_POWER] = station_power;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = station_wmi;
}

/* DriverEntry and its kin of a driver that has no more than devices. */
#define STATION_DRIVER(duties)                                                                  \
    static NTSTATUS NTAPI StationAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)           \
    {                                                                                           \
        return station_add(Driver, Pdo, &(duties));                                             \
    }                                                                                           \
    static VOID NTAPI StationUnload(PDRIVER_OBJECT Driver)                                      \
    {                                                                                           \
        UNREFERENCED_PARAMETER(Driver);                                                         \
    }                                                                                           \
    NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)             \
    {                                                                                           \
        UNREFERENCED_PARAMETER(RegistryPath);                                                   \
        station_majors(Driver);                                                                 \
        Driver->DriverExtension->AddDevice = StationAddDevice;                                  \
        Driver->DriverUnload = StationUnload;                                                   \
        return STATUS_SUCCESS;                                                                  \
    }

#endif
