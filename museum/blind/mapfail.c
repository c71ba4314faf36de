/*
 * Test pattern generator: fills the caller's buffer (METHOD_OUT_DIRECT, direct reads) with a numbered pattern.
 *
 * The bug: the read path checks the mapping of the MDL, the IOCTL path does not: with no system PTEs left the system
 * address is NULL.
 *
 * Device: ROOT\BLIND13
 * Rule: wild-write
 * Needs: ioctl
 * Symptom: write through NULL in MfFill (0x7E / 0x3B) under low resources.
 */
#include <ddk/wdm.h>

#define MF_TAG 'gtPT'

#define IOCTL_PATTERN_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9A0, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_PATTERN_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9A1, METHOD_OUT_DIRECT, FILE_READ_DATA)

static const GUID GUID_PATTERN =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x13 } };

typedef struct _MF_DEVICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    volatile LONG Pattern;
} MF_DEVICE;

static NTSTATUS MfFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI MfSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS MfForwardAndWait(MF_DEVICE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, MfSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI MfPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    MF_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return MfFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI MfSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    MF_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return MfFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI MfCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    MF_DEVICE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return MfFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    MfFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI MfClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return MfFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS MfStart(MF_DEVICE *Mf)
{
    NTSTATUS status = IoSetDeviceInterfaceState(&Mf->Interface, TRUE);

    if (NT_SUCCESS(status)) {
        Mf->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS NTAPI MfPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    MF_DEVICE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return MfFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = MfForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = MfStart(ext);
        }
        MfFinish(Irp, status, 0);
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

static VOID MfFill(PUCHAR Buffer, ULONG Length, ULONG Pattern)
{
    ULONG i;

    for (i = 0; i < Length; i++) {
        Buffer[i] = (UCHAR)((Pattern >> (8 * (i & 3))) + (i >> 8));
    }
}

static NTSTATUS NTAPI MfRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    MF_DEVICE *mf = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    PVOID buffer;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&mf->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return MfFinish(Irp, status, 0);
    }
    if (!mf->Started) {
        status = STATUS_DELETE_PENDING;
        length = 0;
    } else if (length != 0) {
        buffer = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
        if (buffer != NULL) {
            MfFill(buffer, length, (ULONG)mf->Pattern);
        } else {
            status = STATUS_INSUFFICIENT_RESOURCES;
            length = 0;
        }
    }
    MfFinish(Irp, status, length);
    IoReleaseRemoveLock(&mf->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI MfControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    MF_DEVICE *mf = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    PVOID buffer;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&mf->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return MfFinish(Irp, status, 0);
    }
    if (!mf->Started) {
        status = STATUS_DELETE_PENDING;
        goto Done;
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PATTERN_SET:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(LONG)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        InterlockedExchange(&mf->Pattern, *(PLONG)Irp->AssociatedIrp.SystemBuffer);
        break;
    case IOCTL_PATTERN_GET:
        if (Irp->MdlAddress == NULL) {
            break;                      /* nothing to fill */
        }
        buffer = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, LowPagePriority);
#ifdef FIXED
        if (buffer == NULL) {
            status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
#endif
        MfFill(buffer, length, (ULONG)mf->Pattern);
        information = length;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
Done:
    MfFinish(Irp, status, information);
    IoReleaseRemoveLock(&mf->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI MfAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    MF_DEVICE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(MF_DEVICE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, MF_TAG, 0, 0);
    status = IoRegisterDeviceInterface(Pdo, &GUID_PATTERN, NULL, &ext->Interface);
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
    fdo->Flags |= DO_DIRECT_IO | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI MfUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = MfUnload;
    DriverObject->DriverExtension->AddDevice = MfAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = MfCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = MfClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = MfPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = MfPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = MfSystemControl;
    DriverObject->MajorFunction[IRP_MJ_READ] = MfRead;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MfControl;
    return STATUS_SUCCESS;
}
