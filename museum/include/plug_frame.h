/*
 * plug.h: the frame of a PnP function driver. A driver's extension begins with a PLUG; a PLUG_ROLE says what it does.
 *
 * Requests that need the device pass a gate: it is open while the device is started, not about to be stopped, in D0 and
 * there. What comes while it is shut waits in Held, and passes when it opens. Before the frame calls Halt or Doze the gate is
 * shut and all who passed it have left, so neither runs beside Request or Go.
 * A request holds the remove lock from its arrival until PlugFinish.
 */
typedef struct _PLUG PLUG;

typedef struct _PLUG_ROLE {
    ULONG Size;                                         /* of the device extension */
    ULONG Flags;                                        /* DO_BUFFERED_IO or DO_DIRECT_IO */
    const GUID *Interface;
    NTSTATUS (*Added)(PLUG *Plug);                      /* AddDevice: locks, lists, timers; a failure undoes itself */
    VOID (*Discarded)(PLUG *Plug);                      /* undoes Added */
    NTSTATUS (*Begin)(PLUG *Plug, PCM_RESOURCE_LIST Translated);    /* start; a failure undoes itself */
    VOID (*Halt)(PLUG *Plug, BOOLEAN Reachable);        /* undoes Begin; requests stay in the driver's racks */
    VOID (*Doze)(PLUG *Plug);                           /* D0 will be left */
    VOID (*Rouse)(PLUG *Plug);                          /* D0 is there again */
    VOID (*Go)(PLUG *Plug);                             /* the gate has opened: go on with what is in the driver's racks */
    NTSTATUS (*Request)(PLUG *Plug, PIRP Irp);          /* read, write, device control */
    VOID (*Flush)(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status);  /* drops what waits (of File), for cleanup and removal */
    NTSTATUS (*Opened)(PLUG *Plug, PFILE_OBJECT File);
    VOID (*Closed)(PLUG *Plug, PFILE_OBJECT File);      /* at IRP_MJ_CLOSE */
} PLUG_ROLE;

struct _PLUG {
    const PLUG_ROLE *Role;
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Below;
    PDEVICE_OBJECT Pdo;
    UNICODE_STRING Link;
    PIO_WORKITEM Riser;         /* goes on with D0 at PASSIVE_LEVEL; power IRPs of a device come one by one */
    IO_REMOVE_LOCK Remove;
    KEVENT Turn;                /* who changes the device's state has it */
    KEVENT Drained;
    KSPIN_LOCK Lock;            /* of all that follows */
    RACK Held;
    ULONG Users;                /* who passed the gate */
    BOOLEAN Running;            /* between Begin and Halt */
    BOOLEAN Paused;             /* a stop is being asked for */
    BOOLEAN Awake;
    BOOLEAN Gone;               /* removed, or pulled */
    BOOLEAN Pulled;
    BOOLEAN Lame;               /* D0 could not be asked for */
    BOOLEAN Missed;             /* D3 could not be asked for */
};

static inline VOID PlugFinish(PLUG *Plug, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&Plug->Remove, Irp);
}

static inline NTSTATUS PlugEnd(PLUG *Plug, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    PlugFinish(Plug, Irp, Status, Information);
    return Status;
}

/* for racks whose Owner is the PLUG */
static inline VOID PlugDrop(RACK *Rack, PIRP Irp, NTSTATUS Status)
{
    PlugFinish(Rack->Owner, Irp, Status, 0);
}

/* ---- the gate ---- */

static inline BOOLEAN PlugOpenLocked(PLUG *Plug)
{
    return Plug->Running && !Plug->Paused && Plug->Awake && !Plug->Gone;
}

static inline BOOLEAN PlugEnter(PLUG *Plug)
{
    BOOLEAN open;
    KIRQL irql;

    KeAcquireSpinLock(&Plug->Lock, &irql);
    open = PlugOpenLocked(Plug);
    if (open)
        Plug->Users++;
    KeReleaseSpinLock(&Plug->Lock, irql);
    return open;
}

static inline VOID PlugLeave(PLUG *Plug)
{
    KIRQL irql;

    KeAcquireSpinLock(&Plug->Lock, &irql);
    if (--Plug->Users == 0)
        KeSetEvent(&Plug->Drained, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Plug->Lock, irql);
}

/* The gate has been shut. Looks once more under the lock, so that the last to leave has let go of it. */
static inline VOID PlugDrain(PLUG *Plug)
{
    for (;;) {
        ULONG users;
        KIRQL irql;

        KeAcquireSpinLock(&Plug->Lock, &irql);
        users = Plug->Users;
        if (users != 0)
            KeClearEvent(&Plug->Drained);
        KeReleaseSpinLock(&Plug->Lock, irql);
        if (users == 0)
            return;
        KeWaitForSingleObject(&Plug->Drained, Executive, KernelMode, FALSE, NULL);
    }
}

static inline VOID PlugResume(PLUG *Plug)
{
    if (Plug->Role->Go != NULL && PlugEnter(Plug)) {
        Plug->Role->Go(Plug);
        PlugLeave(Plug);
    }
    for (;;) {
        PIRP irp = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&Plug->Lock, &irql);
        if (PlugOpenLocked(Plug)) {
            irp = RackTakeLocked(&Plug->Held, NULL);
            if (irp != NULL)
                Plug->Users++;
        }
        KeReleaseSpinLock(&Plug->Lock, irql);
        if (irp == NULL)
            return;
        (VOID)Plug->Role->Request(Plug, irp);
        PlugLeave(Plug);
    }
}

static inline VOID PlugTakeTurn(PLUG *Plug)
{
    KeWaitForSingleObject(&Plug->Turn, Executive, KernelMode, FALSE, NULL);
}

static inline VOID PlugGiveTurn(PLUG *Plug)
{
    KeSetEvent(&Plug->Turn, IO_NO_INCREMENT, FALSE);
}

static inline NTSTATUS NTAPI PlugRequest(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLUG *plug = DeviceObject->DeviceExtension;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&plug->Remove, Irp);
    if (!NT_SUCCESS(status)) {
        Finish(Irp, STATUS_DELETE_PENDING, 0);
        return STATUS_DELETE_PENDING;
    }
    KeAcquireSpinLock(&plug->Lock, &irql);
    if (plug->Gone) {
        KeReleaseSpinLock(&plug->Lock, irql);
        return PlugEnd(plug, Irp, STATUS_DELETE_PENDING, 0);
    }
    if (!PlugOpenLocked(plug)) {
        if (plug->Lame && !plug->Awake) {
            KeReleaseSpinLock(&plug->Lock, irql);
            return PlugEnd(plug, Irp, STATUS_DEVICE_NOT_READY, 0);
        }
        if (RackAddLocked(&plug->Held, Irp, FALSE)) {
            KeReleaseSpinLock(&plug->Lock, irql);
            return STATUS_PENDING;
        }
        KeReleaseSpinLock(&plug->Lock, irql);
        PlugFinish(plug, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    plug->Users++;
    KeReleaseSpinLock(&plug->Lock, irql);
    status = plug->Role->Request(plug, Irp);
    PlugLeave(plug);
    return status;
}

static inline NTSTATUS NTAPI PlugCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLUG *plug = DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    NTSTATUS status;
    BOOLEAN gone;
    KIRQL irql;

    status = IoAcquireRemoveLock(&plug->Remove, Irp);
    if (!NT_SUCCESS(status)) {
        Finish(Irp, STATUS_DELETE_PENDING, 0);
        return STATUS_DELETE_PENDING;
    }
    KeAcquireSpinLock(&plug->Lock, &irql);
    gone = plug->Gone;
    KeReleaseSpinLock(&plug->Lock, irql);
    if (gone)
        status = STATUS_DELETE_PENDING;
    else if (plug->Role->Opened != NULL)
        status = plug->Role->Opened(plug, file);
    return PlugEnd(plug, Irp, status, 0);
}

static inline NTSTATUS NTAPI PlugCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLUG *plug = DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    /* without the remove lock the removal drops all that waits itself */
    if (NT_SUCCESS(IoAcquireRemoveLock(&plug->Remove, Irp))) {
        RackClear(&plug->Held, file, STATUS_CANCELLED);
        if (plug->Role->Flush != NULL)
            plug->Role->Flush(plug, file, STATUS_CANCELLED);
        return PlugEnd(plug, Irp, STATUS_SUCCESS, 0);
    }
    Finish(Irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static inline NTSTATUS NTAPI PlugClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLUG *plug = DeviceObject->DeviceExtension;

    if (plug->Role->Closed != NULL)
        plug->Role->Closed(plug, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    Finish(Irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static inline NTSTATUS NTAPI PlugForward(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLUG *plug = DeviceObject->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&plug->Remove, Irp);
    if (!NT_SUCCESS(status)) {
        Finish(Irp, STATUS_DELETE_PENDING, 0);
        return STATUS_DELETE_PENDING;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(plug->Below, Irp);
    IoReleaseRemoveLock(&plug->Remove, Irp);
    return status;
}

/* ---- power ---- */

/* A device that stays asleep in a system that works: no one need wait for it. */
static inline VOID PlugLamed(PLUG *Plug)
{
    BOOLEAN asleep;
    KIRQL irql;

    KeAcquireSpinLock(&Plug->Lock, &irql);
    asleep = !Plug->Awake;
    Plug->Lame = asleep;
    KeReleaseSpinLock(&Plug->Lock, irql);
    if (asleep)
        RackClear(&Plug->Held, NULL, STATUS_DEVICE_NOT_READY);
}

static inline VOID PlugDown(PLUG *Plug)
{
    BOOLEAN doze;
    KIRQL irql;

    PlugTakeTurn(Plug);
    KeAcquireSpinLock(&Plug->Lock, &irql);
    doze = Plug->Awake && Plug->Running;
    Plug->Awake = FALSE;
    Plug->Missed = FALSE;
    KeReleaseSpinLock(&Plug->Lock, irql);
    PlugDrain(Plug);
    if (doze && Plug->Role->Doze != NULL)
        Plug->Role->Doze(Plug);
    PlugGiveTurn(Plug);
}

static inline VOID PlugUp(PLUG *Plug)
{
    BOOLEAN again, rouse, running;
    KIRQL irql;

    PlugTakeTurn(Plug);
    KeAcquireSpinLock(&Plug->Lock, &irql);
    running = Plug->Running;
    again = Plug->Awake && Plug->Missed;
    rouse = !Plug->Awake || again;
    if (again)
        Plug->Awake = FALSE;
    KeReleaseSpinLock(&Plug->Lock, irql);
    if (again) {
        PlugDrain(Plug);
        if (running && Plug->Role->Doze != NULL)
            Plug->Role->Doze(Plug);
    }
    if (rouse && running && Plug->Role->Rouse != NULL)
        Plug->Role->Rouse(Plug);
    KeAcquireSpinLock(&Plug->Lock, &irql);
    Plug->Awake = TRUE;
    Plug->Lame = FALSE;
    Plug->Missed = FALSE;
    KeReleaseSpinLock(&Plug->Lock, irql);
    PlugGiveTurn(Plug);
}

static inline VOID NTAPI PlugRise(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PLUG *plug = DeviceObject->DeviceExtension;
    PIRP irp = Context;
    POWER_STATE state;

    PlugUp(plug);
    state.DeviceState = PowerDeviceD0;
    PoSetPowerState(plug->Self, DevicePowerState, state);
    PlugResume(plug);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&plug->Remove, irp);
}

static inline NTSTATUS NTAPI PlugIsUp(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PLUG *plug = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        IoQueueWorkItem(plug->Riser, PlugRise, DelayedWorkQueue, Irp);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&plug->Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* The device's own power IRP, which the system's waited for, is over. */
static inline VOID NTAPI PlugDeviceDone(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    PIRP irp = Context;
    PLUG *plug = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Minor);
    if (State.DeviceState == PowerDeviceD0 && !NT_SUCCESS(IoStatus->Status))
        PlugLamed(plug);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&plug->Remove, irp);
}

static inline NTSTATUS NTAPI PlugSystemDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PLUG *plug = Context;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;
    ULONG tries;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        state.DeviceState = stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        for (tries = 0; tries < 3; tries++)
            if (PoRequestPowerIrp(plug->Pdo, IRP_MN_SET_POWER, state, PlugDeviceDone, Irp, NULL) == STATUS_PENDING)
                return STATUS_MORE_PROCESSING_REQUIRED;
        /* the system changes its state all the same */
        if (state.DeviceState == PowerDeviceD0) {
            PlugLamed(plug);
        } else {
            KeAcquireSpinLock(&plug->Lock, &irql);
            plug->Missed = TRUE;
            KeReleaseSpinLock(&plug->Lock, irql);
        }
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&plug->Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS NTAPI PlugPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLUG *plug = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&plug->Remove, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        Finish(Irp, STATUS_DELETE_PENDING, 0);
        return STATUS_DELETE_PENDING;
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER) {
        PIO_COMPLETION_ROUTINE done = NULL;

        if (stack->Parameters.Power.Type == SystemPowerState)
            done = PlugSystemDone;
        else if (stack->Parameters.Power.State.DeviceState == PowerDeviceD0)
            done = PlugIsUp;
        if (done != NULL) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, done, plug, TRUE, TRUE, TRUE);
            PoCallDriver(plug->Below, Irp);
            return STATUS_PENDING;
        }
        PlugDown(plug);
        PoSetPowerState(plug->Self, DevicePowerState, stack->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(plug->Below, Irp);
    IoReleaseRemoveLock(&plug->Remove, Irp);
    return status;
}

/* ---- PnP ---- */

static inline NTSTATUS NTAPI PlugBelowDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS PlugAwait(PLUG *Plug, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, PlugBelowDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Plug->Below, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

/* Halt, if there was a Begin. The gate is shut afterwards in any case. */
static inline VOID PlugStill(PLUG *Plug)
{
    BOOLEAN running, reachable;
    KIRQL irql;

    PlugTakeTurn(Plug);
    KeAcquireSpinLock(&Plug->Lock, &irql);
    running = Plug->Running;
    Plug->Running = FALSE;
    reachable = Plug->Awake && !Plug->Pulled;
    KeReleaseSpinLock(&Plug->Lock, irql);
    PlugDrain(Plug);
    if (running)
        Plug->Role->Halt(Plug, reachable);
    PlugGiveTurn(Plug);
}

static inline NTSTATUS PlugStart(PLUG *Plug, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status;
    KIRQL irql;

    PlugTakeTurn(Plug);
    status = Plug->Role->Begin(Plug, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&Plug->Lock, &irql);
        Plug->Running = TRUE;
        Plug->Paused = FALSE;
        Plug->Awake = TRUE;
        KeReleaseSpinLock(&Plug->Lock, irql);
    }
    PlugGiveTurn(Plug);
    if (!NT_SUCCESS(status))
        return status;
    status = IoSetDeviceInterfaceState(&Plug->Link, TRUE);
    if (!NT_SUCCESS(status)) {
        PlugStill(Plug);
        return status;
    }
    PlugResume(Plug);
    return STATUS_SUCCESS;
}

/* Nothing is asked of the device any more. */
static inline VOID PlugEmpty(PLUG *Plug, BOOLEAN Pulled)
{
    KIRQL irql;

    KeAcquireSpinLock(&Plug->Lock, &irql);
    Plug->Gone = TRUE;
    if (Pulled)
        Plug->Pulled = TRUE;
    KeReleaseSpinLock(&Plug->Lock, irql);
    (VOID)IoSetDeviceInterfaceState(&Plug->Link, FALSE);
    PlugStill(Plug);
    RackClear(&Plug->Held, NULL, STATUS_DELETE_PENDING);
    if (Plug->Role->Flush != NULL)
        Plug->Role->Flush(Plug, NULL, STATUS_DELETE_PENDING);
}

static inline VOID PlugPause(PLUG *Plug, BOOLEAN Paused)
{
    KIRQL irql;

    KeAcquireSpinLock(&Plug->Lock, &irql);
    Plug->Paused = Paused;
    KeReleaseSpinLock(&Plug->Lock, irql);
}

static inline NTSTATUS NTAPI PlugPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLUG *plug = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&plug->Remove, Irp);
    if (!NT_SUCCESS(status)) {
        Finish(Irp, STATUS_DELETE_PENDING, 0);
        return STATUS_DELETE_PENDING;
    }
    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = PlugAwait(plug, Irp);
        if (NT_SUCCESS(status))
            status = PlugStart(plug, stack);
        return PlugEnd(plug, Irp, status, 0);
    case IRP_MN_CANCEL_STOP_DEVICE:
        status = PlugAwait(plug, Irp);
        PlugPause(plug, FALSE);
        PlugResume(plug);
        return PlugEnd(plug, Irp, STATUS_SUCCESS, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
        PlugPause(plug, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        PlugStill(plug);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        PlugEmpty(plug, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        PlugEmpty(plug, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(plug->Below, Irp);
        IoReleaseRemoveLockAndWait(&plug->Remove, Irp);
        IoDetachDevice(plug->Below);
        if (plug->Role->Discarded != NULL)
            plug->Role->Discarded(plug);
        RtlFreeUnicodeString(&plug->Link);
        IoFreeWorkItem(plug->Riser);
        IoDeleteDevice(DeviceObject);
        return status;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(plug->Below, Irp);
    IoReleaseRemoveLock(&plug->Remove, Irp);
    return status;
}

static inline NTSTATUS PlugAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo, const PLUG_ROLE *Role)
{
    PDEVICE_OBJECT self;
    PLUG *plug;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, Role->Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &self);
    if (!NT_SUCCESS(status))
        return status;
    plug = self->DeviceExtension;
    RtlZeroMemory(plug, Role->Size);
    plug->Role = Role;
    plug->Self = self;
    plug->Pdo = Pdo;
    IoInitializeRemoveLock(&plug->Remove, QQ_TAG, 0, 0);
    KeInitializeEvent(&plug->Turn, SynchronizationEvent, TRUE);
    KeInitializeEvent(&plug->Drained, NotificationEvent, FALSE);
    KeInitializeSpinLock(&plug->Lock);
    RackInit(&plug->Held, &plug->Lock, PlugDrop, plug);
    plug->Riser = IoAllocateWorkItem(self);
    if (plug->Riser == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_item;
    }
    if (Role->Added != NULL) {
        status = Role->Added(plug);
        if (!NT_SUCCESS(status))
            goto not_added;
    }
    status = IoRegisterDeviceInterface(Pdo, Role->Interface, NULL, &plug->Link);
    if (!NT_SUCCESS(status))
        goto no_interface;
    plug->Below = IoAttachDeviceToDeviceStack(self, Pdo);
    if (plug->Below == NULL) {
        status = STATUS_NO_SUCH_DEVICE;
        goto not_attached;
    }
    self->Flags |= Role->Flags | DO_POWER_PAGABLE;
    self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

not_attached:
    RtlFreeUnicodeString(&plug->Link);
no_interface:
    if (Role->Discarded != NULL)
        Role->Discarded(plug);
not_added:
    IoFreeWorkItem(plug->Riser);
no_item:
    IoDeleteDevice(self);
    return status;
}

static inline VOID NTAPI PlugUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

static inline NTSTATUS PlugEntry(PDRIVER_OBJECT DriverObject, PDRIVER_ADD_DEVICE AddDevice)
{
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PlugCreate;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = PlugCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PlugClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = PlugRequest;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = PlugRequest;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PlugRequest;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = PlugForward;
    DriverObject->MajorFunction[IRP_MJ_POWER] = PlugPower;
    DriverObject->MajorFunction[IRP_MJ_PNP] = PlugPnp;
    DriverObject->DriverExtension->AddDevice = AddDevice;
    DriverObject->DriverUnload = PlugUnload;
    return STATUS_SUCCESS;
}
