/*
 * tagcache.sys - Asset tag cache
 *
 * Keeps small name/value tags (asset number, owner, location, ...) that the
 * inventory agent collects at logon, so that its service and tray program can
 * share them without a file. Tags live until they are deleted or the driver
 * is unloaded.
 *
 * The bug: what did not fit into the output buffer is said to be the length of the answer.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define TAG_POOL            'gaTC'
#define TAG_NAME_CHARS      32
#define TAG_VALUE_BYTES     256
#define TAG_MAX_TAGS        64

#define IOCTL_TAG_SET       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TAG_GET       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TAG_DELETE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TAG_COUNT     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _TAG_SET_INPUT {
    CHAR Name[TAG_NAME_CHARS];
    ULONG ValueLength;
    UCHAR Value[ANYSIZE_ARRAY];
} TAG_SET_INPUT, *PTAG_SET_INPUT;

typedef struct _TAG {
    LIST_ENTRY Link;
    CHAR Name[TAG_NAME_CHARS];
    ULONG ValueLength;
    UCHAR Value[TAG_VALUE_BYTES];
} TAG, *PTAG;

typedef struct _TAG_EXTENSION {
    FAST_MUTEX Lock;
    LIST_ENTRY Tags;
    ULONG Count;
} TAG_EXTENSION, *PTAG_EXTENSION;

static UNICODE_STRING TagLink = RTL_CONSTANT_STRING(L"\\DosDevices\\TagCache");

DRIVER_INITIALIZE DriverEntry;

/* Lock held. */
static PTAG TagFind(PTAG_EXTENSION Ext, const CHAR *Name)
{
    PLIST_ENTRY e;

    for (e = Ext->Tags.Flink; e != &Ext->Tags; e = e->Flink) {
        PTAG tag = CONTAINING_RECORD(e, TAG, Link);
        if (RtlCompareMemory(tag->Name, Name, TAG_NAME_CHARS) == TAG_NAME_CHARS)
            return tag;
    }
    return NULL;
}

static NTSTATUS TagSet(PTAG_EXTENSION Ext, PTAG_SET_INPUT In, ULONG InLength)
{
    PTAG tag, fresh;
    NTSTATUS status = STATUS_SUCCESS;

    if (InLength < FIELD_OFFSET(TAG_SET_INPUT, Value))
        return STATUS_BUFFER_TOO_SMALL;
    if (In->ValueLength > TAG_VALUE_BYTES || In->ValueLength > InLength - FIELD_OFFSET(TAG_SET_INPUT, Value))
        return STATUS_INVALID_PARAMETER;

    fresh = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(TAG), TAG_POOL);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(fresh, sizeof(TAG));
    RtlCopyMemory(fresh->Name, In->Name, TAG_NAME_CHARS);

    ExAcquireFastMutex(&Ext->Lock);
    tag = TagFind(Ext, In->Name);
    if (tag == NULL) {
        if (Ext->Count >= TAG_MAX_TAGS) {
            status = STATUS_QUOTA_EXCEEDED;
        } else {
            InsertTailList(&Ext->Tags, &fresh->Link);
            Ext->Count++;
            tag = fresh;
            fresh = NULL;
        }
    }
    if (tag != NULL) {
        RtlCopyMemory(tag->Value, In->Value, In->ValueLength);
        tag->ValueLength = In->ValueLength;
    }
    ExReleaseFastMutex(&Ext->Lock);

    if (fresh != NULL)
        ExFreePoolWithTag(fresh, TAG_POOL);
    return status;
}

static NTSTATUS TagGet(PTAG_EXTENSION Ext, PVOID Buffer, ULONG InLength, ULONG OutLength, PULONG_PTR Information)
{
    PTAG tag;
    ULONG length;
    NTSTATUS status = STATUS_SUCCESS;

    if (InLength < TAG_NAME_CHARS)
        return STATUS_BUFFER_TOO_SMALL;

    ExAcquireFastMutex(&Ext->Lock);
    tag = TagFind(Ext, Buffer);
    if (tag == NULL) {
        status = STATUS_NOT_FOUND;
    } else {
        length = tag->ValueLength;
        if (length > OutLength) {
            /* As much as fits; the caller comes again with a larger buffer. */
            length = OutLength;
            status = STATUS_BUFFER_OVERFLOW;
        }
        RtlCopyMemory(Buffer, tag->Value, length);
#ifdef FIXED
        *Information = length;
#else
        *Information = tag->ValueLength;
#endif
    }
    ExReleaseFastMutex(&Ext->Lock);
    return status;
}

static NTSTATUS TagDelete(PTAG_EXTENSION Ext, PVOID Buffer, ULONG InLength)
{
    PTAG tag;

    if (InLength < TAG_NAME_CHARS)
        return STATUS_BUFFER_TOO_SMALL;
    ExAcquireFastMutex(&Ext->Lock);
    tag = TagFind(Ext, Buffer);
    if (tag != NULL) {
        RemoveEntryList(&tag->Link);
        Ext->Count--;
    }
    ExReleaseFastMutex(&Ext->Lock);
    if (tag == NULL)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(tag, TAG_POOL);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI TagDeviceControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PTAG_EXTENSION ext = DeviceObject->DeviceExtension;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TAG_SET:
        status = TagSet(ext, buffer, in);
        break;
    case IOCTL_TAG_GET:
        status = TagGet(ext, buffer, in, out, &information);
        break;
    case IOCTL_TAG_DELETE:
        status = TagDelete(ext, buffer, in);
        break;
    case IOCTL_TAG_COUNT:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            ExAcquireFastMutex(&ext->Lock);
            *(PULONG)buffer = ext->Count;
            ExReleaseFastMutex(&ext->Lock);
            information = sizeof(ULONG);
            status = STATUS_SUCCESS;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }

    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI TagCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI TagUnload(PDRIVER_OBJECT DriverObject)
{
    PTAG_EXTENSION ext = DriverObject->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&TagLink);
    while (!IsListEmpty(&ext->Tags)) {
        PLIST_ENTRY e = RemoveHeadList(&ext->Tags);
        ExFreePoolWithTag(CONTAINING_RECORD(e, TAG, Link), TAG_POOL);
    }
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\TagCache");
    PDEVICE_OBJECT device;
    PTAG_EXTENSION ext;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(TAG_EXTENSION), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;

    ext = device->DeviceExtension;
    ExInitializeFastMutex(&ext->Lock);
    InitializeListHead(&ext->Tags);

    status = IoCreateSymbolicLink(&TagLink, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }

    DriverObject->MajorFunction[IRP_MJ_CREATE] = TagCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = TagCreateClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TagDeviceControl;
    DriverObject->DriverUnload = TagUnload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
