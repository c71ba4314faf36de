/*
 * rig.h: a PnP function driver. What keeps a device from work is a set of blocks (not started, asleep, paused for a rebalance, gone). While there is none the
 * device is live: registers are touched with the rig's lock held and RigLive true, and never otherwise (but in Equip). The first block calls Down, the last one
 * that goes calls Up. A request that finds the device blocked returns RIG_HOLD before it has done anything; the rig keeps it, cancellable, and calls the
 * driver's routine once more when the device is live again. All routines for requests run at IRQL <= DISPATCH_LEVEL.
 */
#ifndef RIG_H
#define RIG_H

#define RIG_HOLD ((NTSTATUS)0xE0110001L)

#define BLOCK_UNSTARTED 1
#define BLOCK_ASLEEP 2
#define BLOCK_PAUSED 4
#define BLOCK_GONE 8

typedef struct _RIG RIG;

typedef struct _RIG_OPS {
    ULONG Size;                                             /* of the device extension, which begins with a RIG */
    const GUID *Interface;
    NTSTATUS (*Born)(RIG *rig);                             /* AddDevice */
    VOID (*Dead)(RIG *rig);                                 /* removal: undoes Born */
    NTSTATUS (*Equip)(RIG *rig, PCM_PARTIAL_RESOURCE_LIST resources);   /* start; the list may be NULL */
    VOID (*Strip)(RIG *rig);                                /* undoes Equip, also half of it, also nothing */
    VOID (*Up)(RIG *rig);                                   /* lock held: in D0, programs the device */
    VOID (*Down)(RIG *rig, BOOLEAN reachable);              /* lock held: quiets it, if it can be reached */
    BOOLEAN (*Working)(RIG *rig);                           /* lock held, device reachable: does it still do what it cannot be called off from? */
    VOID (*Clear)(RIG *rig, PFILE_OBJECT file, NTSTATUS status);        /* ends what the driver's own rows hold, of this file or of all (NULL) */
    NTSTATUS (*Open)(RIG *rig, TASK *task);
    VOID (*Close)(RIG *rig, PFILE_OBJECT file);
    NTSTATUS (*Control)(RIG *rig, TASK *task);
    NTSTATUS (*Read)(RIG *rig, TASK *task);
    NTSTATUS (*Write)(RIG *rig, TASK *task);
    BOOLEAN (*Isr)(RIG *rig);                               /* device level: is it ours? */
    VOID (*Mask)(RIG *rig, BOOLEAN on);                     /* device level: the device's own enable, before Up and behind Down */
    VOID (*Dpc)(RIG *rig);                                  /* behind each interrupt that was ours */
} RIG_OPS;

struct _RIG {
    const RIG_OPS *Ops;
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    UNICODE_STRING Link;
    BOOLEAN Shown;                                          /* PnP's alone */
    BOOLEAN Surprised;                                      /* under Lock, as Ready */
    BOOLEAN Ready;                                          /* has been started once */
    IO_REMOVE_LOCK Gate;
    KSPIN_LOCK Lock;
    ULONG Blocks;                                           /* under Lock */
    ROW Held;                                               /* under Lock */
    PKINTERRUPT Interrupt;                                  /* under Lock */
    BOOLEAN Armed;                                          /* under Lock and the interrupt's lock: is our service routine to look? */
    KDPC Dpc;
};

/* ---- windows on a bus ---- */

typedef struct _PANE {
    PUCHAR Base;                                            /* NULL: none */
    ULONG Size;
    BOOLEAN Port;
} PANE;

LOCAL ULONG PaneRead(const PANE *pane, ULONG offset)
{
    if (pane->Port)
        return READ_PORT_ULONG((PULONG)(pane->Base + offset));
    return READ_REGISTER_ULONG((PULONG)(pane->Base + offset));
}

LOCAL VOID PaneWrite(const PANE *pane, ULONG offset, ULONG value)
{
    if (pane->Port)
        WRITE_PORT_ULONG((PULONG)(pane->Base + offset), value);
    else
        WRITE_REGISTER_ULONG((PULONG)(pane->Base + offset), value);
}

/* The n-th descriptor of this type, or NULL. */
LOCAL PCM_PARTIAL_RESOURCE_DESCRIPTOR RigFind(PCM_PARTIAL_RESOURCE_LIST list, UCHAR type, ULONG n)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR one;
    ULONG i;

    if (list == NULL)
        return NULL;
    for (i = 0, one = list->PartialDescriptors; i < list->Count; i++, one++) {
        if (one->Type == type && n-- == 0)
            return one;
    }
    return NULL;
}

LOCAL NTSTATUS PaneOpen(PANE *pane, PCM_PARTIAL_RESOURCE_DESCRIPTOR what, ULONG least)
{
    pane->Base = NULL;
    if (what == NULL || what->u.Memory.Length < least)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    pane->Size = what->u.Memory.Length;
    if (what->Type == CmResourceTypePort) {
        pane->Port = TRUE;
        pane->Base = (PUCHAR)(ULONG_PTR)what->u.Port.Start.QuadPart;
        return STATUS_SUCCESS;
    }
    pane->Port = FALSE;
    pane->Base = MmMapIoSpace(what->u.Memory.Start, pane->Size, MmNonCached);
    return pane->Base ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

LOCAL VOID PaneShut(PANE *pane)
{
    if (pane->Base != NULL && !pane->Port)
        MmUnmapIoSpace(pane->Base, pane->Size);
    pane->Base = NULL;
}

/* ---- interrupt ---- */

static BOOLEAN NTAPI RigIsr(PKINTERRUPT interrupt, PVOID context)
{
    RIG *rig = context;

    (void)interrupt;
    if (!rig->Armed || !rig->Ops->Isr(rig))
        return FALSE;
    KeInsertQueueDpc(&rig->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI RigDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    RIG *rig = context;

    (void)dpc;
    (void)a;
    (void)b;
    rig->Ops->Dpc(rig);
}

typedef struct _RIG_ARM {
    RIG *Rig;
    BOOLEAN On;
    BOOLEAN Reachable;
} RIG_ARM;

static BOOLEAN NTAPI RigArmSynch(PVOID context)
{
    RIG_ARM *arm = context;

    arm->Rig->Armed = arm->On;
    if (arm->Reachable)
        arm->Rig->Ops->Mask(arm->Rig, arm->On);
    return TRUE;
}

/* Lock held. */
static VOID RigArm(RIG *rig, BOOLEAN on, BOOLEAN reachable)
{
    RIG_ARM arm;

    if (rig->Interrupt == NULL)
        return;
    arm.Rig = rig;
    arm.On = on;
    arm.Reachable = reachable;
    KeSynchronizeExecution(rig->Interrupt, RigArmSynch, &arm);
}

/* From Equip, the last of it. */
LOCAL NTSTATUS RigConnect(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR line = RigFind(list, CmResourceTypeInterrupt, 0);
    PKINTERRUPT interrupt = NULL;
    NTSTATUS status;
    KIRQL irql;

    if (line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    rig->Armed = FALSE;
    status = IoConnectInterrupt(&interrupt, RigIsr, rig, NULL, line->u.Interrupt.Vector, (KIRQL)line->u.Interrupt.Level,
                                (KIRQL)line->u.Interrupt.Level, (line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&rig->Lock, &irql);
        rig->Interrupt = interrupt;
        KeReleaseSpinLock(&rig->Lock, irql);
    }
    return status;
}

/* From Strip, the first of it. */
LOCAL VOID RigDisconnect(RIG *rig)
{
    PKINTERRUPT interrupt;
    KIRQL irql;

    KeAcquireSpinLock(&rig->Lock, &irql);
    interrupt = rig->Interrupt;
    rig->Interrupt = NULL;
    KeReleaseSpinLock(&rig->Lock, irql);
    if (interrupt != NULL)
        IoDisconnectInterrupt(interrupt);
}

/* ---- requests ---- */

#define RigLive(rig) ((rig)->Blocks == 0)

/* Lock held. As RowPut, for rows of the driver's that Clear empties. */
LOCAL NTSTATUS RigPut(RIG *rig, ROW *row, PIRP irp)
{
    if (rig->Blocks & BLOCK_GONE)
        return STATUS_NO_SUCH_DEVICE;
    return RowPut(row, irp);
}

LOCAL VOID RigFinish(RIG *rig, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    RowFinish(&rig->Held, irp, status, info);
}

static NTSTATUS RigServe(RIG *rig, PIRP irp)
{
    const RIG_OPS *ops = rig->Ops;
    NTSTATUS status;
    TASK task;
    KIRQL irql;

    for (;;) {
        status = STATUS_INVALID_DEVICE_REQUEST;
        TaskFill(&task, irp);
        if (task.At->MajorFunction == IRP_MJ_DEVICE_CONTROL && ops->Control)
            status = ops->Control(rig, &task);
        else if (task.At->MajorFunction == IRP_MJ_READ && ops->Read)
            status = ops->Read(rig, &task);
        else if (task.At->MajorFunction == IRP_MJ_WRITE && ops->Write)
            status = ops->Write(rig, &task);
        if (status != RIG_HOLD)
            break;
        KeAcquireSpinLock(&rig->Lock, &irql);
        if (!RigLive(rig))
            status = RigPut(rig, &rig->Held, irp);
        KeReleaseSpinLock(&rig->Lock, irql);
        if (status != RIG_HOLD)
            break;
    }
    if (status != STATUS_PENDING)
        RigFinish(rig, irp, status, task.Info);
    return status;
}

static NTSTATUS NTAPI RigDispatch(PDEVICE_OBJECT device, PIRP irp)
{
    RIG *rig = device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&rig->Gate, irp);
    KIRQL irql;

    if (!NT_SUCCESS(status)) {
        irp->IoStatus.Status = status;
        irp->IoStatus.Information = 0;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return status;
    }
    switch (at->MajorFunction) {
    case IRP_MJ_CREATE: {
        TASK task;

        TaskFill(&task, irp);
        KeAcquireSpinLock(&rig->Lock, &irql);
        if (rig->Blocks & BLOCK_GONE)
            status = STATUS_NO_SUCH_DEVICE;
        else if (!rig->Ready)
            status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&rig->Lock, irql);
        if (NT_SUCCESS(status) && rig->Ops->Open)
            status = rig->Ops->Open(rig, &task);
        break;
    }
    case IRP_MJ_CLEANUP:
        RowEmpty(&rig->Held, at->FileObject, STATUS_CANCELLED);
        if (rig->Ops->Clear)
            rig->Ops->Clear(rig, at->FileObject, STATUS_CANCELLED);
        break;
    case IRP_MJ_CLOSE:
        if (rig->Ops->Close)
            rig->Ops->Close(rig, at->FileObject);
        break;
    default:
        return RigServe(rig, irp);
    }
    RigFinish(rig, irp, status, 0);
    return status;
}

/* ---- blocks ---- */

static VOID RigBlock(RIG *rig, ULONG block, BOOLEAN reachable)
{
    KIRQL irql;

    KeAcquireSpinLock(&rig->Lock, &irql);
    if (rig->Blocks == 0)
        rig->Ops->Down(rig, reachable);
    if (block == BLOCK_GONE && !reachable)
        rig->Surprised = TRUE;
    if (rig->Blocks & (BLOCK_UNSTARTED | BLOCK_ASLEEP | BLOCK_GONE))
        reachable = FALSE;
    rig->Blocks |= block;
    /* A device that still works may interrupt at its end, for which RigSettle waits. */
    if (!reachable || rig->Ops->Working == NULL || irql > APC_LEVEL)
        RigArm(rig, FALSE, reachable);
    KeReleaseSpinLock(&rig->Lock, irql);
}

/* Behind RigBlock of a device that is reachable still: waits for what it cannot be called off from, this long at most. */
static VOID RigSettle(RIG *rig, ULONG limit, BOOLEAN reachable)
{
    ULONG wait = 1, waited = 0;

    if (rig->Ops->Working == NULL || KeGetCurrentIrql() > APC_LEVEL)
        return;
    for (;;) {
        LARGE_INTEGER time;
        BOOLEAN busy;
        KIRQL irql;

        KeAcquireSpinLock(&rig->Lock, &irql);
        /* Armed still: it was live before this block, and neither asleep nor taken away since. */
        busy = rig->Interrupt != NULL && rig->Armed && reachable && !rig->Surprised && waited < limit && rig->Ops->Working(rig);
        if (!busy)
            RigArm(rig, FALSE, rig->Armed && reachable && !rig->Surprised);
        KeReleaseSpinLock(&rig->Lock, irql);
        if (!busy)
            return;
        time.QuadPart = -10000LL * wait;
        KeDelayExecutionThread(KernelMode, FALSE, &time);
        waited += wait;
        if (wait < 1000)
            wait *= 2;
    }
}

static VOID RigUnblock(RIG *rig, ULONG blocks)
{
    BOOLEAN up = FALSE;
    KIRQL irql;

    KeAcquireSpinLock(&rig->Lock, &irql);
    if (blocks & BLOCK_UNSTARTED)
        rig->Ready = TRUE;
    if (rig->Blocks != 0) {
        rig->Blocks &= ~blocks;
        if (rig->Blocks == 0) {
            up = TRUE;
            RigArm(rig, TRUE, TRUE);
            rig->Ops->Up(rig);
        }
    }
    KeReleaseSpinLock(&rig->Lock, irql);
    /* What was held is served again, as long as the device stays live. */
    while (up) {
        PIRP irp = NULL;

        KeAcquireSpinLock(&rig->Lock, &irql);
        if (RigLive(rig))
            irp = RowTake(&rig->Held, NULL);
        KeReleaseSpinLock(&rig->Lock, irql);
        if (irp == NULL)
            break;
        RigServe(rig, irp);
    }
}

static VOID RigClear(RIG *rig, NTSTATUS status)
{
    RowEmpty(&rig->Held, NULL, status);
    if (rig->Ops->Clear)
        rig->Ops->Clear(rig, NULL, status);
}

static VOID RigHide(RIG *rig)
{
    if (rig->Shown)
        IoSetDeviceInterfaceState(&rig->Link, FALSE);
    rig->Shown = FALSE;
}

/* ---- PnP ---- */

static NTSTATUS NTAPI RigSignal(PDEVICE_OBJECT device, PIRP irp, PVOID event)
{
    (void)device;
    (void)irp;
    KeSetEvent(event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS RigBelow(RIG *rig, PIRP irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, RigSignal, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(rig->Lower, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS RigStart(RIG *rig, PIRP irp)
{
    PCM_RESOURCE_LIST list = IoGetCurrentIrpStackLocation(irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS status = RigBelow(rig, irp);
    POWER_STATE full;

    if (!NT_SUCCESS(status))
        return status;
    status = rig->Ops->Equip(rig, list != NULL && list->Count != 0 ? &list->List[0].PartialResourceList : NULL);
    if (!NT_SUCCESS(status)) {
        rig->Ops->Strip(rig);
        return status;
    }
    full.DeviceState = PowerDeviceD0;
    PoSetPowerState(rig->Self, DevicePowerState, full);
    RigUnblock(rig, BLOCK_UNSTARTED | BLOCK_PAUSED | BLOCK_ASLEEP);
    if (!rig->Shown) {
        status = IoSetDeviceInterfaceState(&rig->Link, TRUE);
        if (!NT_SUCCESS(status)) {
            RigBlock(rig, BLOCK_UNSTARTED, TRUE);
            RigSettle(rig, 300000, TRUE);
            rig->Ops->Strip(rig);
            return status;
        }
        rig->Shown = TRUE;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI RigPnp(PDEVICE_OBJECT device, PIRP irp)
{
    RIG *rig = device->DeviceExtension;
    PDEVICE_OBJECT lower = rig->Lower;
    UCHAR minor = IoGetCurrentIrpStackLocation(irp)->MinorFunction;
    NTSTATUS status = IoAcquireRemoveLock(&rig->Gate, irp);

    if (!NT_SUCCESS(status)) {
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return status;
    }
    switch (minor) {
    case IRP_MN_START_DEVICE:
        status = RigStart(rig, irp);
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&rig->Gate, irp);
        return status;
    case IRP_MN_CANCEL_STOP_DEVICE:
        status = RigBelow(rig, irp);
        RigUnblock(rig, BLOCK_PAUSED);
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&rig->Gate, irp);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
        RigBlock(rig, BLOCK_PAUSED, TRUE);
        RigSettle(rig, 300000, TRUE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        RigBlock(rig, BLOCK_UNSTARTED, TRUE);
        RigSettle(rig, 300000, TRUE);
        rig->Ops->Strip(rig);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        RigHide(rig);
        RigBlock(rig, BLOCK_GONE, FALSE);
        RigClear(rig, STATUS_NO_SUCH_DEVICE);
        rig->Ops->Strip(rig);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        RigHide(rig);
        RigBlock(rig, BLOCK_GONE, !rig->Surprised);
        RigClear(rig, STATUS_NO_SUCH_DEVICE);
        RigSettle(rig, 300000, !rig->Surprised);
        IoReleaseRemoveLockAndWait(&rig->Gate, irp);
        rig->Ops->Strip(rig);
        KeFlushQueuedDpcs();
        rig->Ops->Dead(rig);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(lower, irp);
        RtlFreeUnicodeString(&rig->Link);
        IoDetachDevice(lower);
        IoDeleteDevice(device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(lower, irp);
    IoReleaseRemoveLock(&rig->Gate, irp);
    return status;
}

/* ---- power ---- */

static VOID NTAPI RigDeviceDone(PDEVICE_OBJECT pdo, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK result)
{
    PIRP system = context;
    RIG *rig = IoGetCurrentIrpStackLocation(system)->DeviceObject->DeviceExtension;

    (void)pdo;
    (void)minor;
    (void)state;
    system->IoStatus.Status = result->Status;
    PoStartNextPowerIrp(system);
    IoCompleteRequest(system, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&rig->Gate, system);
}

static NTSTATUS NTAPI RigSystemDone(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    RIG *rig = context;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = irp->IoStatus.Status;

    (void)device;
    if (NT_SUCCESS(status)) {
        POWER_STATE state;

        state.DeviceState = at->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(rig->Pdo, at->MinorFunction, state, RigDeviceDone, irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&rig->Gate, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI RigFullDone(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    RIG *rig = context;

    (void)device;
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        POWER_STATE full;

        full.DeviceState = PowerDeviceD0;
        PoSetPowerState(rig->Self, DevicePowerState, full);
        RigUnblock(rig, BLOCK_ASLEEP);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&rig->Gate, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI RigPower(PDEVICE_OBJECT device, PIRP irp)
{
    RIG *rig = device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&rig->Gate, irp);
    PIO_COMPLETION_ROUTINE done = NULL;

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return status;
    }
    if (at->MinorFunction == IRP_MN_SET_POWER || at->MinorFunction == IRP_MN_QUERY_POWER) {
        if (at->Parameters.Power.Type == SystemPowerState)
            done = RigSystemDone;
        else if (at->MinorFunction == IRP_MN_SET_POWER) {
            if (at->Parameters.Power.State.DeviceState == PowerDeviceD0) {
                done = RigFullDone;
            } else {
                RigBlock(rig, BLOCK_ASLEEP, TRUE);
                RigSettle(rig, 2000, TRUE);
                PoSetPowerState(device, DevicePowerState, at->Parameters.Power.State);
            }
        }
    }
    if (done != NULL) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, done, rig, TRUE, TRUE, TRUE);
        PoCallDriver(rig->Lower, irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(rig->Lower, irp);
    IoReleaseRemoveLock(&rig->Gate, irp);
    return status;
}

static NTSTATUS NTAPI RigOther(PDEVICE_OBJECT device, PIRP irp)
{
    RIG *rig = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&rig->Gate, irp);

    if (!NT_SUCCESS(status)) {
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(rig->Lower, irp);
    IoReleaseRemoveLock(&rig->Gate, irp);
    return status;
}

/* ---- the driver ---- */

LOCAL NTSTATUS RigAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo, const RIG_OPS *ops)
{
    PDEVICE_OBJECT device;
    RIG *rig;
    NTSTATUS status = IoCreateDevice(driver, ops->Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);

    if (!NT_SUCCESS(status))
        return status;
    rig = device->DeviceExtension;
    RtlZeroMemory(rig, ops->Size);
    rig->Ops = ops;
    rig->Self = device;
    rig->Pdo = pdo;
    rig->Blocks = BLOCK_UNSTARTED;
    KeInitializeSpinLock(&rig->Lock);
    KeInitializeDpc(&rig->Dpc, RigDpc, rig);
    IoInitializeRemoveLock(&rig->Gate, 'giRN', 0, 0);
    RowInit(&rig->Held, &rig->Lock, &rig->Gate);
    status = IoRegisterDeviceInterface(pdo, ops->Interface, NULL, &rig->Link);
    if (!NT_SUCCESS(status))
        goto no_link;
    status = ops->Born(rig);
    if (!NT_SUCCESS(status))
        goto not_born;
    rig->Lower = IoAttachDeviceToDeviceStack(device, pdo);
    if (rig->Lower == NULL) {
        status = STATUS_NO_SUCH_DEVICE;
        goto not_attached;
    }
    device->Flags |= DO_BUFFERED_IO | (rig->Lower->Flags & (DO_POWER_PAGABLE | DO_POWER_INRUSH));
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

not_attached:
    ops->Dead(rig);
not_born:
    RtlFreeUnicodeString(&rig->Link);
no_link:
    IoDeleteDevice(device);
    return status;
}

static VOID NTAPI RigUnload(PDRIVER_OBJECT driver)
{
    (void)driver;
}

LOCAL NTSTATUS RigEntry(PDRIVER_OBJECT driver, PDRIVER_ADD_DEVICE add)
{
    driver->DriverExtension->AddDevice = add;
    driver->DriverUnload = RigUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = RigDispatch;
    driver->MajorFunction[IRP_MJ_CLEANUP] = RigDispatch;
    driver->MajorFunction[IRP_MJ_CLOSE] = RigDispatch;
    driver->MajorFunction[IRP_MJ_READ] = RigDispatch;
    driver->MajorFunction[IRP_MJ_WRITE] = RigDispatch;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RigDispatch;
    driver->MajorFunction[IRP_MJ_PNP] = RigPnp;
    driver->MajorFunction[IRP_MJ_POWER] = RigPower;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = RigOther;
    return STATUS_SUCCESS;
}

#endif
