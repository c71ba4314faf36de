/*
 * A virtual power strip of four outlets, which are shown and set by WMI: a block of data with an instance for each of them. The driver says by itself what it registers: the instances of the
 * block are named after the physical device object of its device. The WMI library does all else.
 *
 * The bug: the physical device object in the registration is not referenced, though the system gives a reference back. It shows when the system asks for the registration.
 *
 * Device: Root\VirtualPowerStrip
 * Rule: wmi-pdo-not-referenced
 * Needs: nothing
 */
#include "../include/function.h"
#include <wmistr.h>
#include <ddk/wmilib.h>

#define STRIP_TAG 'prtS'
#define OUTLETS 4

typedef struct _DEVICE {
    FDO Fdo;
    FAST_MUTEX Mutex; /* of On */
    ULONG On[OUTLETS];
    BOOLEAN IsProvider;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3e010);
static const GUID BlockGuid = {0x10c3e011, 0x6a1d, 0x4c0e, {0x9b, 0x53, 0x20, 0x7d, 0xe1, 0x88, 0x4f, 0x36}};
static WMIGUIDREGINFO Blocks[] = {{&BlockGuid, OUTLETS, 0}};
static UNICODE_STRING RegistryKey; /* of the service, in pool from DriverEntry to Unload */

static NTSTATUS Ended(PDEVICE_OBJECT Device, PIRP Irp, NTSTATUS Status, ULONG Used)
{
    return WmiCompleteRequest(Device, Irp, Status, Used, IO_NO_INCREMENT);
}

/* The library asks for it where the system does not take IRP_MN_REGINFO_EX. */
static NTSTATUS NTAPI QueryRegInfo(PDEVICE_OBJECT Device, PULONG Flags, PUNICODE_STRING Name, PUNICODE_STRING *Path, PUNICODE_STRING Resource, PDEVICE_OBJECT *Pdo)
{
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Resource);
    *Flags = WMIREG_FLAG_INSTANCE_PDO;
    *Path = &RegistryKey;
    *Pdo = ((PDEVICE)Device->DeviceExtension)->Fdo.Pdo;
    return STATUS_SUCCESS;
}

/* Each instance begins at a multiple of 8, as the library wants it. */
static NTSTATUS NTAPI QueryDataBlock(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Count, PULONG Lengths, ULONG Available, PUCHAR Buffer)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Needed = (Count - 1) * 8 + sizeof(ULONG);
    ULONG Index;

    UNREFERENCED_PARAMETER(Block);
    if (Lengths == NULL || Available < Needed) {
        return Ended(Device, Irp, STATUS_BUFFER_TOO_SMALL, Needed);
    }
    ExAcquireFastMutex(&Own->Mutex);
    for (Index = 0; Index < Count; Index++) {
        RtlCopyMemory(Buffer + Index * 8, &Own->On[Instance + Index], sizeof(ULONG));
        Lengths[Index] = sizeof(ULONG);
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Ended(Device, Irp, STATUS_SUCCESS, Needed);
}

static NTSTATUS NTAPI SetDataBlock(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Size, PUCHAR Buffer)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG On;

    UNREFERENCED_PARAMETER(Block);
    if (Size != sizeof(ULONG)) {
        return Ended(Device, Irp, STATUS_WMI_SET_FAILURE, 0);
    }
    RtlCopyMemory(&On, Buffer, sizeof(ULONG));
    ExAcquireFastMutex(&Own->Mutex);
    Own->On[Instance] = On != 0;
    ExReleaseFastMutex(&Own->Mutex);
    return Ended(Device, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SetDataItem(PDEVICE_OBJECT Device, PIRP Irp, ULONG Block, ULONG Instance, ULONG Item, ULONG Size, PUCHAR Buffer)
{
    if (Item != 1) {
        return Ended(Device, Irp, STATUS_WMI_ITEMID_NOT_FOUND, 0);
    }
    return SetDataBlock(Device, Irp, Block, Instance, Size, Buffer);
}

static WMILIB_CONTEXT Library = {
    .GuidCount = RTL_NUMBER_OF(Blocks),
    .GuidList = Blocks,
    .QueryWmiRegInfo = QueryRegInfo,
    .QueryWmiDataBlock = QueryDataBlock,
    .SetWmiDataBlock = SetDataBlock,
    .SetWmiDataItem = SetDataItem,
};

/* The answer: the block, and the path of the service's key as a counted string behind it. */
static NTSTATUS Register(PDEVICE Own, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG PathAt = sizeof(WMIREGINFOW) + sizeof(WMIREGGUIDW);
    ULONG Needed = PathAt + sizeof(USHORT) + RegistryKey.Length;
    PWMIREGINFOW Info = Stack->Parameters.WMI.Buffer;
    PWMIREGGUIDW Block;

    if (Stack->Parameters.WMI.BufferSize < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    if (Stack->Parameters.WMI.BufferSize < Needed) {
        *(PULONG)Stack->Parameters.WMI.Buffer = Needed;
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, sizeof(ULONG));
    }
    RtlZeroMemory(Info, PathAt);
    Info->BufferSize = Needed;
    Info->RegistryPath = PathAt;
    Info->GuidCount = 1;
    Block = Info->WmiRegGuid;
    Block->Guid = BlockGuid;
    Block->Flags = WMIREG_FLAG_INSTANCE_PDO;
    Block->InstanceCount = OUTLETS;
    Block->Pdo = (ULONG_PTR)Own->Fdo.Pdo;
#ifdef FIXED
    ObReferenceObject(Own->Fdo.Pdo);
#endif
    *(PUSHORT)((PUCHAR)Info + PathAt) = RegistryKey.Length;
    RtlCopyMemory((PUCHAR)Info + PathAt + sizeof(USHORT), RegistryKey.Buffer, RegistryKey.Length);
    return Complete(Irp, STATUS_SUCCESS, Needed);
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;
    SYSCTL_IRP_DISPOSITION Disposition;
    NTSTATUS Status = IoAcquireRemoveLock(&Own->Fdo.RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    if (Stack->MinorFunction == IRP_MN_REGINFO_EX && (PDEVICE_OBJECT)Stack->Parameters.WMI.ProviderId == Device) {
        Status = Register(Own, Irp);
    } else {
        Status = WmiSystemControl(&Library, Device, Irp, &Disposition);
        if (Disposition == IrpNotCompleted) {
            IoCompleteRequest(Irp, IO_NO_INCREMENT);
        } else if (Disposition != IrpProcessed) {
            Status = FdoPassOn(&Own->Fdo, Irp);
        }
    }
    IoReleaseRemoveLock(&Own->Fdo.RemoveLock, Irp);
    return Status;
}

static NTSTATUS Add(PFDO Fdo)
{
    ExInitializeFastMutex(&((PDEVICE)Fdo)->Mutex);
    return STATUS_SUCCESS;
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

static const HOOKS Hooks = {.Add = Add, .Start = Start, .Stop = Stop};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    ExFreePoolWithTag(RegistryKey.Buffer, STRIP_TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    RegistryKey.MaximumLength = RegistryPath->Length + sizeof(WCHAR);
    RegistryKey.Buffer = ExAllocatePoolWithTag(PagedPool, RegistryKey.MaximumLength, STRIP_TAG);
    if (RegistryKey.Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyUnicodeString(&RegistryKey, RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
