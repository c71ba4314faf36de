/*
 * A control device that keeps up to 64 named records of a few hundred bytes for the programs of one product.
 *
 * The bug: updating a record with data that do not fit returns without releasing the table's fast mutex, so the next request waits for ever at APC_LEVEL.
 * Shows by: IOCTL_REC_UPDATE of a record that exists with more bytes than it was made with, then any other request.
 *
 * Device: none
 * Rule: irql-changed-by-routine
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/control_device.h"

#define IOCTL_REC_ADD    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_REC_UPDATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_REC_GET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_REC_DELETE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define REC_MAX      64
#define REC_MAX_DATA 512
#define REC_TAG      'sceR'

#define REC_LINK L"\\DosDevices\\RecStore"

/* What ADD and UPDATE take: the key, then the data */
typedef struct _REC_INPUT {
    ULONG Key;
    UCHAR Data[1];
} REC_INPUT, *PREC_INPUT;

typedef struct _RECORD {
    LIST_ENTRY Link;
    ULONG Key;
    ULONG Capacity;
    ULONG Length;
    UCHAR Data[1];
} RECORD, *PRECORD;

typedef struct _DEVICE {
    FAST_MUTEX Lock;
    LIST_ENTRY Records;
    ULONG Count;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH RecCreateClose, RecControl;
static DRIVER_UNLOAD RecUnload;
DRIVER_INITIALIZE DriverEntry;

static PRECORD RecFind(PDEVICE Dev, ULONG Key)
{
    PLIST_ENTRY entry;

    for (entry = Dev->Records.Flink; entry != &Dev->Records; entry = entry->Flink) {
        PRECORD rec = CONTAINING_RECORD(entry, RECORD, Link);
        if (rec->Key == Key)
            return rec;
    }
    return NULL;
}

static NTSTATUS RecAdd(PDEVICE Dev, PREC_INPUT In, ULONG InLength)
{
    ULONG length;
    PRECORD rec;
    NTSTATUS status = STATUS_SUCCESS;

    if (InLength < FIELD_OFFSET(REC_INPUT, Data))
        return STATUS_BUFFER_TOO_SMALL;
    length = InLength - FIELD_OFFSET(REC_INPUT, Data);
    if (length == 0 || length > REC_MAX_DATA)
        return STATUS_INVALID_PARAMETER;

    rec = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(RECORD, Data) + length, REC_TAG);
    if (!rec)
        return STATUS_INSUFFICIENT_RESOURCES;
    rec->Key = In->Key;
    rec->Capacity = length;
    rec->Length = length;
    RtlCopyMemory(rec->Data, In->Data, length);

    ExAcquireFastMutex(&Dev->Lock);
    if (Dev->Count >= REC_MAX) {
        status = STATUS_QUOTA_EXCEEDED;
    } else if (RecFind(Dev, rec->Key)) {
        status = STATUS_OBJECT_NAME_COLLISION;
    } else {
        InsertTailList(&Dev->Records, &rec->Link);
        Dev->Count++;
    }
    ExReleaseFastMutex(&Dev->Lock);

    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(rec, REC_TAG);
    return status;
}

static NTSTATUS RecUpdate(PDEVICE Dev, PREC_INPUT In, ULONG InLength)
{
    ULONG length;
    PRECORD rec;

    if (InLength < FIELD_OFFSET(REC_INPUT, Data))
        return STATUS_BUFFER_TOO_SMALL;
    length = InLength - FIELD_OFFSET(REC_INPUT, Data);

    ExAcquireFastMutex(&Dev->Lock);
    rec = RecFind(Dev, In->Key);
    if (!rec) {
        ExReleaseFastMutex(&Dev->Lock);
        return STATUS_NOT_FOUND;
    }
    if (length > rec->Capacity) {
#ifdef FIXED
        ExReleaseFastMutex(&Dev->Lock);
#endif
        return STATUS_INVALID_BUFFER_SIZE;
    }
    RtlCopyMemory(rec->Data, In->Data, length);
    rec->Length = length;
    ExReleaseFastMutex(&Dev->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS RecGet(PDEVICE Dev, PVOID Buffer, ULONG InLength, ULONG OutLength, PULONG_PTR Information)
{
    ULONG key;
    PRECORD rec;
    NTSTATUS status;

    if (InLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    key = *(PULONG)Buffer;

    ExAcquireFastMutex(&Dev->Lock);
    rec = RecFind(Dev, key);
    if (!rec) {
        status = STATUS_NOT_FOUND;
    } else if (OutLength < rec->Length) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        RtlCopyMemory(Buffer, rec->Data, rec->Length);
        *Information = rec->Length;
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Dev->Lock);
    return status;
}

static NTSTATUS RecDelete(PDEVICE Dev, PULONG Key, ULONG InLength)
{
    PRECORD rec;

    if (InLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    ExAcquireFastMutex(&Dev->Lock);
    rec = RecFind(Dev, *Key);
    if (rec) {
        RemoveEntryList(&rec->Link);
        Dev->Count--;
    }
    ExReleaseFastMutex(&Dev->Lock);
    if (!rec)
        return STATUS_NOT_FOUND;
    ExFreePoolWithTag(rec, REC_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI RecCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI RecControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_REC_ADD:
        status = RecAdd(dev, buffer, in);
        break;
    case IOCTL_REC_UPDATE:
        status = RecUpdate(dev, buffer, in);
        break;
    case IOCTL_REC_GET:
        status = RecGet(dev, buffer, in, out, &information);
        break;
    case IOCTL_REC_DELETE:
        status = RecDelete(dev, buffer, in);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return CtlComplete(Irp, status, information);
}

static VOID NTAPI RecUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE dev = Driver->DeviceObject->DeviceExtension;

    while (!IsListEmpty(&dev->Records)) {
        PLIST_ENTRY entry = RemoveHeadList(&dev->Records);
        ExFreePoolWithTag(CONTAINING_RECORD(entry, RECORD, Link), REC_TAG);
    }
    CtlDelete(Driver->DeviceObject, REC_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PDEVICE dev;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = RecCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = RecCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RecControl;
    Driver->DriverUnload = RecUnload;

    status = CtlCreate(Driver, L"\\Device\\RecStore", REC_LINK, sizeof(DEVICE), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    dev = device->DeviceExtension;
    ExInitializeFastMutex(&dev->Lock);
    InitializeListHead(&dev->Records);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
