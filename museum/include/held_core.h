/* Boilerplate of the function drivers for cards: attaching, PnP, power policy, interface. */
#pragma once
#include <ddk/wdm.h>

#define HOLD_STOP  1    /* not started, or a stop or removal is asked for */
#define HOLD_POWER 2    /* not in D0 */
#define HOLD_GONE  4    /* removed, perhaps by surprise */

typedef struct _CORE {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK Lock;
    UNICODE_STRING Link;
    volatile LONG Hold;
    BOOLEAN Started;
    DEVICE_POWER_STATE Power;
} CORE;

/* What the driver supplies. All but HwWake and HwKick are called at PASSIVE_LEVEL. */
static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated);
static VOID HwStop(CORE *Core, BOOLEAN Touch);      /* quiet already; Touch: registers may be written */
static VOID HwQuiesce(CORE *Core);                  /* a Hold bit was set: wait for what is under way */
static VOID HwKick(CORE *Core);                     /* no Hold bit is set any longer */
static VOID HwAbort(CORE *Core);                    /* HOLD_GONE was set: complete all requests */
static VOID HwSleep(CORE *Core);                    /* quiet already; leaves D0 now */
static VOID HwWake(CORE *Core);                     /* in D0 again; <= DISPATCH_LEVEL */
static VOID HwFini(CORE *Core);                     /* before the device object goes */

static VOID CoreComplete(CORE *Core, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, NT_SUCCESS(Status) ? IO_NO_INCREMENT + 1 : IO_NO_INCREMENT);
    IoReleaseRemoveLock(&Core->Lock, Irp);
}

/* Acquires the remove lock for a request; when it fails the request is complete. */
static NTSTATUS CoreEnter(CORE *Core, PIRP Irp)
{
    NTSTATUS status = IoAcquireRemoveLock(&Core->Lock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    return status;
}

static NTSTATUS NTAPI CoreDownDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS CoreDownAndWait(CORE *Core, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, CoreDownDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Core->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static VOID CoreHold(CORE *Core, LONG Bit)
{
    InterlockedOr(&Core->Hold, Bit);
    HwQuiesce(Core);
}

static VOID CoreRelease(CORE *Core, LONG Bit)
{
    if ((InterlockedAnd(&Core->Hold, ~Bit) & ~Bit) == 0)
        HwKick(Core);
}

static VOID CoreGone(CORE *Core)
{
    InterlockedOr(&Core->Hold, HOLD_GONE);
    if (Core->Link.Buffer)
        IoSetDeviceInterfaceState(&Core->Link, FALSE);
    HwAbort(Core);
    HwQuiesce(Core);
    if (Core->Started) {
        HwStop(Core, Core->Power == PowerDeviceD0);
        Core->Started = FALSE;
    }
}

static NTSTATUS NTAPI CorePnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    CORE *core = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = CoreEnter(core, Irp);

    if (!NT_SUCCESS(status))
        return status;
    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = CoreDownAndWait(core, Irp);
        if (NT_SUCCESS(status))
            status = HwStart(core, stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(status)) {
            POWER_STATE d0;

            core->Started = TRUE;
            core->Power = d0.DeviceState = PowerDeviceD0;
            PoSetPowerState(Device, DevicePowerState, d0);
            CoreRelease(core, HOLD_STOP);
            IoSetDeviceInterfaceState(&core->Link, TRUE);
            status = STATUS_SUCCESS;
        }
        CoreComplete(core, Irp, status, 0);
        return status;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        status = CoreDownAndWait(core, Irp);
        if (core->Started)
            CoreRelease(core, HOLD_STOP);
        CoreComplete(core, Irp, status, Irp->IoStatus.Information);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        CoreHold(core, HOLD_STOP);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        CoreHold(core, HOLD_STOP);
        if (core->Started) {
            HwStop(core, core->Power == PowerDeviceD0);
            core->Started = FALSE;
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        CoreGone(core);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        CoreGone(core);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(core->Lower, Irp);
        IoReleaseRemoveLockAndWait(&core->Lock, Irp);
        HwFini(core);
        RtlFreeUnicodeString(&core->Link);
        IoDetachDevice(core->Lower);
        IoDeleteDevice(Device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(core->Lower, Irp);
    IoReleaseRemoveLock(&core->Lock, Irp);
    return status;
}

static VOID NTAPI CoreDeviceDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Result)
{
    PIRP irp = Context;     /* the system power request */
    CORE *core = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Pdo);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    irp->IoStatus.Status = Result->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&core->Lock, irp);
}

static NTSTATUS NTAPI CoreSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    CORE *core = Context;
    POWER_STATE state;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        state.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking
                                ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(core->Pdo, IRP_MN_SET_POWER, state, CoreDeviceDone, Irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    IoReleaseRemoveLock(&core->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI CoreUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    CORE *core = Context;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status) && core->Power != PowerDeviceD0) {
        core->Power = state.DeviceState = PowerDeviceD0;
        if (core->Started)
            HwWake(core);
        PoSetPowerState(core->Self, DevicePowerState, state);
        CoreRelease(core, HOLD_POWER);
    }
    IoReleaseRemoveLock(&core->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* DO_POWER_PAGABLE is set: power requests that set a state come at PASSIVE_LEVEL. */
static NTSTATUS NTAPI CorePower(PDEVICE_OBJECT Device, PIRP Irp)
{
    CORE *core = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = CoreEnter(core, Irp);

    if (!NT_SUCCESS(status))
        return status;
    if (stack->MinorFunction == IRP_MN_SET_POWER) {
        POWER_STATE state = stack->Parameters.Power.State;

        if (stack->Parameters.Power.Type == SystemPowerState || state.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, stack->Parameters.Power.Type == SystemPowerState ? CoreSystemDone : CoreUpDone,
                                   core, TRUE, TRUE, TRUE);
            PoCallDriver(core->Lower, Irp);
            return STATUS_PENDING;
        }
        if (core->Power == PowerDeviceD0) {
            CoreHold(core, HOLD_POWER);
            if (core->Started)
                HwSleep(core);
        }
        core->Power = state.DeviceState;
        PoSetPowerState(Device, DevicePowerState, state);
        Irp->IoStatus.Status = STATUS_SUCCESS;
    } else if (stack->MinorFunction == IRP_MN_QUERY_POWER) {
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(core->Lower, Irp);
    IoReleaseRemoveLock(&core->Lock, Irp);
    return status;
}

static NTSTATUS NTAPI CoreForward(PDEVICE_OBJECT Device, PIRP Irp)
{
    CORE *core = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(core, Irp);

    if (!NT_SUCCESS(status))
        return status;
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(core->Lower, Irp);
    IoReleaseRemoveLock(&core->Lock, Irp);
    return status;
}

/* For IRP_MJ_CREATE and IRP_MJ_CLOSE (and IRP_MJ_CLEANUP where nothing is queued). */
static NTSTATUS NTAPI CoreOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    CORE *core = Device->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;

    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && (core->Hold & HOLD_GONE))
        status = STATUS_DELETE_PENDING;
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS CoreAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG Size, const GUID *Interface, CORE **Core)
{
    PDEVICE_OBJECT fdo;
    CORE *core;
    NTSTATUS status;

    status = IoCreateDevice(Driver, Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;
    core = fdo->DeviceExtension;
    RtlZeroMemory(core, Size);
    core->Self = fdo;
    core->Pdo = Pdo;
    core->Hold = HOLD_STOP;
    core->Power = PowerDeviceD3;
    IoInitializeRemoveLock(&core->Lock, 'erCV', 0, 0);
    status = IoRegisterDeviceInterface(Pdo, Interface, NULL, &core->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    core->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (!core->Lower) {
        RtlFreeUnicodeString(&core->Link);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_POWER_PAGABLE;
    *Core = core;
    return STATUS_SUCCESS;
}

static VOID NTAPI CoreUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static VOID CoreEntry(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE Add)
{
    Driver->DriverExtension->AddDevice = Add;
    Driver->DriverUnload = CoreUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = CoreOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CoreOpenClose;
    Driver->MajorFunction[IRP_MJ_PNP] = CorePnp;
    Driver->MajorFunction[IRP_MJ_POWER] = CorePower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CoreForward;
}

/* The n-th (from 0) resource of a type, or NULL. */
static PCM_PARTIAL_RESOURCE_DESCRIPTOR CoreResource(PCM_RESOURCE_LIST Resources, UCHAR Type, ULONG Nth)
{
    PCM_PARTIAL_RESOURCE_LIST list;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    if (!Resources || Resources->Count == 0)
        return NULL;
    list = &Resources->List[0].PartialResourceList;
    d = (PCM_PARTIAL_RESOURCE_DESCRIPTOR)((PUCHAR)list + FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
    for (i = 0; i < list->Count; i++, d++) {
        if (d->Type == Type && Nth-- == 0)
            return d;
    }
    return NULL;
}

static NTSTATUS CoreConnect(PKINTERRUPT *Interrupt, PKSERVICE_ROUTINE Isr, PVOID Context, PCM_PARTIAL_RESOURCE_DESCRIPTOR D)
{
    return IoConnectInterrupt(Interrupt, Isr, Context, NULL, D->u.Interrupt.Vector, (KIRQL)D->u.Interrupt.Level,
                              (KIRQL)D->u.Interrupt.Level,
                              (D->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              D->ShareDisposition == CmResourceShareShared, D->u.Interrupt.Affinity, FALSE);
}
