/*
 * rack.sys: a bus driver: a rack of four slots, in which modules are put (IOCTL_RACK_PLUG) and from which they are drawn
 * (IOCTL_RACK_DRAW; the input is the slot's number). A contact may bounce, so the system learns of it 50 ms after the last change.
 *
 * The bug: a child that is removed is deleted if it is not there any more. It must stay until it was reported missing: the PnP manager
 * still has it in its tree. In the 50 ms after a module was drawn a child may be removed for another reason; then its device
 * object is deleted under the PnP manager.
 *
 * How it shows: a module is drawn, and its device removed (disabled, uninstalled) before the system knows that it is gone. If another
 * one is put in the same slot then, the PnP manager learns of two devices that have the same instance path.
 *
 * Device: Root\Rack
 * Rule: child-deleted-early
 * Needs: ioctl, removal, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_RACK_PLUG CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RACK_DRAW CTL_CODE(FILE_DEVICE_BUS_EXTENDER, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define SLOTS 4
#define RACK_TAG 'kcaR'

typedef struct _RACK *PRACK;

typedef struct _MODULE {
    BOOLEAN IsRack; /* FALSE; what both kinds begin with */
    PDEVICE_OBJECT Self;
    PRACK Rack; /* NULL: it has gone before */
    ULONG Slot;
    BOOLEAN Present;  /* in the slot */
    BOOLEAN Reported; /* the PnP manager knows of it */
    BOOLEAN Missing;  /* and that it is not there any more */
    BOOLEAN Surprised; /* it will be removed yet, maybe after the rack */
} MODULE, *PMODULE;

typedef struct _RACK {
    BOOLEAN IsRack; /* TRUE */
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    BOOLEAN Running;
    PMODULE Slots[SLOTS];
    KTIMER Bounce;
    KDPC BounceDpc;
} RACK;

DRIVER_INITIALIZE DriverEntry;

static FAST_MUTEX Lock; /* of all slots, and what is in them */
static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\Rack");
static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Rack");

static NTSTATUS Done(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS Untouched(PIRP Irp) { return Done(Irp, Irp->IoStatus.Status); }

static VOID NTAPI BounceOver(PKDPC Dpc, PVOID Context, PVOID Unused1, PVOID Unused2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Unused1);
    UNREFERENCED_PARAMETER(Unused2);
    IoInvalidateDeviceRelations(((PRACK)Context)->Pdo, BusRelations);
}

/* The lock is held. */
static VOID DeleteModule(PMODULE Module)
{
    if (Module->Rack != NULL)
        Module->Rack->Slots[Module->Slot] = NULL;
    IoDeleteDevice(Module->Self);
}

/* ---- modules ---- */

static NTSTATUS GiveText(PIRP Irp, PCWSTR Text, WCHAR Digit, BOOLEAN List)
{
    ULONG Units = 0;
    PWSTR Copy;

    while (Text[Units] != 0)
        Units++;
    Copy = ExAllocatePoolWithTag(PagedPool, (Units + 3) * sizeof(WCHAR), RACK_TAG);
    if (Copy == NULL)
        return Done(Irp, STATUS_INSUFFICIENT_RESOURCES);
    RtlZeroMemory(Copy, (Units + 3) * sizeof(WCHAR));
    RtlCopyMemory(Copy, Text, Units * sizeof(WCHAR));
    if (!List)
        Copy[Units] = Digit;
    Irp->IoStatus.Information = (ULONG_PTR)Copy;
    return Done(Irp, STATUS_SUCCESS);
}

static NTSTATUS ModulePnp(PMODULE Module, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE_CAPABILITIES Caps;
    PDEVICE_RELATIONS Relations;
    BOOLEAN Delete;
    ULONG State;

    switch (Stack->MinorFunction) {
    case IRP_MN_QUERY_ID:
        switch (Stack->Parameters.QueryId.IdType) {
        case BusQueryDeviceID:
            return GiveText(Irp, L"RACK\\Module", 0, FALSE);
        case BusQueryHardwareIDs:
            return GiveText(Irp, L"RACK\\Module", 0, TRUE);
        case BusQueryInstanceID:
            return GiveText(Irp, L"Slot", (WCHAR)(L'0' + Module->Slot), FALSE);
        default:
            return Untouched(Irp);
        }
    case IRP_MN_QUERY_DEVICE_TEXT:
        if (Stack->Parameters.QueryDeviceText.DeviceTextType == DeviceTextDescription)
            return GiveText(Irp, L"A module of a rack", 0, FALSE);
        return Untouched(Irp);
    case IRP_MN_QUERY_CAPABILITIES:
        Caps = Stack->Parameters.DeviceCapabilities.Capabilities;
        if (Caps->Version != 1 || Caps->Size < sizeof(*Caps))
            return Done(Irp, STATUS_UNSUCCESSFUL);
        Caps->Removable = TRUE;
        Caps->SurpriseRemovalOK = TRUE;
        Caps->RawDeviceOK = TRUE;
        Caps->Address = Module->Slot;
        Caps->UINumber = Module->Slot;
        Caps->DeviceState[PowerSystemWorking] = PowerDeviceD0;
        for (State = PowerSystemSleeping1; State < PowerSystemMaximum; State++)
            Caps->DeviceState[State] = PowerDeviceD3;
        return Done(Irp, STATUS_SUCCESS);
    case IRP_MN_QUERY_DEVICE_RELATIONS:
        if (Stack->Parameters.QueryDeviceRelations.Type != TargetDeviceRelation)
            return Untouched(Irp);
        Relations = ExAllocatePoolWithTag(PagedPool, sizeof(*Relations), RACK_TAG);
        if (Relations == NULL)
            return Done(Irp, STATUS_INSUFFICIENT_RESOURCES);
        ObReferenceObject(Module->Self);
        Relations->Count = 1;
        Relations->Objects[0] = Module->Self;
        Irp->IoStatus.Information = (ULONG_PTR)Relations;
        return Done(Irp, STATUS_SUCCESS);
    case IRP_MN_SURPRISE_REMOVAL:
        ExAcquireFastMutex(&Lock);
        Module->Surprised = TRUE;
        ExReleaseFastMutex(&Lock);
        return Done(Irp, STATUS_SUCCESS);
    case IRP_MN_REMOVE_DEVICE:
        ExAcquireFastMutex(&Lock);
        Module->Surprised = FALSE;
#ifdef FIXED
        Delete = Module->Missing || Module->Rack == NULL;
#else
        Delete = !Module->Present || Module->Rack == NULL;
#endif
        Irp->IoStatus.Status = STATUS_SUCCESS;
        if (Delete)
            DeleteModule(Module);
        ExReleaseFastMutex(&Lock);
        return Done(Irp, STATUS_SUCCESS);
    case IRP_MN_START_DEVICE:
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        return Done(Irp, STATUS_SUCCESS);
    default:
        return Untouched(Irp);
    }
}

/* ---- the rack ---- */

static NTSTATUS Plug(PRACK Rack, ULONG Slot)
{
    PDEVICE_OBJECT Device;
    PMODULE Module;
    NTSTATUS Status;

    Status = IoCreateDevice(Rack->Self->DriverObject, sizeof(MODULE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_AUTOGENERATED_DEVICE_NAME | FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Module = Device->DeviceExtension;
    Module->Self = Device;
    Module->Rack = Rack;
    Module->Slot = Slot;
    Module->Present = TRUE;
    Device->Flags |= DO_POWER_PAGABLE;
    ExAcquireFastMutex(&Lock);
    if (Rack->Slots[Slot] != NULL) {
        Status = STATUS_DEVICE_BUSY; /* one is there, or was, and has not been removed yet */
    } else {
        Rack->Slots[Slot] = Module;
        Device->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    ExReleaseFastMutex(&Lock);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Device);
    return Status;
}

static NTSTATUS Draw(PRACK Rack, ULONG Slot)
{
    NTSTATUS Status = STATUS_NO_SUCH_DEVICE;

    ExAcquireFastMutex(&Lock);
    if (Rack->Slots[Slot] != NULL && Rack->Slots[Slot]->Present) {
        Rack->Slots[Slot]->Present = FALSE;
        if (!Rack->Slots[Slot]->Reported)
            DeleteModule(Rack->Slots[Slot]); /* no other routine knows of it */
        Status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Lock);
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PRACK Rack = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode, Slot;
    LARGE_INTEGER Due;
    NTSTATUS Status;

    Irp->IoStatus.Information = 0;
    if (!Rack->IsRack || (Code != IOCTL_RACK_PLUG && Code != IOCTL_RACK_DRAW))
        return Done(Irp, STATUS_INVALID_DEVICE_REQUEST);
    if (Stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG))
        return Done(Irp, STATUS_INVALID_PARAMETER);
    Slot = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (Slot >= SLOTS)
        return Done(Irp, STATUS_INVALID_PARAMETER);
    Status = IoAcquireRemoveLock(&Rack->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return Done(Irp, Status);
    if (!Rack->Running)
        Status = STATUS_DEVICE_NOT_READY;
    else
        Status = Code == IOCTL_RACK_PLUG ? Plug(Rack, Slot) : Draw(Rack, Slot);
    if (NT_SUCCESS(Status)) {
        Due.QuadPart = -500000;
        KeSetTimer(&Rack->Bounce, Due, &Rack->BounceDpc);
    }
    Done(Irp, Status);
    IoReleaseRemoveLock(&Rack->RemoveLock, Irp);
    return Status;
}

/* What the drivers above have reported, if they have, and what is in the slots. */
static NTSTATUS Relations(PRACK Rack, PIRP Irp)
{
    PDEVICE_RELATIONS Others = (PDEVICE_RELATIONS)Irp->IoStatus.Information, All;
    ULONG Count = Others == NULL ? 0 : Others->Count, Slot;

    All = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(DEVICE_RELATIONS, Objects) + (Count + SLOTS) * sizeof(PDEVICE_OBJECT), RACK_TAG);
    if (All == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Count != 0)
        RtlCopyMemory(All->Objects, Others->Objects, Count * sizeof(PDEVICE_OBJECT));
    ExAcquireFastMutex(&Lock);
    for (Slot = 0; Slot < SLOTS; Slot++) {
        PMODULE Module = Rack->Slots[Slot];

        if (Module == NULL)
            continue;
        if (Module->Present) {
            Module->Reported = TRUE;
            ObReferenceObject(Module->Self);
            All->Objects[Count++] = Module->Self;
        } else {
            Module->Missing = TRUE;
        }
    }
    ExReleaseFastMutex(&Lock);
    All->Count = Count;
    if (Others != NULL)
        ExFreePool(Others);
    Irp->IoStatus.Information = (ULONG_PTR)All;
    return STATUS_SUCCESS;
}

static NTSTATUS RemoveRack(PRACK Rack, PIRP Irp)
{
    NTSTATUS Status;
    ULONG Slot;

    Rack->Running = FALSE;
    IoReleaseRemoveLockAndWait(&Rack->RemoveLock, Irp);
    KeCancelTimer(&Rack->Bounce);
    KeFlushQueuedDpcs();
    ExAcquireFastMutex(&Lock);
    for (Slot = 0; Slot < SLOTS; Slot++) {
        if (Rack->Slots[Slot] != NULL && Rack->Slots[Slot]->Surprised)
            Rack->Slots[Slot]->Rack = NULL; /* it is removed later, when its handles are closed */
        else if (Rack->Slots[Slot] != NULL)
            DeleteModule(Rack->Slots[Slot]);
    }
    ExReleaseFastMutex(&Lock);
    IoDeleteSymbolicLink(&Link);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Rack->Lower, Irp);
    IoDetachDevice(Rack->Lower);
    IoDeleteDevice(Rack->Self);
    return Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PRACK Rack = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!Rack->IsRack)
        return ModulePnp(Device->DeviceExtension, Irp);
    Status = IoAcquireRemoveLock(&Rack->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return Done(Irp, Status);
    switch (Stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        if (!IoForwardIrpSynchronously(Rack->Lower, Irp))
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        Status = Irp->IoStatus.Status;
        Rack->Running = NT_SUCCESS(Status);
        Done(Irp, Status);
        IoReleaseRemoveLock(&Rack->RemoveLock, Irp);
        return Status;
    case IRP_MN_QUERY_DEVICE_RELATIONS:
        if (Stack->Parameters.QueryDeviceRelations.Type != BusRelations)
            break;
        Status = Relations(Rack, Irp);
        if (!NT_SUCCESS(Status)) {
            Done(Irp, Status);
            IoReleaseRemoveLock(&Rack->RemoveLock, Irp);
            return Status;
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        return RemoveRack(Rack, Irp);
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        Rack->Running = FALSE;
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Rack->Lower, Irp);
    IoReleaseRemoveLock(&Rack->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PRACK Rack = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!Rack->IsRack) {
        if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == DevicePowerState)
            PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        PoStartNextPowerIrp(Irp);
        if (Stack->MinorFunction == IRP_MN_SET_POWER || Stack->MinorFunction == IRP_MN_QUERY_POWER)
            return Done(Irp, STATUS_SUCCESS);
        return Untouched(Irp);
    }
    Status = IoAcquireRemoveLock(&Rack->RemoveLock, Irp);
    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return Done(Irp, Status);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Rack->Lower, Irp);
    IoReleaseRemoveLock(&Rack->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    PRACK Rack = Device->DeviceExtension;
    NTSTATUS Status;

    if (!Rack->IsRack)
        return Untouched(Irp);
    Status = IoAcquireRemoveLock(&Rack->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return Done(Irp, Status);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Rack->Lower, Irp);
    IoReleaseRemoveLock(&Rack->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Irp->IoStatus.Information = 0;
    return Done(Irp, STATUS_SUCCESS);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    PRACK Rack;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(RACK), &Name, FILE_DEVICE_BUS_EXTENDER, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status))
        return Status;
    Rack = Device->DeviceExtension;
    Rack->IsRack = TRUE;
    Rack->Self = Device;
    Rack->Pdo = Pdo;
    IoInitializeRemoveLock(&Rack->RemoveLock, RACK_TAG, 0, 0);
    KeInitializeTimer(&Rack->Bounce);
    KeInitializeDpc(&Rack->BounceDpc, BounceOver, Rack);
    Status = IoCreateSymbolicLink(&Link, &Name);
    if (NT_SUCCESS(Status)) {
        Rack->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
        if (Rack->Lower == NULL) {
            IoDeleteSymbolicLink(&Link);
            Status = STATUS_NO_SUCH_DEVICE;
        }
    }
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Device->Flags |= DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    ExInitializeFastMutex(&Lock);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = Driver->MajorFunction[IRP_MJ_CLEANUP] = Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchWmi;
    return STATUS_SUCCESS;
}
