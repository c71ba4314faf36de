/*
 * layer.sys: one layer of a device's stack, whichever the INF makes of it: the function driver if the service's Parameters key has
 * Function (REG_DWORD, not 0), else a filter. Copies of the file under other names are other drivers.
 *
 * It says what it is asked in which order (DbgPrint), by the last letter of its service's name. IOCTL_LAYER_WAY shows the way of a
 * request: each layer appends its letter to the text in the buffer, as a capital on the way down, and small on the way up.
 * IOCTL_LAYER_CHILDREN has the function driver tell that its children changed; IOCTL_LAYER_WRITE succeeds for a handle with write access.
 *
 * With Refuse in the Parameters key its AddDevice routine fails; with Stay it leaves its device where it is when that is removed, which
 * is wrong. With OWNS_POWER_POLICY it is the owner of its device's power policy.
 *
 * Pages: Creating a Filter Device Object, Writing an AddDevice Routine, Passing IRPs Down the Driver Stack, IoForwardIrpSynchronously
 * function, Removing a Device in a Filter Driver, Rules for Handling Power IRPs.
 */
#include <ddk/wdm.h>

#define LAYER_TAG 'rayL'

/* Input and output: text that ends with a zero, in zeroes. */
#define IOCTL_LAYER_WAY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define IOCTL_LAYER_CHILDREN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LAYER_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _LAYER {
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    BOOLEAN Leaving; /* it has agreed to be removed: opens fail */
    LONG Special; /* paging, hibernation and dump files on the device */
} LAYER, *PLAYER;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlLayer");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlLayer");
static CHAR Letter;
static ULONG IsFunction;
static ULONG Refuses;
static ULONG Stays;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Appends a letter to the text in the request's buffer, if there is room. */
static VOID Append(PIRP Irp, ULONG Length, CHAR Written)
{
    PCHAR Text = Irp->AssociatedIrp.SystemBuffer;
    ULONG Index;

    for (Index = 0; Index + 1 < Length; Index++) {
        if (Text[Index] == 0) {
            Text[Index] = Written;
            return;
        }
    }
}

/* The bytes of the buffer that both sides of the request have. */
static ULONG Room(PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Input = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;

    return Input < Output ? Input : Output;
}

static NTSTATUS PassOn(PLAYER Layer, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Layer->Lower, Irp);
}

static NTSTATUS NTAPI OnWayUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PLAYER Layer = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    Append(Irp, Room(Irp), Letter + ('a' - 'A'));
    IoReleaseRemoveLock(&Layer->RemoveLock, Irp);
    return STATUS_SUCCESS; /* go on completing */
}

/* What only the function driver answers. */
static NTSTATUS Answer(PLAYER Layer, PIRP Irp, ULONG Code)
{
    switch (Code) {
    case IOCTL_LAYER_CHILDREN:
        IoInvalidateDeviceRelations(Layer->Pdo, BusRelations);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_LAYER_WRITE:
        return Complete(Irp, IoValidateDeviceIoControlAccess(Irp, FILE_WRITE_ACCESS), 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = Room(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Layer->RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Complete(Irp, Status, 0);
    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_LAYER_WAY) {
        Status = IsFunction ? Answer(Layer, Irp, Stack->Parameters.DeviceIoControl.IoControlCode) : PassOn(Layer, Irp);
        IoReleaseRemoveLock(&Layer->RemoveLock, Irp);
        return Status;
    }
    Append(Irp, Length, Letter);
    if (!IsFunction) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, OnWayUp, Layer, TRUE, TRUE, TRUE);
        return IoCallDriver(Layer->Lower, Irp);
    }
    /* Whatever is below: the bus driver knows no such code. */
    if (IoForwardIrpSynchronously(Layer->Lower, Irp) && Irp->IoStatus.Status == STATUS_INVALID_DEVICE_REQUEST)
        Append(Irp, Length, Letter + ('a' - 'A'));
    Status = Complete(Irp, STATUS_SUCCESS, Length);
    IoReleaseRemoveLock(&Layer->RemoveLock, Irp);
    return Status;
}

/* Create, cleanup and close. */
static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;

    if (!IsFunction)
        return PassOn(Layer, Irp);
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && Layer->Leaving)
        return Complete(Irp, STATUS_NO_SUCH_DEVICE, 0);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

#ifdef OWNS_POWER_POLICY

static VOID PowerDone(PIRP Irp)
{
    PLAYER Layer = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    IoReleaseRemoveLock(&Layer->RemoveLock, Irp);
}

#define POWER_DONE(Irp) PowerDone(Irp)
#include "power_policy.h"

#endif

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Layer->RemoveLock, Irp);

#ifdef OWNS_POWER_POLICY
    if (NT_SUCCESS(Status) && PowerAsked(Irp) == SystemPower)
        return PowerBelow(Layer->Lower, Irp, SystemBelowDone, Layer->Pdo);
#endif
    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(Status))
        return Complete(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Layer->Lower, Irp);
    IoReleaseRemoveLock(&Layer->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    return PassOn(Device->DeviceExtension, Irp);
}

static NTSTATUS Remove(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    NTSTATUS Status;

    IoReleaseRemoveLockAndWait(&Layer->RemoveLock, Irp);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = PassOn(Layer, Irp);
    if (IsFunction)
        IoDeleteSymbolicLink(&LinkName);
    if (!Stays) {
        IoDetachDevice(Layer->Lower);
        IoDeleteDevice(Device);
    }
    DbgPrint("%c is removed\n", Letter);
    return Status;
}

/* The device's power requests come at any level while there is a special file on it. */
static NTSTATUS Usage(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    BOOLEAN There = IoGetCurrentIrpStackLocation(Irp)->Parameters.UsageNotification.InPath;

    if (!IoForwardIrpSynchronously(Layer->Lower, Irp))
        Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        IoAdjustPagingPathCount(&Layer->Special, There);
        if (There)
            Device->Flags &= ~DO_POWER_PAGABLE;
        else if (Layer->Special == 0)
            Device->Flags |= DO_POWER_PAGABLE;
    }
    return Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    UCHAR Minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS Status = IoAcquireRemoveLock(&Layer->RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Complete(Irp, Status, 0);
    switch (Minor) {
    case IRP_MN_START_DEVICE:
        if (!IoForwardIrpSynchronously(Layer->Lower, Irp))
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        Status = Irp->IoStatus.Status;
        if (NT_SUCCESS(Status))
            DbgPrint("%c is started\n", Letter);
        Complete(Irp, Status, Irp->IoStatus.Information);
        break;
    case IRP_MN_QUERY_DEVICE_RELATIONS:
        if (IoGetCurrentIrpStackLocation(Irp)->Parameters.QueryDeviceRelations.Type == BusRelations)
            DbgPrint("%c is asked for its children\n", Letter);
        Status = PassOn(Layer, Irp);
        break;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        Status = Usage(Device, Irp);
        break;
    case IRP_MN_REMOVE_DEVICE:
        return Remove(Device, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        Layer->Leaving = Minor == IRP_MN_QUERY_REMOVE_DEVICE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = PassOn(Layer, Irp);
        break;
    default:
        Status = PassOn(Layer, Irp);
        break;
    }
    IoReleaseRemoveLock(&Layer->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    PLAYER Layer;
    NTSTATUS Status;

    if (Refuses)
        return STATUS_INSUFFICIENT_RESOURCES;
    Status = IoCreateDevice(Driver, sizeof(LAYER), IsFunction ? &DeviceName : NULL, FILE_DEVICE_UNKNOWN,
                            IsFunction ? FILE_DEVICE_SECURE_OPEN : 0, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Layer = Device->DeviceExtension;
    IoInitializeRemoveLock(&Layer->RemoveLock, LAYER_TAG, 0, 0);
    if (IsFunction) {
        Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
        if (!NT_SUCCESS(Status)) {
            IoDeleteDevice(Device);
            return Status;
        }
    }
    Layer->Pdo = Pdo;
    Layer->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    if (Layer->Lower == NULL) {
        if (IsFunction)
            IoDeleteSymbolicLink(&LinkName);
        IoDeleteDevice(Device);
        return STATUS_NO_SUCH_DEVICE;
    }
    Device->DeviceType = Layer->Lower->DeviceType;
    Device->Characteristics = Layer->Lower->Characteristics;
    Device->Flags |= Layer->Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE | DO_POWER_INRUSH);
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    DbgPrint("%c is added\n", Letter);
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DbgPrint("%c is unloaded\n", Letter);
}

/* A number of the Parameters key; 0 if it is not there. */
static ULONG Parameter(PUNICODE_STRING RegistryPath, PWSTR Name)
{
    RTL_QUERY_REGISTRY_TABLE Table[3];
    ULONG Value = 0;

    RtlZeroMemory(Table, sizeof(Table));
    Table[0].Flags = RTL_QUERY_REGISTRY_SUBKEY;
    Table[0].Name = L"Parameters";
    Table[1].Flags = RTL_QUERY_REGISTRY_DIRECT;
    Table[1].Name = Name;
    Table[1].EntryContext = &Value;
    Table[1].DefaultType = REG_DWORD;
    Table[1].DefaultData = &Value;
    Table[1].DefaultLength = sizeof(Value);
    RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, RegistryPath->Buffer, Table, NULL, NULL);
    return Value;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    Letter = (CHAR)RegistryPath->Buffer[RegistryPath->Length / sizeof(WCHAR) - 1];
    IsFunction = Parameter(RegistryPath, L"Function");
    Refuses = Parameter(RegistryPath, L"Refuse");
    Stays = Parameter(RegistryPath, L"Stay");
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    DbgPrint("%c is loaded\n", Letter);
    return STATUS_SUCCESS;
}
