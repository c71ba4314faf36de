/*
 * A gauge that a program sets and that management software reads through WMI: a data block with the level, and an event
 * when the level crosses its threshold. Without wmilib.
 *
 * The bug: the event's memory is forgotten when IoWMIWriteEvent fails; WMI frees it only when it has taken the event.
 * Shows by: events are enabled, the level crosses the threshold, and IoWMIWriteEvent fails (it is short of memory).
 *
 * Device: root\gaugewmi
 * Rule: pool-leak
 * Needs: ioctl, failure
 */
#include "../include/shared_frame.h"
#include <wmistr.h>

#define IOCTL_GAUGE_SET       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG level */
#define IOCTL_GAUGE_THRESHOLD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG threshold */
#define IOCTL_GAUGE_GET       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: GAUGE */

static const GUID GaugeInterface = {0x2f1c33b7, 0xa0c4, 0x4c6e, {0xb1, 0x09, 0x61, 0x3e, 0x5d, 0x90, 0x71, 0x01}};
static const GUID GaugeData = {0x2f1c33b7, 0xa0c4, 0x4c6e, {0xb1, 0x09, 0x61, 0x3e, 0x5d, 0x90, 0x71, 0x02}};
static const GUID GaugeEvent = {0x2f1c33b7, 0xa0c4, 0x4c6e, {0xb1, 0x09, 0x61, 0x3e, 0x5d, 0x90, 0x71, 0x03}};

typedef struct _GAUGE {
    ULONG Level;
    ULONG Threshold;
    ULONG Crossings;
} GAUGE;

typedef struct _EXTENSION {
    KIT Kit;
    KSPIN_LOCK Lock;
    GAUGE Gauge;
    BOOLEAN Registered;
    volatile LONG EventsOn;
} EXTENSION;

static WCHAR RegistryPath[256];
static USHORT RegistryBytes;

static BOOLEAN Same(const VOID *A, const GUID *B)
{
    return (BOOLEAN)(RtlCompareMemory(A, B, sizeof(GUID)) == sizeof(GUID));
}

static VOID FireEvent(EXTENSION *Ext, const GAUGE *Gauge)
{
    ULONG offset = (FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData) + 7) & ~7U;
    ULONG size = offset + sizeof(GAUGE);
    PWNODE_SINGLE_INSTANCE event;
    NTSTATUS status;

    event = ExAllocatePoolWithTag(NonPagedPoolNx, size, KIT_TAG);
    if (event == NULL) {
        return; /* an event may be lost */
    }
    RtlZeroMemory(event, size);
    event->WnodeHeader.BufferSize = size;
    event->WnodeHeader.ProviderId = IoWMIDeviceObjectToProviderId(Ext->Kit.Self);
    event->WnodeHeader.Version = 1;
    event->WnodeHeader.Guid = GaugeEvent;
    event->WnodeHeader.Flags = WNODE_FLAG_EVENT_ITEM | WNODE_FLAG_SINGLE_INSTANCE | WNODE_FLAG_STATIC_INSTANCE_NAMES;
    KeQuerySystemTime(&event->WnodeHeader.TimeStamp);
    event->InstanceIndex = 0;
    event->DataBlockOffset = offset;
    event->SizeDataBlock = sizeof(GAUGE);
    RtlCopyMemory((PUCHAR)event + offset, Gauge, sizeof(GAUGE));
    status = IoWMIWriteEvent(event);
    if (!NT_SUCCESS(status)) {
        DbgPrint("gaugewmi: event lost, %08x\n", (unsigned)status);
#ifdef FIXED
        ExFreePoolWithTag(event, KIT_TAG);
#endif
    }
}

static NTSTATUS SetLevel(EXTENSION *Ext, ULONG Level)
{
    BOOLEAN crossed = FALSE;
    GAUGE gauge;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (Ext->Gauge.Level < Ext->Gauge.Threshold && Level >= Ext->Gauge.Threshold) {
        Ext->Gauge.Crossings++;
        crossed = TRUE;
    }
    Ext->Gauge.Level = Level;
    gauge = Ext->Gauge;
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (crossed && Ext->EventsOn) {
        FireEvent(Ext, &gauge);
    }
    return STATUS_SUCCESS;
}

/* ---- WMI ---- */

static NTSTATUS RegInfo(EXTENSION *Ext, PWMIREGINFO Info, ULONG Size, ULONG_PTR *Information)
{
    ULONG path = FIELD_OFFSET(WMIREGINFO, WmiRegGuid) + 2 * sizeof(WMIREGGUID);
    ULONG need = path + sizeof(USHORT) + RegistryBytes;
    ULONG i;

    if (Size < need) {
        if (Size < sizeof(ULONG)) {
            return STATUS_BUFFER_TOO_SMALL;
        }
        *(PULONG)Info = need;
        *Information = sizeof(ULONG);
        return STATUS_BUFFER_TOO_SMALL;
    }
    RtlZeroMemory(Info, need);
    Info->BufferSize = need;
    Info->RegistryPath = path;
    Info->GuidCount = 2;
    Info->WmiRegGuid[0].Guid = GaugeData;
    Info->WmiRegGuid[0].Flags = WMIREG_FLAG_INSTANCE_PDO;
    Info->WmiRegGuid[1].Guid = GaugeEvent;
    Info->WmiRegGuid[1].Flags = WMIREG_FLAG_INSTANCE_PDO | WMIREG_FLAG_EVENT_ONLY_GUID;
    for (i = 0; i < 2; i++) {
        ObReferenceObject(Ext->Kit.Pdo); /* WMI gives it back */
        Info->WmiRegGuid[i].InstanceCount = 1;
        Info->WmiRegGuid[i].Pdo = (ULONG_PTR)Ext->Kit.Pdo;
    }
    *(PUSHORT)((PUCHAR)Info + path) = RegistryBytes;
    RtlCopyMemory((PUCHAR)Info + path + sizeof(USHORT), RegistryPath, RegistryBytes);
    *Information = need;
    return STATUS_SUCCESS;
}

static NTSTATUS TooSmall(PVOID Buffer, ULONG Size, ULONG Need, ULONG_PTR *Information)
{
    PWNODE_TOO_SMALL small = Buffer;

    if (Size < sizeof(*small)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    small->WnodeHeader.BufferSize = sizeof(*small);
    small->WnodeHeader.Flags = WNODE_FLAG_TOO_SMALL;
    small->SizeNeeded = Need;
    *Information = sizeof(*small);
    return STATUS_SUCCESS;
}

static VOID Snapshot(EXTENSION *Ext, PVOID To)
{
    GAUGE gauge;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    gauge = Ext->Gauge;
    KeReleaseSpinLock(&Ext->Lock, irql);
    RtlCopyMemory(To, &gauge, sizeof(gauge));
}

static NTSTATUS QueryAll(EXTENSION *Ext, PWNODE_ALL_DATA Node, ULONG Size, ULONG_PTR *Information)
{
    ULONG offset = (sizeof(WNODE_ALL_DATA) + 7) & ~7U;
    ULONG need = offset + sizeof(GAUGE);

    if (Size < need) {
        return TooSmall(Node, Size, need, Information);
    }
    Node->WnodeHeader.BufferSize = need;
    Node->WnodeHeader.Flags |= WNODE_FLAG_FIXED_INSTANCE_SIZE;
    KeQuerySystemTime(&Node->WnodeHeader.TimeStamp);
    Node->DataBlockOffset = offset;
    Node->InstanceCount = 1;
    Node->OffsetInstanceNameOffsets = 0; /* WMI knows the name: it is of the PDO */
    Node->FixedInstanceSize = sizeof(GAUGE);
    Snapshot(Ext, (PUCHAR)Node + offset);
    *Information = need;
    return STATUS_SUCCESS;
}

static NTSTATUS QueryOne(EXTENSION *Ext, PWNODE_SINGLE_INSTANCE Node, ULONG Size, ULONG_PTR *Information)
{
    ULONG need;

    if (Size < (ULONG)FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData) ||
        Node->DataBlockOffset < (ULONG)FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData) || Node->DataBlockOffset > 0x10000) {
        return STATUS_INVALID_PARAMETER;
    }
    if (Node->InstanceIndex != 0) {
        return STATUS_WMI_INSTANCE_NOT_FOUND;
    }
    need = Node->DataBlockOffset + sizeof(GAUGE);
    if (Size < need) {
        return TooSmall(Node, Size, need, Information);
    }
    Node->WnodeHeader.BufferSize = need;
    KeQuerySystemTime(&Node->WnodeHeader.TimeStamp);
    Node->SizeDataBlock = sizeof(GAUGE);
    Snapshot(Ext, (PUCHAR)Node + Node->DataBlockOffset);
    *Information = need;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI SystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = sp->Parameters.WMI.Buffer;
    ULONG size = sp->Parameters.WMI.BufferSize;
    PVOID guid = sp->Parameters.WMI.DataPath;
    ULONG_PTR information = 0;
    NTSTATUS status;

    if (sp->Parameters.WMI.ProviderId != (ULONG_PTR)Device || sp->MinorFunction > IRP_MN_REGINFO_EX || sp->MinorFunction == 0x0A) {
        return KitPass(Device, Irp);
    }
    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_REGINFO || sp->MinorFunction == IRP_MN_REGINFO_EX) {
        status = RegInfo(ext, buffer, size, &information);
        return KitFinish(&ext->Kit, Irp, status, information);
    }
    if (Same(guid, &GaugeEvent)) {
        switch (sp->MinorFunction) {
        case IRP_MN_ENABLE_EVENTS:
            InterlockedExchange(&ext->EventsOn, 1);
            break;
        case IRP_MN_DISABLE_EVENTS:
            InterlockedExchange(&ext->EventsOn, 0);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    } else if (Same(guid, &GaugeData)) {
        switch (sp->MinorFunction) {
        case IRP_MN_QUERY_ALL_DATA:
            status = QueryAll(ext, buffer, size, &information);
            break;
        case IRP_MN_QUERY_SINGLE_INSTANCE:
            status = QueryOne(ext, buffer, size, &information);
            break;
        case IRP_MN_CHANGE_SINGLE_INSTANCE:
        case IRP_MN_CHANGE_SINGLE_ITEM:
            status = STATUS_WMI_READ_ONLY;
            break;
        case IRP_MN_ENABLE_COLLECTION:
        case IRP_MN_DISABLE_COLLECTION:
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    } else {
        status = STATUS_WMI_GUID_NOT_FOUND;
    }
    return KitFinish(&ext->Kit, Irp, status, information);
}

/* ---- the device ---- */

static NTSTATUS Start(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    EXTENSION *ext = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Translated);
    ext->Registered = (BOOLEAN)NT_SUCCESS(IoWMIRegistrationControl(Device, WMIREG_ACTION_REGISTER));
    return STATUS_SUCCESS; /* it works without WMI as well */
}

static VOID Drain(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static VOID Stop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    EXTENSION *ext = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Present);
    if (ext->Registered) {
        (void)IoWMIRegistrationControl(Device, WMIREG_ACTION_DEREGISTER);
        ext->Registered = FALSE;
    }
}

static const KIT_OPS Ops = {Start, Drain, Stop, NULL, NULL};

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    BOOLEAN value = (BOOLEAN)(sp->Parameters.DeviceIoControl.InputBufferLength >= sizeof(ULONG));
    ULONG_PTR information = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GAUGE_SET:
        status = value ? SetLevel(ext, *buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_GAUGE_THRESHOLD:
        if (!value) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&ext->Lock, &irql);
        ext->Gauge.Threshold = *buffer;
        KeReleaseSpinLock(&ext->Lock, irql);
        break;
    case IOCTL_GAUGE_GET:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(GAUGE)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Snapshot(ext, buffer);
        information = sizeof(GAUGE);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitFinish(&ext->Kit, Irp, status, information);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &GaugeInterface, 0, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    ext->Gauge.Threshold = 100;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    if (Path->Length > sizeof(RegistryPath)) {
        return STATUS_NAME_TOO_LONG;
    }
    RtlCopyMemory(RegistryPath, Path->Buffer, Path->Length);
    RegistryBytes = Path->Length;
    KitDriver(Driver, AddDevice, Control, FALSE);
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SystemControl;
    return STATUS_SUCCESS;
}
