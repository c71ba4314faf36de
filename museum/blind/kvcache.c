/*
 * kvcache: a cache of values that applications share, a control device without hardware.  A value is up to 1024 bytes
 * and is known by a number; when there are too many, or they take too much room, those not used for longest go.
 *
 * \\.\KvCache
 *   0x222004 PUT     in  { u32 key, bytes }            a value is replaced if it is there
 *   0x222008 GET     in  { u32 key }  out bytes        STATUS_NOT_FOUND; STATUS_BUFFER_TOO_SMALL
 *   0x22200c DELETE  in  { u32 key }
 *   0x222010 LIST    out { u32 keys... }               in the order of use, the last used one first
 *   0x222014 QUERY   out { u32 values, u32 bytes, u32 hits, u32 misses, u32 evicted }
 *   0x222018 LIMITS  in  { u32 values, u32 bytes }     new limits; evicts what is over them
 *
 * All is held together by an ERESOURCE, acquired shared by what only looks and exclusively by what changes something.
 * Values are found by a hash table, and are in a list in the order of their use.
 *
 * The bug: GET acquires the resource shared, since it only looks; but it moves the value to the head of the list.  It
 * shows when two threads GET at the same time (the values must not be at the head already, else nothing is moved):
 * both change the links, the list is corrupt, and a later eviction, LIST or unload goes astray, frees a value
 * twice, leaves one in the list that was freed, or never ends.
 *
 * Device: none
 * Rule: data-race, use-after-free, double-free, pool-leak
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define TAG 'hcvK'
#define IOCTL_PUT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DELETE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LIST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUERY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LIMITS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define BUCKETS 16
#define MAX_VALUE 1024
#define MAX_VALUES 64
#define MAX_BYTES 16384

typedef struct {
    LIST_ENTRY Bucket;
    LIST_ENTRY Use;
    ULONG Key;
    ULONG Length;
    UCHAR Data[];
} VALUE;

typedef struct {
    ULONG Values, Bytes, Hits, Misses, Evicted;
} CACHE_STATISTICS;

typedef struct {
    ULONG Values, Bytes;
} CACHE_LIMITS;

typedef struct {
    ERESOURCE Resource;
    LIST_ENTRY Buckets[BUCKETS];
    LIST_ENTRY Use;                  /* the last used one first */
    CACHE_LIMITS Limits;
    ULONG Values, Bytes, Evicted;
    LONG Hits, Misses;               /* interlocked */
} EXTENSION;

static const UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\KvCache");
static const UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\KvCache");

static VOID LockShared(EXTENSION *ext)
{
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&ext->Resource, TRUE);
}

static VOID LockExclusive(EXTENSION *ext)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&ext->Resource, TRUE);
}

static VOID Unlock(EXTENSION *ext)
{
    ExReleaseResourceLite(&ext->Resource);
    KeLeaveCriticalRegion();
}

static PLIST_ENTRY BucketOf(EXTENSION *ext, ULONG Key)
{
    return &ext->Buckets[(Key * 2654435761u >> 16) % BUCKETS];
}

static VALUE *Find(EXTENSION *ext, ULONG Key)
{
    PLIST_ENTRY bucket = BucketOf(ext, Key), e;

    for (e = bucket->Flink; e != bucket; e = e->Flink) {
        VALUE *value = CONTAINING_RECORD(e, VALUE, Bucket);
        if (value->Key == Key)
            return value;
    }
    return NULL;
}

static VOID Touch(EXTENSION *ext, VALUE *value)
{
    if (ext->Use.Flink != &value->Use) {
        RemoveEntryList(&value->Use);
        InsertHeadList(&ext->Use, &value->Use);
    }
}

static VOID Insert(EXTENSION *ext, VALUE *value)
{
    InsertHeadList(BucketOf(ext, value->Key), &value->Bucket);
    InsertHeadList(&ext->Use, &value->Use);
    ext->Values++;
    ext->Bytes += value->Length;
}

static VOID Discard(EXTENSION *ext, VALUE *value)
{
    RemoveEntryList(&value->Bucket);
    RemoveEntryList(&value->Use);
    ext->Values--;
    ext->Bytes -= value->Length;
    ExFreePoolWithTag(value, TAG);
}

static VOID Evict(EXTENSION *ext)
{
    while (!IsListEmpty(&ext->Use) &&
           (ext->Values > ext->Limits.Values || ext->Bytes > ext->Limits.Bytes)) {
        Discard(ext, CONTAINING_RECORD(ext->Use.Blink, VALUE, Use));
        ext->Evicted++;
    }
}

static NTSTATUS Put(EXTENSION *ext, ULONG Key, const UCHAR *Data, ULONG Length)
{
    VALUE *value, *old;

    if (Length > MAX_VALUE)
        return STATUS_INVALID_BUFFER_SIZE;
    value = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(VALUE, Data) + Length, TAG);
    if (!value)
        return STATUS_INSUFFICIENT_RESOURCES;
    value->Key = Key;
    value->Length = Length;
    RtlCopyMemory(value->Data, Data, Length);

    LockExclusive(ext);
    old = Find(ext, Key);
    if (old)
        Discard(ext, old);
    Insert(ext, value);
    Evict(ext);
    Unlock(ext);
    return STATUS_SUCCESS;
}

static NTSTATUS Get(EXTENSION *ext, ULONG Key, PVOID Buffer, ULONG Length, ULONG_PTR *Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    VALUE *value;

#ifdef FIXED
    LockExclusive(ext);
#else
    LockShared(ext);
#endif
    value = Find(ext, Key);
    if (!value) {
        InterlockedIncrement(&ext->Misses);
        status = STATUS_NOT_FOUND;
    } else if (Length < value->Length) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        InterlockedIncrement(&ext->Hits);
        RtlCopyMemory(Buffer, value->Data, value->Length);
        *Information = value->Length;
        Touch(ext, value);
    }
    Unlock(ext);
    return status;
}

static NTSTATUS Delete(EXTENSION *ext, ULONG Key)
{
    VALUE *value;

    LockExclusive(ext);
    value = Find(ext, Key);
    if (value)
        Discard(ext, value);
    Unlock(ext);
    return value ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

static NTSTATUS List(EXTENSION *ext, ULONG *Keys, ULONG Length, ULONG_PTR *Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG n = 0;
    PLIST_ENTRY e;

    LockShared(ext);
    for (e = ext->Use.Flink; e != &ext->Use; e = e->Flink) {
        if (n == Length / sizeof(ULONG)) {
            status = STATUS_BUFFER_OVERFLOW;
            break;
        }
        Keys[n++] = CONTAINING_RECORD(e, VALUE, Use)->Key;
    }
    Unlock(ext);
    *Information = n * sizeof(ULONG);
    return status;
}

static VOID Query(EXTENSION *ext, CACHE_STATISTICS *Statistics)
{
    LockShared(ext);
    Statistics->Values = ext->Values;
    Statistics->Bytes = ext->Bytes;
    Statistics->Hits = ext->Hits;
    Statistics->Misses = ext->Misses;
    Statistics->Evicted = ext->Evicted;
    Unlock(ext);
}

static NTSTATUS SetLimits(EXTENSION *ext, const CACHE_LIMITS *Limits)
{
    if (!Limits->Values || Limits->Values > MAX_VALUES || Limits->Bytes < MAX_VALUE || Limits->Bytes > MAX_BYTES)
        return STATUS_INVALID_PARAMETER;
    LockExclusive(ext);
    ext->Limits = *Limits;
    Evict(ext);
    Unlock(ext);
    return STATUS_SUCCESS;
}

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI DispatchSuccess(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;
    ULONG_PTR information = 0;
    CACHE_STATISTICS statistics;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PUT:
        if (in < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = Put(ext, *(ULONG *)buffer, (UCHAR *)buffer + sizeof(ULONG), in - sizeof(ULONG));
        break;

    case IOCTL_GET:
        if (in < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = Get(ext, *(ULONG *)buffer, buffer, out, &information);
        break;

    case IOCTL_DELETE:
        if (in < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = Delete(ext, *(ULONG *)buffer);
        break;

    case IOCTL_LIST:
        if (out < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = List(ext, buffer, out, &information);
        break;

    case IOCTL_QUERY:
        if (out < sizeof statistics) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Query(ext, &statistics);
        RtlCopyMemory(buffer, &statistics, sizeof statistics);
        information = sizeof statistics;
        status = STATUS_SUCCESS;
        break;

    case IOCTL_LIMITS:
        if (in < sizeof(CACHE_LIMITS))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = SetLimits(ext, buffer);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Complete(Irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    EXTENSION *ext = Driver->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink((PUNICODE_STRING)&LinkName);
    while (!IsListEmpty(&ext->Use))
        Discard(ext, CONTAINING_RECORD(ext->Use.Flink, VALUE, Use));
    ExDeleteResourceLite(&ext->Resource);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(Driver, sizeof *ext, (PUNICODE_STRING)&DeviceName, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    for (i = 0; i < BUCKETS; i++)
        InitializeListHead(&ext->Buckets[i]);
    InitializeListHead(&ext->Use);
    ext->Limits.Values = MAX_VALUES;
    ext->Limits.Bytes = MAX_BYTES;
    status = ExInitializeResourceLite(&ext->Resource);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    status = IoCreateSymbolicLink((PUNICODE_STRING)&LinkName, (PUNICODE_STRING)&DeviceName);
    if (!NT_SUCCESS(status)) {
        ExDeleteResourceLite(&ext->Resource);
        IoDeleteDevice(device);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchSuccess;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchSuccess;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
