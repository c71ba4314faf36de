/*
 * soft.sys: a function driver of a device without hardware: of a root-enumerated one (Root\DirqlSoft), or of a child of busdriver.sys. Its
 * device has an interface, {5A0F7B52-3C1E-4B6F-9E57-0D1B8A2C4E61}.
 *
 * IOCTL_SOFT_WHO answers who the device is to the system: the text of the property whose number is the input. IOCTL_SOFT_MANNERS has it refuse
 * what it may refuse, and make mistakes, until the next such request. IOCTL_SOFT_EJECT is the button on the device. IOCTL_SOFT_RELATE has the device
 * name another one of this driver's as its relation, IOCTL_SOFT_STATE has it say something about its state, IOCTL_SOFT_NEXT is about the
 * device that is added next, IOCTL_SOFT_SPECIAL answers which special files are on it, and IOCTL_SOFT_POWER sends it to a power state (soft/soft.h).
 *
 * It prints the resources that it is started with: raw and translated, type, share, flags and the four words of each. A list of requirements whose
 * slot is NO_INTERRUPTS asks for no interrupts any more when it has filtered it.
 *
 * Pages: Writing an AddDevice Routine, Registering a Device Interface Class, Handling PnP requests in function drivers, Using Remove Locks,
 * IoGetDeviceProperty function, IRP_MN_FILTER_RESOURCE_REQUIREMENTS; those that soft/power.h, soft/relate.h and soft/special.h
 * name.
 */
#include <ddk/wdm.h>

#include "soft/soft.h"

DRIVER_INITIALIZE DriverEntry;

/* mingw's wdm.h has it in ntddk.h only. */
NTKERNELAPI VOID NTAPI IoRequestDeviceEject(PDEVICE_OBJECT PhysicalDeviceObject);

static const GUID InterfaceClass = {0x5A0F7B52, 0x3C1E, 0x4B6F, {0x9E, 0x57, 0x0D, 0x1B, 0x8A, 0x2C, 0x4E, 0x61}};
static LONG Devices;
static ULONG Next;

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSOFT Soft = Device->DeviceExtension;
    BOOLEAN Refused = IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && Soft->Leaving;

    return Complete(Irp, Refused ? STATUS_NO_SUCH_DEVICE : STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSOFT Soft = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Length = 0, Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS Status = IoAcquireRemoveLock(&Soft->RemoveLock, Irp);

    if (NT_SUCCESS(Status) && Stack->Parameters.DeviceIoControl.InputBufferLength < InputOf(Code)) {
        IoReleaseRemoveLock(&Soft->RemoveLock, Irp);
        Status = STATUS_INVALID_PARAMETER;
    }
    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    switch (Code) {
    case IOCTL_SOFT_WHO:
        Status = IoGetDeviceProperty(Soft->Pdo, (DEVICE_REGISTRY_PROPERTY)*Buffer,
                                     Stack->Parameters.DeviceIoControl.OutputBufferLength, Buffer, &Length);
        break;
    case IOCTL_SOFT_MANNERS:
        Soft->Manners = *Buffer;
        break;
    case IOCTL_SOFT_RELATE:
        Relate(Soft, (const RELATE *)Buffer);
        break;
    case IOCTL_SOFT_STATE:
        Soft->State = *Buffer;
        IoInvalidateDeviceState(Soft->Pdo);
        break;
    case IOCTL_SOFT_NEXT:
        Next = *Buffer;
        break;
    case IOCTL_SOFT_SPECIAL:
        Status = TellSpecial(Soft, Buffer, Stack->Parameters.DeviceIoControl.OutputBufferLength, &Length);
        break;
    case IOCTL_SOFT_POWER:
        Status = AskForPower(Soft, *Buffer);
        break;
    case IOCTL_SOFT_EJECT:
        IoRequestDeviceEject(Soft->Pdo);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Complete(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
    IoReleaseRemoveLock(&Soft->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    return PassOn(Device->DeviceExtension, Irp);
}

static VOID DisableInterface(PSOFT Soft)
{
    IoSetDeviceInterfaceState(&Soft->Interface, FALSE);
}

static NTSTATUS Remove(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSOFT Soft = Device->DeviceExtension;
    NTSTATUS Status;

    IoReleaseRemoveLockAndWait(&Soft->RemoveLock, Irp);
    ForgetSoft(Soft);
    DisableInterface(Soft);
    RtlFreeUnicodeString(&Soft->Interface);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = PassOn(Soft, Irp);
    DbgPrint("soft %d is removed\n", Soft->Number);
    IoDetachDevice(Soft->Lower);
    IoDeleteDevice(Device);
    return Status;
}

/* The resources of a list. */
static VOID Tell(PSOFT Soft, const char *Form, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_LIST Partial;
    ULONG Index;

    if (List == NULL) {
        return;
    }
    DbgPrint("soft %d %s: bus %d of type %d\n", Soft->Number, Form, List->List[0].BusNumber, List->List[0].InterfaceType);
    Partial = &List->List[0].PartialResourceList;
    for (Index = 0; Index < Partial->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR One = &Partial->PartialDescriptors[Index];
        const ULONG *Words = (const ULONG *)&One->u;

        DbgPrint("soft %d %s: %x %x %x: %x %x %x %x\n", Soft->Number, Form, One->Type, One->ShareDisposition, One->Flags, Words[0],
                 Words[1], Words[2], Words[3]);
    }
}

/* Takes the interrupts out of requirements that are marked so. The list keeps its size: their descriptors ask for nothing. */
static NTSTATUS Filter(PSOFT Soft, PIRP Irp)
{
    PIO_RESOURCE_REQUIREMENTS_LIST List;
    NTSTATUS Status;

    if (!IoForwardIrpSynchronously(Soft->Lower, Irp)) {
        Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
    }
    List = (PIO_RESOURCE_REQUIREMENTS_LIST)Irp->IoStatus.Information;
    if (List != NULL && List->SlotNumber == NO_INTERRUPTS) {
        PIO_RESOURCE_LIST First = &List->List[0];
        ULONG Index;

        for (Index = 0; Index < First->Count; Index++) {
            if (First->Descriptors[Index].Type == CmResourceTypeInterrupt) {
                First->Descriptors[Index].Type = CmResourceTypeNull;
            }
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    Status = Irp->IoStatus.Status;
    Complete(Irp, Status, Irp->IoStatus.Information);
    return Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSOFT Soft = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    UCHAR Minor = Stack->MinorFunction;
    NTSTATUS Status = IoAcquireRemoveLock(&Soft->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    switch (Minor) {
    case IRP_MN_START_DEVICE:
        if (!IoForwardIrpSynchronously(Soft->Lower, Irp)) {
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        }
        Status = Irp->IoStatus.Status;
        if (NT_SUCCESS(Status) && (Soft->Next == NEXT_FAILS_START || (Soft->Manners & REFUSES_START))) {
            Status = STATUS_UNSUCCESSFUL;
        }
        if (NT_SUCCESS(Status)) {
            IoSetDeviceInterfaceState(&Soft->Interface, TRUE);
            DbgPrint("soft %d is started\n", Soft->Number);
            Tell(Soft, "raw", Stack->Parameters.StartDevice.AllocatedResources);
            Tell(Soft, "translated", Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        }
        Complete(Irp, Status, Irp->IoStatus.Information);
        break;
    case IRP_MN_FILTER_RESOURCE_REQUIREMENTS:
        Status = Filter(Soft, Irp);
        break;
    case IRP_MN_REMOVE_DEVICE:
        return Remove(Device, Irp);
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_QUERY_STOP_DEVICE:
        DbgPrint("soft %d is asked\n", Soft->Number);
        if ((Soft->Manners & (Minor == IRP_MN_QUERY_STOP_DEVICE ? REFUSES_STOP : REFUSES_REMOVE)) || HasSpecial(Soft)) {
            Status = Complete(Irp, STATUS_DEVICE_BUSY, 0);
            break;
        }
        Soft->Leaving = Minor == IRP_MN_QUERY_REMOVE_DEVICE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = PassOn(Soft, Irp);
        break;
    case IRP_MN_QUERY_DEVICE_RELATIONS:
        Status = Relations(Soft, Irp);
        break;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        Status = Usage(Soft, Irp);
        break;
    case IRP_MN_QUERY_PNP_DEVICE_STATE:
        Irp->IoStatus.Information |= StateOf(Soft);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = PassOn(Soft, Irp);
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        DbgPrint("soft %d is gone\n", Soft->Number);
        DisableInterface(Soft);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = PassOn(Soft, Irp);
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        DbgPrint("soft %d stays\n", Soft->Number);
        Soft->Leaving = FALSE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = PassOn(Soft, Irp);
        break;
    case IRP_MN_STOP_DEVICE:
        DbgPrint("soft %d is stopped\n", Soft->Number);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = PassOn(Soft, Irp);
        break;
    default:
        Status = PassOn(Soft, Irp);
        break;
    }
    IoReleaseRemoveLock(&Soft->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    PSOFT Soft;
    ULONG IsNext = Next;
    NTSTATUS Status;

    Next = 0;
    if (IsNext == NEXT_FAILS_ADD) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = IoCreateDevice(Driver, sizeof(SOFT), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Soft = Device->DeviceExtension;
    IoInitializeRemoveLock(&Soft->RemoveLock, SOFT_TAG, 0, 0);
    Soft->Number = InterlockedIncrement(&Devices);
    Soft->Pdo = Pdo;
    Soft->Self = Device;
    Soft->Next = IsNext;
    Status = IoRegisterDeviceInterface(Pdo, &InterfaceClass, NULL, &Soft->Interface);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Soft->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    if (Soft->Lower == NULL) {
        RtlFreeUnicodeString(&Soft->Interface);
        IoDeleteDevice(Device);
        return STATUS_NO_SUCH_DEVICE;
    }
    Device->Flags |= DO_BUFFERED_IO | (Soft->Lower->Flags & (DO_POWER_PAGABLE | DO_POWER_INRUSH));
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    KnowSoft(Soft);
    DbgPrint("soft %d is added\n", Soft->Number);
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    ExInitializeFastMutex(&KnownLock);
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
