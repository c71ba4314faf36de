/*
 * Random bytes: ReadFile gives pseudo-random bytes; seed and block size come from the device's registry key at start.
 *
 * The bug: when the "BlockSize" value is not there the start code takes the default and leaves without closing the key.
 *
 * Device: ROOT\BLIND06
 * Rule: handle-leak
 * Needs: nothing
 * Symptom: a kernel handle to the device's registry key leaks at each start (the key cannot be deleted at uninstall).
 */
#include <ddk/wdm.h>

#define CF_TAG 'vdfC'
#define DEFAULT_BLOCK 512
#define MAX_BLOCK 4096

static const GUID GUID_CFGDEV =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x06 } };

typedef struct _CF_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    KSPIN_LOCK Lock;
    ULONG State;
    ULONG BlockSize;
} CF_DEVICE;

static NTSTATUS CfFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI CfSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS CfForwardAndWait(CF_DEVICE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, CfSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI CfPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    CF_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return CfFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI CfSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    CF_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return CfFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI CfCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    CF_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return CfFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    CfFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI CfClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return CfFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS CfReadDword(HANDLE Key, PCWSTR Name, PULONG Value)
{
    UCHAR buffer[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)]
        __attribute__((aligned(8)));
    PKEY_VALUE_PARTIAL_INFORMATION info = (PKEY_VALUE_PARTIAL_INFORMATION)buffer;
    UNICODE_STRING name;
    NTSTATUS status;
    ULONG length;

    RtlInitUnicodeString(&name, Name);
    status = ZwQueryValueKey(Key, &name, KeyValuePartialInformation, info, sizeof(buffer), &length);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    if (info->Type != REG_DWORD || info->DataLength != sizeof(ULONG)) {
        return STATUS_OBJECT_TYPE_MISMATCH;
    }
    RtlCopyMemory(Value, info->Data, sizeof(ULONG));
    return STATUS_SUCCESS;
}

static VOID CfReadParameters(CF_DEVICE *Cf)
{
    ULONG value;
    HANDLE key;

    Cf->State = 1;
    Cf->BlockSize = DEFAULT_BLOCK;
    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Cf->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_QUERY_VALUE, &key))) {
        return;
    }
    if (NT_SUCCESS(CfReadDword(key, L"Seed", &value)) && value != 0) {
        Cf->State = value;
    }
    if (!NT_SUCCESS(CfReadDword(key, L"BlockSize", &value))) {
#ifdef FIXED
        ZwClose(key);
#endif
        return;
    }
    if (value >= 16 && value <= MAX_BLOCK) {
        Cf->BlockSize = value;
    }
    ZwClose(key);
}

static NTSTATUS CfStart(CF_DEVICE *Cf)
{
    NTSTATUS status;

    if (Cf->BlockSize == 0) {           /* not when started again after a stop */
        CfReadParameters(Cf);
    }
    status = IoSetDeviceInterfaceState(&Cf->Interface, TRUE);
    if (NT_SUCCESS(status)) {
        Cf->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS NTAPI CfPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    CF_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return CfFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = CfForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = CfStart(ext);
        }
        CfFinish(Irp, status, 0);
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

static NTSTATUS NTAPI CfRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    CF_DEVICE *cf = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    PUCHAR out = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG i, x;
    KIRQL irql;

    status = IoAcquireRemoveLock(&cf->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return CfFinish(Irp, status, 0);
    }
    if (!cf->Started) {
        status = STATUS_DELETE_PENDING;
        length = 0;
    } else {
        if (length > cf->BlockSize) {
            length = cf->BlockSize;
        }
        KeAcquireSpinLock(&cf->Lock, &irql);
        x = cf->State;
        for (i = 0; i < length; i++) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            out[i] = (UCHAR)x;
        }
        cf->State = x;
        KeReleaseSpinLock(&cf->Lock, irql);
    }
    CfFinish(Irp, status, length);
    IoReleaseRemoveLock(&cf->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI CfAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    CF_DEVICE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(CF_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, CF_TAG, 0, 0);
    KeInitializeSpinLock(&ext->Lock);
    status = IoRegisterDeviceInterface(Pdo, &GUID_CFGDEV, NULL, &ext->Interface);
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

static VOID NTAPI CfUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = CfUnload;
    DriverObject->DriverExtension->AddDevice = CfAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = CfCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = CfClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = CfPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = CfPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CfSystemControl;
    DriverObject->MajorFunction[IRP_MJ_READ] = CfRead;
    return STATUS_SUCCESS;
}
