/*
 * Alert source: a WMI event provider; IOCTL_ALERT_RAISE fires an event when a WMI consumer has enabled it.
 *
 * The bug: the device registers with WMI at start but never deregisters when it is removed.
 *
 * Device: ROOT\BLIND09
 * Rule: wmi-still-registered
 * Needs: nothing
 * Symptom: WMI keeps the deleted device object (it is never freed, the driver never unloads) and may send it IRP_MJ_SYSTEM_CONTROL; Driver Verifier 0xC9.
 */
#include <ddk/wdm.h>
#include <wmistr.h>

#define WN_TAG 'onMW'

#define IOCTL_ALERT_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID GUID_ALERT =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x09 } };
static const GUID GUID_ALERT_EVENT =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x01, 0x09 } };

typedef struct _WN_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    BOOLEAN Registered;
    volatile LONG EventsOn;
} WN_DEVICE;

static UNICODE_STRING WnRegistryPath;

static NTSTATUS WnFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI WnSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS WnForwardAndWait(WN_DEVICE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, WnSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI WnPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    WN_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return WnFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI WnCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    WN_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return WnFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    WnFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI WnClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return WnFinish(Irp, STATUS_SUCCESS, 0);
}

/* The answer to IRP_MN_REGINFO: one event block, one instance named "Alert". */
static NTSTATUS WnRegInfo(PVOID Buffer, ULONG Size, PULONG_PTR Information)
{
    static const WCHAR base[] = L"Alert";
    ULONG nameOffset = sizeof(WMIREGINFOW) + sizeof(WMIREGGUIDW);
    ULONG pathOffset = nameOffset + sizeof(USHORT) + sizeof(base) - sizeof(WCHAR);
    ULONG needed = pathOffset + sizeof(USHORT) + WnRegistryPath.Length;
    PWMIREGINFOW info = Buffer;
    PWMIREGGUIDW guid;

    needed = (needed + 7) & ~7u;
    if (Size < needed) {
        if (Size < sizeof(ULONG)) {
            *Information = 0;
            return STATUS_BUFFER_TOO_SMALL;
        }
        *(PULONG)Buffer = needed;
        *Information = sizeof(ULONG);
        return STATUS_BUFFER_TOO_SMALL;
    }
    RtlZeroMemory(info, needed);
    info->BufferSize = needed;
    info->RegistryPath = pathOffset;
    info->GuidCount = 1;
    guid = &info->WmiRegGuid[0];
    guid->Guid = GUID_ALERT_EVENT;
    guid->Flags = WMIREG_FLAG_INSTANCE_BASENAME | WMIREG_FLAG_EVENT_ONLY_GUID;
    guid->InstanceCount = 1;
    guid->BaseNameOffset = nameOffset;
    *(PUSHORT)((PUCHAR)info + nameOffset) = sizeof(base) - sizeof(WCHAR);
    RtlCopyMemory((PUCHAR)info + nameOffset + sizeof(USHORT), base, sizeof(base) - sizeof(WCHAR));
    *(PUSHORT)((PUCHAR)info + pathOffset) = WnRegistryPath.Length;
    RtlCopyMemory((PUCHAR)info + pathOffset + sizeof(USHORT), WnRegistryPath.Buffer, WnRegistryPath.Length);
    *Information = needed;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI WnSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    WN_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return WnFinish(Irp, status, 0);
    }
    if (sp->Parameters.WMI.ProviderId != (ULONG_PTR)DeviceObject) {
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(ext->Lower, Irp);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    }
    switch (sp->MinorFunction) {
    case IRP_MN_REGINFO:
    case IRP_MN_REGINFO_EX:
        status = WnRegInfo(sp->Parameters.WMI.Buffer, sp->Parameters.WMI.BufferSize, &information);
        break;
    case IRP_MN_ENABLE_EVENTS:
    case IRP_MN_DISABLE_EVENTS:
        if (RtlCompareMemory(sp->Parameters.WMI.DataPath, &GUID_ALERT_EVENT, sizeof(GUID)) != sizeof(GUID)) {
            status = STATUS_WMI_GUID_NOT_FOUND;
            break;
        }
        InterlockedExchange(&ext->EventsOn, sp->MinorFunction == IRP_MN_ENABLE_EVENTS);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    WnFinish(Irp, status, information);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS WnRaise(WN_DEVICE *Wn, ULONG Code)
{
    ULONG size = FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData) + sizeof(ULONG);
    PWNODE_SINGLE_INSTANCE event;
    NTSTATUS status;

    if (!Wn->EventsOn) {
        return STATUS_SUCCESS;
    }
    event = ExAllocatePoolWithTag(NonPagedPool, size, WN_TAG);
    if (event == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(event, size);
    event->WnodeHeader.BufferSize = size;
    event->WnodeHeader.ProviderId = IoWMIDeviceObjectToProviderId(Wn->Self);
    KeQuerySystemTime(&event->WnodeHeader.TimeStamp);
    event->WnodeHeader.Guid = GUID_ALERT_EVENT;
    event->WnodeHeader.Flags = WNODE_FLAG_SINGLE_INSTANCE | WNODE_FLAG_EVENT_ITEM | WNODE_FLAG_STATIC_INSTANCE_NAMES;
    event->DataBlockOffset = FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData);
    event->SizeDataBlock = sizeof(ULONG);
    RtlCopyMemory(event->VariableData, &Code, sizeof(ULONG));
    status = IoWMIWriteEvent(event);            /* frees it when it succeeds */
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(event, WN_TAG);
    }
    return status;
}

static NTSTATUS WnStart(WN_DEVICE *Wn)
{
    NTSTATUS status;

    if (!Wn->Registered) {
        status = IoWMIRegistrationControl(Wn->Self, WMIREG_ACTION_REGISTER);
        if (!NT_SUCCESS(status)) {
            return status;
        }
        Wn->Registered = TRUE;
    }
    status = IoSetDeviceInterfaceState(&Wn->Interface, TRUE);
    if (NT_SUCCESS(status)) {
        Wn->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS NTAPI WnPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    WN_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return WnFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = WnForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = WnStart(ext);
        }
        WnFinish(Irp, status, 0);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    case IRP_MN_SURPRISE_REMOVAL:
        ext->Started = FALSE;
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        ext->Started = FALSE;
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
#ifdef FIXED
        if (ext->Registered) {
            IoWMIRegistrationControl(DeviceObject, WMIREG_ACTION_DEREGISTER);
            ext->Registered = FALSE;
        }
#endif
        IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(ext->Lower, Irp);
        IoDetachDevice(ext->Lower);
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(DeviceObject);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI WnControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    WN_DEVICE *wn = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&wn->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return WnFinish(Irp, status, 0);
    }
    if (!wn->Started) {
        status = STATUS_DELETE_PENDING;
    } else if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_ALERT_RAISE) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        status = WnRaise(wn, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    }
    WnFinish(Irp, status, 0);
    IoReleaseRemoveLock(&wn->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI WnAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    WN_DEVICE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(WN_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, WN_TAG, 0, 0);
    status = IoRegisterDeviceInterface(Pdo, &GUID_ALERT, NULL, &ext->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    ext->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (ext->Lower == NULL) {
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI WnUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    ExFreePoolWithTag(WnRegistryPath.Buffer, WN_TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    WnRegistryPath.MaximumLength = RegistryPath->Length + sizeof(WCHAR);
    WnRegistryPath.Buffer = ExAllocatePoolWithTag(NonPagedPool, WnRegistryPath.MaximumLength, WN_TAG);
    if (WnRegistryPath.Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyUnicodeString(&WnRegistryPath, RegistryPath);
    DriverObject->DriverUnload = WnUnload;
    DriverObject->DriverExtension->AddDevice = WnAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = WnCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = WnClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WnControl;
    DriverObject->MajorFunction[IRP_MJ_PNP] = WnPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = WnPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = WnSystemControl;
    return STATUS_SUCCESS;
}
