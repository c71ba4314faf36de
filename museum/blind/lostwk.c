/*
 * CRC engine: requests go to the device's own system thread, which works through a queue and sleeps when it is empty.
 *
 * The bug: the thread empties the queue first and clears its wake-up event after; a request that comes in between is not
 * noticed till the next one comes.
 *
 * Device: ROOT\BLIND19
 * Rule: irp-never-completed
 * Needs: ioctl, schedule
 * Symptom: lost wake-up: once in a while a request hangs (removal too) though the engine is idle.
 */
#include <ddk/wdm.h>

#define LW_TAG 'gEcC'

#define IOCTL_CRC CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9F0, METHOD_BUFFERED, FILE_ANY_ACCESS)

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

static const GUID GUID_CRC =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x19 } };

typedef struct _ENGINE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    KSPIN_LOCK Lock;
    LIST_ENTRY Queue;
    KEVENT Wake;
    volatile LONG Stop;
    PVOID Thread;
} ENGINE, *PENGINE;

static NTSTATUS LwFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI LwSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS LwForwardAndWait(ENGINE *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, LwSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI LwPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    ENGINE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return LwFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI LwSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    ENGINE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return LwFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI LwCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    ENGINE *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return LwFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    LwFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI LwClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return LwFinish(Irp, STATUS_SUCCESS, 0);
}

static ULONG LwCrc(PUCHAR Bytes, ULONG Length)
{
    ULONG crc = 0xffffffff, i, k;

    for (i = 0; i < Length; i++) {
        crc ^= Bytes[i];
        for (k = 0; k < 8; k++) {
            crc = (crc >> 1) ^ (0xedb88320 & (0 - (crc & 1)));
        }
    }
    return ~crc;
}

static VOID LwDrain(PENGINE Engine)
{
    PLIST_ENTRY entry;
    PIRP irp;

    while ((entry = ExInterlockedRemoveHeadList(&Engine->Queue, &Engine->Lock)) != NULL) {
        irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        *(PULONG)irp->AssociatedIrp.SystemBuffer =
            LwCrc(irp->AssociatedIrp.SystemBuffer,
                  IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength);
        LwFinish(irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&Engine->RemoveLock, irp);
    }
}

static VOID NTAPI LwThread(PVOID Context)
{
    PENGINE engine = Context;

    for (;;) {
        KeWaitForSingleObject(&engine->Wake, Executive, KernelMode, FALSE, NULL);
#ifdef FIXED
        KeClearEvent(&engine->Wake);
        LwDrain(engine);
#else
        LwDrain(engine);
        KeClearEvent(&engine->Wake);
#endif
        if (engine->Stop) {
            break;
        }
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS LwStart(PENGINE Engine)
{
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE handle;

    if (Engine->Thread == NULL) {
        Engine->Stop = 0;
        InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
        status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, LwThread, Engine);
        if (!NT_SUCCESS(status)) {
            return status;
        }
        status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, &Engine->Thread, NULL);
        if (!NT_SUCCESS(status)) {
            Engine->Thread = NULL;
            InterlockedExchange(&Engine->Stop, 1);
            KeSetEvent(&Engine->Wake, IO_NO_INCREMENT, FALSE);
            ZwWaitForSingleObject(handle, FALSE, NULL);
            ZwClose(handle);
            return status;
        }
        ZwClose(handle);
    }
    status = IoSetDeviceInterfaceState(&Engine->Interface, TRUE);
    if (NT_SUCCESS(status)) {
        Engine->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

/* When no one holds the remove lock any more: the queue is empty. */
static VOID LwStop(PENGINE Engine)
{
    if (Engine->Thread != NULL) {
        InterlockedExchange(&Engine->Stop, 1);
        KeSetEvent(&Engine->Wake, IO_NO_INCREMENT, FALSE);
        KeWaitForSingleObject(Engine->Thread, Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(Engine->Thread);
        Engine->Thread = NULL;
    }
}

static NTSTATUS NTAPI LwPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    ENGINE *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return LwFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = LwForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = LwStart(ext);
        }
        LwFinish(Irp, status, 0);
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
        LwStop(ext);
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

static NTSTATUS NTAPI LwControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PENGINE engine = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&engine->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return LwFinish(Irp, status, 0);
    }
    if (!engine->Started) {
        status = STATUS_DELETE_PENDING;
    } else if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_CRC) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sp->Parameters.DeviceIoControl.InputBufferLength == 0
               || sp->Parameters.DeviceIoControl.InputBufferLength > 0x10000
               || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        /* The thread gets to it at once, so it need not be cancelable. Its hold of the remove lock keeps the engine. */
        IoMarkIrpPending(Irp);
        status = IoAcquireRemoveLock(&engine->RemoveLock, sp);
        if (!NT_SUCCESS(status)) {
            LwFinish(Irp, status, 0);
            IoReleaseRemoveLock(&engine->RemoveLock, Irp);
            return STATUS_PENDING;
        }
        ExInterlockedInsertTailList(&engine->Queue, &Irp->Tail.Overlay.ListEntry, &engine->Lock);
        KeSetEvent(&engine->Wake, IO_NO_INCREMENT, FALSE);
        IoReleaseRemoveLock(&engine->RemoveLock, sp);
        return STATUS_PENDING;
    }
    LwFinish(Irp, status, 0);
    IoReleaseRemoveLock(&engine->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI LwAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    ENGINE *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(ENGINE), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, LW_TAG, 0, 0);
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Queue);
    KeInitializeEvent(&ext->Wake, NotificationEvent, FALSE);
    status = IoRegisterDeviceInterface(Pdo, &GUID_CRC, NULL, &ext->Interface);
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

static VOID NTAPI LwUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = LwUnload;
    DriverObject->DriverExtension->AddDevice = LwAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = LwCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = LwClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = LwPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = LwPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = LwSystemControl;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LwControl;
    return STATUS_SUCCESS;
}
