/*
 * vsensor.sys - Virtual temperature sensor
 *
 * Root-enumerated stand-in for the sensor head, used by the integration lab:
 * reads give samples of a slow triangle wave, the sampling period and the
 * calibration offset can be set. Calibration runs for a moment in the
 * background, as on the real sensor.
 *
 * The bug: the remove lock is not released where the period is out of range.
 *
 * Device: ROOT\VSENSOR
 * Rule: deadlock
 * Needs: ioctl
 */
#include <initguid.h>
#include <ddk/wdm.h>

#define VS_POOL             'sneS'
#define VS_MIN_PERIOD       5           /* ms */
#define VS_MAX_PERIOD       10000

#define IOCTL_VS_SET_PERIOD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_VS_GET_PERIOD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_VS_CALIBRATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_WRITE_ACCESS)

DEFINE_GUID(GUID_VSENSOR, 0x0b8c65a2, 0x1f0e, 0x4f4c, 0x8c, 0x0d, 0x5a, 0x6e, 0x20, 0xd9, 0x47, 0x13);

typedef struct _VS_SAMPLE {
    ULONG64 Time;
    LONG MilliDegrees;
    ULONG Period;
} VS_SAMPLE, *PVS_SAMPLE;

typedef struct _VS_EXTENSION {
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    volatile LONG Period;
    volatile LONG Offset;
    volatile LONG Calibrating;
} VS_EXTENSION, *PVS_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static NTSTATUS VsComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS VsPassDown(PVS_EXTENSION Ext, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Ext->Lower, Irp);
}

static LONG VsTriangle(PVS_EXTENSION Ext, ULONG64 Time)
{
    LONG phase = (LONG)(Time / 10000 / (ULONG)Ext->Period % 200);

    return 20000 + (phase < 100 ? phase : 200 - phase) * 50 + Ext->Offset;
}

static VOID NTAPI VsCalibrateWorker(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PVS_EXTENSION ext = DeviceObject->DeviceExtension;
    PIRP irp = Context;
    PIO_WORKITEM item = irp->Tail.Overlay.DriverContext[0];
    LARGE_INTEGER settle;
    LONG target = *(PLONG)irp->AssociatedIrp.SystemBuffer;

    settle.QuadPart = -20 * 10000LL;
    KeDelayExecutionThread(KernelMode, FALSE, &settle);
    InterlockedExchange(&ext->Offset, 0);
    InterlockedExchange(&ext->Offset, target - VsTriangle(ext, KeQueryInterruptTime()));
    InterlockedExchange(&ext->Calibrating, 0);
    VsComplete(irp, STATUS_SUCCESS, 0);
    IoFreeWorkItem(item);
    IoReleaseRemoveLock(&ext->RemoveLock, irp);
}

static NTSTATUS NTAPI VsRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PVS_EXTENSION ext = DeviceObject->DeviceExtension;
    PVS_SAMPLE sample;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return VsComplete(Irp, status, 0);
    if (!ext->Started) {
        status = VsComplete(Irp, STATUS_DEVICE_NOT_READY, 0);
    } else if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(VS_SAMPLE)) {
        status = VsComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    } else {
        sample = Irp->AssociatedIrp.SystemBuffer;
        sample->Time = KeQueryInterruptTime();
        sample->Period = (ULONG)ext->Period;
        sample->MilliDegrees = VsTriangle(ext, sample->Time);
        status = VsComplete(Irp, STATUS_SUCCESS, sizeof(VS_SAMPLE));
    }
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI VsDeviceControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVS_EXTENSION ext = DeviceObject->DeviceExtension;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    PIO_WORKITEM item;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return VsComplete(Irp, status, 0);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VS_SET_PERIOD:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        if (*buffer < VS_MIN_PERIOD || *buffer > VS_MAX_PERIOD) {
#ifdef FIXED
            status = STATUS_INVALID_PARAMETER;
            break;
#else
            return VsComplete(Irp, STATUS_INVALID_PARAMETER, 0);
#endif
        }
        InterlockedExchange(&ext->Period, (LONG)*buffer);
        break;

    case IOCTL_VS_GET_PERIOD:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *buffer = (ULONG)ext->Period;
        information = sizeof(ULONG);
        break;

    case IOCTL_VS_CALIBRATE:
        if (in < sizeof(LONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        if (!ext->Started) {
            status = STATUS_DEVICE_NOT_READY;
            break;
        }
        if (InterlockedExchange(&ext->Calibrating, 1) != 0) {
            status = STATUS_DEVICE_BUSY;
            break;
        }
        item = IoAllocateWorkItem(DeviceObject);
        if (item == NULL) {
            InterlockedExchange(&ext->Calibrating, 0);
            status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        IoMarkIrpPending(Irp);
        Irp->Tail.Overlay.DriverContext[0] = item;
        IoQueueWorkItem(item, VsCalibrateWorker, DelayedWorkQueue, Irp);
        return STATUS_PENDING;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    VsComplete(Irp, status, information);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI VsCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PVS_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;

    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && !ext->Started)
        status = STATUS_DEVICE_NOT_READY;
    return VsComplete(Irp, status, 0);
}

static NTSTATUS NTAPI VsPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PVS_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return VsComplete(Irp, status, 0);

    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(ext->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status)) {
            ext->Started = TRUE;
            IoSetDeviceInterfaceState(&ext->Interface, TRUE);
        }
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        break;

    case IRP_MN_REMOVE_DEVICE:
        ext->Started = FALSE;
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        status = VsPassDown(ext, Irp);
        IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
        IoDetachDevice(ext->Lower);
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(DeviceObject);
        return status;

    case IRP_MN_SURPRISE_REMOVAL:
    case IRP_MN_STOP_DEVICE:
        ext->Started = FALSE;
        if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_SURPRISE_REMOVAL)
            IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        /* fall through */
    default:
        status = VsPassDown(ext, Irp);
        break;
    }
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI VsPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PVS_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status;

    PoStartNextPowerIrp(Irp);
    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI VsSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PVS_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return VsComplete(Irp, status, 0);
    status = VsPassDown(ext, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI VsAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PVS_EXTENSION ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(VS_EXTENSION), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Period = 100;
    IoInitializeRemoveLock(&ext->RemoveLock, VS_POOL, 0, 0);
    status = IoRegisterDeviceInterface(PhysicalDeviceObject, &GUID_VSENSOR, NULL, &ext->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    ext->Lower = IoAttachDeviceToDeviceStack(device, PhysicalDeviceObject);
    if (ext->Lower == NULL) {
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI VsUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = VsCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = VsCreateClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = VsRead;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = VsDeviceControl;
    DriverObject->MajorFunction[IRP_MJ_PNP] = VsPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = VsPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = VsSystemControl;
    DriverObject->DriverExtension->AddDevice = VsAddDevice;
    DriverObject->DriverUnload = VsUnload;
    return STATUS_SUCCESS;
}
