/*
 * quarto: keeps an ordered collection of measured points in the kernel. Programs append points in batches and
 * read them back by their position.
 *
 * The bug: the size of a batch is reckoned in 32 bits before it is compared with the input's length, so that a huge
 * count wraps round and the copy runs past the input buffer and the pool block.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_QUARTO_APPEND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_QUARTO_FETCH  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_QUARTO_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUARTO_CLEAR  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_WRITE_DATA)
#define TAG 'trQ'
#define MOST_POINTS 100000

typedef struct _POINT {
    LONG X, Y, Z;
    ULONG Weight;
} POINT, *PPOINT;

typedef struct _BATCH {
    ULONG Count;
    ULONG Reserved;
    POINT Points[1];
} BATCH, *PBATCH;
#define BATCH_HEAD ((ULONG)FIELD_OFFSET(BATCH, Points))

typedef struct _SHEET {
    LIST_ENTRY Link;
    ULONG Count;
    POINT Points[1];
} SHEET, *PSHEET;

typedef struct _QUARTO {
    FAST_MUTEX Mutex;
    LIST_ENTRY Sheets;
    ULONG Total;
} QUARTO, *PQUARTO;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Quarto");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Quarto");

static NTSTATUS Append(PQUARTO q, PBATCH batch, ULONG length)
{
    PSHEET sheet;
    ULONG i, count;
    NTSTATUS status = STATUS_SUCCESS;

    if (length < BATCH_HEAD)
        return STATUS_BUFFER_TOO_SMALL;
    count = batch->Count;
    if (count == 0)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (count > (length - BATCH_HEAD) / sizeof(POINT))
#else
    if (BATCH_HEAD + count * (ULONG)sizeof(POINT) > length)
#endif
        return STATUS_INVALID_BUFFER_SIZE;

    sheet = ExAllocatePoolWithTag(PagedPool, (ULONG)FIELD_OFFSET(SHEET, Points) + count * (ULONG)sizeof(POINT), TAG);
    if (sheet == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    sheet->Count = count;
    for (i = 0; i < count; i++) {
        sheet->Points[i] = batch->Points[i];
        if (sheet->Points[i].Weight == 0)
            sheet->Points[i].Weight = 1;
    }

    ExAcquireFastMutex(&q->Mutex);
    if (count > MOST_POINTS - q->Total) {
        status = STATUS_DISK_FULL;
    } else {
        InsertTailList(&q->Sheets, &sheet->Link);
        q->Total += count;
    }
    ExReleaseFastMutex(&q->Mutex);
    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(sheet, TAG);
    return status;
}

static NTSTATUS Fetch(PQUARTO q, ULONG position, PPOINT out)
{
    PLIST_ENTRY e;
    NTSTATUS status = STATUS_NO_MORE_ENTRIES;

    ExAcquireFastMutex(&q->Mutex);
    for (e = q->Sheets.Flink; e != &q->Sheets; e = e->Flink) {
        PSHEET sheet = CONTAINING_RECORD(e, SHEET, Link);

        if (position < sheet->Count) {
            *out = sheet->Points[position];
            status = STATUS_SUCCESS;
            break;
        }
        position -= sheet->Count;
    }
    ExReleaseFastMutex(&q->Mutex);
    return status;
}

static VOID Clear(PQUARTO q)
{
    ExAcquireFastMutex(&q->Mutex);
    while (!IsListEmpty(&q->Sheets))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&q->Sheets), SHEET, Link), TAG);
    q->Total = 0;
    ExReleaseFastMutex(&q->Mutex);
}

static NTSTATUS NTAPI QuartoControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PQUARTO q = dev->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    POINT point;
    NTSTATUS status;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QUARTO_APPEND:
        status = Append(q, buffer, in);
        break;
    case IOCTL_QUARTO_FETCH:
        if (in < sizeof(ULONG) || out < sizeof(POINT)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = Fetch(q, *(PULONG)buffer, &point);
        if (NT_SUCCESS(status)) {
            *(PPOINT)buffer = point;
            info = sizeof(POINT);
        }
        break;
    case IOCTL_QUARTO_COUNT:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&q->Mutex);
        *(PULONG)buffer = q->Total;
        ExReleaseFastMutex(&q->Mutex);
        info = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;
    case IOCTL_QUARTO_CLEAR:
        Clear(q);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI QuartoCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI QuartoUnload(PDRIVER_OBJECT driver)
{
    IoDeleteSymbolicLink(&LinkName);
    Clear(driver->DeviceObject->DeviceExtension);
    IoDeleteDevice(driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    PQUARTO q;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(QUARTO), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    q = dev->DeviceExtension;
    ExInitializeFastMutex(&q->Mutex);
    InitializeListHead(&q->Sheets);
    q->Total = 0;
    driver->MajorFunction[IRP_MJ_CREATE] = QuartoCreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = QuartoCreateClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = QuartoControl;
    driver->DriverUnload = QuartoUnload;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(dev);
    return status;
}
