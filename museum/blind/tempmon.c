/*
 * Temperature monitor: a periodic timer samples a (simulated) sensor into a history block; applications read it.
 *
 * The bug: removal cancels the timer but does not wait for its DPC, which may be queued or running on another processor
 * when the history and the device extension are freed.
 *
 * Device: ROOT\BLIND02
 * Rule: unload-still-called, freed-held-lock, wild-read, use-after-free
 * Needs: schedule
 * Symptom: use after free in TmSample at DISPATCH_LEVEL (0xD1, special pool 0xD5) when the device is removed.
 */
#include <ddk/wdm.h>

#define TM_TAG 'noMT'
#define TM_PERIOD_MS 1
#define TM_HISTORY 1024

#define IOCTL_TEMP_NOW     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_TEMP_AVERAGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID GUID_TEMPMON =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x02 } };

typedef struct _TM_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    PLONG History;              /* TM_HISTORY samples, tenths of a degree */
    ULONG Samples;
    ULONG Seed;
} TM_DEVICE;

static NTSTATUS TmFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI TmSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS TmForwardAndWait(TM_DEVICE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, TmSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI TmPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TM_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return TmFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TmSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TM_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return TmFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TmCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TM_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return TmFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    TmFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TmClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return TmFinish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI TmSample(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    TM_DEVICE *tm = Context;
    LONG last, step;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&tm->Lock);
    tm->Seed = tm->Seed * 1103515245 + 12345;
    step = (LONG)((tm->Seed >> 16) % 5) - 2;
    last = tm->Samples != 0 ? tm->History[(tm->Samples - 1) % TM_HISTORY] : 250;
    last += step;
    if (last < -400 || last > 1250) {
        last = 250;
    }
    tm->History[tm->Samples % TM_HISTORY] = last;
    tm->Samples++;
    KeReleaseSpinLockFromDpcLevel(&tm->Lock);
}

static NTSTATUS TmStart(TM_DEVICE *Tm)
{
    LARGE_INTEGER due;
    NTSTATUS status;

    if (Tm->History == NULL) {
        Tm->History = ExAllocatePoolWithTag(NonPagedPool, TM_HISTORY * sizeof(LONG), TM_TAG);
        if (Tm->History == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    status = IoSetDeviceInterfaceState(&Tm->Interface, TRUE);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    due.QuadPart = -TM_PERIOD_MS * 10000;
    KeSetTimerEx(&Tm->Timer, due, TM_PERIOD_MS, &Tm->Dpc);
    Tm->Started = TRUE;
    return STATUS_SUCCESS;
}

static VOID TmStop(TM_DEVICE *Tm)
{
    KeCancelTimer(&Tm->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    if (Tm->History != NULL) {
        ExFreePoolWithTag(Tm->History, TM_TAG);
        Tm->History = NULL;
    }
}

static NTSTATUS NTAPI TmPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TM_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return TmFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = TmForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = TmStart(ext);
        }
        TmFinish(Irp, status, 0);
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
        TmStop(ext);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(ext->Lower, Irp);
        IoDetachDevice(ext->Lower);
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

static NTSTATUS NTAPI TmControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TM_DEVICE *tm = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status;
    LONG value = 0;
    ULONG i, n;
    KIRQL irql;

    status = IoAcquireRemoveLock(&tm->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return TmFinish(Irp, status, 0);
    }
    if (!tm->Started) {
        status = STATUS_DELETE_PENDING;
    } else if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        KeAcquireSpinLock(&tm->Lock, &irql);
        n = tm->Samples < TM_HISTORY ? tm->Samples : TM_HISTORY;
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_TEMP_NOW:
            if (n == 0) {
                status = STATUS_DEVICE_NOT_READY;
            } else {
                value = tm->History[(tm->Samples - 1) % TM_HISTORY];
            }
            break;
        case IOCTL_TEMP_AVERAGE:
            if (n == 0) {
                status = STATUS_DEVICE_NOT_READY;
            } else {
                for (i = 0; i < n; i++) {
                    value += tm->History[i];
                }
                value /= (LONG)n;
            }
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
        KeReleaseSpinLock(&tm->Lock, irql);
    }
    if (NT_SUCCESS(status)) {
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = value;
        information = sizeof(LONG);
    }
    TmFinish(Irp, status, information);
    IoReleaseRemoveLock(&tm->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TmAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    TM_DEVICE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(TM_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, TM_TAG, 0, 0);
    KeInitializeSpinLock(&ext->Lock);
    KeInitializeTimer(&ext->Timer);
    KeInitializeDpc(&ext->Dpc, TmSample, ext);
    ext->Seed = (ULONG)(ULONG_PTR)ext;
    status = IoRegisterDeviceInterface(Pdo, &GUID_TEMPMON, NULL, &ext->Interface);
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

static VOID NTAPI TmUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = TmUnload;
    DriverObject->DriverExtension->AddDevice = TmAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = TmCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = TmClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = TmPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = TmPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = TmSystemControl;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TmControl;
    return STATUS_SUCCESS;
}
