/*
 * drennet: a record log. Applications write records of up to 64 bytes, others read them oldest first; a read waits
 * while the log is empty. The registry value Depth (Device Parameters) says how many records the log keeps.
 *
 * The bug: each start takes the registry's Depth for the index arithmetic, but the ring is only allocated at the first
 * start and survives a stop for rebalancing. After a restart with a larger Depth the writes run over its end.
 *
 * Device: ROOT\DRENNET
 * Rule: pool-overrun
 * Needs: registry, removal, ioctl
 */
#include <ddk/wdm.h>
#include "../include/quill_pnp.h"
#include "../include/quill_queue.h"

#define DRENNET_TAG         'nerD'
#define DRENNET_BYTES       64
#define DRENNET_DEPTH_MIN   16
#define DRENNET_DEPTH_MAX   4096
#define DRENNET_DEPTH_USUAL 64
#define DRENNET_READERS     256

#define IOCTL_DRENNET_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DRENNET_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_ACCESS)

/* {5B0C6C1E-6F0B-4E57-9C41-0D6C2C7E1A31} */
static const GUID DrennetInterface =
    { 0x5b0c6c1e, 0x6f0b, 0x4e57, { 0x9c, 0x41, 0x0d, 0x6c, 0x2c, 0x7e, 0x1a, 0x31 } };

typedef struct _DRENNET_RECORD {
    ULONG Length;
    ULONG Serial;
    UCHAR Data[DRENNET_BYTES];
} DRENNET_RECORD, *PDRENNET_RECORD;

/* What IOCTL_DRENNET_QUERY gives. */
typedef struct _DRENNET_STATE {
    ULONG Depth;
    ULONG Count;
    ULONG Lost;
    ULONG Serial;
} DRENNET_STATE, *PDRENNET_STATE;

typedef struct _DRENNET {
    QUILL_DEVICE Base;
    QUILL_QUEUE Readers;            /* its lock protects all that follows */
    PDRENNET_RECORD Ring;
    ULONG Depth;
    ULONG Head;
    ULONG Count;
    ULONG Lost;
    ULONG Serial;
} DRENNET, *PDRENNET;

static ULONG DrennetReadDepth(PDRENNET Log)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } value;
    UNICODE_STRING name;
    ULONG depth = DRENNET_DEPTH_USUAL;
    ULONG needed;
    HANDLE key;
    NTSTATUS status;

    status = IoOpenDeviceRegistryKey(Log->Base.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key);
    if (!NT_SUCCESS(status))
        return depth;
    RtlInitUnicodeString(&name, L"Depth");
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof(value), &needed);
    if (NT_SUCCESS(status) && value.Info.Type == REG_DWORD && value.Info.DataLength == sizeof(ULONG))
        RtlCopyMemory(&depth, value.Info.Data, sizeof(depth));
    ZwClose(key);

    if (depth < DRENNET_DEPTH_MIN)
        depth = DRENNET_DEPTH_MIN;
    if (depth > DRENNET_DEPTH_MAX)
        depth = DRENNET_DEPTH_MAX;
    return depth;
}

static NTSTATUS DrennetInit(PQUILL_DEVICE Device)
{
    PDRENNET log = CONTAINING_RECORD(Device, DRENNET, Base);

    QuillQueueInit(&log->Readers, &Device->RemoveLock, DRENNET_READERS);
    return STATUS_SUCCESS;
}

/* The records are kept over a stop, so the ring is made once; Free frees it, also after a failed start. */
static NTSTATUS DrennetStart(PQUILL_DEVICE Device)
{
    PDRENNET log = CONTAINING_RECORD(Device, DRENNET, Base);
    PDRENNET_RECORD ring = NULL;
    ULONG depth = DrennetReadDepth(log);
    KIRQL irql;

    if (log->Ring == NULL) {
        ring = (PDRENNET_RECORD)ExAllocatePoolWithTag(NonPagedPoolNx, depth * sizeof(DRENNET_RECORD), DRENNET_TAG);
        if (ring == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlZeroMemory(ring, depth * sizeof(DRENNET_RECORD));
    }

    KeAcquireSpinLock(&log->Readers.Lock, &irql);
#ifdef FIXED
    if (ring != NULL)
#endif
        log->Depth = depth;
    if (ring != NULL)
        log->Ring = ring;
    KeReleaseSpinLock(&log->Readers.Lock, irql);

    return QuillInterfaceOn(Device);
}

static VOID DrennetStop(PQUILL_DEVICE Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static VOID DrennetAbort(PQUILL_DEVICE Device)
{
    QuillQueueClose(&CONTAINING_RECORD(Device, DRENNET, Base)->Readers);
}

static VOID DrennetFree(PQUILL_DEVICE Device)
{
    PDRENNET log = CONTAINING_RECORD(Device, DRENNET, Base);

    if (log->Ring != NULL) {
        ExFreePoolWithTag(log->Ring, DRENNET_TAG);
        log->Ring = NULL;
    }
}

static const QUILL_OPS DrennetOps = {
    sizeof(DRENNET), &DrennetInterface, DrennetInit, DrennetStart, DrennetStop, DrennetAbort, DrennetFree
};

/* Puts a record in; the oldest one goes when there is no room. Under the lock. */
static VOID DrennetPut(PDRENNET Log, const DRENNET_RECORD *Record)
{
    if (Log->Count >= Log->Depth) {
        Log->Head = (Log->Head + 1) % Log->Depth;
        Log->Count--;
        Log->Lost++;
    }
    Log->Ring[(Log->Head + Log->Count) % Log->Depth] = *Record;
    Log->Count++;
}

/* Takes the oldest record. Under the lock. */
static BOOLEAN DrennetGet(PDRENNET Log, PDRENNET_RECORD Record)
{
    if (Log->Count == 0)
        return FALSE;
    *Record = Log->Ring[Log->Head];
    Log->Head = (Log->Head + 1) % Log->Depth;
    Log->Count--;
    return TRUE;
}

static NTSTATUS NTAPI DrennetCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDRENNET log = (PDRENNET)DeviceObject->DeviceExtension;
    NTSTATUS status;

    status = QuillEnter(&log->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);
    status = QuillMayOpen(&log->Base, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return QuillLeave(&log->Base, Irp, status, 0);
}

static NTSTATUS NTAPI DrennetCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDRENNET log = (PDRENNET)DeviceObject->DeviceExtension;

    QuillQueueCleanup(&log->Readers, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return QuillComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DrennetClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return QuillComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DrennetRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDRENNET log = (PDRENNET)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    DRENNET_RECORD record;
    NTSTATUS status;
    KIRQL irql;

    status = QuillEnter(&log->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);
    if (stack->Parameters.Read.Length < DRENNET_BYTES)
        return QuillLeave(&log->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);

    KeAcquireSpinLock(&log->Readers.Lock, &irql);
    if (DrennetGet(log, &record)) {
        KeReleaseSpinLock(&log->Readers.Lock, irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, record.Data, record.Length);
        return QuillLeave(&log->Base, Irp, STATUS_SUCCESS, record.Length);
    }
    IoMarkIrpPending(Irp);
    status = QuillQueueInsertLocked(&log->Readers, Irp, NULL);
    KeReleaseSpinLock(&log->Readers.Lock, irql);
    if (!NT_SUCCESS(status))
        QuillQueueEnd(&log->Readers, Irp, status, 0);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DrennetWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDRENNET log = (PDRENNET)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = stack->Parameters.Write.Length;
    DRENNET_RECORD record;
    NTSTATUS status;
    PIRP reader;
    KIRQL irql;

    status = QuillEnter(&log->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);
    if (length == 0 || length > DRENNET_BYTES)
        return QuillLeave(&log->Base, Irp, STATUS_INVALID_PARAMETER, 0);

    RtlZeroMemory(&record, sizeof(record));
    record.Length = length;
    RtlCopyMemory(record.Data, Irp->AssociatedIrp.SystemBuffer, length);

    KeAcquireSpinLock(&log->Readers.Lock, &irql);
    record.Serial = ++log->Serial;
    reader = QuillQueueTakeLocked(&log->Readers, NULL, NULL);
    if (reader == NULL)
        DrennetPut(log, &record);
    KeReleaseSpinLock(&log->Readers.Lock, irql);

    if (reader != NULL) {
        RtlCopyMemory(reader->AssociatedIrp.SystemBuffer, record.Data, length);
        QuillQueueEnd(&log->Readers, reader, STATUS_SUCCESS, length);
    }
    return QuillLeave(&log->Base, Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI DrennetControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDRENNET log = (PDRENNET)DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    DRENNET_STATE state;
    NTSTATUS status;
    KIRQL irql;

    status = QuillEnter(&log->Base, Irp);
    if (!NT_SUCCESS(status))
        return QuillComplete(Irp, status, 0);

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DRENNET_QUERY:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(state))
            return QuillLeave(&log->Base, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&log->Readers.Lock, &irql);
        state.Depth = log->Depth;
        state.Count = log->Count;
        state.Lost = log->Lost;
        state.Serial = log->Serial;
        KeReleaseSpinLock(&log->Readers.Lock, irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &state, sizeof(state));
        return QuillLeave(&log->Base, Irp, STATUS_SUCCESS, sizeof(state));

    case IOCTL_DRENNET_EMPTY:
        KeAcquireSpinLock(&log->Readers.Lock, &irql);
        log->Head = 0;
        log->Count = 0;
        log->Lost = 0;
        KeReleaseSpinLock(&log->Readers.Lock, irql);
        return QuillLeave(&log->Base, Irp, STATUS_SUCCESS, 0);

    default:
        return QuillLeave(&log->Base, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI DrennetAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return QuillAddDevice(Driver, Pdo, &DrennetOps);
}

static VOID NTAPI DrennetUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);

    QuillHook(Driver);
    Driver->MajorFunction[IRP_MJ_CREATE] = DrennetCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DrennetCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DrennetClose;
    Driver->MajorFunction[IRP_MJ_READ] = DrennetRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = DrennetWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DrennetControl;
    Driver->DriverExtension->AddDevice = DrennetAddDevice;
    Driver->DriverUnload = DrennetUnload;
    return STATUS_SUCCESS;
}
