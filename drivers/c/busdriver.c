/*
 * busdriver.sys: a bus without hardware, with SLOTS slots. What is in them is plugged in and out by control codes (busdriver/bus.h), which are
 * those of \\.\DirqlBusN: 0 for the first bus. A child may be a hub, which is a bus like this one.
 *
 * Its mistakes are chosen by a control code, too: what a bus driver must not report, and must not do with the device objects of its
 * children.
 *
 * Pages: Bus Drivers, IRP_MN_QUERY_DEVICE_RELATIONS ("BusRelations Request"), Removing a Device in a Bus Driver, IoInvalidateDeviceRelations
 * function.
 */
#include <ddk/wdm.h>

#include "busdriver/bus.h"

#include "busdriver/power.h"

#include "busdriver/children.h"

DRIVER_INITIALIZE DriverEntry;

static LONG Buses = -1;

static NTSTATUS PassOn(PBUS Bus, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Bus->Lower, Irp);
}

/* Names of a bus by its number. */
static VOID Names(PBUS Bus, PUNICODE_STRING Device, PUNICODE_STRING Link, PWSTR DeviceBuffer, PWSTR LinkBuffer)
{
    RtlInitUnicodeString(Device, DeviceBuffer);
    RtlInitUnicodeString(Link, LinkBuffer);
    DeviceBuffer[Device->Length / sizeof(WCHAR) - 1] = (WCHAR)(L'0' + Bus->Number % 10);
    LinkBuffer[Link->Length / sizeof(WCHAR) - 1] = (WCHAR)(L'0' + Bus->Number % 10);
}

/* One more entry of a list; referenced, unless that is the mistake. */
static VOID Report(PBUS Bus, PDEVICE_RELATIONS Relations, PDEVICE_OBJECT Device)
{
    if (Bus->Mistake != MISTAKE_NO_REFERENCE) {
        ObReferenceObject(Device);
    }
    Relations->Objects[Relations->Count++] = Device;
}

/* What is wrong in the list. */
static VOID ReportWrong(PBUS Bus, PDEVICE_RELATIONS Relations)
{
    switch (Bus->Mistake) {
    case MISTAKE_NULL:
        Relations->Objects[Relations->Count++] = NULL;
        break;
    case MISTAKE_FUNCTION:
        Report(Bus, Relations, Bus->Self);
        break;
    case MISTAKE_MEMORY:
        Relations->Objects[Relations->Count++] = (PDEVICE_OBJECT)Relations;
        break;
    default:
        break;
    }
}

/* The children that are plugged in, behind what drivers above have reported. */
static NTSTATUS BusRelationsOf(PBUS Bus, PIRP Irp)
{
    PDEVICE_RELATIONS Others = (PDEVICE_RELATIONS)Irp->IoStatus.Information;
    ULONG Index, More = Others == NULL ? 0 : Others->Count;
    PDEVICE_RELATIONS Relations = NewRelations(More + 2 * SLOTS + 1);

    if (Relations == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    for (Index = 0; Index < More; Index++) {
        Relations->Objects[Relations->Count++] = Others->Objects[Index];
    }
    if (Others != NULL) {
        ExFreePoolWithTag(Others, 0);
    }
    ExAcquireFastMutex(&Bus->Lock);
    for (Index = 0; Index < SLOTS; Index++) {
        PDEVICE_OBJECT Device = Bus->Slots[Index];
        PCHILD Child;

        if (Device == NULL) {
            continue;
        }
        Child = Device->DeviceExtension;
        Child->Reported = Child->Present;
        if (Child->Present) {
            Child->Known = TRUE;
            Report(Bus, Relations, Device);
            if (Bus->Mistake == MISTAKE_TWICE) {
                Report(Bus, Relations, Device);
            }
        } else if (!Child->Known) {
            DeleteChild(Child); /* it was never reported, so the PnP manager does not remove it */
        }
    }
    ReportWrong(Bus, Relations);
    ExReleaseFastMutex(&Bus->Lock);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = (ULONG_PTR)Relations;
    return PassOn(Bus, Irp);
}

/* The bus has no relations but its children, and names one of them only if that is the mistake. */
static NTSTATUS OtherRelationsOf(PBUS Bus, PIRP Irp)
{
    PDEVICE_RELATIONS Relations;

    if (Bus->Mistake != MISTAKE_NAMES_CHILD || Bus->Slots[0] == NULL ||
        IoGetCurrentIrpStackLocation(Irp)->Parameters.QueryDeviceRelations.Type != RemovalRelations) {
        return PassOn(Bus, Irp);
    }
    Relations = NewRelations(1);
    if (Relations == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Report(Bus, Relations, Bus->Slots[0]);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = (ULONG_PTR)Relations;
    return PassOn(Bus, Irp);
}

/* The bus is gone: so are its children, which have been removed before. */
static NTSTATUS RemoveBus(PBUS Bus, PIRP Irp)
{
    WCHAR DeviceBuffer[] = L"\\Device\\DirqlBus0", LinkBuffer[] = L"\\DosDevices\\DirqlBus0";
    UNICODE_STRING Name, Link;
    NTSTATUS Status;
    ULONG Index;

    IoReleaseRemoveLockAndWait(&Bus->RemoveLock, Irp);
    DbgPrint("bus %d is removed\n", Bus->Number);
    Names(Bus, &Name, &Link, DeviceBuffer, LinkBuffer);
    IoDeleteSymbolicLink(&Link);
    ExAcquireFastMutex(&Bus->Lock);
    for (Index = 0; Index < SLOTS; Index++) {
        if (Bus->Slots[Index] != NULL) {
            DeleteChild(Bus->Slots[Index]->DeviceExtension);
        }
    }
    FreeList(&Bus->Requirements);
    FreeList(&Bus->Boot);
    ExReleaseFastMutex(&Bus->Lock);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = PassOn(Bus, Irp);
    IoDetachDevice(Bus->Lower);
    IoDeleteDevice(Bus->Self);
    return Status;
}

/* A special file on what hangs on the bus, which cannot do without it then. */
static NTSTATUS BusUsage(PBUS Bus, PIRP Irp)
{
    BOOLEAN There = IoGetCurrentIrpStackLocation(Irp)->Parameters.UsageNotification.InPath;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (!IoForwardIrpSynchronously(Bus->Lower, Irp)) {
        Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
    }
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        IoAdjustPagingPathCount(&Bus->Special, There);
        if (There) {
            Bus->Self->Flags &= ~DO_POWER_PAGABLE;
        } else if (Bus->Special == 0) {
            Bus->Self->Flags |= DO_POWER_PAGABLE;
        }
    }
    return Complete(Irp, Irp->IoStatus.Status, 0);
}

static NTSTATUS BusPnp(PBUS Bus, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Bus->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    switch (Stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        if (!IoForwardIrpSynchronously(Bus->Lower, Irp)) {
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        }
        Status = Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
        break;
    case IRP_MN_QUERY_DEVICE_RELATIONS:
        Status = Stack->Parameters.QueryDeviceRelations.Type == BusRelations ? BusRelationsOf(Bus, Irp) : OtherRelationsOf(Bus, Irp);
        break;
    case IRP_MN_REMOVE_DEVICE:
        return RemoveBus(Bus, Irp);
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        Status = BusUsage(Bus, Irp);
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (Bus->Special != 0) {
            Status = Complete(Irp, STATUS_DEVICE_BUSY, 0);
            break;
        }
        /* falls through */
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        if (Stack->MinorFunction == IRP_MN_QUERY_REMOVE_DEVICE || Stack->MinorFunction == IRP_MN_CANCEL_REMOVE_DEVICE) {
            Bus->Leaving = Stack->MinorFunction == IRP_MN_QUERY_REMOVE_DEVICE;
        }
        DbgPrint("bus %d hears %u\n", Bus->Number, Stack->MinorFunction);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = PassOn(Bus, Irp);
        break;
    default:
        Status = PassOn(Bus, Irp);
        break;
    }
    IoReleaseRemoveLock(&Bus->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCOMMON Common = Device->DeviceExtension;

    return Common->IsBus ? BusPnp((PBUS)Common, Irp) : ChildPnp((PCHILD)Common, Irp);
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PCOMMON Common = Device->DeviceExtension;

    if (!Common->IsBus) {
        return ChildPower((PCHILD)Common, Irp);
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == SystemPowerState) {
        DbgPrint("bus %d goes to S%d\n", ((PBUS)Common)->Number, Stack->Parameters.Power.State.SystemState - PowerSystemWorking);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    return PoCallDriver(((PBUS)Common)->Lower, Irp);
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCOMMON Common = Device->DeviceExtension;

    return Common->IsBus ? PassOn((PBUS)Common, Irp) : CompleteUnchanged(Irp);
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCOMMON Common = Device->DeviceExtension;
    BOOLEAN Refused = IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && Common->IsBus && ((PBUS)Common)->Leaving;

    return Complete(Irp, Refused ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS, 0);
}

/* Takes a child out of its slot. */
static NTSTATUS Unplug(PBUS Bus, ULONG Slot)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = STATUS_NO_SUCH_DEVICE;

    ExAcquireFastMutex(&Bus->Lock);
    Device = Bus->Slots[Slot];
    if (Device != NULL && ((PCHILD)Device->DeviceExtension)->Present) {
        ((PCHILD)Device->DeviceExtension)->Present = FALSE;
        Status = STATUS_SUCCESS;
        if (Bus->Mistake == MISTAKE_TOO_EARLY) {
            Bus->Slots[Slot] = NULL;
            IoDeleteDevice(Device);
        }
        if (Bus->Mistake == MISTAKE_BORROWS) {
            ObDereferenceObject(Device);
            ObDereferenceObject(Device);
        }
    }
    ExReleaseFastMutex(&Bus->Lock);
    return Status;
}

/* A child names another one from now on. */
static NTSTATUS RelateChildren(PBUS Bus, ULONG Input)
{
    ULONG Slot = Input & 0xFF, Other = Input >> 8 & 0xFF, Type = Input >> 16 & 0xFF;
    PDEVICE_OBJECT Device;

    if (Slot >= SLOTS || Other >= SLOTS || (Type != EjectionRelations && Type != RemovalRelations)) {
        return STATUS_INVALID_PARAMETER;
    }
    ExAcquireFastMutex(&Bus->Lock);
    Device = Bus->Slots[Slot];
    if (Device != NULL) {
        PCHILD Child = Device->DeviceExtension;

        Child->Related[Type].Slot = Other;
        Child->Related[Type].How = Input >> 24;
    }
    ExReleaseFastMutex(&Bus->Lock);
    return Device == NULL ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS;
}

/* Input is a number for all codes that have one. */
static NTSTATUS Control(PBUS Bus, ULONG Code, ULONG Input, PULONG Output)
{
    ULONG Slot = Input & 0xFF, Kind = Input >> 8, Index;
    NTSTATUS Status;

    switch (Code) {
    case IOCTL_BUS_PLUG:
    case IOCTL_BUS_PLUG_NOW:
        if (Slot >= SLOTS || Kind > KIND_INRUSH_HUB) {
            return STATUS_INVALID_PARAMETER;
        }
        ExAcquireFastMutex(&Bus->Lock);
        Status = NewChild(Bus, Slot, Kind);
        ExReleaseFastMutex(&Bus->Lock);
        if (Code == IOCTL_BUS_PLUG_NOW && NT_SUCCESS(Status)) {
            return IoSynchronousInvalidateDeviceRelations(Bus->Pdo, BusRelations);
        }
        break;
    case IOCTL_BUS_UNPLUG:
        Status = Slot < SLOTS ? Unplug(Bus, Slot) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_BUS_MISTAKE:
        Bus->Mistake = Input;
        return STATUS_SUCCESS;
    case IOCTL_BUS_COUNT:
        ExAcquireFastMutex(&Bus->Lock);
        for (*Output = Index = 0; Index < SLOTS; Index++) {
            *Output += Bus->Slots[Index] != NULL;
        }
        ExReleaseFastMutex(&Bus->Lock);
        return STATUS_SUCCESS;
    case IOCTL_BUS_RELATE:
        return RelateChildren(Bus, Input);
    case IOCTL_BUS_AGAIN:
        Status = STATUS_SUCCESS;
        break;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (NT_SUCCESS(Status)) {
        IoInvalidateDeviceRelations(Bus->Pdo, BusRelations);
    }
    return Status;
}

/* What the next child needs, or has had at boot. */
static NTSTATUS SetList(PBUS Bus, ULONG Code, const VOID *Bytes, ULONG Length)
{
    PLIST List = Code == IOCTL_BUS_BOOT ? &Bus->Boot : &Bus->Requirements;

    ExAcquireFastMutex(&Bus->Lock);
    FreeList(List);
    *List = CopyList(Bytes, Length);
    ExReleaseFastMutex(&Bus->Lock);
    return List->Bytes == NULL && Length != 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBUS Bus = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode, Output = 0, Input = 0;
    BOOLEAN Answers = Code == IOCTL_BUS_COUNT && Stack->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(ULONG);
    NTSTATUS Status;

    if (!Bus->Common.IsBus) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Status = IoAcquireRemoveLock(&Bus->RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    if (Stack->Parameters.DeviceIoControl.InputBufferLength >= sizeof(ULONG)) {
        Input = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    }
    if (Code == IOCTL_BUS_REQUIREMENTS || Code == IOCTL_BUS_BOOT) {
        Status = SetList(Bus, Code, Irp->AssociatedIrp.SystemBuffer, Stack->Parameters.DeviceIoControl.InputBufferLength);
    } else {
        Status = Control(Bus, Code, Input, &Output);
    }
    if (NT_SUCCESS(Status) && Answers) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Output;
    }
    Complete(Irp, Status, NT_SUCCESS(Status) && Answers ? sizeof(ULONG) : 0);
    IoReleaseRemoveLock(&Bus->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    WCHAR DeviceBuffer[] = L"\\Device\\DirqlBus0", LinkBuffer[] = L"\\DosDevices\\DirqlBus0";
    UNICODE_STRING Name, Link;
    PDEVICE_OBJECT Device;
    NTSTATUS Status;
    BUS New;
    PBUS Bus;

    RtlZeroMemory(&New, sizeof(New));
    New.Number = InterlockedIncrement(&Buses);
    Names(&New, &Name, &Link, DeviceBuffer, LinkBuffer);
    Status = IoCreateDevice(Driver, sizeof(BUS), &Name, FILE_DEVICE_BUS_EXTENDER, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Bus = Device->DeviceExtension;
    Bus->Common.IsBus = TRUE;
    Bus->Number = New.Number;
    Bus->Self = Device;
    Bus->Pdo = Pdo;
    IoInitializeRemoveLock(&Bus->RemoveLock, BUS_TAG, 0, 0);
    ExInitializeFastMutex(&Bus->Lock);
    Bus->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    Status = Bus->Lower == NULL ? STATUS_NO_SUCH_DEVICE : IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status)) {
        if (Bus->Lower != NULL) {
            IoDetachDevice(Bus->Lower);
        }
        IoDeleteDevice(Device);
        return Status;
    }
    Device->Flags |= DO_BUFFERED_IO | (Bus->Lower->Flags & (DO_POWER_PAGABLE | DO_POWER_INRUSH));
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
