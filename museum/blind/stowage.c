/*
 * stowage: stows tables of records: a program puts in a table of so many records of such a size and gets
 * its number; single records are fetched by table and index.
 *
 * The bug: the product of the number of records and their size is taken in 32 bits and may overflow before it is
 * checked.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_STOW_PUT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA00, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_STOW_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_STOW_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA02, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define TAG 'wotS'
#define TABLES 16
#define MAX_TABLE 32768u

typedef struct _STOW_PUT {
    ULONG Records;
    ULONG RecordSize;
    UCHAR Data[1];
} STOW_PUT;
#define PUT_HEADER FIELD_OFFSET(STOW_PUT, Data)

typedef struct _STOW_FETCH {
    ULONG Table;
    ULONG Index;
} STOW_FETCH;

typedef struct _STOW_TABLE {
    ULONG Records;
    ULONG RecordSize;
    PUCHAR Data;            /* NULL: the place is free */
} STOW_TABLE;

typedef struct _STOW {
    FAST_MUTEX Mutex;
    STOW_TABLE Tables[TABLES];
} STOW, *PSTOW;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Stowage");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Stowage");

static NTSTATUS StowPut(PSTOW Stow, STOW_PUT *Put, ULONG In, PULONG Number)
{
    ULONG total, i, place;
    PUCHAR data;

    if (In <= (ULONG)PUT_HEADER || Put->Records == 0 || Put->RecordSize == 0)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (Put->Records > MAX_TABLE / Put->RecordSize)
        return STATUS_INVALID_PARAMETER;
#endif
    total = Put->Records * Put->RecordSize;
    if (total == 0 || total > MAX_TABLE || total > In - PUT_HEADER)
        return STATUS_INVALID_PARAMETER;
    data = ExAllocatePoolWithTag(PagedPool, total, TAG);
    if (!data)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < Put->Records; i++)
        RtlCopyMemory(data + (SIZE_T)i * Put->RecordSize, Put->Data + (SIZE_T)i * Put->RecordSize, Put->RecordSize);

    ExAcquireFastMutex(&Stow->Mutex);
    for (place = 0; place < TABLES; place++)
        if (!Stow->Tables[place].Data)
            break;
    if (place < TABLES) {
        Stow->Tables[place].Records = Put->Records;
        Stow->Tables[place].RecordSize = Put->RecordSize;
        Stow->Tables[place].Data = data;
    }
    ExReleaseFastMutex(&Stow->Mutex);
    if (place == TABLES) {
        ExFreePoolWithTag(data, TAG);
        return STATUS_QUOTA_EXCEEDED;
    }
    *Number = place;
    return STATUS_SUCCESS;
}

static NTSTATUS StowFetch(PSTOW Stow, PVOID Buffer, ULONG Out, PULONG_PTR Information)
{
    STOW_FETCH fetch = *(STOW_FETCH *)Buffer;
    STOW_TABLE *table;
    NTSTATUS status = STATUS_SUCCESS;

    if (fetch.Table >= TABLES)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&Stow->Mutex);
    table = &Stow->Tables[fetch.Table];
    if (!table->Data || fetch.Index >= table->Records)
        status = STATUS_NOT_FOUND;
    else if (table->RecordSize > Out)
        status = STATUS_BUFFER_TOO_SMALL;
    else {
        RtlCopyMemory(Buffer, table->Data + (SIZE_T)fetch.Index * table->RecordSize, table->RecordSize);
        *Information = table->RecordSize;
    }
    ExReleaseFastMutex(&Stow->Mutex);
    return status;
}

static VOID StowEmpty(PSTOW Stow)
{
    ULONG i;

    ExAcquireFastMutex(&Stow->Mutex);
    for (i = 0; i < TABLES; i++) {
        if (Stow->Tables[i].Data)
            ExFreePoolWithTag(Stow->Tables[i].Data, TAG);
        Stow->Tables[i].Data = NULL;
    }
    ExReleaseFastMutex(&Stow->Mutex);
}

static NTSTATUS NTAPI StowControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSTOW stow = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG number;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STOW_PUT:
        status = STATUS_BUFFER_TOO_SMALL;
        if (in < sizeof(STOW_PUT) || out < sizeof(ULONG))
            break;
        status = StowPut(stow, buffer, in, &number);
        if (NT_SUCCESS(status)) {
            *(PULONG)buffer = number;
            information = sizeof(ULONG);
        }
        break;
    case IOCTL_STOW_FETCH:
        status = in < sizeof(STOW_FETCH) ? STATUS_BUFFER_TOO_SMALL : StowFetch(stow, buffer, out, &information);
        break;
    case IOCTL_STOW_EMPTY:
        StowEmpty(stow);
        status = STATUS_SUCCESS;
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

static NTSTATUS NTAPI StowOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI StowUnload(PDRIVER_OBJECT DriverObject)
{
    PDEVICE_OBJECT device = DriverObject->DeviceObject;

    IoDeleteSymbolicLink(&LinkName);
    StowEmpty(device->DeviceExtension);
    IoDeleteDevice(device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PSTOW stow;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = StowUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = StowOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = StowOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = StowControl;
    status = IoCreateDevice(DriverObject, sizeof(STOW), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    stow = device->DeviceExtension;
    RtlZeroMemory(stow, sizeof(*stow));
    ExInitializeFastMutex(&stow->Mutex);
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
