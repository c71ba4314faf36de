/* jetty_pnp.h: Plug and Play and power for a function driver. */
#ifndef JETTY_PNP_H
#define JETTY_PNP_H

#include "jetty_base.h"

/* All hooks get the device extension, which begins with a JETTY_COMMON. */
typedef struct _JETTY_HOOKS {
    VOID (*Init)(PVOID Ext);                            /* before the device is in its stack */
    NTSTATUS (*Start)(PVOID Ext, PCM_RESOURCE_LIST Translated);
    VOID (*Stop)(PVOID Ext);                            /* may be called more than once */
    VOID (*Gone)(PVOID Ext);                            /* no request may be left or taken after this */
    VOID (*Free)(PVOID Ext);                            /* memory, once no one uses it */
    VOID (*Hold)(PVOID Ext, BOOLEAN Hold);              /* query-stop and its cancellation */
    VOID (*PowerDown)(PVOID Ext);                       /* cards only */
    VOID (*PowerUp)(PVOID Ext);                         /* cards only, up to DISPATCH_LEVEL */
    BOOLEAN RefuseStop;                                 /* resources cannot be moved */
} JETTY_HOOKS;

typedef struct _JETTY_COMMON {
    PDEVICE_OBJECT Self, Pdo, Lower;
    const JETTY_HOOKS *Hooks;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    PIRP SystemPowerIrp;
    BOOLEAN StopPending;
} JETTY_COMMON, *PJETTY_COMMON;

/* The end of a request that owns a hold on the remove lock. */
static inline NTSTATUS JettyFinish(PVOID Ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    PJETTY_COMMON c = Ext;

    JettyComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return Status;
}

static inline NTSTATUS NTAPI JettyForwarded(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS JettyForwardAndWait(PJETTY_COMMON c, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, JettyForwarded, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(c->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static inline NTSTATUS JettyPassDown(PJETTY_COMMON c, PIRP Irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(c->Lower, Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return status;
}

static inline NTSTATUS NTAPI JettyPnp(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PJETTY_COMMON c = Fdo->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return JettyComplete(Irp, status, 0);

    switch (s->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = JettyForwardAndWait(c, Irp);
        if (NT_SUCCESS(status))
            status = c->Hooks->Start(c, s->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(status)) {
            c->StopPending = FALSE;
            status = IoSetDeviceInterfaceState(&c->Link, TRUE);
            if (NT_SUCCESS(status))
                status = STATUS_SUCCESS;        /* "was enabled already" after a stop */
            else
                c->Hooks->Stop(c);
        }
        return JettyFinish(c, Irp, status, 0);

    case IRP_MN_QUERY_STOP_DEVICE:
        if (c->Hooks->RefuseStop)
            return JettyFinish(c, Irp, STATUS_UNSUCCESSFUL, 0);
        c->StopPending = TRUE;
        if (c->Hooks->Hold)
            c->Hooks->Hold(c, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return JettyPassDown(c, Irp);

    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        status = JettyForwardAndWait(c, Irp);
        if (c->StopPending) {
            c->StopPending = FALSE;
            if (c->Hooks->Hold)
                c->Hooks->Hold(c, FALSE);
        }
        return JettyFinish(c, Irp, status, 0);

    case IRP_MN_STOP_DEVICE:
        c->Hooks->Stop(c);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return JettyPassDown(c, Irp);

    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return JettyPassDown(c, Irp);

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&c->Link, FALSE);
        c->Hooks->Gone(c);
        c->Hooks->Stop(c);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return JettyPassDown(c, Irp);

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&c->Link, FALSE);
        c->Hooks->Gone(c);
        c->Hooks->Stop(c);
        IoReleaseRemoveLockAndWait(&c->RemoveLock, Irp);
        if (c->Hooks->Free)
            c->Hooks->Free(c);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(c->Lower, Irp);
        IoDetachDevice(c->Lower);
        RtlFreeUnicodeString(&c->Link);
        IoDeleteDevice(Fdo);
        return status;

    default:
        return JettyPassDown(c, Irp);
    }
}

static inline NTSTATUS NTAPI JettySystemControl(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PJETTY_COMMON c = Fdo->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return JettyComplete(Irp, status, 0);
    return JettyPassDown(c, Irp);
}

static inline VOID NTAPI JettyDevicePowered(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State,
                                            PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    PJETTY_COMMON c = Context;
    PIRP irp = c->SystemPowerIrp;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    c->SystemPowerIrp = NULL;
    PoStartNextPowerIrp(irp);
    JettyFinish(c, irp, IoStatus->Status, 0);
}

static inline NTSTATUS NTAPI JettySystemPassed(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PJETTY_COMMON c = Context;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;
    NTSTATUS status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(status)) {
        state.DeviceState = s->Parameters.Power.State.SystemState == PowerSystemWorking
                                ? PowerDeviceD0 : PowerDeviceD3;
        c->SystemPowerIrp = Irp;
        status = PoRequestPowerIrp(c->Pdo, IRP_MN_SET_POWER, state, JettyDevicePowered, c, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        c->SystemPowerIrp = NULL;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS NTAPI JettyDeviceUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PJETTY_COMMON c = Context;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        c->Hooks->PowerUp(c);
        PoSetPowerState(c->Self, DevicePowerState, s->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS NTAPI JettyPower(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PJETTY_COMMON c = Fdo->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&c->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return JettyComplete(Irp, status, 0);
    }

    /* a software device has nothing to do: the hooks are the cards' */
    if (s->MinorFunction == IRP_MN_SET_POWER && c->Hooks->PowerUp) {
        if (s->Parameters.Power.Type == SystemPowerState) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, JettySystemPassed, c, TRUE, TRUE, TRUE);
            PoCallDriver(c->Lower, Irp);
            return STATUS_PENDING;
        }
        if (s->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, JettyDeviceUp, c, TRUE, TRUE, TRUE);
            PoCallDriver(c->Lower, Irp);
            return STATUS_PENDING;
        }
        c->Hooks->PowerDown(c);
        PoSetPowerState(c->Self, DevicePowerState, s->Parameters.Power.State);
        Irp->IoStatus.Status = STATUS_SUCCESS;
    } else if (s->MinorFunction == IRP_MN_QUERY_POWER && c->Hooks->PowerUp) {
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }

    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(c->Lower, Irp);
    IoReleaseRemoveLock(&c->RemoveLock, Irp);
    return status;
}

/* AddDevice. */
static inline NTSTATUS JettyAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG ExtensionSize,
                                const JETTY_HOOKS *Hooks, const GUID *Interface, ULONG Flags)
{
    PDEVICE_OBJECT fdo;
    PJETTY_COMMON c;
    NTSTATUS status;

    status = IoCreateDevice(Driver, ExtensionSize, NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;
    c = fdo->DeviceExtension;
    c->Self = fdo;
    c->Pdo = Pdo;
    c->Hooks = Hooks;
    IoInitializeRemoveLock(&c->RemoveLock, JETTY_TAG, 0, 0);
    if (Hooks->Init)
        Hooks->Init(c);
    status = IoRegisterDeviceInterface(Pdo, Interface, NULL, &c->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    c->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (!c->Lower) {
        RtlFreeUnicodeString(&c->Link);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= Flags | (c->Lower->Flags & (DO_POWER_PAGABLE | DO_POWER_INRUSH));
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static inline VOID NTAPI JettyUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static inline VOID JettyDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE AddDevice)
{
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = JettyUnload;
    Driver->MajorFunction[IRP_MJ_PNP] = JettyPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = JettyPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = JettySystemControl;
}

/* IRP_MJ_CREATE and IRP_MJ_CLOSE of a driver that keeps nothing for a handle. */
static inline NTSTATUS NTAPI JettyCreateClose(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Fdo);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

#endif
