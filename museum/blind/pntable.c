/*
 * A legacy driver that keeps a curve of calibration points which an application loads, and interpolates on it.
 *
 * The bug: the size that a curve needs is computed in 32 bits and wraps, so that a huge count passes the check and the points are copied far beyond the allocation and the request's buffer.
 * Shows by: a load request whose header says a count such as 0x20000001, with room for one point only.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define CURVE_TAG 'vruC'

#define IOCTL_CURVE_LOAD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)  /* in: CURVE_HEADER and its points */
#define IOCTL_CURVE_MAP   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)   /* in: LONG x, out: LONG y */
#define IOCTL_CURVE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x823, METHOD_BUFFERED, FILE_READ_ACCESS)   /* out: ULONG */

typedef struct _CURVE_POINT {
    LONG X, Y;
} CURVE_POINT, *PCURVE_POINT;

typedef struct _CURVE_HEADER {
    ULONG Count;
    ULONG Flags;                                /* 0 */
} CURVE_HEADER, *PCURVE_HEADER;

typedef struct _CURVE {
    ULONG Count;
    CURVE_POINT Points[1];
} CURVE, *PCURVE;

typedef struct _CURVE_DEVICE {
    FAST_MUTEX Mutex;
    PCURVE Curve;
} CURVE_DEVICE, *PCURVE_DEVICE;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\PnTable");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\PnTable");

static NTSTATUS CurveComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS CurveLoad(PCURVE_DEVICE Table, PCURVE_HEADER Header, ULONG Length)
{
    PCURVE_POINT from = (PCURVE_POINT)(Header + 1);
    PCURVE curve, old;
    ULONG i, bytes;

    if (Length < sizeof(*Header) || Header->Count == 0 || Header->Flags != 0)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (Header->Count > (Length - sizeof(*Header)) / sizeof(CURVE_POINT))
        return STATUS_INVALID_PARAMETER;
    bytes = Header->Count * (ULONG)sizeof(CURVE_POINT);
#else
    bytes = Header->Count * (ULONG)sizeof(CURVE_POINT);
    if (bytes > Length - (ULONG)sizeof(*Header))
        return STATUS_INVALID_PARAMETER;
#endif
    for (i = 1; i < bytes / sizeof(CURVE_POINT); i++)
        if (from[i].X <= from[i - 1].X)
            return STATUS_INVALID_PARAMETER;

    curve = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(CURVE, Points) + (SIZE_T)bytes, CURVE_TAG);
    if (curve == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    curve->Count = Header->Count;
    for (i = 0; i < curve->Count; i++)
        curve->Points[i] = from[i];

    ExAcquireFastMutex(&Table->Mutex);
    old = Table->Curve;
    Table->Curve = curve;
    ExReleaseFastMutex(&Table->Mutex);
    if (old != NULL)
        ExFreePoolWithTag(old, CURVE_TAG);
    return STATUS_SUCCESS;
}

/* Straight lines between the points; the first and the last one go on for ever. */
static NTSTATUS CurveMap(PCURVE_DEVICE Table, LONG X, PLONG Y)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    PCURVE curve;
    ULONG i;

    ExAcquireFastMutex(&Table->Mutex);
    curve = Table->Curve;
    if (curve != NULL) {
        PCURVE_POINT p = curve->Points;

        for (i = 0; i < curve->Count && p[i].X < X; i++)
            ;
        if (i == 0)
            *Y = p[0].Y;
        else if (i == curve->Count)
            *Y = p[i - 1].Y;
        else {
            LONGLONG dx = (LONGLONG)p[i].X - p[i - 1].X, dy = (LONGLONG)p[i].Y - p[i - 1].Y;

            /* in 2^-16 of the distance, so that nothing overflows */
            *Y = (LONG)(p[i - 1].Y + dy * ((((LONGLONG)X - p[i - 1].X) << 16) / dx) / 65536);
        }
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Table->Mutex);
    return status;
}

static NTSTATUS NTAPI CurveControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCURVE_DEVICE table = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    LONG y;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CURVE_LOAD:
        return CurveComplete(Irp, CurveLoad(table, buffer, in), 0);

    case IOCTL_CURVE_MAP:
        if (in < sizeof(LONG) || out < sizeof(LONG))
            return CurveComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = CurveMap(table, *(PLONG)buffer, &y);
        if (!NT_SUCCESS(status))
            return CurveComplete(Irp, status, 0);
        *(PLONG)buffer = y;
        return CurveComplete(Irp, STATUS_SUCCESS, sizeof(LONG));

    case IOCTL_CURVE_COUNT:
        if (out < sizeof(ULONG))
            return CurveComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&table->Mutex);
        *(PULONG)buffer = table->Curve != NULL ? table->Curve->Count : 0;
        ExReleaseFastMutex(&table->Mutex);
        return CurveComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return CurveComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI CurveCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return CurveComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI CurveUnload(PDRIVER_OBJECT Driver)
{
    PCURVE_DEVICE table = Driver->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&LinkName);
    if (table->Curve != NULL)
        ExFreePoolWithTag(table->Curve, CURVE_TAG);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PCURVE_DEVICE table;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = CurveCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = CurveCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = CurveCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CurveControl;
    Driver->DriverUnload = CurveUnload;
    status = IoCreateDevice(Driver, sizeof(CURVE_DEVICE), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    table = device->DeviceExtension;
    ExInitializeFastMutex(&table->Mutex);
    table->Curve = NULL;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
