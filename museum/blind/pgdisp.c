/*
 * Histogram: WriteFile adds its bytes to a histogram of byte values, an IOCTL reads or clears it.
 *
 * The bug: the histogram lies in paged pool but is used under a spin lock; it works till the page is trimmed.
 *
 * Device: ROOT\BLIND15
 * Rule: paged-at-raised-irql
 * Needs: ioctl
 * Symptom: page fault at DISPATCH_LEVEL: DRIVER_IRQL_NOT_LESS_OR_EQUAL (0xD1); at once with the verifier's forced IRQL checking.
 */
#include <ddk/wdm.h>

#define PG_TAG 'tsiH'
#define BINS 256

#define IOCTL_HIST_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9C0, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_HIST_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9C1, METHOD_BUFFERED, FILE_WRITE_DATA)

#ifdef FIXED
#define HIST_POOL NonPagedPool
#else
#define HIST_POOL PagedPool
#endif

static const GUID GUID_HIST =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x15 } };

typedef struct _PG_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    KSPIN_LOCK Lock;
    PULONGLONG Bins;
} PG_DEVICE;

static NTSTATUS PgFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI PgSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS PgForwardAndWait(PG_DEVICE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, PgSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI PgPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PG_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return PgFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PgSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PG_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return PgFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PgCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PG_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return PgFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    PgFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PgClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return PgFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS PgStart(PG_DEVICE *Pg)
{
    NTSTATUS status = IoSetDeviceInterfaceState(&Pg->Interface, TRUE);

    if (NT_SUCCESS(status)) {
        Pg->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS NTAPI PgPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PG_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return PgFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = PgForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = PgStart(ext);
        }
        PgFinish(Irp, status, 0);
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
        ExFreePoolWithTag(ext->Bins, PG_TAG);
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

static NTSTATUS NTAPI PgWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PG_DEVICE *pg = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PUCHAR data = Irp->AssociatedIrp.SystemBuffer;
    ULONG i, j, part;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&pg->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return PgFinish(Irp, status, 0);
    }
    if (!pg->Started) {
        status = STATUS_DELETE_PENDING;
        length = 0;
    }
    for (i = 0; i < length; i += part) {        /* not too long under the lock */
        part = length - i < 4096 ? length - i : 4096;
        KeAcquireSpinLock(&pg->Lock, &irql);
        for (j = 0; j < part; j++) {
            pg->Bins[data[i + j]]++;
        }
        KeReleaseSpinLock(&pg->Lock, irql);
    }
    PgFinish(Irp, status, length);
    IoReleaseRemoveLock(&pg->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PgControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PG_DEVICE *pg = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&pg->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return PgFinish(Irp, status, 0);
    }
    if (!pg->Started) {
        status = STATUS_DELETE_PENDING;
    } else {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_HIST_READ:
            if (sp->Parameters.DeviceIoControl.OutputBufferLength < BINS * sizeof(ULONGLONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            KeAcquireSpinLock(&pg->Lock, &irql);
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, pg->Bins, BINS * sizeof(ULONGLONG));
            KeReleaseSpinLock(&pg->Lock, irql);
            information = BINS * sizeof(ULONGLONG);
            break;
        case IOCTL_HIST_CLEAR:
            KeAcquireSpinLock(&pg->Lock, &irql);
            RtlZeroMemory(pg->Bins, BINS * sizeof(ULONGLONG));
            KeReleaseSpinLock(&pg->Lock, irql);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    PgFinish(Irp, status, information);
    IoReleaseRemoveLock(&pg->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PgAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    PG_DEVICE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(PG_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, PG_TAG, 0, 0);
    KeInitializeSpinLock(&ext->Lock);
    ext->Bins = ExAllocatePoolWithTag(HIST_POOL, BINS * sizeof(ULONGLONG), PG_TAG);
    if (ext->Bins == NULL) {
        IoDeleteDevice(fdo);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(ext->Bins, BINS * sizeof(ULONGLONG));
    status = IoRegisterDeviceInterface(Pdo, &GUID_HIST, NULL, &ext->Interface);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(ext->Bins, PG_TAG);
        IoDeleteDevice(fdo);
        return status;
    }
    ext->Lower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (ext->Lower == NULL) {
        RtlFreeUnicodeString(&ext->Interface);
        ExFreePoolWithTag(ext->Bins, PG_TAG);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI PgUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = PgUnload;
    DriverObject->DriverExtension->AddDevice = PgAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PgCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PgClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = PgPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = PgPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = PgSystemControl;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = PgWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PgControl;
    return STATUS_SUCCESS;
}
