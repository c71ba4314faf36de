/*
 * A virtual thermostat, whose four values (the temperature wanted by day, by night, in the holidays, and the hysteresis) are shown and set by WMI: all of them at once,
 * or one as an item of the block.
 *
 * The bug: the number of an item that is set is not compared with the number of values, though WMI passes on any number. It shows with an item that the block does not
 * have.
 *
 * Device: Root\VirtualThermostat
 * Rule: pool-overrun, wild-write
 * Needs: nothing
 */
#include "../include/function.h"
#include <wmistr.h>
#include <ddk/wmilib.h>

#define THERMOSTAT_TAG 'mrhT'
#define VALUES 4

typedef struct _DEVICE {
    FDO Fdo;
    FAST_MUTEX Mutex; /* of Values */
    PULONG Values;    /* as the block has them */
    BOOLEAN IsProvider;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a030);
static const GUID BlockGuid = {0x10c3a031, 0x6a1d, 0x4c0e, {0x9b, 0x53, 0x20, 0x7d, 0xe1, 0x88, 0x4f, 0x36}};
static WMIGUIDREGINFO Blocks[] = {{&BlockGuid, 1, 0}};
static UNICODE_STRING RegistryKey; /* of the service, in pool from DriverEntry to Unload */

static NTSTATUS Ended(PDEVICE_OBJECT Device, PIRP Irp, NTSTATUS Status, ULONG Used)
{
    return WmiCompleteRequest(Device, Irp, Status, Used, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI QueryRegInfo(PDEVICE_OBJECT Device, PULONG Flags, PUNICODE_STRING Name, PUNICODE_STRING *Path, PUNICODE_STRING Resource, PDEVICE_OBJECT *Pdo)
{
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Resource);
    *Flags = WMIREG_FLAG_INSTANCE_PDO;
    *Path = &RegistryKey;
    *Pdo = ((PDEVICE)Device->DeviceExtension)->Fdo.Pdo;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI QueryDataBlock(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Count, PULONG Lengths, ULONG Available, PUCHAR Buffer)
{
    PDEVICE Own = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Block); /* there is one block, and one instance of it */
    UNREFERENCED_PARAMETER(Instance);
    UNREFERENCED_PARAMETER(Count);
    if (Lengths == NULL || Available < VALUES * sizeof(ULONG)) {
        return Ended(Device, Irp, STATUS_BUFFER_TOO_SMALL, VALUES * sizeof(ULONG));
    }
    ExAcquireFastMutex(&Own->Mutex);
    RtlCopyMemory(Buffer, Own->Values, VALUES * sizeof(ULONG));
    ExReleaseFastMutex(&Own->Mutex);
    *Lengths = VALUES * sizeof(ULONG);
    return Ended(Device, Irp, STATUS_SUCCESS, VALUES * sizeof(ULONG));
}

static NTSTATUS NTAPI SetDataBlock(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Size, PUCHAR Buffer)
{
    PDEVICE Own = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Block);
    UNREFERENCED_PARAMETER(Instance);
    if (Size != VALUES * sizeof(ULONG)) {
        return Ended(Device, Irp, STATUS_WMI_SET_FAILURE, 0);
    }
    ExAcquireFastMutex(&Own->Mutex);
    RtlCopyMemory(Own->Values, Buffer, VALUES * sizeof(ULONG));
    ExReleaseFastMutex(&Own->Mutex);
    return Ended(Device, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SetDataItem(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Item, ULONG Size, PUCHAR Buffer)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Value;

    UNREFERENCED_PARAMETER(Block);
    UNREFERENCED_PARAMETER(Instance);
#ifdef FIXED
    if (Item > VALUES) {
        return Ended(Device, Irp, STATUS_WMI_ITEMID_NOT_FOUND, 0);
    }
#endif
    if (Item == 0) { /* numbers begin at 1 */
        return Ended(Device, Irp, STATUS_WMI_ITEMID_NOT_FOUND, 0);
    }
    if (Size != sizeof(ULONG)) {
        return Ended(Device, Irp, STATUS_WMI_SET_FAILURE, 0);
    }
    RtlCopyMemory(&Value, Buffer, sizeof(ULONG));
    ExAcquireFastMutex(&Own->Mutex);
    Own->Values[Item - 1] = Value;
    ExReleaseFastMutex(&Own->Mutex);
    return Ended(Device, Irp, STATUS_SUCCESS, 0);
}

static WMILIB_CONTEXT Library = {
    .GuidCount = RTL_NUMBER_OF(Blocks),
    .GuidList = Blocks,
    .QueryWmiRegInfo = QueryRegInfo,
    .QueryWmiDataBlock = QueryDataBlock,
    .SetWmiDataBlock = SetDataBlock,
    .SetWmiDataItem = SetDataItem,
};

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFDO Fdo = Device->DeviceExtension;
    SYSCTL_IRP_DISPOSITION Disposition;
    NTSTATUS Status = IoAcquireRemoveLock(&Fdo->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    Status = WmiSystemControl(&Library, Device, Irp, &Disposition);
    if (Disposition == IrpNotCompleted) {
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    } else if (Disposition != IrpProcessed) {
        Status = FdoPassOn(Fdo, Irp);
    }
    IoReleaseRemoveLock(&Fdo->RemoveLock, Irp);
    return Status;
}

static NTSTATUS Add(PFDO Fdo)
{
    static const ULONG AtFirst[VALUES] = {210, 170, 120, 5}; /* tenths of a degree */
    PDEVICE Own = (PDEVICE)Fdo;

    ExInitializeFastMutex(&Own->Mutex);
    Own->Values = ExAllocatePoolWithTag(NonPagedPool, sizeof(AtFirst), THERMOSTAT_TAG);
    if (Own->Values == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(Own->Values, AtFirst, sizeof(AtFirst));
    return STATUS_SUCCESS;
}

static VOID Removed(PFDO Fdo)
{
    ExFreePoolWithTag(((PDEVICE)Fdo)->Values, THERMOSTAT_TAG);
}

/* Where it fails the device works all the same, and offers nothing. */
static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    UNREFERENCED_PARAMETER(Resources);
    ((PDEVICE)Fdo)->IsProvider = NT_SUCCESS(IoWMIRegistrationControl(Fdo->Self, WMIREG_ACTION_REGISTER));
    return STATUS_SUCCESS;
}

/* Deregistering waits for the requests that are under way. */
static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    PDEVICE Own = (PDEVICE)Fdo;

    UNREFERENCED_PARAMETER(Present);
    if (Own->IsProvider) {
        Own->IsProvider = FALSE;
        IoWMIRegistrationControl(Fdo->Self, WMIREG_ACTION_DEREGISTER);
    }
}

static const HOOKS Hooks = {.Add = Add, .Removed = Removed, .Start = Start, .Stop = Stop};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    ExFreePoolWithTag(RegistryKey.Buffer, THERMOSTAT_TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    RegistryKey.MaximumLength = RegistryPath->Length + sizeof(WCHAR);
    RegistryKey.Buffer = ExAllocatePoolWithTag(PagedPool, RegistryKey.MaximumLength, THERMOSTAT_TAG);
    if (RegistryKey.Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyUnicodeString(&RegistryKey, RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
