/*
 * Token bucket: "take n" requests wait till there are enough tokens; "give n" adds tokens and serves the queue in order.
 *
 * The bug: a request that is taken from the queue for a try (its cancel routine removed) and found too expensive is put
 * back at the head without its cancel routine.
 *
 * Device: ROOT\BLIND17
 * Rule: irp-never-completed
 * Needs: ioctl
 * Symptom: hang: such a request can be neither cancelled nor cleaned up; its process does not exit, removal hangs.
 */
#include <ddk/wdm.h>

#define RQ_TAG 'kcuB'
#define MAX_TOKENS 1000000

#define IOCTL_TOKEN_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9D0, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_TOKEN_GIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9D1, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID GUID_BUCKET =
    { 0x5bb2e0a1, 0x4a1e, 0x4f56, { 0x9d, 0x11, 0x7e, 0x60, 0x00, 0x00, 0x00, 0x17 } };

typedef struct _BUCKET {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN Started;
    KSPIN_LOCK Lock;
    BOOLEAN Open;               /* requests may be queued */
    ULONG Tokens;
    LIST_ENTRY Queue;
} BUCKET, *PBUCKET;

static NTSTATUS RqFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI RqSyncDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS RqForwardAndWait(BUCKET *Ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, RqSyncDone, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(Ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI RqPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    BUCKET *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        return RqFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI RqSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    BUCKET *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return RqFinish(Irp, status, 0);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI RqCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    BUCKET *ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        return RqFinish(Irp, status, 0);
    }
    status = ext->Started ? STATUS_SUCCESS : STATUS_DEVICE_NOT_READY;
    RqFinish(Irp, status, 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI RqClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return RqFinish(Irp, STATUS_SUCCESS, 0);
}

static VOID RqEnd(PBUCKET Bucket, PIRP Irp, NTSTATUS Status)
{
    RqFinish(Irp, Status, 0);
    IoReleaseRemoveLock(&Bucket->RemoveLock, Irp);
}

static VOID NTAPI RqCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBUCKET bucket = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&bucket->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&bucket->Lock, irql);
    RqEnd(bucket, Irp, STATUS_CANCELLED);
}

/* Serves the queue as far as the tokens go. */
static VOID RqServe(PBUCKET Bucket)
{
    LIST_ENTRY served, cancelled;
    PIRP irp;
    KIRQL irql;

    InitializeListHead(&served);
    InitializeListHead(&cancelled);
    KeAcquireSpinLock(&Bucket->Lock, &irql);
    while (!IsListEmpty(&Bucket->Queue)) {
        PLIST_ENTRY entry = RemoveHeadList(&Bucket->Queue);
        ULONG wanted;

        irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(irp, NULL) == NULL) {
            InitializeListHead(entry);          /* RqCancel waits for the lock and will complete it */
            continue;
        }
        wanted = *(PULONG)irp->AssociatedIrp.SystemBuffer;
        if (wanted <= Bucket->Tokens) {
            Bucket->Tokens -= wanted;
            InsertTailList(&served, entry);
            continue;
        }
#ifdef FIXED
        IoSetCancelRoutine(irp, RqCancel);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
            InsertTailList(&cancelled, entry);
            continue;
        }
#endif
        InsertHeadList(&Bucket->Queue, entry);
        break;
    }
    KeReleaseSpinLock(&Bucket->Lock, irql);
    while (!IsListEmpty(&served)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&served), IRP, Tail.Overlay.ListEntry);
        RqEnd(Bucket, irp, STATUS_SUCCESS);
    }
    while (!IsListEmpty(&cancelled)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&cancelled), IRP, Tail.Overlay.ListEntry);
        RqEnd(Bucket, irp, STATUS_CANCELLED);
    }
}

/* Ends the requests of one file, or all of them. */
static VOID RqFlush(PBUCKET Bucket, PFILE_OBJECT File, NTSTATUS Status)
{
    PLIST_ENTRY entry, next;
    LIST_ENTRY gone;
    PIRP irp;
    KIRQL irql;

    InitializeListHead(&gone);
    KeAcquireSpinLock(&Bucket->Lock, &irql);
    for (entry = Bucket->Queue.Flink; entry != &Bucket->Queue; entry = next) {
        next = entry->Flink;
        irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File) {
            continue;
        }
        if (IoSetCancelRoutine(irp, NULL) == NULL) {
            continue;
        }
        RemoveEntryList(entry);
        InsertTailList(&gone, entry);
    }
    KeReleaseSpinLock(&Bucket->Lock, irql);
    while (!IsListEmpty(&gone)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&gone), IRP, Tail.Overlay.ListEntry);
        RqEnd(Bucket, irp, Status);
    }
}

static VOID RqShut(PBUCKET Bucket)
{
    KIRQL irql;

    KeAcquireSpinLock(&Bucket->Lock, &irql);
    Bucket->Open = FALSE;
    KeReleaseSpinLock(&Bucket->Lock, irql);
    RqFlush(Bucket, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS RqStart(PBUCKET Bucket)
{
    NTSTATUS status = IoSetDeviceInterfaceState(&Bucket->Interface, TRUE);

    if (NT_SUCCESS(status)) {
        Bucket->Open = TRUE;
        Bucket->Started = TRUE;
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS NTAPI RqPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    BUCKET *ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return RqFinish(Irp, status, 0);
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = RqForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status)) {
            status = RqStart(ext);
        }
        RqFinish(Irp, status, 0);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    case IRP_MN_SURPRISE_REMOVAL:
        ext->Started = FALSE;
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        RqShut(ext);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        ext->Started = FALSE;
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
        RqShut(ext);
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

static NTSTATUS RqTake(PBUCKET Bucket, PIRP Irp)
{
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Bucket->Lock, &irql);
    if (!Bucket->Open) {
        status = STATUS_DELETE_PENDING;
    } else {
        IoSetCancelRoutine(Irp, RqCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            InsertTailList(&Bucket->Queue, &Irp->Tail.Overlay.ListEntry);
            status = STATUS_PENDING;
        }
    }
    KeReleaseSpinLock(&Bucket->Lock, irql);
    return status;
}

static NTSTATUS RqGive(PBUCKET Bucket, ULONG Tokens)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&Bucket->Lock, &irql);
    if (Tokens > MAX_TOKENS - Bucket->Tokens) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        Bucket->Tokens += Tokens;
    }
    KeReleaseSpinLock(&Bucket->Lock, irql);
    return status;
}

static NTSTATUS NTAPI RqControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBUCKET bucket = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS status;
    ULONG n;

    status = IoAcquireRemoveLock(&bucket->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return RqFinish(Irp, status, 0);
    }
    if (code != IOCTL_TOKEN_TAKE && code != IOCTL_TOKEN_GIVE) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        n = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (n > MAX_TOKENS) {
            status = STATUS_INVALID_PARAMETER;
        } else if (code == IOCTL_TOKEN_GIVE) {
            status = RqGive(bucket, n);
            RqServe(bucket);
        } else {
            /* In case the request ends at once and the device goes: our own hold, by another tag. */
            status = IoAcquireRemoveLock(&bucket->RemoveLock, sp);
            if (NT_SUCCESS(status)) {
                status = RqTake(bucket, Irp);
                if (status == STATUS_PENDING) {
                    RqServe(bucket);
                    IoReleaseRemoveLock(&bucket->RemoveLock, sp);
                    return STATUS_PENDING;
                }
                IoReleaseRemoveLock(&bucket->RemoveLock, sp);
            }
        }
    }
    RqEnd(bucket, Irp, status);
    return status;
}

static NTSTATUS NTAPI RqCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    RqFlush(DeviceObject->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return RqFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI RqAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    BUCKET *ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(BUCKET), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = fdo->DeviceExtension;
    ext->Self = fdo;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, RQ_TAG, 0, 0);
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Queue);
    status = IoRegisterDeviceInterface(Pdo, &GUID_BUCKET, NULL, &ext->Interface);
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

static VOID NTAPI RqUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->DriverUnload = RqUnload;
    DriverObject->DriverExtension->AddDevice = RqAddDevice;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = RqCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = RqClose;
    DriverObject->MajorFunction[IRP_MJ_PNP] = RqPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = RqPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = RqSystemControl;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = RqCleanup;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RqControl;
    return STATUS_SUCCESS;
}
