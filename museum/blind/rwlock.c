/*
 * Dictionary: up to 1000 numbered strings in a linked list under an ERESOURCE; put, get, delete by IOCTL.
 *
 * The bug: "get" with an output buffer smaller than the string leaves with the resource still held shared (and kernel
 * APCs disabled).
 *
 * Device: ROOT\BLIND11
 * Rule: critical-region-unpaired
 * Needs: ioctl
 * Symptom: the next "put" waits for ever; return to user mode with APCs disabled, APC_INDEX_MISMATCH (0x01); verifier 0xC4 at delete/thread end.
 */
#include <ddk/wdm.h>

#define RW_TAG 'tciD'
#define MAX_STRING 512
#define MAX_ENTRIES 1000

#define IOCTL_DICT_PUT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x980, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_DICT_GET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x981, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_DICT_DELETE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x982, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID GUID_DICT =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x11 } };

typedef struct _ENTRY {
    LIST_ENTRY Link;
    ULONG Number;
    ULONG Length;
    UCHAR Bytes[1];
} ENTRY, *PENTRY;

typedef struct _RW_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    ERESOURCE Lock;
    LIST_ENTRY Entries;
    ULONG Count;
} RW_DEVICE;

static NTSTATUS RwFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI RwSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS RwForwardAndWait(RW_DEVICE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, RwSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI RwPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    RW_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return RwFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI RwSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    RW_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return RwFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI RwCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    RW_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return RwFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    RwFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI RwClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return RwFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS RwStart(RW_DEVICE *Rw)
{
    NTSTATUS status = IoSetDeviceInterfaceState(&Rw->Interface, TRUE);

    if (NT_SUCCESS(status)) {
        Rw->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static VOID RwFree(RW_DEVICE *Rw)
{
    while (!IsListEmpty(&Rw->Entries)) {
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Rw->Entries), ENTRY, Link), RW_TAG);
    }
    ExDeleteResourceLite(&Rw->Lock);
}

static NTSTATUS NTAPI RwPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    RW_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return RwFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = RwForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = RwStart(ext);
        }
        RwFinish(Irp, status, 0);
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
        RwFree(ext);
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

static PENTRY RwFind(RW_DEVICE *Rw, ULONG Number)
{
    PLIST_ENTRY e;

    for (e = Rw->Entries.Flink; e != &Rw->Entries; e = e->Flink) {
        PENTRY entry = CONTAINING_RECORD(e, ENTRY, Link);

        if (entry->Number == Number) {
            return entry;
        }
    }
    return NULL;
}

static NTSTATUS RwPut(RW_DEVICE *Rw, ULONG Number, PVOID Bytes, ULONG Length)
{
    NTSTATUS status = STATUS_SUCCESS;
    PENTRY entry, old;

    if (Length > MAX_STRING) {
        return STATUS_INVALID_PARAMETER;
    }
    entry = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(ENTRY, Bytes) + Length + 1, RW_TAG);
    if (entry == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    entry->Number = Number;
    entry->Length = Length;
    RtlCopyMemory(entry->Bytes, Bytes, Length);
    entry->Bytes[Length] = 0;

    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Rw->Lock, TRUE);
    old = RwFind(Rw, Number);
    if (old != NULL) {
        RemoveEntryList(&old->Link);
        Rw->Count--;
    }
    if (Rw->Count < MAX_ENTRIES) {
        InsertHeadList(&Rw->Entries, &entry->Link);
        Rw->Count++;
        entry = NULL;
    } else {
        status = STATUS_ALLOTTED_SPACE_EXCEEDED;
    }
    ExReleaseResourceLite(&Rw->Lock);
    KeLeaveCriticalRegion();
    if (old != NULL) {
        ExFreePoolWithTag(old, RW_TAG);
    }
    if (entry != NULL) {
        ExFreePoolWithTag(entry, RW_TAG);
    }
    return status;
}

static NTSTATUS RwGet(RW_DEVICE *Rw, ULONG Number, PVOID Out, ULONG OutLength, PULONG_PTR Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    PENTRY entry;

    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Rw->Lock, TRUE);
    entry = RwFind(Rw, Number);
    if (entry == NULL) {
        status = STATUS_NOT_FOUND;
    } else if (entry->Length > OutLength) {
#ifdef FIXED
        status = STATUS_BUFFER_TOO_SMALL;
#else
        return STATUS_BUFFER_TOO_SMALL;
#endif
    } else {
        RtlCopyMemory(Out, entry->Bytes, entry->Length);
        *Information = entry->Length;
    }
    ExReleaseResourceLite(&Rw->Lock);
    KeLeaveCriticalRegion();
    return status;
}

static NTSTATUS RwDelete(RW_DEVICE *Rw, ULONG Number)
{
    PENTRY entry;

    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Rw->Lock, TRUE);
    entry = RwFind(Rw, Number);
    if (entry != NULL) {
        RemoveEntryList(&entry->Link);
        Rw->Count--;
    }
    ExReleaseResourceLite(&Rw->Lock);
    KeLeaveCriticalRegion();
    if (entry == NULL) {
        return STATUS_NOT_FOUND;
    }
    ExFreePoolWithTag(entry, RW_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI RwControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    RW_DEVICE *rw = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&rw->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return RwFinish(Irp, status, 0);
    }
    if (!rw->Started) {
        status = STATUS_DELETE_PENDING;
    } else if (in < sizeof(ULONG)) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_DICT_PUT:
            status = RwPut(rw, buffer[0], buffer + 1, in - sizeof(ULONG));
            break;
        case IOCTL_DICT_GET:
            status = RwGet(rw, buffer[0], buffer, out, &information);
            break;
        case IOCTL_DICT_DELETE:
            status = RwDelete(rw, buffer[0]);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    RwFinish(Irp, status, information);
    IoReleaseRemoveLock(&rw->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI RwAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    RW_DEVICE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(RW_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, RW_TAG, 0, 0);
    status = ExInitializeResourceLite(&ext->Lock);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    InitializeListHead(&ext->Entries);
    status = IoRegisterDeviceInterface(Pdo, &GUID_DICT, NULL, &ext->Interface);
    if (!NT_SUCCESS(status)) {
        ExDeleteResourceLite(&ext->Lock);
        IoDeleteDevice(fdo);
        return status;
    }
    ext->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (ext->Lower == NULL) {
        RtlFreeUnicodeString(&ext->Interface);
        ExDeleteResourceLite(&ext->Lock);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI RwUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = RwUnload;
    DriverObject->DriverExtension->AddDevice = RwAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = RwCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = RwClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = RwPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = RwPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = RwSystemControl;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RwControl;
    return STATUS_SUCCESS;
}
