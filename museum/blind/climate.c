/*
 * climate - room climate values for management software
 *
 * A service that talks to the sensors over the network feeds the latest
 * values into this driver, which publishes them as a WMI data block so that
 * management consoles find them next to those of the other hardware.
 *
 * The bug: whether the data fit is counted from where they usually begin, and not from where the caller wants them.
 *
 * Device: ROOT\CLIMATE
 * Rule: wmi-bad-block, pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include <wmistr.h>

#define CL_TAG 'tmlC'

typedef struct _CLIMATE_DATA {
    LONG    TemperatureMilliC;
    ULONG   HumidityPermille;
    ULONG64 Samples;
} CLIMATE_DATA, *PCLIMATE_DATA;

typedef struct _CLIMATE_FEED {
    LONG  TemperatureMilliC;
    ULONG HumidityPermille;
} CLIMATE_FEED, *PCLIMATE_FEED;

#define IOCTL_CLIMATE_FEED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID GUID_CLIMATE_INTERFACE =
    { 0x21f9a0c3, 0x4c11, 0x4a0d, { 0xb2, 0x6f, 0x55, 0x08, 0x41, 0xd2, 0x0e, 0x7a } };
static const GUID GUID_CLIMATE_BLOCK =
    { 0x6b0f3d52, 0xe0c8, 0x4c27, { 0x80, 0x1e, 0xc9, 0x3a, 0x75, 0x14, 0xaf, 0x21 } };

typedef struct _DEVICE_DATA {
    PDEVICE_OBJECT Fdo;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT LowerDevice;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING InterfaceName;
    BOOLEAN        WmiRegistered;
    KSPIN_LOCK     DataLock;
    CLIMATE_DATA   Data;
} DEVICE_DATA, *PDEVICE_DATA;

static UNICODE_STRING g_RegistryPath;

static NTSTATUS CompleteIrp(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID SnapshotData(PDEVICE_DATA dd, PCLIMATE_DATA Out)
{
    KIRQL irql;

    KeAcquireSpinLock(&dd->DataLock, &irql);
    *Out = dd->Data;
    KeReleaseSpinLock(&dd->DataLock, irql);
}

/* ----- WMI ----- */

static NTSTATUS WmiRegInfo(PDEVICE_DATA dd, PVOID Buffer, ULONG BufferSize, PULONG_PTR Info)
{
    PWMIREGINFOW reg = Buffer;
    ULONG pathAt = FIELD_OFFSET(WMIREGINFOW, WmiRegGuid) + sizeof(WMIREGGUIDW);
    ULONG needed = pathAt + sizeof(USHORT) + g_RegistryPath.Length;

    if (BufferSize < needed) {
        if (BufferSize < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *(PULONG)Buffer = needed;
        *Info = sizeof(ULONG);
        return STATUS_BUFFER_TOO_SMALL;
    }

    RtlZeroMemory(reg, needed);
    reg->BufferSize = needed;
    reg->RegistryPath = pathAt;
    reg->GuidCount = 1;
    reg->WmiRegGuid[0].Guid = GUID_CLIMATE_BLOCK;
    reg->WmiRegGuid[0].Flags = WMIREG_FLAG_INSTANCE_PDO;
    reg->WmiRegGuid[0].InstanceCount = 1;
    reg->WmiRegGuid[0].InstanceInfo = (ULONG_PTR)dd->Pdo;
    ObReferenceObject(dd->Pdo);         /* WMI gives this reference back */
    *(PUSHORT)((PUCHAR)Buffer + pathAt) = g_RegistryPath.Length;
    RtlCopyMemory((PUCHAR)Buffer + pathAt + sizeof(USHORT), g_RegistryPath.Buffer, g_RegistryPath.Length);
    *Info = needed;
    return STATUS_SUCCESS;
}

static NTSTATUS WmiTooSmall(PWNODE_HEADER Header, ULONG BufferSize, ULONG Needed, PULONG_PTR Info)
{
    PWNODE_TOO_SMALL small = (PWNODE_TOO_SMALL)Header;

    if (BufferSize < sizeof(WNODE_TOO_SMALL))
        return STATUS_BUFFER_TOO_SMALL;
    small->WnodeHeader.BufferSize = sizeof(WNODE_TOO_SMALL);
    small->WnodeHeader.Flags |= WNODE_FLAG_TOO_SMALL;
    small->SizeNeeded = Needed;
    *Info = sizeof(WNODE_TOO_SMALL);
    return STATUS_SUCCESS;
}

static NTSTATUS WmiQueryAll(PDEVICE_DATA dd, PVOID Buffer, ULONG BufferSize, PULONG_PTR Info)
{
    PWNODE_ALL_DATA node = Buffer;
    ULONG dataAt = (sizeof(WNODE_ALL_DATA) + 7) & ~7u;
    ULONG needed = dataAt + sizeof(CLIMATE_DATA);
    CLIMATE_DATA data;

    if (BufferSize < needed)
        return WmiTooSmall(&node->WnodeHeader, BufferSize, needed, Info);

    SnapshotData(dd, &data);
    node->WnodeHeader.BufferSize = needed;
    node->WnodeHeader.Flags |= WNODE_FLAG_FIXED_INSTANCE_SIZE;
    KeQuerySystemTime(&node->WnodeHeader.TimeStamp);
    node->DataBlockOffset = dataAt;
    node->InstanceCount = 1;
    node->OffsetInstanceNameOffsets = 0;
    node->FixedInstanceSize = sizeof(CLIMATE_DATA);
    RtlZeroMemory((PUCHAR)Buffer + sizeof(WNODE_ALL_DATA), dataAt - sizeof(WNODE_ALL_DATA));
    RtlCopyMemory((PUCHAR)Buffer + dataAt, &data, sizeof(data));
    *Info = needed;
    return STATUS_SUCCESS;
}

static NTSTATUS WmiQuerySingle(PDEVICE_DATA dd, PVOID Buffer, ULONG BufferSize, PULONG_PTR Info)
{
    PWNODE_SINGLE_INSTANCE node = Buffer;
    CLIMATE_DATA data;
    ULONG dataAt, needed;

    if (BufferSize < FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData))
        return STATUS_BUFFER_TOO_SMALL;
    if (!(node->WnodeHeader.Flags & WNODE_FLAG_STATIC_INSTANCE_NAMES) || node->InstanceIndex != 0)
        return STATUS_WMI_INSTANCE_NOT_FOUND;

    /* the caller has chosen where the data goes: behind the instance name, if there is one */
    dataAt = node->DataBlockOffset;
    if (dataAt < FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData) || dataAt > BufferSize)
        return STATUS_INVALID_PARAMETER;

#ifdef FIXED
    needed = dataAt + sizeof(CLIMATE_DATA);
#else
    needed = FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData) + sizeof(CLIMATE_DATA);
#endif
    if (BufferSize < needed)
        return WmiTooSmall(&node->WnodeHeader, BufferSize, needed, Info);

    SnapshotData(dd, &data);
    node->WnodeHeader.BufferSize = needed;
    KeQuerySystemTime(&node->WnodeHeader.TimeStamp);
    node->SizeDataBlock = sizeof(CLIMATE_DATA);
    RtlCopyMemory((PUCHAR)Buffer + dataAt, &data, sizeof(data));
    *Info = needed;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE_DATA dd = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = stack->Parameters.WMI.Buffer;
    ULONG size = stack->Parameters.WMI.BufferSize;
    ULONG_PTR info = 0;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&dd->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CompleteIrp(Irp, status, 0);

    if (stack->Parameters.WMI.ProviderId != (ULONG_PTR)DeviceObject ||
        stack->MinorFunction > IRP_MN_REGINFO_EX || stack->MinorFunction == 0x0A) {
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(dd->LowerDevice, Irp);
        IoReleaseRemoveLock(&dd->RemoveLock, Irp);
        return status;
    }

    if (stack->MinorFunction == IRP_MN_REGINFO || stack->MinorFunction == IRP_MN_REGINFO_EX) {
        status = WmiRegInfo(dd, buffer, size, &info);
    } else if (RtlCompareMemory(stack->Parameters.WMI.DataPath, &GUID_CLIMATE_BLOCK, sizeof(GUID)) != sizeof(GUID)) {
        status = STATUS_WMI_GUID_NOT_FOUND;
    } else {
        switch (stack->MinorFunction) {
        case IRP_MN_QUERY_ALL_DATA:
            status = WmiQueryAll(dd, buffer, size, &info);
            break;
        case IRP_MN_QUERY_SINGLE_INSTANCE:
            status = WmiQuerySingle(dd, buffer, size, &info);
            break;
        case IRP_MN_CHANGE_SINGLE_INSTANCE:
        case IRP_MN_CHANGE_SINGLE_ITEM:
            status = STATUS_WMI_READ_ONLY;
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    CompleteIrp(Irp, status, info);
    IoReleaseRemoveLock(&dd->RemoveLock, Irp);
    return status;
}

/* ----- everything else ----- */

static NTSTATUS NTAPI DispatchCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE_DATA dd = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PCLIMATE_FEED feed = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&dd->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CompleteIrp(Irp, status, 0);

    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_CLIMATE_FEED) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(CLIMATE_FEED)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (feed->HumidityPermille > 1000) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        KeAcquireSpinLock(&dd->DataLock, &irql);
        dd->Data.TemperatureMilliC = feed->TemperatureMilliC;
        dd->Data.HumidityPermille = feed->HumidityPermille;
        dd->Data.Samples++;
        KeReleaseSpinLock(&dd->DataLock, irql);
    }
    CompleteIrp(Irp, status, 0);
    IoReleaseRemoveLock(&dd->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE_DATA dd = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&dd->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status))
        return CompleteIrp(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(dd->LowerDevice, Irp);
    IoReleaseRemoveLock(&dd->RemoveLock, Irp);
    return status;
}

static VOID WithdrawFromWmi(PDEVICE_DATA dd)
{
    if (dd->WmiRegistered) {
        dd->WmiRegistered = FALSE;
        IoWMIRegistrationControl(dd->Fdo, WMIREG_ACTION_DEREGISTER);
    }
}

static NTSTATUS StartDevice(PDEVICE_DATA dd)
{
    NTSTATUS status = IoSetDeviceInterfaceState(&dd->InterfaceName, TRUE);

    if (!NT_SUCCESS(status))
        return status;
    if (!dd->WmiRegistered) {
        status = IoWMIRegistrationControl(dd->Fdo, WMIREG_ACTION_REGISTER);
        if (NT_SUCCESS(status))
            dd->WmiRegistered = TRUE;
        else
            IoSetDeviceInterfaceState(&dd->InterfaceName, FALSE);
    }
    return NT_SUCCESS(status) ? STATUS_SUCCESS : status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE_DATA dd = DeviceObject->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS status = IoAcquireRemoveLock(&dd->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return CompleteIrp(Irp, status, 0);

    switch (minor) {
    case IRP_MN_START_DEVICE:
        status = STATUS_UNSUCCESSFUL;
        if (IoForwardIrpSynchronously(dd->LowerDevice, Irp))
            status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status))
            status = StartDevice(dd);
        CompleteIrp(Irp, status, 0);
        IoReleaseRemoveLock(&dd->RemoveLock, Irp);
        return status;

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&dd->InterfaceName, FALSE);
        WithdrawFromWmi(dd);
        IoReleaseRemoveLockAndWait(&dd->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(dd->LowerDevice, Irp);
        IoDetachDevice(dd->LowerDevice);
        RtlFreeUnicodeString(&dd->InterfaceName);
        IoDeleteDevice(dd->Fdo);
        return status;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&dd->InterfaceName, FALSE);
        WithdrawFromWmi(dd);
        /* fall through */
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(dd->LowerDevice, Irp);
    IoReleaseRemoveLock(&dd->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    PDEVICE_DATA dd;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(DEVICE_DATA), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;

    dd = fdo->DeviceExtension;
    RtlZeroMemory(dd, sizeof(*dd));
    dd->Fdo = fdo;
    dd->Pdo = Pdo;
    KeInitializeSpinLock(&dd->DataLock);
    IoInitializeRemoveLock(&dd->RemoveLock, CL_TAG, 0, 0);

    dd->LowerDevice = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (dd->LowerDevice == NULL) {
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    status = IoRegisterDeviceInterface(Pdo, &GUID_CLIMATE_INTERFACE, NULL, &dd->InterfaceName);
    if (!NT_SUCCESS(status)) {
        IoDetachDevice(dd->LowerDevice);
        IoDeleteDevice(fdo);
        return status;
    }
    fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    ExFreePoolWithTag(g_RegistryPath.Buffer, CL_TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    g_RegistryPath.Length = RegistryPath->Length;
    g_RegistryPath.MaximumLength = RegistryPath->Length + sizeof(WCHAR);
    g_RegistryPath.Buffer = ExAllocatePoolWithTag(PagedPool, g_RegistryPath.MaximumLength, CL_TAG);
    if (g_RegistryPath.Buffer == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(g_RegistryPath.Buffer, RegistryPath->Buffer, RegistryPath->Length);
    g_RegistryPath.Buffer[RegistryPath->Length / sizeof(WCHAR)] = L'\0';

    DriverObject->MajorFunction[IRP_MJ_CREATE] = DispatchCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DispatchCreateClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    DriverObject->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    DriverObject->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    DriverObject->DriverExtension->AddDevice = AddDevice;
    DriverObject->DriverUnload = DriverUnload;
    return STATUS_SUCCESS;
}
