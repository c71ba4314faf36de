/*
 * Key store: a table of 64 named 32-bit values on a root-enumerated device, set and read by IOCTL.
 *
 * The bug: a request with a name that is too long returns early without releasing the remove lock.
 *
 * Device: ROOT\BLIND01
 * Rule: deadlock
 * Needs: ioctl
 * Symptom: after one such request the device's removal hangs in IoReleaseRemoveLockAndWait.
 */
#include <ddk/wdm.h>

#define RM_TAG 'tSyK'
#define NAME_MAX 24
#define SLOTS 64

#define IOCTL_KEY_SET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_KEY_GET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_KEY_DELETE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID GUID_DEVINTERFACE_KEYSTORE =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x01 } };

typedef struct _KEY_REQUEST {
    ULONG Value;
    ULONG NameLength;
    CHAR Name[1];
} KEY_REQUEST, *PKEY_REQUEST;

typedef struct _SLOT {
    ULONG NameLength;           /* 0: free */
    ULONG Value;
    CHAR Name[NAME_MAX];
} SLOT, *PSLOT;

typedef struct _DEVICE_EXTENSION {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    FAST_MUTEX Mutex;
    SLOT Slots[SLOTS];
} DEVICE_EXTENSION;

static NTSTATUS KsFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI KsSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS KsForwardAndWait(DEVICE_EXTENSION *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, KsSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI KsPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DEVICE_EXTENSION *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return KsFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI KsSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DEVICE_EXTENSION *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return KsFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI KsCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DEVICE_EXTENSION *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return KsFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    KsFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI KsClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return KsFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS KsStart(DEVICE_EXTENSION *Ext)
{
    NTSTATUS status = IoSetDeviceInterfaceState(&Ext->Interface, TRUE);

    if (NT_SUCCESS(status)) {
        Ext->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS NTAPI KsPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DEVICE_EXTENSION *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KsFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = KsForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = KsStart(ext);
        }
        KsFinish(Irp, status, 0);
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

static PSLOT KsFind(DEVICE_EXTENSION *Ext, PKEY_REQUEST Request)
{
    ULONG i;

    for (i = 0; i < SLOTS; i++) {
        PSLOT slot = &Ext->Slots[i];

        if (slot->NameLength == Request->NameLength
            && RtlCompareMemory(slot->Name, Request->Name, Request->NameLength) == Request->NameLength) {
            return slot;
        }
    }
    return NULL;
}

static NTSTATUS KsSet(DEVICE_EXTENSION *Ext, PKEY_REQUEST Request)
{
    NTSTATUS status = STATUS_SUCCESS;
    PSLOT slot;
    ULONG i;

    ExAcquireFastMutex(&Ext->Mutex);
    slot = KsFind(Ext, Request);
    for (i = 0; slot == NULL && i < SLOTS; i++) {
        if (Ext->Slots[i].NameLength == 0) {
            slot = &Ext->Slots[i];
        }
    }
    if (slot != NULL) {
        slot->NameLength = Request->NameLength;
        RtlCopyMemory(slot->Name, Request->Name, Request->NameLength);
        slot->Value = Request->Value;
    } else {
        status = STATUS_ALLOTTED_SPACE_EXCEEDED;
    }
    ExReleaseFastMutex(&Ext->Mutex);
    return status;
}

static NTSTATUS NTAPI KsControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DEVICE_EXTENSION *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    PKEY_REQUEST request = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;
    PSLOT slot;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KsFinish(Irp, status, 0);
    }
    if (!ext->Started) {
        status = STATUS_DELETE_PENDING;
        goto Done;
    }
    if (code != IOCTL_KEY_SET && code != IOCTL_KEY_GET && code != IOCTL_KEY_DELETE) {
        status = STATUS_INVALID_DEVICE_REQUEST;
        goto Done;
    }
    if (in < FIELD_OFFSET(KEY_REQUEST, Name) || request->NameLength == 0
        || request->NameLength > in - FIELD_OFFSET(KEY_REQUEST, Name)) {
        status = STATUS_INVALID_PARAMETER;
        goto Done;
    }
    if (request->NameLength > NAME_MAX) {
#ifdef FIXED
        status = STATUS_NAME_TOO_LONG;
        goto Done;
#else
        return KsFinish(Irp, STATUS_NAME_TOO_LONG, 0);
#endif
    }
    if (code == IOCTL_KEY_SET) {
        status = KsSet(ext, request);
        goto Done;
    }
    if (code == IOCTL_KEY_GET && sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
        goto Done;
    }
    ExAcquireFastMutex(&ext->Mutex);
    slot = KsFind(ext, request);
    if (slot == NULL) {
        status = STATUS_NOT_FOUND;
    } else if (code == IOCTL_KEY_DELETE) {
        slot->NameLength = 0;
    } else {
        *(PULONG)request = slot->Value;
        information = sizeof(ULONG);
    }
    ExReleaseFastMutex(&ext->Mutex);
Done:
    KsFinish(Irp, status, information);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI KsAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    DEVICE_EXTENSION *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(DEVICE_EXTENSION), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, RM_TAG, 0, 0);
    ExInitializeFastMutex(&ext->Mutex);
    status = IoRegisterDeviceInterface(Pdo, &GUID_DEVINTERFACE_KEYSTORE, NULL, &ext->Interface);
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

static VOID NTAPI KsUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = KsUnload;
    DriverObject->DriverExtension->AddDevice = KsAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = KsCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = KsClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = KsPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = KsPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KsSystemControl;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = KsControl;
    return STATUS_SUCCESS;
}
