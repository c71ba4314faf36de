/* depot.h: a function driver.
 *
 * The driver's Up and Down own the hardware between start and stop or removal, Sleep and Wake leave and enter D0; all four are called at PASSIVE_LEVEL, one at
 * a time, while no Read, Write or Control is inside. Requests that come meanwhile are held on a siding before the gate (they can be cancelled there) and are let
 * in when the device is back. A request inside the gate is ended by DepotEnd, or put on a siding of the driver's whose Tie is the depot's Lock.
 */
#ifndef AB_DEPOT_H
#define AB_DEPOT_H

typedef struct DEPOT DEPOT;

typedef struct PLAN {
    const GUID *Interface;                   /* or NULL */
    ULONG OwnSize;                           /* the driver's own part of the extension */
    ULONG IoFlags;                           /* DO_BUFFERED_IO or DO_DIRECT_IO */
    NTSTATUS (*Prepare)(DEPOT *);            /* AddDevice; undoes itself if it fails */
    VOID (*Discard)(DEPOT *);                /* the opposite */
    NTSTATUS (*Up)(DEPOT *, PCM_RESOURCE_LIST translated);   /* undoes itself if it fails */
    VOID (*Down)(DEPOT *, BOOLEAN reach);    /* reach: the card can still be reached */
    VOID (*Sleep)(DEPOT *);
    VOID (*Wake)(DEPOT *);
    VOID (*Relit)(DEPOT *);                  /* straight from the completion of a D0 request, at up to DISPATCH_LEVEL; or NULL */
    VOID (*Purge)(DEPOT *, PFILE_OBJECT file, NTSTATUS st);  /* ends requests, all if FILE is NULL; at up to DISPATCH_LEVEL */
    NTSTATUS (*Open)(DEPOT *, PFILE_OBJECT file);
    VOID (*Close)(DEPOT *, PFILE_OBJECT file);
    NTSTATUS (*Read)(DEPOT *, PIRP, PIO_STACK_LOCATION);
    NTSTATUS (*Write)(DEPOT *, PIRP, PIO_STACK_LOCATION);
    NTSTATUS (*Control)(DEPOT *, PIRP, PIO_STACK_LOCATION);
} PLAN;

#define ROAD_RUNNING 0x01                    /* between Up and Down */
#define ROAD_PAUSED  0x02                    /* asked to stop, or stopped */
#define ROAD_DOZING  0x04                    /* left D0 */
#define ROAD_LEAVING 0x08                    /* asked to be removed */
#define ROAD_GONE    0x10                    /* removed */
#define ROAD_LAME    0x20                    /* could not get back to D0 */
#define ROAD_SERVED  0x40                    /* has been started once */

struct DEPOT {
    PDEVICE_OBJECT Fdo, Pdo, Below;
    PVOID Own;
    IO_REMOVE_LOCK Lock;
    KEVENT Turn;                             /* one Up, Down, Sleep or Wake at a time */
    KEVENT Empty;                            /* no one is inside */
    SIDING Held;                             /* its lock guards Road, Open and Inside */
    ULONG Road;
    BOOLEAN Open;
    LONG Inside;
    UNICODE_STRING Link;
    BOOLEAN Shown;
    PIO_WORKITEM Riser;
    PIRP RiserIrp;
};

static const PLAN *DepotPlan;

static inline NTSTATUS DepotEnd(DEPOT *d, PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    IrpEnd(irp, st, info);
    IoReleaseRemoveLock(&d->Lock, irp);
    return st;
}

/* ---- the gate ---- */

static inline ULONG DepotRoad(DEPOT *d)
{
    KIRQL irql;
    ULONG road;

    KeAcquireSpinLock(&d->Held.Lock, &irql);
    road = d->Road;
    KeReleaseSpinLock(&d->Held.Lock, irql);
    return road;
}

/* Changes the state and the gate with it. Returns when no one is inside a gate that was closed (at DISPATCH_LEVEL, only where it is closed already). */
static inline VOID DepotSwitch(DEPOT *d, ULONG set, ULONG clear)
{
    BOOLEAN await;
    KIRQL irql;

    KeAcquireSpinLock(&d->Held.Lock, &irql);
    d->Road = (d->Road | set) & ~clear;
    d->Open = (d->Road & ROAD_RUNNING) && !(d->Road & (ROAD_PAUSED | ROAD_DOZING | ROAD_GONE | ROAD_LAME));
    await = !d->Open && d->Inside != 0;
    if (await)
        KeClearEvent(&d->Empty);
    KeReleaseSpinLock(&d->Held.Lock, irql);
    if (await)
        KeWaitForSingleObject(&d->Empty, Executive, KernelMode, FALSE, NULL);
}

static inline BOOLEAN DepotEnter(DEPOT *d)
{
    BOOLEAN open;
    KIRQL irql;

    KeAcquireSpinLock(&d->Held.Lock, &irql);
    open = d->Open;
    if (open)
        d->Inside++;
    KeReleaseSpinLock(&d->Held.Lock, irql);
    return open;
}

static inline VOID DepotLeave(DEPOT *d)
{
    KIRQL irql;

    KeAcquireSpinLock(&d->Held.Lock, &irql);
    if (--d->Inside == 0 && !d->Open)
        KeSetEvent(&d->Empty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&d->Held.Lock, irql);
}

static NTSTATUS DepotAdmit(SIDING *s, PVOID owner)
{
    DEPOT *d = owner;

    UNREFERENCED_PARAMETER(s);
    if (d->Road & ROAD_GONE)
        return STATUS_DELETE_PENDING;
    if ((d->Road & ROAD_LAME) || !(d->Road & ROAD_SERVED))
        return STATUS_DEVICE_NOT_READY;
    return d->Open ? STATUS_RETRY : STATUS_SUCCESS;
}

static NTSTATUS DepotRoute(DEPOT *d, PIRP irp)
{
    PIO_STACK_LOCATION sp = IrpHere(irp);
    BOOLEAN marked = FALSE;
    NTSTATUS st;

    /* a lock of this call's own: the request may be over, and the device removed, before the gate is left */
    st = IoAcquireRemoveLock(&d->Lock, d);
    if (!NT_SUCCESS(st))
        return DepotEnd(d, irp, st, 0);
    while (!DepotEnter(d)) {
        IoMarkIrpPending(irp);
        marked = TRUE;
        st = IoCsqInsertIrpEx(&d->Held.Csq, irp, NULL, NULL);
        if (st == STATUS_RETRY)
            continue;
        if (!NT_SUCCESS(st))
            DepotEnd(d, irp, st, 0);
        IoReleaseRemoveLock(&d->Lock, d);
        return STATUS_PENDING;
    }
    switch (sp->MajorFunction) {
    case IRP_MJ_READ:
        st = DepotPlan->Read(d, irp, sp);
        break;
    case IRP_MJ_WRITE:
        st = DepotPlan->Write(d, irp, sp);
        break;
    default:
        st = DepotPlan->Control(d, irp, sp);
        break;
    }
    DepotLeave(d);
    IoReleaseRemoveLock(&d->Lock, d);
    return marked ? STATUS_PENDING : st;
}

static inline VOID DepotDrain(DEPOT *d)
{
    PIRP irp;

    while (DepotEnter(d)) {
        irp = SidingTake(&d->Held, NULL);
        DepotLeave(d);
        if (irp == NULL)
            break;
        DepotRoute(d, irp);
    }
}

static NTSTATUS NTAPI DepotTraffic(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Lock, irp);

    if (!NT_SUCCESS(st)) {
        IrpEnd(irp, st, 0);
        return st;
    }
    return DepotRoute(d, irp);
}

/* ---- handles ---- */

static NTSTATUS NTAPI DepotCreate(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Lock, irp);
    ULONG road;

    if (!NT_SUCCESS(st)) {
        IrpEnd(irp, st, 0);
        return st;
    }
    road = DepotRoad(d);
    if (road & (ROAD_GONE | ROAD_LEAVING))
        st = STATUS_DELETE_PENDING;
    else if (!(road & ROAD_SERVED))
        st = STATUS_DEVICE_NOT_READY;
    else if (DepotPlan->Open != NULL)
        st = DepotPlan->Open(d, IrpHere(irp)->FileObject);
    return DepotEnd(d, irp, st, 0);
}

static NTSTATUS NTAPI DepotCleanup(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;
    PFILE_OBJECT file = IrpHere(irp)->FileObject;

    SidingClear(&d->Held, file, STATUS_CANCELLED);
    if (DepotPlan->Purge != NULL)
        DepotPlan->Purge(d, file, STATUS_CANCELLED);
    IrpEnd(irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DepotClose(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;

    if (DepotPlan->Close != NULL)
        DepotPlan->Close(d, IrpHere(irp)->FileObject);
    IrpEnd(irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DepotWmi(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Lock, irp);

    if (!NT_SUCCESS(st)) {
        IrpEnd(irp, st, 0);
        return st;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(d->Below, irp);
    IoReleaseRemoveLock(&d->Lock, irp);
    return st;
}

/* ---- power ---- */

static inline VOID DepotTurn(DEPOT *d)
{
    KeWaitForSingleObject(&d->Turn, Executive, KernelMode, FALSE, NULL);
}

static inline VOID DepotTurnOver(DEPOT *d)
{
    KeSetEvent(&d->Turn, IO_NO_INCREMENT, FALSE);
}

static inline VOID DepotEndAll(DEPOT *d, NTSTATUS st)
{
    SidingClear(&d->Held, NULL, st);
    if (DepotPlan->Purge != NULL)
        DepotPlan->Purge(d, NULL, st);
}

/* The device does not come back to D0: no request shall wait for it. The gate is closed since it left D0. */
static inline VOID DepotLame(DEPOT *d)
{
    if (DepotRoad(d) & ROAD_DOZING) {
        DepotSwitch(d, ROAD_LAME, 0);
        DepotEndAll(d, STATUS_DEVICE_NOT_READY);
    }
}

static inline VOID DepotDoze(DEPOT *d)
{
    DepotTurn(d);
    if (!(DepotRoad(d) & ROAD_DOZING)) {
        DepotSwitch(d, ROAD_DOZING, 0);
        if ((DepotRoad(d) & ROAD_RUNNING) && DepotPlan->Sleep != NULL)
            DepotPlan->Sleep(d);
    }
    DepotTurnOver(d);
}

static VOID NTAPI DepotRise(PDEVICE_OBJECT fdo, PVOID context)
{
    DEPOT *d = context;
    PIRP irp = d->RiserIrp;
    POWER_STATE power;
    ULONG road;

    UNREFERENCED_PARAMETER(fdo);
    DepotTurn(d);
    road = DepotRoad(d);
    power.DeviceState = PowerDeviceD0;
    PoSetPowerState(d->Fdo, DevicePowerState, power);
    if ((road & ROAD_DOZING) && (road & ROAD_RUNNING) && !(road & ROAD_GONE) && DepotPlan->Wake != NULL)
        DepotPlan->Wake(d);
    DepotSwitch(d, 0, ROAD_DOZING | ROAD_LAME);
    DepotTurnOver(d);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    DepotDrain(d);
    IoReleaseRemoveLock(&d->Lock, irp);
}

static NTSTATUS NTAPI DepotLit(PDEVICE_OBJECT fdo, PIRP irp, PVOID context)
{
    DEPOT *d = context;

    UNREFERENCED_PARAMETER(fdo);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        if (DepotPlan->Relit != NULL)
            DepotPlan->Relit(d);
        d->RiserIrp = irp;
        IoQueueWorkItem(d->Riser, DepotRise, DelayedWorkQueue, d);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    DepotLame(d);
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&d->Lock, irp);
    return STATUS_SUCCESS;
}

static VOID NTAPI DepotAsked(PDEVICE_OBJECT pdo, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK ios)
{
    PIRP irp = context;
    DEPOT *d = IrpHere(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(pdo);
    UNREFERENCED_PARAMETER(state);
    if (minor == IRP_MN_QUERY_POWER && !NT_SUCCESS(ios->Status))
        irp->IoStatus.Status = ios->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&d->Lock, irp);
}

static NTSTATUS NTAPI DepotSystem(PDEVICE_OBJECT fdo, PIRP irp, PVOID context)
{
    DEPOT *d = context;
    PIO_STACK_LOCATION sp = IrpHere(irp);
    POWER_STATE power;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(fdo);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        BOOLEAN working = sp->Parameters.Power.State.SystemState == PowerSystemWorking;

        power.DeviceState = working ? PowerDeviceD0 : PowerDeviceD3;
        st = PoRequestPowerIrp(d->Pdo, sp->MinorFunction, power, DepotAsked, irp, NULL);
        if (NT_SUCCESS(st))
            return STATUS_MORE_PROCESSING_REQUIRED;
        if (sp->MinorFunction == IRP_MN_QUERY_POWER)
            irp->IoStatus.Status = st;
        else if (working)
            DepotLame(d);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&d->Lock, irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DepotPower(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;
    PIO_STACK_LOCATION sp = IrpHere(irp);
    BOOLEAN set = sp->MinorFunction == IRP_MN_SET_POWER;
    NTSTATUS st = IoAcquireRemoveLock(&d->Lock, irp);

    if (!NT_SUCCESS(st)) {
        PoStartNextPowerIrp(irp);
        IrpEnd(irp, st, 0);
        return st;
    }
    if (set || sp->MinorFunction == IRP_MN_QUERY_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState) {
            if (set && sp->Parameters.Power.State.SystemState != PowerSystemWorking)
                DepotDoze(d);
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, DepotSystem, d, TRUE, TRUE, TRUE);
            PoCallDriver(d->Below, irp);
            return STATUS_PENDING;
        }
        if (set && sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, DepotLit, d, TRUE, TRUE, TRUE);
            PoCallDriver(d->Below, irp);
            return STATUS_PENDING;
        }
        if (set) {
            DepotDoze(d);
            PoSetPowerState(fdo, DevicePowerState, sp->Parameters.Power.State);
        }
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(d->Below, irp);
    IoReleaseRemoveLock(&d->Lock, irp);
    return st;
}

/* ---- Plug and Play ---- */

static inline VOID DepotHide(DEPOT *d)
{
    if (d->Shown)
        IoSetDeviceInterfaceState(&d->Link, FALSE);
    d->Shown = FALSE;
}

static inline VOID DepotHalt(DEPOT *d, ULONG set)
{
    ULONG road;

    DepotTurn(d);
    road = DepotRoad(d);
    DepotSwitch(d, set, 0);
    if (road & ROAD_RUNNING) {
        DepotPlan->Down(d, !((road | set) & (ROAD_GONE | ROAD_DOZING)));
        DepotSwitch(d, 0, ROAD_RUNNING);
    }
    DepotTurnOver(d);
}

static inline NTSTATUS DepotStart(DEPOT *d, PCM_RESOURCE_LIST translated)
{
    POWER_STATE power;
    NTSTATUS st;

    DepotTurn(d);
    st = DepotPlan->Up(d, translated);
    if (NT_SUCCESS(st)) {
        power.DeviceState = PowerDeviceD0;
        PoSetPowerState(d->Fdo, DevicePowerState, power);
        DepotSwitch(d, ROAD_RUNNING | ROAD_SERVED, ROAD_PAUSED | ROAD_DOZING | ROAD_LAME);
        if (d->Link.Buffer != NULL && !d->Shown) {
            st = IoSetDeviceInterfaceState(&d->Link, TRUE);
            d->Shown = NT_SUCCESS(st);
            if (!NT_SUCCESS(st)) {
                DepotSwitch(d, ROAD_PAUSED, 0);
                DepotPlan->Down(d, TRUE);
                DepotSwitch(d, 0, ROAD_RUNNING | ROAD_SERVED);
            }
        }
    }
    DepotTurnOver(d);
    return st;
}

static NTSTATUS DepotRemove(DEPOT *d, PIRP irp)
{
    PDEVICE_OBJECT fdo = d->Fdo;
    NTSTATUS st;

    /* a card that was pulled is GONE already; else this removal can still reach it */
    DepotTurn(d);
    if (DepotRoad(d) & ROAD_RUNNING) {
        BOOLEAN reach = !(DepotRoad(d) & (ROAD_GONE | ROAD_DOZING));

        DepotSwitch(d, ROAD_GONE, 0);
        DepotPlan->Down(d, reach);
    }
    DepotSwitch(d, ROAD_GONE, ROAD_RUNNING);
    DepotTurnOver(d);
    DepotEndAll(d, STATUS_DELETE_PENDING);
    DepotHide(d);

    irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(d->Below, irp);
    IoReleaseRemoveLockAndWait(&d->Lock, irp);
    IoDetachDevice(d->Below);
    if (DepotPlan->Discard != NULL)
        DepotPlan->Discard(d);
    if (d->Link.Buffer != NULL)
        RtlFreeUnicodeString(&d->Link);
    IoFreeWorkItem(d->Riser);
    IoDeleteDevice(fdo);
    return st;
}

static NTSTATUS NTAPI DepotPnp(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;
    PIO_STACK_LOCATION sp = IrpHere(irp);
    BOOLEAN drain = FALSE;
    NTSTATUS st = IoAcquireRemoveLock(&d->Lock, irp);

    if (!NT_SUCCESS(st)) {
        IrpEnd(irp, st, 0);
        return st;
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = IoForwardIrpSynchronously(d->Below, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(st))
            st = DepotStart(d, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        drain = NT_SUCCESS(st);
        IrpEnd(irp, st, 0);
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        if (!IoForwardIrpSynchronously(d->Below, irp)) {
            st = STATUS_UNSUCCESSFUL;
            IrpEnd(irp, st, 0);
            break;
        }
        DepotTurn(d);
        if (sp->MinorFunction == IRP_MN_CANCEL_REMOVE_DEVICE)
            DepotSwitch(d, 0, ROAD_LEAVING);
        else if (DepotRoad(d) & ROAD_RUNNING)
            DepotSwitch(d, 0, ROAD_PAUSED);
        DepotTurnOver(d);
        drain = TRUE;
        st = STATUS_SUCCESS;
        IrpEnd(irp, st, 0);
        break;
    case IRP_MN_REMOVE_DEVICE:
        return DepotRemove(d, irp);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        if (sp->MinorFunction == IRP_MN_QUERY_STOP_DEVICE) {
            DepotTurn(d);
            DepotSwitch(d, ROAD_PAUSED, 0);
            DepotTurnOver(d);
        } else if (sp->MinorFunction == IRP_MN_QUERY_REMOVE_DEVICE) {
            DepotTurn(d);
            DepotSwitch(d, ROAD_LEAVING, 0);
            DepotTurnOver(d);
        } else if (sp->MinorFunction == IRP_MN_STOP_DEVICE) {
            DepotHalt(d, ROAD_PAUSED);
        } else {
            DepotHalt(d, ROAD_GONE);
            DepotEndAll(d, STATUS_DELETE_PENDING);
            DepotHide(d);
        }
        irp->IoStatus.Status = STATUS_SUCCESS;
        /* fall through */
    default:
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(d->Below, irp);
        break;
    }
    if (drain)
        DepotDrain(d);
    IoReleaseRemoveLock(&d->Lock, irp);
    return st;
}

static NTSTATUS NTAPI DepotAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT fdo;
    DEPOT *d;
    NTSTATUS st;

    st = IoCreateDevice(driver, (ULONG)sizeof(DEPOT) + 16 + DepotPlan->OwnSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(st))
        return st;
    d = fdo->DeviceExtension;
    d->Fdo = fdo;
    d->Pdo = pdo;
    d->Own = (PVOID)(((ULONG_PTR)(d + 1) + 15) & ~(ULONG_PTR)15);
    IoInitializeRemoveLock(&d->Lock, 'tpeD', 0, 0);
    KeInitializeEvent(&d->Turn, SynchronizationEvent, TRUE);
    KeInitializeEvent(&d->Empty, NotificationEvent, TRUE);
    SidingInit(&d->Held, &d->Lock, d);
    d->Held.Admit = DepotAdmit;

    d->Riser = IoAllocateWorkItem(fdo);
    if (d->Riser == NULL) {
        IoDeleteDevice(fdo);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (DepotPlan->Interface != NULL) {
        st = IoRegisterDeviceInterface(pdo, DepotPlan->Interface, NULL, &d->Link);
        if (!NT_SUCCESS(st)) {
            d->Link.Buffer = NULL;
            goto failed;
        }
    }
    d->Below = IoAttachDeviceToDeviceStack(fdo, pdo);
    if (d->Below == NULL) {
        st = STATUS_NO_SUCH_DEVICE;
        goto failed;
    }
    if (DepotPlan->Prepare != NULL) {
        st = DepotPlan->Prepare(d);
        if (!NT_SUCCESS(st)) {
            IoDetachDevice(d->Below);
            goto failed;
        }
    }
    fdo->Flags |= DepotPlan->IoFlags | ((d->Below->Flags & DO_POWER_INRUSH) ? DO_POWER_INRUSH : DO_POWER_PAGABLE);
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

failed:
    if (d->Link.Buffer != NULL)
        RtlFreeUnicodeString(&d->Link);
    IoFreeWorkItem(d->Riser);
    IoDeleteDevice(fdo);
    return st;
}

static VOID NTAPI DepotUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
}

static inline NTSTATUS DepotMain(PDRIVER_OBJECT driver, const PLAN *plan)
{
    DepotPlan = plan;
    driver->DriverExtension->AddDevice = DepotAdd;
    driver->DriverUnload = DepotUnload;
    driver->MajorFunction[IRP_MJ_PNP] = DepotPnp;
    driver->MajorFunction[IRP_MJ_POWER] = DepotPower;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DepotWmi;
    driver->MajorFunction[IRP_MJ_CREATE] = DepotCreate;
    driver->MajorFunction[IRP_MJ_CLEANUP] = DepotCleanup;
    driver->MajorFunction[IRP_MJ_CLOSE] = DepotClose;
    if (plan->Read != NULL)
        driver->MajorFunction[IRP_MJ_READ] = DepotTraffic;
    if (plan->Write != NULL)
        driver->MajorFunction[IRP_MJ_WRITE] = DepotTraffic;
    if (plan->Control != NULL)
        driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DepotTraffic;
    return STATUS_SUCCESS;
}

#endif
