/*
 * stead.h: a PnP function driver. Requests are served one after the other or at once as they come, at PASSIVE_LEVEL, while the device
 * works; they wait in a line while it is stopped or sleeps, and are refused before its first start and when it is lost.
 */
#ifndef AC_STEAD_H
#define AC_STEAD_H

#include "stead_frame.h"

#define HOLD_NEW 1      /* not started yet */
#define HOLD_STOP 2     /* stopped, or about to be */
#define HOLD_POWER 4    /* not in D0 */

typedef struct STEAD STEAD;

/* What a driver brings. Each routine may be NULL, but for serve. */
typedef struct CRAFT {
    ULONG own;                                                  /* bytes of the driver's part of the extension */
    ULONG flags;                                                /* DO_BUFFERED_IO or DO_DIRECT_IO */
    const GUID *face;                                           /* device interface */
    NTSTATUS (*settle)(STEAD *s);                               /* AddDevice: what needs no hardware */
    VOID (*unsettle)(STEAD *s);                                 /* takes that back */
    NTSTATUS (*begin)(STEAD *s, PCM_RESOURCE_LIST raw, PCM_RESOURCE_LIST translated);
    VOID (*end)(STEAD *s, BOOLEAN touch);                       /* takes begin() back; touch: there are registers */
    VOID (*dim)(STEAD *s);                                      /* before D3 */
    VOID (*lit)(STEAD *s);                                      /* in D0 again, up to DISPATCH_LEVEL */
    VOID (*forsake)(STEAD *s);                                  /* after the last end(): end requests that wait, let none join */
    NTSTATUS (*open)(STEAD *s, PFILE_OBJECT file);
    VOID (*leave)(STEAD *s, PFILE_OBJECT file);                 /* last handle closed */
    VOID (*closed)(STEAD *s, PFILE_OBJECT file);
    NTSTATUS (*serve)(STEAD *s, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info);   /* STATUS_PENDING: now the driver's */
} CRAFT;

struct STEAD {
    PDEVICE_OBJECT self;
    PDEVICE_OBJECT below;
    PDEVICE_OBJECT pdo;
    const CRAFT *craft;
    IO_REMOVE_LOCK guard;       /* one for each request (its tag), one for each visit of a dispatch routine, one for the sweeper */
    UNICODE_STRING face;
    BOOLEAN faceShown;
    LINE held;
    PIO_WORKITEM sweeper;
    KEVENT turn;                /* who has it starts, ends, dims or lights the hardware */
    KEVENT idle;                /* no request is within serve() */
    KSPIN_LOCK lock;            /* of what follows */
    ULONG holds;
    LONG busy;
    BOOLEAN lost;
    BOOLEAN sweeping;
    BOOLEAN working;            /* begin() has succeeded, end() has not been called since */
    DEVICE_POWER_STATE level;
};

#define OWN(s, TYPE) ((TYPE *)(((ULONG_PTR)((s) + 1) + 15) & ~(ULONG_PTR)15))

static const CRAFT *TheCraft;

static VOID NTAPI SteadSweep(PDEVICE_OBJECT device, PVOID context);

/* The lock is held. */
static inline VOID SteadCallSweeper(STEAD *s)
{
    if (s->holds == 0 && !s->lost && !s->sweeping && NT_SUCCESS(IoAcquireRemoveLock(&s->guard, &s->sweeper))) {
        s->sweeping = TRUE;
        IoQueueWorkItem(s->sweeper, SteadSweep, DelayedWorkQueue, s);
    }
}

/* Waits until no request is within serve(), and lets none in as long as the hold is there. */
static inline VOID SteadHold(STEAD *s, ULONG hold)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->lock, &irql);
    s->holds |= hold;
    KeReleaseSpinLock(&s->lock, irql);
    KeWaitForSingleObject(&s->idle, Executive, KernelMode, FALSE, NULL);
}

static inline VOID SteadFree(STEAD *s, ULONG hold)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->lock, &irql);
    s->holds &= ~hold;
    SteadCallSweeper(s);
    KeReleaseSpinLock(&s->lock, irql);
}

static inline VOID SteadTakeTurn(STEAD *s)
{
    KeWaitForSingleObject(&s->turn, Executive, KernelMode, FALSE, NULL);
}

static inline VOID SteadGiveTurn(STEAD *s)
{
    KeSetEvent(&s->turn, IO_NO_INCREMENT, FALSE);
}

/* The caller has a reference of the guard besides the request's. */
static inline NTSTATUS SteadServe(STEAD *s, PIRP irp)
{
    ULONG_PTR info = 0;
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&s->lock, &irql);
    if (s->lost)
        status = STATUS_NO_SUCH_DEVICE;
    else if (s->holds & HOLD_NEW)
        status = STATUS_DEVICE_NOT_READY;
    else if (s->holds != 0)
        status = STATUS_PENDING;
    else {
        status = STATUS_SUCCESS;
        if (s->busy++ == 0)
            KeClearEvent(&s->idle);
    }
    KeReleaseSpinLock(&s->lock, irql);
    if (status == STATUS_PENDING) {
        LineJoin(&s->held, irp);
        KeAcquireSpinLock(&s->lock, &irql);
        SteadCallSweeper(s);            /* the hold may be gone by now */
        KeReleaseSpinLock(&s->lock, irql);
        return STATUS_PENDING;
    }
    if (!NT_SUCCESS(status))
        return IrpEnd(&s->guard, irp, status, 0);
    status = s->craft->serve(s, irp, IoGetCurrentIrpStackLocation(irp), &info);
    KeAcquireSpinLock(&s->lock, &irql);
    if (--s->busy == 0)
        KeSetEvent(&s->idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&s->lock, irql);
    if (status != STATUS_PENDING)
        IrpEnd(&s->guard, irp, status, info);
    return status;
}

static VOID NTAPI SteadSweep(PDEVICE_OBJECT device, PVOID context)
{
    STEAD *s = context;
    KIRQL irql;
    BOOLEAN on;
    PIRP irp;

    UNREFERENCED_PARAMETER(device);
    KeAcquireSpinLock(&s->lock, &irql);
    s->sweeping = FALSE;
    KeReleaseSpinLock(&s->lock, irql);
    for (;;) {
        KeAcquireSpinLock(&s->lock, &irql);
        on = s->holds == 0 && !s->lost;
        KeReleaseSpinLock(&s->lock, irql);
        if (!on || (irp = LineTake(&s->held)) == NULL)
            break;
        SteadServe(s, irp);
    }
    IoReleaseRemoveLock(&s->guard, &s->sweeper);
}

static NTSTATUS NTAPI SteadRequest(PDEVICE_OBJECT device, PIRP irp)
{
    STEAD *s = device->DeviceExtension;
    ULONG visit;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&s->guard, &visit);
    if (!NT_SUCCESS(status))
        return IrpEnd(NULL, irp, status, 0);
    status = IoAcquireRemoveLock(&s->guard, irp);
    if (NT_SUCCESS(status))
        status = SteadServe(s, irp);
    else
        IrpEnd(NULL, irp, status, 0);
    IoReleaseRemoveLock(&s->guard, &visit);
    return status;
}

static NTSTATUS NTAPI SteadFile(PDEVICE_OBJECT device, PIRP irp)
{
    STEAD *s = device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status;
    KIRQL irql;

    if (sp->MajorFunction == IRP_MJ_CREATE) {
        status = IoAcquireRemoveLock(&s->guard, irp);
        if (!NT_SUCCESS(status))
            return IrpEnd(NULL, irp, status, 0);
        KeAcquireSpinLock(&s->lock, &irql);
        if (s->lost)
            status = STATUS_NO_SUCH_DEVICE;
        else if (s->holds & HOLD_NEW)
            status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&s->lock, irql);
        if (NT_SUCCESS(status) && s->craft->open != NULL)
            status = s->craft->open(s, sp->FileObject);
        return IrpEnd(&s->guard, irp, status, 0);
    }
    /* A handle is open, so there was no IRP_MN_REMOVE_DEVICE. */
    if (sp->MajorFunction == IRP_MJ_CLEANUP) {
        FileLeaves(sp->FileObject);
        LineDrop(&s->held, sp->FileObject, STATUS_CANCELLED);
        if (s->craft->leave != NULL)
            s->craft->leave(s, sp->FileObject);
    } else if (s->craft->closed != NULL) {
        s->craft->closed(s, sp->FileObject);
    }
    return IrpEnd(NULL, irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SteadSystemControl(PDEVICE_OBJECT device, PIRP irp)
{
    STEAD *s = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&s->guard, irp);

    if (!NT_SUCCESS(status))
        return IrpEnd(NULL, irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(s->below, irp);
    IoReleaseRemoveLock(&s->guard, irp);
    return status;
}

/* ---- PnP ---- */

static NTSTATUS NTAPI SteadWoken(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent((PKEVENT)context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* The request is the caller's again when this returns. */
static inline NTSTATUS SteadSendAndWait(PDEVICE_OBJECT below, PIRP irp)
{
    KEVENT event;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, SteadWoken, &event, TRUE, TRUE, TRUE);
    if (IoCallDriver(below, irp) == STATUS_PENDING)
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

/* The turn is the caller's, and no request is within serve(). */
static inline VOID SteadEndWork(STEAD *s, BOOLEAN there)
{
    BOOLEAN working, touch;
    KIRQL irql;

    KeAcquireSpinLock(&s->lock, &irql);
    working = s->working;
    s->working = FALSE;
    touch = there && s->level == PowerDeviceD0;
    KeReleaseSpinLock(&s->lock, irql);
    if (working && s->craft->end != NULL)
        s->craft->end(s, touch);
}

static inline VOID SteadShow(STEAD *s, BOOLEAN show)
{
    if (s->faceShown != show && s->face.Buffer != NULL) {
        if (NT_SUCCESS(IoSetDeviceInterfaceState(&s->face, show)) || !show)
            s->faceShown = show;
    }
}

/* The device is gone, or will be. */
static inline VOID SteadLose(STEAD *s, BOOLEAN there)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->lock, &irql);
    s->lost = TRUE;
    KeReleaseSpinLock(&s->lock, irql);
    KeWaitForSingleObject(&s->idle, Executive, KernelMode, FALSE, NULL);
    SteadShow(s, FALSE);
    SteadTakeTurn(s);
    SteadEndWork(s, there);
    SteadGiveTurn(s);
    LineClose(&s->held, STATUS_NO_SUCH_DEVICE);
    if (s->craft->forsake != NULL)
        s->craft->forsake(s);
}

static inline NTSTATUS SteadStart(STEAD *s, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE power;
    NTSTATUS status;
    KIRQL irql;

    status = SteadSendAndWait(s->below, irp);
    if (!NT_SUCCESS(status))
        return status;
    SteadTakeTurn(s);
    KeAcquireSpinLock(&s->lock, &irql);
    s->level = PowerDeviceD0;
    KeReleaseSpinLock(&s->lock, irql);
    power.DeviceState = PowerDeviceD0;
    PoSetPowerState(s->self, DevicePowerState, power);
    if (s->craft->begin != NULL)
        status = s->craft->begin(s, sp->Parameters.StartDevice.AllocatedResources,
                                 sp->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&s->lock, &irql);
        s->working = TRUE;
        KeReleaseSpinLock(&s->lock, irql);
    }
    SteadGiveTurn(s);
    if (NT_SUCCESS(status)) {
        SteadFree(s, HOLD_NEW | HOLD_STOP | HOLD_POWER);
        SteadShow(s, TRUE);
    }
    return status;
}

static NTSTATUS NTAPI SteadPnp(PDEVICE_OBJECT device, PIRP irp)
{
    STEAD *s = device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PDEVICE_OBJECT below;
    BOOLEAN working, lost;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&s->guard, irp);
    if (!NT_SUCCESS(status))
        return IrpEnd(NULL, irp, status, irp->IoStatus.Information);
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = SteadStart(s, irp);
        return IrpEnd(&s->guard, irp, status, irp->IoStatus.Information);

    case IRP_MN_QUERY_STOP_DEVICE:
        SteadHold(s, HOLD_STOP);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        status = SteadSendAndWait(s->below, irp);
        KeAcquireSpinLock(&s->lock, &irql);
        working = s->working;
        KeReleaseSpinLock(&s->lock, irql);
        if (working)
            SteadFree(s, HOLD_STOP);
        return IrpEnd(&s->guard, irp, status, irp->IoStatus.Information);

    case IRP_MN_STOP_DEVICE:
        SteadHold(s, HOLD_STOP);
        SteadTakeTurn(s);
        SteadEndWork(s, TRUE);
        SteadGiveTurn(s);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        SteadLose(s, FALSE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        KeAcquireSpinLock(&s->lock, &irql);
        lost = s->lost;
        KeReleaseSpinLock(&s->lock, irql);
        if (!lost)
            SteadLose(s, TRUE);
        IoReleaseRemoveLockAndWait(&s->guard, irp);
        if (s->craft->unsettle != NULL)
            s->craft->unsettle(s);
        IoFreeWorkItem(s->sweeper);
        if (s->face.Buffer != NULL)
            RtlFreeUnicodeString(&s->face);
        below = s->below;
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(below, irp);
        IoDetachDevice(below);
        IoDeleteDevice(device);
        return status;

    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(s->below, irp);
    IoReleaseRemoveLock(&s->guard, irp);
    return status;
}

/* ---- power ---- */

static VOID NTAPI SteadDeviceIsThere(PDEVICE_OBJECT device, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK status)
{
    PIRP irp = context;
    STEAD *s = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    UNREFERENCED_PARAMETER(status);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&s->guard, irp);
}

/* The drivers below are done with a set-power request of the system: now this device's own. */
static NTSTATUS NTAPI SteadSystemIsSet(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    STEAD *s = context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE power;

    UNREFERENCED_PARAMETER(device);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        power.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        if (PoRequestPowerIrp(s->pdo, IRP_MN_SET_POWER, power, SteadDeviceIsThere, irp, NULL) == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&s->guard, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI SteadIsUp(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    STEAD *s = context;
    BOOLEAN working, up;
    POWER_STATE power;
    KIRQL irql;

    UNREFERENCED_PARAMETER(device);
    up = NT_SUCCESS(irp->IoStatus.Status);
    if (up) {
        KeAcquireSpinLock(&s->lock, &irql);
        s->level = PowerDeviceD0;
        working = s->working;
        KeReleaseSpinLock(&s->lock, irql);
        power.DeviceState = PowerDeviceD0;
        PoSetPowerState(s->self, DevicePowerState, power);
        if (working && s->craft->lit != NULL)
            s->craft->lit(s);
        SteadFree(s, HOLD_POWER);
    }
    SteadGiveTurn(s);
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&s->guard, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI SteadPower(PDEVICE_OBJECT device, PIRP irp)
{
    STEAD *s = device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE power = sp->Parameters.Power.State;
    BOOLEAN working, lit;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&s->guard, irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        return IrpEnd(NULL, irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, SteadSystemIsSet, s, TRUE, TRUE, TRUE);
        PoCallDriver(s->below, irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == DevicePowerState) {
        if (power.DeviceState == PowerDeviceD0) {
            SteadTakeTurn(s);
            KeAcquireSpinLock(&s->lock, &irql);
            lit = s->level == PowerDeviceD0;
            KeReleaseSpinLock(&s->lock, irql);
            if (!lit) {
                IoMarkIrpPending(irp);
                IoCopyCurrentIrpStackLocationToNext(irp);
                IoSetCompletionRoutine(irp, SteadIsUp, s, TRUE, TRUE, TRUE);
                PoCallDriver(s->below, irp);
                return STATUS_PENDING;
            }
            SteadGiveTurn(s);
        } else {
            SteadHold(s, HOLD_POWER);
            SteadTakeTurn(s);
            KeAcquireSpinLock(&s->lock, &irql);
            lit = s->level == PowerDeviceD0;
            working = s->working;
            KeReleaseSpinLock(&s->lock, irql);
            if (lit && working && s->craft->dim != NULL)
                s->craft->dim(s);
            if (lit)
                PoSetPowerState(s->self, DevicePowerState, power);
            KeAcquireSpinLock(&s->lock, &irql);
            s->level = power.DeviceState;
            KeReleaseSpinLock(&s->lock, irql);
            SteadGiveTurn(s);
        }
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(s->below, irp);
    IoReleaseRemoveLock(&s->guard, irp);
    return status;
}

/* ---- driver ---- */

static NTSTATUS NTAPI SteadAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    const CRAFT *craft = TheCraft;
    PDEVICE_OBJECT device;
    NTSTATUS status;
    STEAD *s;

    status = IoCreateDevice(driver, sizeof(STEAD) + 16 + craft->own, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    s = device->DeviceExtension;
    RtlZeroMemory(s, sizeof(STEAD) + 16 + craft->own);
    s->self = device;
    s->pdo = pdo;
    s->craft = craft;
    s->holds = HOLD_NEW;
    s->level = PowerDeviceD3;
    IoInitializeRemoveLock(&s->guard, TAG_AC, 0, 0);
    KeInitializeSpinLock(&s->lock);
    KeInitializeEvent(&s->turn, SynchronizationEvent, TRUE);
    KeInitializeEvent(&s->idle, NotificationEvent, TRUE);
    LineReady(&s->held, &s->guard);
    s->sweeper = IoAllocateWorkItem(device);
    if (s->sweeper == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_sweeper;
    }
    if (craft->face != NULL) {
        status = IoRegisterDeviceInterface(pdo, craft->face, NULL, &s->face);
        if (!NT_SUCCESS(status)) {
            s->face.Buffer = NULL;
            goto no_face;
        }
    }
    if (craft->settle != NULL) {
        status = craft->settle(s);
        if (!NT_SUCCESS(status))
            goto not_settled;
    }
    s->below = IoAttachDeviceToDeviceStack(device, pdo);
    if (s->below == NULL) {
        status = STATUS_NO_SUCH_DEVICE;
        goto not_attached;
    }
    device->Flags |= craft->flags | DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

not_attached:
    if (craft->unsettle != NULL)
        craft->unsettle(s);
not_settled:
    if (s->face.Buffer != NULL)
        RtlFreeUnicodeString(&s->face);
no_face:
    IoFreeWorkItem(s->sweeper);
no_sweeper:
    IoDeleteDevice(device);
    return status;
}

static VOID NTAPI SteadUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
}

static inline NTSTATUS SteadFound(PDRIVER_OBJECT driver, const CRAFT *craft)
{
    TheCraft = craft;
    driver->DriverExtension->AddDevice = SteadAdd;
    driver->DriverUnload = SteadUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = SteadFile;
    driver->MajorFunction[IRP_MJ_CLEANUP] = SteadFile;
    driver->MajorFunction[IRP_MJ_CLOSE] = SteadFile;
    driver->MajorFunction[IRP_MJ_READ] = SteadRequest;
    driver->MajorFunction[IRP_MJ_WRITE] = SteadRequest;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SteadRequest;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SteadSystemControl;
    driver->MajorFunction[IRP_MJ_PNP] = SteadPnp;
    driver->MajorFunction[IRP_MJ_POWER] = SteadPower;
    return STATUS_SUCCESS;
}

#endif
