/*
 * tracering.sys - Kernel side trace ring
 *
 * User-mode components write fixed-size trace records into a common ring that
 * survives their crash; the support tool reads them out, oldest first. The
 * size of the ring (in records) can be set by support staff:
 *
 *   HKLM\SYSTEM\CurrentControlSet\Services\tracering
 *     RingRecords  REG_DWORD  (default 1024)
 *
 * The bug: the number of records comes from the registry, and their size in bytes is counted in 32 bits.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: registry
 */
#include <ddk/wdm.h>

#define RING_POOL               'gnRT'
#define RING_DEFAULT_RECORDS    1024
#define RING_MAX_RECORDS        65536
#define RING_TEXT               48

#define IOCTL_RING_INFO         CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RING_CLEAR        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _RING_WRITE {
    ULONG Component;
    ULONG Code;
    CHAR Text[RING_TEXT];
} RING_WRITE, *PRING_WRITE;

typedef struct _RING_RECORD {
    LARGE_INTEGER Time;
    RING_WRITE Data;
} RING_RECORD, *PRING_RECORD;

typedef struct _RING_INFO {
    ULONG Capacity;
    ULONG Used;
    ULONG Overwritten;
} RING_INFO, *PRING_INFO;

typedef struct _RING_EXTENSION {
    KSPIN_LOCK Lock;
    PRING_RECORD Records;
    ULONG Capacity;
    ULONG Head;             /* oldest record */
    ULONG Used;
    ULONG Overwritten;
} RING_EXTENSION, *PRING_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static NTSTATUS RingComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static ULONG RingReadCapacity(PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING value = RTL_CONSTANT_STRING(L"RingRecords");
    UCHAR buffer[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)] __attribute__((aligned(8)));
    PKEY_VALUE_PARTIAL_INFORMATION info = (PKEY_VALUE_PARTIAL_INFORMATION)buffer;
    OBJECT_ATTRIBUTES oa;
    ULONG records = RING_DEFAULT_RECORDS, length;
    HANDLE key;

    InitializeObjectAttributes(&oa, RegistryPath, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&key, KEY_QUERY_VALUE, &oa)))
        return records;
    if (NT_SUCCESS(ZwQueryValueKey(key, &value, KeyValuePartialInformation, info, sizeof(buffer), &length)) &&
        info->Type == REG_DWORD && info->DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&records, info->Data, sizeof(ULONG));
    }
    ZwClose(key);

    if (records == 0)
        records = RING_DEFAULT_RECORDS;
#ifdef FIXED
    if (records > RING_MAX_RECORDS)
        records = RING_MAX_RECORDS;
#endif
    return records;
}

static NTSTATUS NTAPI RingWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PRING_EXTENSION ext = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    LARGE_INTEGER now;
    ULONG slot;
    KIRQL irql;

    if (length != sizeof(RING_WRITE))
        return RingComplete(Irp, STATUS_INVALID_PARAMETER, 0);

    KeQuerySystemTime(&now);
    KeAcquireSpinLock(&ext->Lock, &irql);
    slot = (ULONG)(((ULONG64)ext->Head + ext->Used) % ext->Capacity);
    if (ext->Used == ext->Capacity) {
        ext->Head = (ext->Head + 1) % ext->Capacity;
        ext->Overwritten++;
    } else {
        ext->Used++;
    }
    ext->Records[slot].Time = now;
    RtlCopyMemory(&ext->Records[slot].Data, Irp->AssociatedIrp.SystemBuffer, sizeof(RING_WRITE));
    KeReleaseSpinLock(&ext->Lock, irql);
    return RingComplete(Irp, STATUS_SUCCESS, sizeof(RING_WRITE));
}

static NTSTATUS NTAPI RingRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PRING_EXTENSION ext = DeviceObject->DeviceExtension;
    ULONG room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(RING_RECORD);
    PRING_RECORD out = Irp->AssociatedIrp.SystemBuffer;
    ULONG n = 0;
    KIRQL irql;

    if (room == 0)
        return RingComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);

    KeAcquireSpinLock(&ext->Lock, &irql);
    while (n < room && ext->Used > 0) {
        out[n++] = ext->Records[ext->Head];
        ext->Head = (ext->Head + 1) % ext->Capacity;
        ext->Used--;
    }
    KeReleaseSpinLock(&ext->Lock, irql);
    return RingComplete(Irp, STATUS_SUCCESS, (ULONG_PTR)n * sizeof(RING_RECORD));
}

static NTSTATUS NTAPI RingControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PRING_EXTENSION ext = DeviceObject->DeviceExtension;
    PRING_INFO info;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RING_INFO:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(RING_INFO))
            return RingComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        info = Irp->AssociatedIrp.SystemBuffer;
        KeAcquireSpinLock(&ext->Lock, &irql);
        info->Capacity = ext->Capacity;
        info->Used = ext->Used;
        info->Overwritten = ext->Overwritten;
        KeReleaseSpinLock(&ext->Lock, irql);
        return RingComplete(Irp, STATUS_SUCCESS, sizeof(RING_INFO));

    case IOCTL_RING_CLEAR:
        KeAcquireSpinLock(&ext->Lock, &irql);
        ext->Head = ext->Used = ext->Overwritten = 0;
        KeReleaseSpinLock(&ext->Lock, irql);
        return RingComplete(Irp, STATUS_SUCCESS, 0);

    default:
        return RingComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI RingOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return RingComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI RingUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\TraceRing");
    PDEVICE_OBJECT device = DriverObject->DeviceObject;
    PRING_EXTENSION ext = device->DeviceExtension;

    IoDeleteSymbolicLink(&link);
    ExFreePoolWithTag(ext->Records, RING_POOL);
    IoDeleteDevice(device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\TraceRing");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\TraceRing");
    PDEVICE_OBJECT device;
    PRING_EXTENSION ext;
    ULONG bytes;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(RING_EXTENSION), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;

    ext = device->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    ext->Capacity = RingReadCapacity(RegistryPath);
    bytes = ext->Capacity * sizeof(RING_RECORD);
    ext->Records = ExAllocatePoolWithTag(NonPagedPoolNx, bytes, RING_POOL);
    if (ext->Records == NULL) {
        IoDeleteDevice(device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(ext->Records, bytes);

    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(ext->Records, RING_POOL);
        IoDeleteDevice(device);
        return status;
    }

    DriverObject->MajorFunction[IRP_MJ_CREATE] = RingOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = RingOpenClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = RingRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = RingWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RingControl;
    DriverObject->DriverUnload = RingUnload;
    device->Flags |= DO_BUFFERED_IO;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
