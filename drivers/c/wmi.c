/*
 * wmi.sys: a function driver for any card with memory in BAR0 that offers three blocks through the WMI library, with names made from its
 * physical device object. Its device is \\.\DirqlWmi.
 *   01 counters  two instances, of 4 and of 10 bytes, expensive to collect; an instance, or its item 1 (its first 4 bytes), can be set
 *   02 methods   one instance: how many methods were run, answered later by a work item. Method 1 adds two ULONGs; 2 yields as many bytes
 *                as its ULONG says; 3 fires the event 03 with its input
 *   03 events    of one instance, nothing but events
 * Requests that make it do something are printed.
 *
 * Built with -DOVERRUNS (wmi_overruns.sys) it says of counters that it has written more than there was room for; with -DSTAYS
 * (wmi_stays.sys) it forgets to deregister; with -DBY_HAND (wmi_by_hand.sys) it says by itself what it registers, and forgets to reference the
 * physical device object in it.
 */
#include <ddk/wdm.h>
#include <wmistr.h>
#include <ddk/wmilib.h>
#include "control.h"
#include "function.h"
#include "wmi/blocks.h"

enum { COUNTERS, METHODS, EVENTS, BLOCKS };

#define INSTANCES 2
#define LARGEST 16

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    ULONG Identification;
    BOOLEAN Registered;
    FAST_MUTEX Mutex; /* of the counters: requests come at any time */
    ULONG Lengths[INSTANCES];
    UCHAR Counters[INSTANCES][LARGEST];
    ULONG Runs; /* of methods */
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

typedef struct _LATER {
    PIO_WORKITEM Item;
    PIRP Irp;
    ULONG Available;
    PUCHAR Buffer;
    PULONG Length;
} LATER;

DRIVER_INITIALIZE DriverEntry;

static const GUID Guids[BLOCKS] = {WMI_BLOCK(1), WMI_BLOCK(2), WMI_BLOCK(3)};
static WMIGUIDREGINFO List[BLOCKS] = {
    {&Guids[COUNTERS], INSTANCES, WMIREG_FLAG_EXPENSIVE},
    {&Guids[METHODS], 1, 0},
    {&Guids[EVENTS], 1, WMIREG_FLAG_EVENT_ONLY_GUID},
};
static UNICODE_STRING Registry; /* as DriverEntry was given it */
static WCHAR RegistryBuffer[128];

static NTSTATUS NTAPI QueryRegInfo(PDEVICE_OBJECT Device, PULONG Flags, PUNICODE_STRING Name, PUNICODE_STRING *Path,
                                   PUNICODE_STRING Resource, PDEVICE_OBJECT *Pdo)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Name);
    *Flags = WMIREG_FLAG_INSTANCE_PDO;
    *Path = &Registry;
    RtlInitUnicodeString(Resource, L"MofResource");
    *Pdo = Extension->Function.Pdo;
    return STATUS_SUCCESS;
}

static VOID NTAPI Answer(PDEVICE_OBJECT Device, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    LATER *Later = Context;

    if (Later->Available < sizeof(ULONG)) {
        WmiCompleteRequest(Device, Later->Irp, STATUS_BUFFER_TOO_SMALL, sizeof(ULONG), IO_NO_INCREMENT);
    } else {
        *(PULONG)Later->Buffer = Extension->Runs;
        *Later->Length = sizeof(ULONG);
        WmiCompleteRequest(Device, Later->Irp, STATUS_SUCCESS, sizeof(ULONG), IO_NO_INCREMENT);
    }
    IoFreeWorkItem(Later->Item);
    ExFreePoolWithTag(Later, TAG);
}

static NTSTATUS AnswerLater(PDEVICE_OBJECT Device, PIRP Irp, PULONG Length, ULONG Available, PUCHAR Buffer)
{
    LATER *Later = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Later), TAG);

    if (Later == NULL) {
        return WmiCompleteRequest(Device, Irp, STATUS_INSUFFICIENT_RESOURCES, 0, IO_NO_INCREMENT);
    }
    Later->Item = IoAllocateWorkItem(Device);
    if (Later->Item == NULL) {
        ExFreePoolWithTag(Later, TAG);
        return WmiCompleteRequest(Device, Irp, STATUS_INSUFFICIENT_RESOURCES, 0, IO_NO_INCREMENT);
    }
    Later->Irp = Irp;
    Later->Available = Available;
    Later->Buffer = Buffer;
    Later->Length = Length;
    IoMarkIrpPending(Irp);
    IoQueueWorkItem(Later->Item, Answer, DelayedWorkQueue, Later);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI QueryDataBlock(PDEVICE_OBJECT Device, PIRP Irp, ULONG GuidIndex, ULONG InstanceIndex,
                                     ULONG InstanceCount, PULONG Lengths, ULONG Available, PUCHAR Buffer)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Needed = 0, Index;

    if (GuidIndex == METHODS) {
        return AnswerLater(Device, Irp, Lengths, Available, Buffer);
    }
    if (GuidIndex != COUNTERS) {
        return WmiCompleteRequest(Device, Irp, STATUS_WMI_GUID_NOT_FOUND, 0, IO_NO_INCREMENT);
    }
    ExAcquireFastMutex(&Extension->Mutex);
    for (Index = 0; Index < InstanceCount; Index++) {
        Needed = (Needed + 7) & ~7u;
        Needed += Extension->Lengths[InstanceIndex + Index];
    }
#ifdef OVERRUNS
    if (Available != 0) {
        ExReleaseFastMutex(&Extension->Mutex);
        return WmiCompleteRequest(Device, Irp, STATUS_SUCCESS, Available + 8, IO_NO_INCREMENT); /* a mistake */
    }
#endif
    /* A block that was set to nothing needs no room, and yet there may be none for its length. */
    if (Available < Needed || Lengths == NULL) {
        ExReleaseFastMutex(&Extension->Mutex);
        DbgPrint("wmi: %u bytes are too few\n", Available);
        return WmiCompleteRequest(Device, Irp, STATUS_BUFFER_TOO_SMALL, Needed, IO_NO_INCREMENT);
    }
    Needed = 0;
    for (Index = 0; Index < InstanceCount; Index++) {
        ULONG Length = Extension->Lengths[InstanceIndex + Index];

        Needed = (Needed + 7) & ~7u;
        RtlCopyMemory(Buffer + Needed, Extension->Counters[InstanceIndex + Index], Length);
        Lengths[Index] = Length;
        Needed += Length;
    }
    ExReleaseFastMutex(&Extension->Mutex);
    return WmiCompleteRequest(Device, Irp, STATUS_SUCCESS, Needed, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI SetDataBlock(PDEVICE_OBJECT Device, PIRP Irp, ULONG GuidIndex, ULONG InstanceIndex, ULONG Size,
                                   PUCHAR Buffer)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = STATUS_SUCCESS;

    if (GuidIndex != COUNTERS) {
        Status = STATUS_WMI_READ_ONLY;
    } else if (Size > LARGEST) {
        Status = STATUS_WMI_SET_FAILURE;
    } else {
        ExAcquireFastMutex(&Extension->Mutex);
        RtlCopyMemory(Extension->Counters[InstanceIndex], Buffer, Size);
        Extension->Lengths[InstanceIndex] = Size;
        ExReleaseFastMutex(&Extension->Mutex);
    }
    return WmiCompleteRequest(Device, Irp, Status, 0, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI SetDataItem(PDEVICE_OBJECT Device, PIRP Irp, ULONG GuidIndex, ULONG InstanceIndex, ULONG Item, ULONG Size,
                                  PUCHAR Buffer)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = STATUS_SUCCESS;

    if (GuidIndex != COUNTERS || Item != 1) {
        Status = STATUS_WMI_ITEMID_NOT_FOUND;
    } else if (Size != sizeof(ULONG)) {
        Status = STATUS_WMI_SET_FAILURE;
    } else {
        ExAcquireFastMutex(&Extension->Mutex);
        RtlCopyMemory(Extension->Counters[InstanceIndex], Buffer, Size);
        ExReleaseFastMutex(&Extension->Mutex);
    }
    return WmiCompleteRequest(Device, Irp, Status, 0, IO_NO_INCREMENT);
}

static NTSTATUS Fire(PDEVICE_OBJECT Device, PUCHAR Data, ULONG Size)
{
    PVOID Copy = Size == 0 ? NULL : ExAllocatePoolWithTag(NonPagedPool, Size, TAG);

    if (Copy != NULL) {
        RtlCopyMemory(Copy, Data, Size);
    }
    return WmiFireEvent(Device, (LPGUID)&Guids[EVENTS], 0, Copy == NULL ? 0 : Size, Copy);
}

static NTSTATUS NTAPI ExecuteMethod(PDEVICE_OBJECT Device, PIRP Irp, ULONG GuidIndex, ULONG InstanceIndex, ULONG MethodId,
                                    ULONG InSize, ULONG OutSize, PUCHAR Buffer)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG First = InSize >= sizeof(ULONG) ? *(PULONG)Buffer : 0;
    ULONG Needed = MethodId == 1 ? sizeof(ULONG) : MethodId == 2 ? First : 0;
    NTSTATUS Status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(InstanceIndex);
    if (GuidIndex != METHODS || MethodId == 0 || MethodId > 3) {
        return WmiCompleteRequest(Device, Irp, STATUS_WMI_ITEMID_NOT_FOUND, 0, IO_NO_INCREMENT);
    }
    if (OutSize < Needed) {
        DbgPrint("wmi: method %u needs %u bytes and has %u\n", MethodId, Needed, OutSize);
        return WmiCompleteRequest(Device, Irp, STATUS_BUFFER_TOO_SMALL, Needed, IO_NO_INCREMENT);
    }
    InterlockedIncrement((PLONG)&Extension->Runs);
    switch (MethodId) {
    case 1:
        *(PULONG)Buffer = First + (InSize >= 2 * sizeof(ULONG) ? ((PULONG)Buffer)[1] : 0);
        break;
    case 2:
        RtlFillMemory(Buffer, Needed, 0x5A);
        break;
    default:
        Status = Fire(Device, Buffer, InSize);
        break;
    }
    return WmiCompleteRequest(Device, Irp, Status, Needed, IO_NO_INCREMENT);
}

static NTSTATUS NTAPI FunctionControl(PDEVICE_OBJECT Device, PIRP Irp, ULONG GuidIndex, WMIENABLEDISABLECONTROL Control,
                                      BOOLEAN Enable)
{
    DbgPrint("wmi: %s of block %u %s\n", Control == WmiEventControl ? "events" : "data", GuidIndex + 1, Enable ? "on" : "off");
    return WmiCompleteRequest(Device, Irp, STATUS_SUCCESS, 0, IO_NO_INCREMENT);
}

static WMILIB_CONTEXT Library = {
    BLOCKS, List, QueryRegInfo, QueryDataBlock, SetDataBlock, SetDataItem, ExecuteMethod, FunctionControl,
};

#ifdef BY_HAND
static BOOLEAN IsRegInfo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    return (PDEVICE_OBJECT)Stack->Parameters.WMI.ProviderId == Device && Stack->MinorFunction == IRP_MN_REGINFO_EX;
}

static NTSTATUS RegInfo(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PWMIREGINFOW Info = IoGetCurrentIrpStackLocation(Irp)->Parameters.WMI.Buffer;

    RtlZeroMemory(Info, sizeof(*Info) + sizeof(WMIREGGUIDW));
    Info->BufferSize = sizeof(*Info) + sizeof(WMIREGGUIDW);
    Info->GuidCount = 1;
    Info->WmiRegGuid[0].Guid = Guids[COUNTERS];
    Info->WmiRegGuid[0].Flags = WMIREG_FLAG_INSTANCE_PDO;
    Info->WmiRegGuid[0].InstanceCount = INSTANCES;
    Info->WmiRegGuid[0].Pdo = (ULONG_PTR)Extension->Function.Pdo; /* a mistake: it is not referenced */
    return Complete(Irp, STATUS_SUCCESS, Info->BufferSize);
}
#endif

static NTSTATUS NTAPI DispatchWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    SYSCTL_IRP_DISPOSITION Disposition;
    NTSTATUS Status;

#ifdef BY_HAND
    if (IsRegInfo(Device, Irp)) {
        return RegInfo(Extension, Irp);
    }
#endif
    Status = WmiSystemControl(&Library, Device, Irp, &Disposition);
    switch (Disposition) {
    case IrpProcessed:
        break;
    case IrpNotCompleted:
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        break;
    default:
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Extension->Function.Lower, Irp);
        break;
    }
    return Status;
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Index;

    ExInitializeFastMutex(&Extension->Mutex);
    Extension->Lengths[0] = 4;
    Extension->Lengths[1] = 10;
    for (Index = 0; Index < LARGEST; Index++) {
        Extension->Counters[0][Index] = (UCHAR)(0x10 + Index);
        Extension->Counters[1][Index] = (UCHAR)(0x20 + Index);
    }
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = Connect(&Extension->Function);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Extension->Identification = Read(&Extension->Function, 0);
    Extension->Registered = NT_SUCCESS(IoWMIRegistrationControl(Device, WMIREG_ACTION_REGISTER));
    return Extension->Registered ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

/* Each request finds on the card what it needs. */
static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(On);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Present) {
        Write(&Extension->Function, 4, 0);
    }
#ifdef STAYS
    return; /* a mistake */
#endif
    if (Extension->Registered) {
        Extension->Registered = FALSE;
        IoWMIRegistrationControl(Device, WMIREG_ACTION_DEREGISTER);
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
    return FALSE;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    RtlInitUnicodeString(&FunctionDevice, L"\\Device\\DirqlWmi");
    RtlInitUnicodeString(&FunctionLink, L"\\DosDevices\\DirqlWmi");
    Registry.Buffer = RegistryBuffer;
    Registry.MaximumLength = sizeof(RegistryBuffer);
    RtlCopyUnicodeString(&Registry, RegistryPath);
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchWmi;
    return STATUS_SUCCESS;
}
