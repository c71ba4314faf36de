/*
 * Double buffer: WriteFile fills the back buffer, an IOCTL swaps, ReadFile reads the front buffer.
 *
 * The bug: when the second buffer cannot be allocated at start, the first one is freed but its pointer is kept; the
 * removal that follows the failed start frees it again.
 *
 * Device: ROOT\BLIND21
 * Rule: double-free
 * Needs: nothing
 * Symptom: BAD_POOL_CALLER (0xC2, 7) at removal after a start that failed for lack of memory.
 */
#include <ddk/wdm.h>

#define DF_TAG 'fubD'
#define FRAME 16384

#define IOCTL_FRAME_SWAP CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA20, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID GUID_FRAME =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x21 } };

typedef struct _DF_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    FAST_MUTEX Mutex;
    PUCHAR Front;
    PUCHAR Back;
    ULONG FrontLength;
    ULONG BackLength;
} DF_DEVICE;

static NTSTATUS DfFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI DfSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS DfForwardAndWait(DF_DEVICE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, DfSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI DfPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DF_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return DfFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DfSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DF_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return DfFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DfCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DF_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return DfFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    DfFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DfClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return DfFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DfAllocate(DF_DEVICE *Df)
{
    Df->Front = ExAllocatePoolWithTag(PagedPool, FRAME, DF_TAG);
    if (Df->Front == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Df->Back = ExAllocatePoolWithTag(PagedPool, FRAME, DF_TAG);
    if (Df->Back == NULL) {
        ExFreePoolWithTag(Df->Front, DF_TAG);
#ifdef FIXED
        Df->Front = NULL;
#endif
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS DfStart(DF_DEVICE *Df)
{
    NTSTATUS status;

    if (Df->Back == NULL) {             /* not when started again after a stop */
        status = DfAllocate(Df);
        if (!NT_SUCCESS(status)) {
            return status;
        }
    }
    status = IoSetDeviceInterfaceState(&Df->Interface, TRUE);
    if (NT_SUCCESS(status)) {
        Df->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS NTAPI DfPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DF_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return DfFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = DfForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = DfStart(ext);
        }
        DfFinish(Irp, status, 0);
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
        if (ext->Front != NULL) {
            ExFreePoolWithTag(ext->Front, DF_TAG);
        }
        if (ext->Back != NULL) {
            ExFreePoolWithTag(ext->Back, DF_TAG);
        }
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

static NTSTATUS NTAPI DfReadWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DF_DEVICE *df = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = 0;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&df->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return DfFinish(Irp, status, 0);
    }
    if (!df->Started) {
        status = STATUS_DELETE_PENDING;
    } else {
        ExAcquireFastMutex(&df->Mutex);
        if (sp->MajorFunction == IRP_MJ_READ) {
            length = sp->Parameters.Read.Length;
            if (length > df->FrontLength) {
                length = df->FrontLength;
            }
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, df->Front, length);
        } else {
            length = sp->Parameters.Write.Length;
            if (length > FRAME - df->BackLength) {
                length = FRAME - df->BackLength;
            }
            RtlCopyMemory(df->Back + df->BackLength, Irp->AssociatedIrp.SystemBuffer, length);
            df->BackLength += length;
        }
        ExReleaseFastMutex(&df->Mutex);
    }
    DfFinish(Irp, status, length);
    IoReleaseRemoveLock(&df->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DfControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    DF_DEVICE *df = DeviceObject->DeviceExtension;
    PUCHAR front;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&df->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return DfFinish(Irp, status, 0);
    }
    if (!df->Started) {
        status = STATUS_DELETE_PENDING;
    } else if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode != IOCTL_FRAME_SWAP) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else {
        ExAcquireFastMutex(&df->Mutex);
        front = df->Front;
        df->Front = df->Back;
        df->FrontLength = df->BackLength;
        df->Back = front;
        df->BackLength = 0;
        ExReleaseFastMutex(&df->Mutex);
    }
    DfFinish(Irp, status, 0);
    IoReleaseRemoveLock(&df->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DfAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    DF_DEVICE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(DF_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, DF_TAG, 0, 0);
    ExInitializeFastMutex(&ext->Mutex);
    status = IoRegisterDeviceInterface(Pdo, &GUID_FRAME, NULL, &ext->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    ext->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (ext->Lower == NULL) {
        RtlFreeUnicodeString(&ext->Interface);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DfUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = DfUnload;
    DriverObject->DriverExtension->AddDevice = DfAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DfCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DfClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = DfPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = DfPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DfSystemControl;
    DriverObject->MajorFunction[IRP_MJ_READ] = DfReadWrite;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = DfReadWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DfControl;
    return STATUS_SUCCESS;
}
