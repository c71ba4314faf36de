/*
 * A function driver: Plug and Play, power and a device interface for a device without hardware, or with registers in BAR0 and a line (card.h).
 * The driver's device extension begins with a FDO; it has HOOKS Hooks and a GUID FdoInterface, and DEVICE as its extension.
 *
 * A request takes the remove lock and passes the gate (FdoBegin), which is closed while the device is not started or has no power; FdoEnd gives
 * both back. One that is queued leaves the gate (FdoPend) and keeps the remove lock: Flush ends it when the gate has closed.
 */
#ifndef FUNCTION_H
#define FUNCTION_H

#include "driver.h"

typedef struct _FDO {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    UNICODE_STRING Interface;
    IO_REMOVE_LOCK RemoveLock;
    EX_RUNDOWN_REF Gate;
    BOOLEAN Started;
    BOOLEAN Powered;
    ULONGLONG Item[32]; /* a work item, whose size the system knows (IoSizeofWorkItem): less than half of this */
    PUCHAR Registers; /* card.h */
    ULONG Length;
    CM_PARTIAL_RESOURCE_DESCRIPTOR Line;
    PKINTERRUPT Interrupt;
} FDO, *PFDO;

/* What a driver does of its own; what it does not need is NULL. */
typedef struct _HOOKS {
    NTSTATUS (*Add)(PFDO Fdo);                                        /* the extension is zeroed, nothing runs */
    VOID (*Removed)(PFDO Fdo);                                        /* undoes Add */
    NTSTATUS (*Start)(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources); /* translated; undoes what it did if it fails */
    VOID (*Flush)(PFDO Fdo);                                          /* the gate is closed: what is queued ends */
    VOID (*Stop)(PFDO Fdo, BOOLEAN Present);                          /* undoes Start; the card is there and has power, or not */
    VOID (*PowerDown)(PFDO Fdo);
    VOID (*PowerUp)(PFDO Fdo);                                        /* DISPATCH_LEVEL or below */
} HOOKS;

static const HOOKS Hooks;
static const GUID FdoInterface;

#define FDO_GUID(Data1) {Data1, 0x6a1d, 0x4c0e, {0x9b, 0x53, 0x20, 0x7d, 0xe1, 0x88, 0x4f, 0x36}}
#define FDO_TAG 'odfM'

/* FALSE: the request has been completed with the status that is returned in *Status. */
SHARED BOOLEAN FdoBegin(PFDO Fdo, PIRP Irp, NTSTATUS *Status)
{
    *Status = IoAcquireRemoveLock(&Fdo->RemoveLock, Irp);
    if (!NT_SUCCESS(*Status)) {
        Complete(Irp, *Status, 0);
        return FALSE;
    }
    if (!ExAcquireRundownProtection(&Fdo->Gate)) {
        *Status = Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
        IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
        return FALSE;
    }
    return TRUE;
}

SHARED NTSTATUS FdoEnd(PFDO Fdo, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Complete(Irp, Status, Information);
    ExReleaseRundownProtection(&Fdo->Gate);
    IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
    return Status;
}

/* The request was queued, and may be gone already. */
SHARED NTSTATUS FdoPend(PFDO Fdo)
{
    ExReleaseRundownProtection(&Fdo->Gate);
    return STATUS_PENDING;
}

/* Ends a request that was queued. */
SHARED VOID FdoEndPended(PFDO Fdo, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Complete(Irp, Status, Information);
    IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
}

static VOID FdoClose(PFDO Fdo)
{
    ExWaitForRundownProtectionRelease(&Fdo->Gate);
    if (Hooks.Flush != NULL) {
        Hooks.Flush(Fdo);
    }
}

static VOID FdoStop(PFDO Fdo, BOOLEAN Present)
{
    if (!Fdo->Started) {
        return;
    }
    FdoClose(Fdo);
    Fdo->Started = FALSE;
    if (Hooks.Stop != NULL) {
        Hooks.Stop(Fdo, Present && Fdo->Powered);
    }
}

SHARED NTSTATUS FdoPassOn(PFDO Fdo, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Fdo->Lower, Irp);
}

SHARED NTSTATUS NTAPI FdoIsDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

SHARED NTSTATUS FdoForwardAndWait(PFDO Fdo, PIRP Irp)
{
    KEVENT Done;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, FdoIsDone, &Done, TRUE, TRUE, TRUE);
    if (IoCallDriver(Fdo->Lower, Irp) == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
    }
    return Irp->IoStatus.Status;
}

SHARED NTSTATUS FdoStart(PFDO Fdo, PIRP Irp)
{
    PCM_RESOURCE_LIST List = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status = FdoForwardAndWait(Fdo, Irp);

    if (NT_SUCCESS(Status) && Hooks.Start != NULL) {
        Status = Hooks.Start(Fdo, List == NULL ? NULL : &List->List[0].PartialResourceList);
    }
    if (NT_SUCCESS(Status)) {
        Fdo->Started = TRUE;
        Fdo->Powered = TRUE;
        ExReInitializeRundownProtection(&Fdo->Gate);
        IoSetDeviceInterfaceState(&Fdo->Interface, TRUE);
    }
    return Complete(Irp, Status, Irp->IoStatus.Information);
}

SHARED NTSTATUS FdoRemove(PFDO Fdo, PIRP Irp)
{
    PDEVICE_OBJECT Lower = Fdo->Lower;
    NTSTATUS Status;

    FdoStop(Fdo, TRUE);
    IoSetDeviceInterfaceState(&Fdo->Interface, FALSE);
    IoReleaseRemoveLockAndWait(&Fdo->RemoveLock, Irp);
    if (Hooks.Removed != NULL) {
        Hooks.Removed(Fdo);
    }
    RtlFreeUnicodeString(&Fdo->Interface);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = FdoPassOn(Fdo, Irp);
    IoDetachDevice(Lower);
    IoDeleteDevice(Fdo->Self);
    return Status;
}

/* A driver with a bug here has a routine of its own for the request, and calls this one for all others. */
SHARED NTSTATUS NTAPI FdoPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO Fdo = Device->DeviceExtension;
    UCHAR Minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS Status = IoAcquireRemoveLock(&Fdo->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    switch (Minor) {
    case IRP_MN_REMOVE_DEVICE:
        return FdoRemove(Fdo, Irp);
    case IRP_MN_START_DEVICE:
        Status = FdoStart(Fdo, Irp);
        break;
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        FdoStop(Fdo, Minor == IRP_MN_STOP_DEVICE);
        if (Minor == IRP_MN_SURPRISE_REMOVAL) {
            IoSetDeviceInterfaceState(&Fdo->Interface, FALSE);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = FdoPassOn(Fdo, Irp);
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = FdoPassOn(Fdo, Irp);
        break;
    default:
        Status = FdoPassOn(Fdo, Irp);
        break;
    }
    IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
    return Status;
}

SHARED NTSTATUS NTAPI FdoSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO Fdo = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Fdo->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    Status = FdoPassOn(Fdo, Irp);
    IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
    return Status;
}

/* Creating, cleaning up and closing. */
SHARED NTSTATUS NTAPI FdoFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* ---- power: the driver owns the device's policy, D0 for S0 and D3 for all else ------------------------------------------------------ */

static VOID FdoPowerDone(PFDO Fdo, PIRP Irp)
{
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
}

/* The device is in its state, or refuses to go there: so ends the system's request. */
static VOID NTAPI FdoFollowed(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PIRP Irp = Context;
    PFDO Fdo = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Irp->IoStatus.Status = Block->Status;
    FdoPowerDone(Fdo, Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI FdoSystemBelow(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PFDO Fdo = Context;
    POWER_STATE State;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        State.DeviceState = Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(Fdo->Pdo, Stack->MinorFunction, State, FdoFollowed, Irp, NULL);
        if (Status == STATUS_PENDING) {
            return STATUS_MORE_PROCESSING_REQUIRED;
        }
        Irp->IoStatus.Status = Status;
    }
    FdoPowerDone(Fdo, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* The gate opens at APC_LEVEL at most. */
static VOID NTAPI FdoOpen(PVOID Object, PVOID Context, PIO_WORKITEM Item)
{
    PFDO Fdo = ((PDEVICE_OBJECT)Object)->DeviceExtension;
    PIRP Irp = Context;

    IoUninitializeWorkItem(Item);
    ExReInitializeRundownProtection(&Fdo->Gate);
    FdoPowerDone(Fdo, Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI FdoIsUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFDO Fdo = Context;

    if (NT_SUCCESS(Irp->IoStatus.Status) && Fdo->Started && !Fdo->Powered) {
        Fdo->Powered = TRUE;
        if (Hooks.PowerUp != NULL) {
            Hooks.PowerUp(Fdo);
        }
        if (KeGetCurrentIrql() > APC_LEVEL) {
            IoInitializeWorkItem(Device, (PIO_WORKITEM)Fdo->Item);
            IoQueueWorkItemEx((PIO_WORKITEM)Fdo->Item, FdoOpen, DelayedWorkQueue, Irp);
            return STATUS_MORE_PROCESSING_REQUIRED;
        }
        ExReInitializeRundownProtection(&Fdo->Gate);
    }
    FdoPowerDone(Fdo, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS FdoPowerBelow(PFDO Fdo, PIRP Irp, PIO_COMPLETION_ROUTINE Routine)
{
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Routine, Fdo, TRUE, TRUE, TRUE);
    PoCallDriver(Fdo->Lower, Irp);
    return STATUS_PENDING;
}

SHARED NTSTATUS NTAPI FdoPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO Fdo = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Fdo->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, Status, 0);
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER || Stack->MinorFunction == IRP_MN_QUERY_POWER) {
        if (Stack->Parameters.Power.Type == SystemPowerState) {
            return FdoPowerBelow(Fdo, Irp, FdoSystemBelow);
        }
        if (Stack->MinorFunction == IRP_MN_SET_POWER) {
            if (Stack->Parameters.Power.State.DeviceState == PowerDeviceD0) {
                return FdoPowerBelow(Fdo, Irp, FdoIsUp);
            }
            if (Fdo->Started && Fdo->Powered) {
                FdoClose(Fdo);
                if (Hooks.PowerDown != NULL) {
                    Hooks.PowerDown(Fdo);
                }
                Fdo->Powered = FALSE;
            }
        }
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Fdo->Lower, Irp);
    IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
    return Status;
}

/* ---- adding a device ---------------------------------------------------------------------------------------------------------------- */

static NTSTATUS FdoAttach(PFDO Fdo)
{
    NTSTATUS Status = IoRegisterDeviceInterface(Fdo->Pdo, &FdoInterface, NULL, &Fdo->Interface);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Fdo->Lower = IoAttachDeviceToDeviceStack(Fdo->Self, Fdo->Pdo);
    if (Fdo->Lower == NULL) {
        RtlFreeUnicodeString(&Fdo->Interface);
        return STATUS_NO_SUCH_DEVICE;
    }
    return STATUS_SUCCESS;
}

SHARED NTSTATUS FdoAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG Extension, ULONG Flags)
{
    PDEVICE_OBJECT Device;
    PFDO Fdo;
    NTSTATUS Status = IoCreateDevice(Driver, Extension, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Fdo = Device->DeviceExtension;
    Fdo->Self = Device;
    Fdo->Pdo = Pdo;
    IoInitializeRemoveLock(&Fdo->RemoveLock, FDO_TAG, 0, 0);
    ExInitializeRundownProtection(&Fdo->Gate);
    ExWaitForRundownProtectionRelease(&Fdo->Gate); /* closed until it is started */
    Status = Hooks.Add == NULL ? STATUS_SUCCESS : Hooks.Add(Fdo);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Status = FdoAttach(Fdo);
    if (!NT_SUCCESS(Status)) {
        if (Hooks.Removed != NULL) {
            Hooks.Removed(Fdo);
        }
        IoDeleteDevice(Device);
        return Status;
    }
    Device->Flags |= Flags | (Fdo->Lower->Flags & DO_POWER_INRUSH) | DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

SHARED VOID NTAPI FdoUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

/* Sets the routines that every such driver has; its own are set afterwards. */
SHARED VOID FdoDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE AddDevice)
{
    Driver->MajorFunction[IRP_MJ_CREATE] = FdoFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FdoFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FdoFile;
    Driver->MajorFunction[IRP_MJ_PNP] = FdoPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = FdoPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FdoSystemControl;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = FdoUnload;
}

#endif
