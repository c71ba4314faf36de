/*
 * detect.sys: a driver that finds devices by itself. As it is loaded it reports a legacy device at ports 330h-337h (IoReportDetectedDevice),
 * whose function driver it is from then on, and a device on no bus (IoReportRootDevice), to which it is added like any driver.
 *
 * \\.\DirqlDetect tells each story of Stories below by its name (IOCTL_TELL_STORY of control.h).
 *
 * Pages: IoReportDetectedDevice function, IoReportRootDevice function, IoReportResourceUsage (Windows 2000 DDK).
 */
#include <ddk/wdm.h>

#define STORIES "detect"
#include "control.h"

typedef struct _FOUND {
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    PCSTR Name;
} FOUND, *PFOUND;

DRIVER_INITIALIZE DriverEntry;

/* Not in these headers, or in ntddk.h only. */
NTKERNELAPI NTSTATUS NTAPI IoReportDetectedDevice(PDRIVER_OBJECT DriverObject, INTERFACE_TYPE LegacyBusType, ULONG BusNumber, ULONG SlotNumber,
                                                  PCM_RESOURCE_LIST ResourceList, PIO_RESOURCE_REQUIREMENTS_LIST ResourceRequirements,
                                                  BOOLEAN ResourceAssigned, PDEVICE_OBJECT *DeviceObject);
NTKERNELAPI NTSTATUS NTAPI IoReportRootDevice(PDRIVER_OBJECT DriverObject);
NTKERNELAPI NTSTATUS NTAPI IoReportResourceUsage(PUNICODE_STRING DriverClassName, PDRIVER_OBJECT DriverObject, PCM_RESOURCE_LIST DriverList,
                                                 ULONG DriverListSize, PDEVICE_OBJECT DeviceObject, PCM_RESOURCE_LIST DeviceList,
                                                 ULONG DeviceListSize, BOOLEAN OverrideConflict, PBOOLEAN ConflictDetected);

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlDetect");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlDetect");
static PDRIVER_OBJECT TheDriver;
static PDEVICE_OBJECT TheDevice;

/* What came of reporting. */
static NTSTATUS First, Second, Assigned, Empty;
static PDEVICE_OBJECT FirstPdo, SecondPdo, AssignedPdo, EmptyPdo;
static NTSTATUS Root, RootAgain;
static ULONG Added;
static PDEVICE_OBJECT RootPdo;

/* A list of eight ports. */
static VOID Ports(PCM_RESOURCE_LIST List, ULONG Start)
{
    RtlZeroMemory(List, sizeof(*List));
    List->Count = 1;
    List->List[0].InterfaceType = Isa;
    List->List[0].PartialResourceList.Count = 1;
    List->List[0].PartialResourceList.PartialDescriptors[0].Type = CmResourceTypePort;
    List->List[0].PartialResourceList.PartialDescriptors[0].ShareDisposition = CmResourceShareDeviceExclusive;
    List->List[0].PartialResourceList.PartialDescriptors[0].u.Port.Start.LowPart = Start;
    List->List[0].PartialResourceList.PartialDescriptors[0].u.Port.Length = 8;
}

/* Makes the function device of a device. */
static NTSTATUS Attach(PDEVICE_OBJECT Pdo, PCSTR Name)
{
    PDEVICE_OBJECT Device;
    PFOUND Found;
    NTSTATUS Status = IoCreateDevice(TheDriver, sizeof(FOUND), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Found = Device->DeviceExtension;
    Found->Pdo = Pdo;
    Found->Name = Name;
    Found->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    if (Found->Lower == NULL) {
        IoDeleteDevice(Device);
        return STATUS_NO_SUCH_DEVICE;
    }
    Device->Flags |= DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* Whether a property of a device is so many bytes, these. */
static BOOLEAN Is(PDEVICE_OBJECT Pdo, DEVICE_REGISTRY_PROPERTY Property, const VOID *Bytes, ULONG Length)
{
    static UCHAR Buffer[256];
    ULONG Needed = 0;

    return IoGetDeviceProperty(Pdo, Property, sizeof(Buffer), Buffer, &Needed) == STATUS_SUCCESS && Needed == Length
        && RtlCompareMemory(Buffer, Bytes, Length) == Length;
}

/* What is reported is a device of its own, started, with ids, keys and resources. */
static ULONG Reported(VOID)
{
    static const WCHAR Ids[] = L"DETECTEDIsa\\detect\0DETECTED\\detect\0";
    static const WCHAR Internal[] = L"DETECTEDInternal\\detect\0DETECTED\\detect\0";
    CM_RESOURCE_LIST List;
    HANDLE Key;

    CHECK(First == STATUS_SUCCESS && FirstPdo != NULL && FirstPdo->DriverObject != TheDriver);
    CHECK(Is(FirstPdo, DevicePropertyCompatibleIDs, Ids, sizeof(Ids)));
    CHECK(Is(FirstPdo, DevicePropertyEnumeratorName, L"ROOT", sizeof(L"ROOT")));
    Ports(&List, 0x330);
    CHECK(Is(FirstPdo, DevicePropertyBootConfiguration, &List, sizeof(List)));
    CHECK(NT_SUCCESS(IoOpenDeviceRegistryKey(FirstPdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key)));
    CHECK(NT_SUCCESS(ZwClose(Key)));
    CHECK(Empty == STATUS_SUCCESS && EmptyPdo != FirstPdo);
    CHECK(Is(EmptyPdo, DevicePropertyCompatibleIDs, Internal, sizeof(Internal)));
    return 0;
}

/* Its resources are its own. */
static ULONG Claimed(VOID)
{
    static UNICODE_STRING ClassName = RTL_CONSTANT_STRING(L"Other");
    CM_RESOURCE_LIST List;
    BOOLEAN Conflict = 9;

    CHECK(Second == STATUS_CONFLICTING_ADDRESSES && SecondPdo == NULL);
    CHECK(Assigned == STATUS_SUCCESS && AssignedPdo != NULL);
    Ports(&List, 0x334);
    CHECK(IoReportResourceUsage(&ClassName, TheDriver, NULL, 0, TheDevice, &List, sizeof(List), FALSE, &Conflict)
          == STATUS_CONFLICTING_ADDRESSES);
    CHECK(Conflict == TRUE);
    Ports(&List, 0x338);
    CHECK(IoReportResourceUsage(&ClassName, TheDriver, NULL, 0, TheDevice, &List, sizeof(List), FALSE, &Conflict) == STATUS_SUCCESS);
    List.Count = 0;
    CHECK(IoReportResourceUsage(&ClassName, TheDriver, NULL, 0, TheDevice, &List, sizeof(List), FALSE, &Conflict) == STATUS_SUCCESS);
    return 0;
}

/* The device on no bus is one, however often it is reported, and its driver was added to it. */
static ULONG AddedOnce(VOID)
{
    static const WCHAR Ids[] = L"ROOT\\detect\0";

    CHECK(Root == STATUS_SUCCESS && RootAgain == STATUS_SUCCESS);
    CHECK(Added == 1 && RootPdo != NULL && RootPdo != FirstPdo);
    CHECK(Is(RootPdo, DevicePropertyHardwareID, Ids, sizeof(Ids)));
    return 0;
}

static const STORY Stories[] = {
    STORY(Reported), STORY(Claimed), STORY(AddedOnce),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFOUND Found = Device->DeviceExtension;
    NTSTATUS Status;

    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        DbgPrint("%s is started\n", Found->Name);
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(Found->Lower, Irp);
    case IRP_MN_REMOVE_DEVICE:
        DbgPrint("%s is removed\n", Found->Name);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Found->Lower, Irp);
        IoDetachDevice(Found->Lower);
        IoDeleteDevice(Device);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        /* fall through */
    default:
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(Found->Lower, Irp);
    }
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFOUND Found = Device->DeviceExtension;

    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    return PoCallDriver(Found->Lower, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    UNREFERENCED_PARAMETER(Driver);
    Added++;
    RootPdo = Pdo;
    return Attach(Pdo, "the device on no bus");
}

/* Has the legacy devices reported. */
static VOID Detect(VOID)
{
    CM_RESOURCE_LIST List;

    Ports(&List, 0x330);
    First = IoReportDetectedDevice(TheDriver, Isa, 0, (ULONG)-1, &List, NULL, FALSE, &FirstPdo);
    if (NT_SUCCESS(First)) {
        First = Attach(FirstPdo, "the detected device");
    }
    /* Another one cannot be there, unless its driver says that it has the ports already. */
    Second = IoReportDetectedDevice(TheDriver, Isa, 0, (ULONG)-1, &List, NULL, FALSE, &SecondPdo);
    Assigned = IoReportDetectedDevice(TheDriver, Isa, 0, (ULONG)-1, &List, NULL, TRUE, &AssignedPdo);
    if (NT_SUCCESS(Assigned)) {
        Assigned = Attach(AssignedPdo, "the device at the same ports");
    }
    Empty = IoReportDetectedDevice(TheDriver, InterfaceTypeUndefined, (ULONG)-1, (ULONG)-1, NULL, NULL, FALSE, &EmptyPdo);
    if (NT_SUCCESS(Empty)) {
        Empty = Attach(EmptyPdo, "the device without resources");
    }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    TheDriver = Driver;
    TheDevice = Driver->DeviceObject;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->DriverExtension->AddDevice = AddDevice;
    Detect();
    Root = IoReportRootDevice(Driver);
    RootAgain = IoReportRootDevice(Driver);
    return STATUS_SUCCESS;
}
