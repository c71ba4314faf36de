/*
 * hull.h: the function driver of a PnP device.
 *
 * Requests that need the hardware take turns: Ask gives them to HullSail, and HullTurn calls Begin for one after the other, but only while the device is
 * started, in D0, and no one has asked to stop it; until then they wait on the quay and can be cancelled. Begin (IRQL <= DISPATCH_LEVEL) either answers at once
 * or leaves the request with the crane and lets the hardware work. HullReady says that the hardware is free for the next one. A request at the crane can be
 * cancelled; that alone does not free the hardware.
 *
 * A plan's routines, in the order of a device's life (own extension: begins with a HULL, zeroed):
 *   Lay, Scrap   AddDevice, and before the device object is deleted
 *   Rise, Sink   start, and its opposite; `touch` says whether registers may be accessed. Rise undoes itself where it fails
 *   Go           all reasons to hold requests are gone (DISPATCH_LEVEL, Latch held)
 *   Still        PASSIVE_LEVEL, no request begins any more: ends timers and whatever the hardware still does; HullReady has been called, or will be, when it returns
 *   Doze, Wake   before D3, after D0 (DISPATCH_LEVEL, Latch held)
 *   Drop         the driver's own pens: for a file that is closed, or shut and drained for good (File is NULL)
 *   Open, Close  of handles
 *   Ask          as in raft.h; it may not touch the hardware
 */
#ifndef HULL_H
#define HULL_H

enum { HOLD_DOWN = 1, HOLD_ASKED = 2, HOLD_ASLEEP = 4, HOLD_ALL = 7 };

typedef struct HULL HULL;

typedef struct HULL_PLAN {
    ULONG Room;
    const GUID *Class;
    ULONG Patience;             /* milliseconds that the hardware is given to end what it does, before Still */
    NTSTATUS (*Lay)(HULL *h);
    VOID (*Scrap)(HULL *h);
    NTSTATUS (*Rise)(HULL *h, PCM_RESOURCE_LIST Resources);
    VOID (*Sink)(HULL *h, BOOLEAN touch);
    VOID (*Go)(HULL *h);
    VOID (*Still)(HULL *h, BOOLEAN touch);
    VOID (*Doze)(HULL *h);
    VOID (*Wake)(HULL *h);
    VOID (*Drop)(HULL *h, PFILE_OBJECT File, NTSTATUS Status);
    NTSTATUS (*Open)(HULL *h, PFILE_OBJECT File);
    VOID (*Close)(HULL *h, PFILE_OBJECT File);
    NTSTATUS (*Ask)(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info);
    VOID (*Begin)(HULL *h, PIRP Irp);
} HULL_PLAN;

struct HULL {
    const HULL_PLAN *Plan;
    PDEVICE_OBJECT Self, Below, Pdo;
    IO_REMOVE_LOCK Lock;
    UNICODE_STRING Link;
    BOOLEAN LinkUp;
    PEN Quay, Crane;
    KSPIN_LOCK Latch;           /* for all below */
    ULONG Hold;
    BOOLEAN Raised, Awake, Gone, Mute;
    BOOLEAN Busy, Turning, Again;
    KEVENT Idle;                /* not Busy */
    KEVENT Settled;             /* not Turning */
    PIRP SystemIrp;
};

static const HULL_PLAN *HullPlan;

/* ---- requests ---- */

static inline VOID HullReply(HULL *h, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&h->Lock, Irp);
}

/* Finish for all pens of a hull */
static inline VOID HullFinish(PVOID Keeper, PIRP Irp, NTSTATUS Status)
{
    HullReply(Keeper, Irp, Status, 0);
}

static inline VOID HullTurn(HULL *h)
{
    KIRQL irql;

    KeAcquireSpinLock(&h->Latch, &irql);
    if (h->Turning) {
        h->Again = TRUE;
        KeReleaseSpinLock(&h->Latch, irql);
        return;
    }
    h->Turning = TRUE;
    KeClearEvent(&h->Settled);
    do {
        h->Again = FALSE;
        while (!h->Hold && !h->Busy) {
            PIRP irp;

            h->Busy = TRUE;
            KeClearEvent(&h->Idle);
            KeReleaseSpinLock(&h->Latch, irql);
            irp = PenTake(&h->Quay, NULL);
            if (irp)
                h->Plan->Begin(h, irp);
            KeAcquireSpinLock(&h->Latch, &irql);
            if (!irp) {
                h->Busy = FALSE;
                KeSetEvent(&h->Idle, IO_NO_INCREMENT, FALSE);
                break;
            }
        }
    } while (h->Again);
    h->Turning = FALSE;
    KeSetEvent(&h->Settled, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&h->Latch, irql);
}

static inline VOID HullReady(HULL *h)
{
    KIRQL irql;

    KeAcquireSpinLock(&h->Latch, &irql);
    h->Busy = FALSE;
    KeSetEvent(&h->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&h->Latch, irql);
    HullTurn(h);
}

/* From Ask only */
static inline NTSTATUS HullSail(HULL *h, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    PenAdd(&h->Quay, Irp);
    HullTurn(h);
    return STATUS_PENDING;
}

static inline VOID HullHang(HULL *h, PIRP Irp)
{
    PenAdd(&h->Crane, Irp);
}

static inline BOOLEAN HullGone(HULL *h)
{
    BOOLEAN gone;
    KIRQL irql;

    KeAcquireSpinLock(&h->Latch, &irql);
    gone = h->Gone;
    KeReleaseSpinLock(&h->Latch, irql);
    return gone;
}

/* ---- going and holding ---- */

static inline VOID HullGo(HULL *h, ULONG Reasons)
{
    KIRQL irql;

    KeAcquireSpinLock(&h->Latch, &irql);
    h->Hold &= ~Reasons;
    if (!h->Hold && h->Raised && h->Plan->Go)
        h->Plan->Go(h);
    KeReleaseSpinLock(&h->Latch, irql);
    HullTurn(h);
}

static inline BOOLEAN HullQuiet(HULL *h, ULONG Reason)
{
    LARGE_INTEGER limit;
    BOOLEAN raised, touch;
    KIRQL irql;

    KeAcquireSpinLock(&h->Latch, &irql);
    h->Hold |= Reason;
    raised = h->Raised;
    touch = h->Raised && h->Awake && !h->Gone;
    KeReleaseSpinLock(&h->Latch, irql);
    KeWaitForSingleObject(&h->Settled, Executive, KernelMode, FALSE, NULL);
    if (touch && h->Plan->Patience) {
        limit.QuadPart = -10000LL * h->Plan->Patience;
        KeWaitForSingleObject(&h->Idle, Executive, KernelMode, FALSE, &limit);
    }
    if (raised && h->Plan->Still)
        h->Plan->Still(h, touch);
    KeWaitForSingleObject(&h->Idle, Executive, KernelMode, FALSE, NULL);
    return touch;
}

/* Ends all that Rise began. With `Why` no request stays. */
static inline VOID HullGround(HULL *h, NTSTATUS Why, BOOLEAN Last)
{
    BOOLEAN raised, touch;
    KIRQL irql;

    if (Why)
        PenShut(&h->Quay, Why);
    touch = HullQuiet(h, HOLD_DOWN);
    if (Why) {
        PenDrain(&h->Quay, NULL, Why);
        PenDrain(&h->Crane, NULL, Why);
        if (Last && h->Plan->Drop)
            h->Plan->Drop(h, NULL, Why);
    }
    KeAcquireSpinLock(&h->Latch, &irql);
    raised = h->Raised;
    h->Raised = FALSE;
    KeReleaseSpinLock(&h->Latch, irql);
    if (raised)
        h->Plan->Sink(h, touch);
    if (Last && h->LinkUp) {
        IoSetDeviceInterfaceState(&h->Link, FALSE);
        h->LinkUp = FALSE;
    }
}

/* ---- PnP ---- */

static inline NTSTATUS NTAPI HullBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    (void)Device;
    if (Irp->PendingReturned)
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS HullForward(HULL *h, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, HullBack, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(h->Below, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static inline NTSTATUS HullStart(HULL *h, PIRP Irp, PCM_RESOURCE_LIST Resources)
{
    NTSTATUS status = HullForward(h, Irp);
    KIRQL irql;

    if (NT_SUCCESS(status))
        status = h->Plan->Rise(h, Resources);
    if (!NT_SUCCESS(status)) {
        PenShut(&h->Quay, STATUS_DEVICE_NOT_READY);
        PenDrain(&h->Quay, NULL, STATUS_DEVICE_NOT_READY);
        return status;
    }
    PenShut(&h->Quay, STATUS_SUCCESS);
    KeAcquireSpinLock(&h->Latch, &irql);
    h->Raised = h->Awake = TRUE;
    h->Mute = FALSE;
    KeReleaseSpinLock(&h->Latch, irql);
    HullGo(h, HOLD_ALL);
    if (!h->LinkUp) {
        status = IoSetDeviceInterfaceState(&h->Link, TRUE);
        if (!NT_SUCCESS(status)) {
            HullGround(h, STATUS_DEVICE_NOT_READY, FALSE);
            return status;
        }
        h->LinkUp = TRUE;
    }
    return STATUS_SUCCESS;
}

static inline NTSTATUS NTAPI HullPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    HULL *h = Device->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&h->Lock, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = HullStart(h, Irp, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        HullReply(h, Irp, status, Irp->IoStatus.Information);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        HullQuiet(h, HOLD_ASKED);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        status = HullForward(h, Irp);
        HullGo(h, HOLD_ASKED);
        HullReply(h, Irp, status, Irp->IoStatus.Information);
        return status;
    case IRP_MN_STOP_DEVICE:
        HullGround(h, STATUS_SUCCESS, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        KeAcquireSpinLock(&h->Latch, &irql);
        h->Gone = TRUE;
        KeReleaseSpinLock(&h->Latch, irql);
        HullGround(h, STATUS_DELETE_PENDING, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        HullGround(h, STATUS_DELETE_PENDING, TRUE);
        IoReleaseRemoveLockAndWait(&h->Lock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(h->Below, Irp);
        IoDetachDevice(h->Below);
        if (h->Plan->Scrap)
            h->Plan->Scrap(h);
        RtlFreeUnicodeString(&h->Link);
        IoDeleteDevice(Device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(h->Below, Irp);
    IoReleaseRemoveLock(&h->Lock, Irp);
    return status;
}

/* ---- power ---- */

/* The device did not come back to D0: requests are refused until it does. */
static inline VOID HullMute(HULL *h)
{
    KIRQL irql;

    KeAcquireSpinLock(&h->Latch, &irql);
    if (h->Raised && !h->Gone) {
        h->Mute = TRUE;
        PenShut(&h->Quay, STATUS_DEVICE_NOT_READY);
    }
    KeReleaseSpinLock(&h->Latch, irql);
    PenDrain(&h->Quay, NULL, STATUS_DEVICE_NOT_READY);
}

static inline NTSTATUS NTAPI HullWoken(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    HULL *h = Context;
    KIRQL irql;

    (void)Device;
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PoSetPowerState(h->Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        KeAcquireSpinLock(&h->Latch, &irql);
        h->Awake = TRUE;
        if (h->Raised && !h->Gone) {
            if (h->Plan->Wake)
                h->Plan->Wake(h);
            if (h->Mute) {
                h->Mute = FALSE;
                PenShut(&h->Quay, STATUS_SUCCESS);
            }
        }
        KeReleaseSpinLock(&h->Latch, irql);
        HullGo(h, HOLD_ASLEEP);
    } else {
        HullMute(h);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&h->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline VOID NTAPI HullFollowed(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    HULL *h = Context;
    PIRP irp = h->SystemIrp;

    (void)Device;
    (void)State;
    if (Minor == IRP_MN_QUERY_POWER)
        irp->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&h->Lock, irp);
}

static inline NTSTATUS NTAPI HullSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    HULL *h = Context;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;
    NTSTATUS status;

    (void)Device;
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        state.DeviceState = sl->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        h->SystemIrp = Irp;
        status = PoRequestPowerIrp(h->Pdo, sl->MinorFunction, state, HullFollowed, h, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        if (sl->MinorFunction == IRP_MN_QUERY_POWER)
            Irp->IoStatus.Status = NT_SUCCESS(status) ? STATUS_UNSUCCESSFUL : status;
        else if (state.DeviceState == PowerDeviceD0)
            HullMute(h);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&h->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS NTAPI HullPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    HULL *h = Device->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&h->Lock, Irp);
    BOOLEAN raised;
    KIRQL irql;

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    KeAcquireSpinLock(&h->Latch, &irql);
    raised = h->Raised;
    KeReleaseSpinLock(&h->Latch, irql);
    if (raised && (sl->MinorFunction == IRP_MN_SET_POWER || sl->MinorFunction == IRP_MN_QUERY_POWER)) {
        BOOLEAN set = sl->MinorFunction == IRP_MN_SET_POWER;

        if (sl->Parameters.Power.Type == SystemPowerState) {
            if (set && sl->Parameters.Power.State.SystemState != PowerSystemWorking)
                HullQuiet(h, HOLD_ASLEEP);
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, HullSystemDone, h, TRUE, TRUE, TRUE);
            PoCallDriver(h->Below, Irp);
            return STATUS_PENDING;
        }
        if (set && sl->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, HullWoken, h, TRUE, TRUE, TRUE);
            PoCallDriver(h->Below, Irp);
            return STATUS_PENDING;
        }
        if (set) {
            HullQuiet(h, HOLD_ASLEEP);
            KeAcquireSpinLock(&h->Latch, &irql);
            if (h->Raised && h->Awake && !h->Gone && h->Plan->Doze)
                h->Plan->Doze(h);
            h->Awake = FALSE;
            KeReleaseSpinLock(&h->Latch, irql);
            PoSetPowerState(Device, DevicePowerState, sl->Parameters.Power.State);
        }
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(h->Below, Irp);
    IoReleaseRemoveLock(&h->Lock, Irp);
    return status;
}

/* ---- the rest ---- */

static inline NTSTATUS NTAPI HullWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    HULL *h = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&h->Lock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(h->Below, Irp);
    IoReleaseRemoveLock(&h->Lock, Irp);
    return status;
}

static inline NTSTATUS NTAPI HullHandle(PDEVICE_OBJECT Device, PIRP Irp)
{
    HULL *h = Device->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PFILE_OBJECT file = sl->FileObject;
    UCHAR major = sl->MajorFunction;
    NTSTATUS locked = IoAcquireRemoveLock(&h->Lock, Irp), status = STATUS_SUCCESS;

    if (major == IRP_MJ_CREATE) {
        status = locked;
        if (NT_SUCCESS(status) && HullGone(h))
            status = STATUS_DELETE_PENDING;
        if (NT_SUCCESS(status) && h->Plan->Open)
            status = h->Plan->Open(h, file);
    } else if (major == IRP_MJ_CLEANUP) {
        PenDrain(&h->Quay, file, STATUS_CANCELLED);
        KeWaitForSingleObject(&h->Settled, Executive, KernelMode, FALSE, NULL);
        PenDrain(&h->Crane, file, STATUS_CANCELLED);
        if (h->Plan->Drop)
            h->Plan->Drop(h, file, STATUS_CANCELLED);
    } else if (h->Plan->Close) {
        h->Plan->Close(h, file);
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    if (NT_SUCCESS(locked))
        IoReleaseRemoveLock(&h->Lock, Irp);
    return status;
}

static inline NTSTATUS NTAPI HullAsk(PDEVICE_OBJECT Device, PIRP Irp)
{
    HULL *h = Device->DeviceExtension;
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&h->Lock, &info);     /* for as long as we are in here */

    if (NT_SUCCESS(status)) {
        status = IoAcquireRemoveLock(&h->Lock, Irp);            /* until the request is completed */
        if (NT_SUCCESS(status)) {
            status = HullGone(h) ? STATUS_DELETE_PENDING : h->Plan->Ask(h, Irp, IoGetCurrentIrpStackLocation(Irp), &info);
            if (status != STATUS_PENDING)
                HullReply(h, Irp, status, info);
            IoReleaseRemoveLock(&h->Lock, &info);
            return status;
        }
        IoReleaseRemoveLock(&h->Lock, &info);
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static inline NTSTATUS NTAPI HullAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;
    HULL *h;

    status = IoCreateDevice(Driver, HullPlan->Room, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    h = device->DeviceExtension;
    RtlZeroMemory(h, HullPlan->Room);
    h->Plan = HullPlan;
    h->Self = device;
    h->Pdo = Pdo;
    IoInitializeRemoveLock(&h->Lock, FRAME_TAG, 0, 0);
    KeInitializeSpinLock(&h->Latch);
    KeInitializeEvent(&h->Idle, NotificationEvent, TRUE);
    KeInitializeEvent(&h->Settled, NotificationEvent, TRUE);
    PenMake(&h->Quay, HullFinish, h);
    PenMake(&h->Crane, HullFinish, h);
    h->Quay.Shut = STATUS_DEVICE_NOT_READY;
    h->Hold = HOLD_DOWN;
    h->Awake = TRUE;
    if (h->Plan->Lay) {
        status = h->Plan->Lay(h);
        if (!NT_SUCCESS(status)) {
            IoDeleteDevice(device);
            return status;
        }
    }
    status = IoRegisterDeviceInterface(Pdo, h->Plan->Class, NULL, &h->Link);
    if (NT_SUCCESS(status)) {
        h->Below = IoAttachDeviceToDeviceStack(device, Pdo);
        if (h->Below) {
            device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
            device->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&h->Link);
        status = STATUS_NO_SUCH_DEVICE;
    }
    if (h->Plan->Scrap)
        h->Plan->Scrap(h);
    IoDeleteDevice(device);
    return status;
}

static inline VOID NTAPI HullUnload(PDRIVER_OBJECT Driver)
{
    (void)Driver;
}

static inline NTSTATUS HullLaunch(PDRIVER_OBJECT Driver, const HULL_PLAN *Plan)
{
    HullPlan = Plan;
    Driver->DriverExtension->AddDevice = HullAdd;
    Driver->DriverUnload = HullUnload;
    Driver->MajorFunction[IRP_MJ_PNP] = HullPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = HullPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = HullWmi;
    Driver->MajorFunction[IRP_MJ_CREATE] = HullHandle;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = HullHandle;
    Driver->MajorFunction[IRP_MJ_CLOSE] = HullHandle;
    Driver->MajorFunction[IRP_MJ_READ] = HullAsk;
    Driver->MajorFunction[IRP_MJ_WRITE] = HullAsk;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HullAsk;
    return STATUS_SUCCESS;
}

#endif
