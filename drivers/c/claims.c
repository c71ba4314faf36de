/*
 * claims.sys: a driver as of Windows NT 4 that finds a card (vendor ABCD) by itself and claims resources.
 * \\.\DirqlClaims tells each story of Stories below by its name (IOCTL_TELL_STORY of control.h).
 */
#include "seh/clang.h"

#define STORIES "claims"
#include "control.h"

#define TAG 0x6D696C43u /* "Clim" in pool listings */

DRIVER_INITIALIZE DriverEntry;

/* Obsolete, and not in these headers. */
NTHALAPI ULONG NTAPI HalGetBusData(BUS_DATA_TYPE Type, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Length);
NTHALAPI NTSTATUS NTAPI HalAssignSlotResources(PUNICODE_STRING RegistryPath, PUNICODE_STRING DriverClassName, PDRIVER_OBJECT Driver,
                                               PDEVICE_OBJECT Device, INTERFACE_TYPE BusType, ULONG Bus, ULONG Slot,
                                               PCM_RESOURCE_LIST *AllocatedResources);

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlClaims");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlClaims");
static UNICODE_STRING ClassName = RTL_CONSTANT_STRING(L"Other");
static UNICODE_STRING Path;
static PDRIVER_OBJECT TheDriver;
static PDEVICE_OBJECT TheDevice;

/* The slot of the card; -1 if it is not there. */
static ULONG FindCard(PPCI_COMMON_CONFIG Config)
{
    PCI_SLOT_NUMBER Slot;

    Slot.u.AsULONG = 0;
    for (Slot.u.bits.DeviceNumber = 0; Slot.u.bits.DeviceNumber < 31; Slot.u.bits.DeviceNumber++) {
        if (HalGetBusData(PCIConfiguration, 0, Slot.u.AsULONG, Config, sizeof(*Config)) > 2 && Config->VendorID == 0xABCD) {
            return Slot.u.AsULONG;
        }
    }
    return (ULONG)-1;
}

/* The card's own resources: its window answers, and the list is as its configuration space says. */
static ULONG OfTheCard(VOID)
{
    static PCI_COMMON_CONFIG Config;
    PCM_RESOURCE_LIST List = NULL;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Own;
    PHYSICAL_ADDRESS Address;
    ULONG Slot = FindCard(&Config), Space = 0;
    volatile ULONG *Registers;

    CHECK(Slot != (ULONG)-1);
    CHECK(HalAssignSlotResources(&Path, &ClassName, TheDriver, TheDevice, PCIBus, 0, Slot, &List) == STATUS_SUCCESS);
    CHECK(List != NULL && List->Count == 1 && List->List[0].InterfaceType == PCIBus);
    CHECK(List->List[0].PartialResourceList.Count == 2);
    Own = List->List[0].PartialResourceList.PartialDescriptors;
    CHECK(Own[0].Type == CmResourceTypeMemory && Own[0].u.Memory.Length == 0x80);
    CHECK(Own[0].u.Memory.Start.LowPart == (Config.u.type0.BaseAddresses[0] & ~0xFu));
    CHECK(Own[1].Type == CmResourceTypeInterrupt && Own[1].ShareDisposition == CmResourceShareShared);
    HalGetBusData(PCIConfiguration, 0, Slot, &Config, sizeof(Config));
    CHECK((Config.Command & PCI_ENABLE_MEMORY_SPACE) != 0);
    CHECK(HalTranslateBusAddress(PCIBus, 0, Own[0].u.Memory.Start, &Space, &Address) && Space == 0);
    Registers = MmMapIoSpace(Address, 0x80, MmNonCached);
    CHECK(Registers != NULL && READ_REGISTER_ULONG((PULONG)Registers) == 0x12345678);
    MmUnmapIoSpace((PVOID)Registers, 0x80);
    ExFreePool(List);
    /* There is no other bus, and nothing in a slot behind. */
    CHECK(HalAssignSlotResources(&Path, NULL, TheDriver, TheDevice, PCIBus, 0, 30, &List) == STATUS_NO_SUCH_DEVICE);
    CHECK(HalAssignSlotResources(&Path, NULL, TheDriver, TheDevice, Isa, 0, Slot, &List) == STATUS_NO_SUCH_DEVICE);
    CHECK(IoAssignResources(&Path, NULL, TheDriver, TheDevice, NULL, NULL) == STATUS_SUCCESS);
    return 0;
}

/* A list of eight ports. */
static VOID Ports(PCM_RESOURCE_LIST List, ULONG Start, UCHAR Share)
{
    RtlZeroMemory(List, sizeof(*List));
    List->Count = 1;
    List->List[0].InterfaceType = Isa;
    List->List[0].PartialResourceList.Count = 1;
    List->List[0].PartialResourceList.PartialDescriptors[0].Type = CmResourceTypePort;
    List->List[0].PartialResourceList.PartialDescriptors[0].ShareDisposition = Share;
    List->List[0].PartialResourceList.PartialDescriptors[0].u.Port.Start.LowPart = Start;
    List->List[0].PartialResourceList.PartialDescriptors[0].u.Port.Length = 8;
}

static NTSTATUS Report(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST List, BOOLEAN Override, PBOOLEAN Conflict)
{
    return IoReportResourceUsage(&ClassName, TheDriver, NULL, 0, Device, List, sizeof(*List), Override, Conflict);
}

static ULONG OfItsOwn(VOID)
{
    CM_RESOURCE_LIST List;
    PDEVICE_OBJECT Other;
    BOOLEAN Conflict = 9;

    CHECK(NT_SUCCESS(IoCreateDevice(TheDriver, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Other)));
    Ports(&List, 0x300, CmResourceShareDeviceExclusive);
    CHECK(Report(TheDevice, &List, FALSE, &Conflict) == STATUS_SUCCESS && !Conflict);
    CHECK(Report(TheDevice, &List, FALSE, &Conflict) == STATUS_SUCCESS && !Conflict); /* in the place of its last */
    Ports(&List, 0x304, CmResourceShareDeviceExclusive);
    CHECK(Report(Other, &List, FALSE, &Conflict) == STATUS_CONFLICTING_ADDRESSES && Conflict == TRUE);
    CHECK(Report(Other, &List, TRUE, &Conflict) == STATUS_SUCCESS && Conflict == TRUE);
    Ports(&List, 0x308, CmResourceShareDeviceExclusive);
    CHECK(Report(Other, &List, FALSE, &Conflict) == STATUS_SUCCESS && !Conflict);
    Ports(&List, 0x300, CmResourceShareShared);
    CHECK(Report(TheDevice, &List, FALSE, &Conflict) == STATUS_SUCCESS && !Conflict);
    CHECK(Report(Other, &List, FALSE, &Conflict) == STATUS_SUCCESS && !Conflict); /* both share */
    List.Count = 0;
    CHECK(Report(TheDevice, &List, FALSE, &Conflict) == STATUS_SUCCESS);
    CHECK(Report(Other, &List, FALSE, &Conflict) == STATUS_SUCCESS);
    List.Count = 2;
    CHECK(Report(Other, &List, FALSE, &Conflict) == STATUS_UNSUCCESSFUL);
    IoDeleteDevice(Other);
    return 0;
}

/* Before a device is looked for: what a card on the bus has is not to be touched. */
static ULONG Detection(VOID)
{
    static PCI_COMMON_CONFIG Config;
    CM_RESOURCE_LIST List;
    BOOLEAN Conflict = 9;

    CHECK(FindCard(&Config) != (ULONG)-1);
    Ports(&List, 0x330, CmResourceShareDeviceExclusive);
    CHECK(IoReportResourceForDetection(TheDriver, &List, sizeof(List), NULL, NULL, 0, &Conflict) == STATUS_SUCCESS && !Conflict);
    List.List[0].PartialResourceList.PartialDescriptors[0].Type = CmResourceTypeMemory;
    List.List[0].PartialResourceList.PartialDescriptors[0].u.Memory.Start.LowPart = (Config.u.type0.BaseAddresses[0] & ~0xFu) + 0x40;
    CHECK(IoReportResourceForDetection(TheDriver, &List, sizeof(List), NULL, NULL, 0, &Conflict) == STATUS_CONFLICTING_ADDRESSES);
    CHECK(Conflict == TRUE);
    CHECK(IoReportResourceForDetection(TheDriver, NULL, 0, NULL, NULL, 0, &Conflict) == STATUS_UNSUCCESSFUL);
    List.Count = 0;
    CHECK(IoReportResourceForDetection(TheDriver, &List, sizeof(List), NULL, NULL, 0, &Conflict) == STATUS_SUCCESS);
    return 0;
}

typedef struct _WISHES {
    IO_RESOURCE_REQUIREMENTS_LIST Head; /* with the first descriptor */
    IO_RESOURCE_DESCRIPTOR Second;
} WISHES;

static ULONG OfItsChoice(VOID)
{
    static WISHES Wishes;
    PIO_RESOURCE_DESCRIPTOR Own = Wishes.Head.List[0].Descriptors;
    PCM_RESOURCE_LIST List = NULL;
    CM_RESOURCE_LIST Taken;
    PDEVICE_OBJECT Other;
    BOOLEAN Conflict;

    CHECK(NT_SUCCESS(IoCreateDevice(TheDriver, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Other)));
    Ports(&Taken, 0x300, CmResourceShareDeviceExclusive);
    CHECK(Report(Other, &Taken, FALSE, &Conflict) == STATUS_SUCCESS);
    Wishes.Head.ListSize = sizeof(Wishes);
    Wishes.Head.InterfaceType = Isa;
    Wishes.Head.AlternativeLists = 1;
    Wishes.Head.List[0].Version = 1;
    Wishes.Head.List[0].Revision = 1;
    Wishes.Head.List[0].Count = 2;
    Own[0].Type = CmResourceTypePort;
    Own[0].ShareDisposition = CmResourceShareDeviceExclusive;
    Own[0].u.Port.Length = 8;
    Own[0].u.Port.Alignment = 8;
    Own[0].u.Port.MinimumAddress.LowPart = 0x300;
    Own[0].u.Port.MaximumAddress.LowPart = 0x31F;
    Own[1].Type = CmResourceTypeInterrupt;
    Own[1].ShareDisposition = CmResourceShareShared;
    Own[1].u.Interrupt.MinimumVector = 5;
    Own[1].u.Interrupt.MaximumVector = 7;
    CHECK(IoAssignResources(&Path, NULL, TheDriver, TheDevice, &Wishes.Head, &List) == STATUS_SUCCESS && List->Count == 1);
    CHECK(List->List[0].PartialResourceList.Count == 2);
    CHECK(List->List[0].PartialResourceList.PartialDescriptors[0].u.Port.Start.LowPart == 0x308);
    CHECK(List->List[0].PartialResourceList.PartialDescriptors[0].u.Port.Length == 8);
    CHECK(List->List[0].PartialResourceList.PartialDescriptors[1].u.Interrupt.Level == 5);
    ExFreePool(List);
    CHECK(IoAssignResources(&Path, NULL, TheDriver, TheDevice, NULL, NULL) == STATUS_SUCCESS);
    Own[0].u.Port.MaximumAddress.LowPart = 0x307;
    CHECK(IoAssignResources(&Path, NULL, TheDriver, TheDevice, &Wishes.Head, &List) == STATUS_CONFLICTING_ADDRESSES);
    Taken.Count = 0;
    CHECK(Report(Other, &Taken, FALSE, &Conflict) == STATUS_SUCCESS);
    IoDeleteDevice(Other);
    return 0;
}

static NTSTATUS NTAPI NeverCalled(PVOID Context, PUNICODE_STRING PathName, INTERFACE_TYPE BusType, ULONG BusNumber,
                                  PKEY_VALUE_FULL_INFORMATION *BusInformation, CONFIGURATION_TYPE ControllerType, ULONG ControllerNumber,
                                  PKEY_VALUE_FULL_INFORMATION *ControllerInformation, CONFIGURATION_TYPE PeripheralType,
                                  ULONG PeripheralNumber, PKEY_VALUE_FULL_INFORMATION *PeripheralInformation)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(PathName);
    UNREFERENCED_PARAMETER(BusType);
    UNREFERENCED_PARAMETER(BusNumber);
    UNREFERENCED_PARAMETER(BusInformation);
    UNREFERENCED_PARAMETER(ControllerType);
    UNREFERENCED_PARAMETER(ControllerNumber);
    UNREFERENCED_PARAMETER(ControllerInformation);
    UNREFERENCED_PARAMETER(PeripheralType);
    UNREFERENCED_PARAMETER(PeripheralNumber);
    UNREFERENCED_PARAMETER(PeripheralInformation);
    DbgPrint("claims: there is a controller\n");
    return STATUS_SUCCESS;
}

static ULONG Described(VOID)
{
    INTERFACE_TYPE Bus = Isa;
    CONFIGURATION_TYPE Controller = ParallelController;

    CHECK(IoQueryDeviceDescription(&Bus, NULL, &Controller, NULL, NULL, NULL, NeverCalled, NULL) == STATUS_OBJECT_NAME_NOT_FOUND);
    return 0;
}

static const STORY Stories[] = {
    STORY(OfTheCard), STORY(OfItsOwn), STORY(Detection), STORY(OfItsChoice), STORY(Described),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static WCHAR Buffer[128];
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    Path.Buffer = Buffer;
    Path.MaximumLength = sizeof(Buffer);
    RtlCopyUnicodeString(&Path, RegistryPath);
    TheDriver = Driver;
    TheDevice = Driver->DeviceObject;
    return Status;
}
