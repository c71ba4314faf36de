/*
 * Pump: an IOCTL starts a slow background fill of the device's tank; another one tells the level.
 *
 * The bug: removal only releases the remove lock and does not wait for the other holders; a fill that still runs in a
 * work item goes on in the tank that was freed.
 *
 * Device: ROOT\BLIND03
 * Rule: remove-lock-not-awaited, use-after-free
 * Needs: nothing
 * Symptom: use after free in PmFill (0xD5 / 0x50) when the device is removed while a fill runs.
 */
#include <ddk/wdm.h>

#define PM_TAG 'pmuP'
#define TANK_SIZE 4096
#define FILL_STEP 128
#define MAX_FILLS 8

#define IOCTL_PUMP_FILL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_PUMP_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID GUID_PUMP =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x03 } };

typedef struct _PM_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    FAST_MUTEX Mutex;
    PUCHAR Tank;
    ULONG Level;
    volatile LONG Fills;
} PM_DEVICE;

static NTSTATUS PmFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI PmSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS PmForwardAndWait(PM_DEVICE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, PmSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI PmPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PM_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return PmFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PmSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PM_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return PmFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PmCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PM_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return PmFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    PmFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PmClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return PmFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS PmStart(PM_DEVICE *Pm)
{
    NTSTATUS status;

    if (Pm->Tank == NULL) {
        Pm->Tank = ExAllocatePoolWithTag(PagedPool, TANK_SIZE, PM_TAG);
        if (Pm->Tank == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        RtlZeroMemory(Pm->Tank, TANK_SIZE);
    }
    status = IoSetDeviceInterfaceState(&Pm->Interface, TRUE);
    if (NT_SUCCESS(status)) {
        Pm->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

/* Runs as a work item, under a hold of the remove lock with the work item as tag. */
static VOID NTAPI PmFill(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PM_DEVICE *pm = DeviceObject->DeviceExtension;
    PIO_WORKITEM item = Context;
    LARGE_INTEGER pause;
    ULONG i, step;

    pause.QuadPart = -10 * 10000;
    for (step = 0; step < 16; step++) {
        ExAcquireFastMutex(&pm->Mutex);
        for (i = 0; i < FILL_STEP; i++) {
            pm->Tank[(pm->Level + i) % TANK_SIZE]++;
        }
        pm->Level = (pm->Level + FILL_STEP) % TANK_SIZE;
        ExReleaseFastMutex(&pm->Mutex);
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    InterlockedDecrement(&pm->Fills);
    IoReleaseRemoveLock(&pm->RemoveLock, item);
    IoFreeWorkItem(item);
}

static NTSTATUS PmBeginFill(PM_DEVICE *Pm)
{
    PIO_WORKITEM item;
    NTSTATUS status;

    if (InterlockedIncrement(&Pm->Fills) > MAX_FILLS) {
        InterlockedDecrement(&Pm->Fills);
        return STATUS_DEVICE_BUSY;
    }
    item = IoAllocateWorkItem(Pm->Self);
    if (item == NULL) {
        InterlockedDecrement(&Pm->Fills);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    status = IoAcquireRemoveLock(&Pm->RemoveLock, item);
    if (!NT_SUCCESS(status)) {
        InterlockedDecrement(&Pm->Fills);
        IoFreeWorkItem(item);
        return status;
    }
    IoQueueWorkItem(item, PmFill, DelayedWorkQueue, item);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI PmPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PM_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return PmFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = PmForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = PmStart(ext);
        }
        PmFinish(Irp, status, 0);
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
#ifdef FIXED
        IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
#else
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
#endif
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(ext->Lower, Irp);
        IoDetachDevice(ext->Lower);
        if (ext->Tank != NULL) {
            ExFreePoolWithTag(ext->Tank, PM_TAG);
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

static NTSTATUS NTAPI PmControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PM_DEVICE *pm = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&pm->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return PmFinish(Irp, status, 0);
    }
    if (!pm->Started) {
        status = STATUS_DELETE_PENDING;
    } else {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_PUMP_FILL:
            status = PmBeginFill(pm);
            break;
        case IOCTL_PUMP_LEVEL:
            if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            ExAcquireFastMutex(&pm->Mutex);
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = pm->Level;
            ExReleaseFastMutex(&pm->Mutex);
            information = sizeof(ULONG);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    PmFinish(Irp, status, information);
    IoReleaseRemoveLock(&pm->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI PmAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    PM_DEVICE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(PM_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, PM_TAG, 0, 0);
    ExInitializeFastMutex(&ext->Mutex);
    status = IoRegisterDeviceInterface(Pdo, &GUID_PUMP, NULL, &ext->Interface);
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

static VOID NTAPI PmUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = PmUnload;
    DriverObject->DriverExtension->AddDevice = PmAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = PmCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = PmClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = PmPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = PmPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = PmSystemControl;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PmControl;
    return STATUS_SUCCESS;
}
