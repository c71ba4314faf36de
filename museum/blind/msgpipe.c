/*
 * msgpipe.sys - Message pipe between a producer and its consumers
 *
 * Messages of up to 1 KB written to \\.\MsgPipe are handed to the oldest
 * waiting read, or kept (up to 64 of them) until one comes. Each message goes
 * to one consumer; reads may be overlapped.
 *
 * The bug: a read is completed also where its cancel routine could not be taken back any more.
 *
 * Device: none
 * Rule: use-after-free, double-completion
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define MP_POOL             'piPM'
#define MP_MAX_MESSAGE      1024
#define MP_MAX_BACKLOG      64

typedef struct _MP_MESSAGE {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Data[ANYSIZE_ARRAY];
} MP_MESSAGE, *PMP_MESSAGE;

typedef struct _MP_EXTENSION {
    KSPIN_LOCK Lock;
    LIST_ENTRY Readers;         /* IRPs, oldest first */
    LIST_ENTRY Backlog;         /* messages, oldest first */
    ULONG BacklogCount;
} MP_EXTENSION, *PMP_EXTENSION;

static UNICODE_STRING MpName = RTL_CONSTANT_STRING(L"\\Device\\MsgPipe");
static UNICODE_STRING MpLink = RTL_CONSTANT_STRING(L"\\DosDevices\\MsgPipe");

DRIVER_INITIALIZE DriverEntry;

static NTSTATUS MpFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, Status == STATUS_SUCCESS ? IO_NAMED_PIPE_INCREMENT : IO_NO_INCREMENT);
    return Status;
}

/* Gives a message to a read: as much of it as fits. */
static VOID MpDeliver(PIRP Read, const VOID *Data, ULONG Length)
{
    ULONG room = IoGetCurrentIrpStackLocation(Read)->Parameters.Read.Length;
    ULONG n = min(room, Length);

    RtlCopyMemory(Read->AssociatedIrp.SystemBuffer, Data, n);
    MpFinish(Read, n < Length ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS, n);
}

static VOID NTAPI MpCancelRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMP_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&ext->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&ext->Lock, irql);
    MpFinish(Irp, STATUS_CANCELLED, 0);
}

/* Lock held. The oldest read still waiting. */
static PIRP MpNextReader(PMP_EXTENSION Ext)
{
    PIRP irp;

    while (!IsListEmpty(&Ext->Readers)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&Ext->Readers), IRP, Tail.Overlay.ListEntry);
#ifdef FIXED
        if (IoSetCancelRoutine(irp, NULL) != NULL)
            return irp;
        /* Its cancel routine is on its way: let it find an entry it can unlink. */
        InitializeListHead(&irp->Tail.Overlay.ListEntry);
#else
        InitializeListHead(&irp->Tail.Overlay.ListEntry);
        IoSetCancelRoutine(irp, NULL);
        return irp;
#endif
    }
    return NULL;
}

static NTSTATUS NTAPI MpRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMP_EXTENSION ext = DeviceObject->DeviceExtension;
    PMP_MESSAGE message;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0)
        return MpFinish(Irp, STATUS_INVALID_PARAMETER, 0);

    KeAcquireSpinLock(&ext->Lock, &irql);
    if (!IsListEmpty(&ext->Backlog)) {
        message = CONTAINING_RECORD(RemoveHeadList(&ext->Backlog), MP_MESSAGE, Link);
        ext->BacklogCount--;
        KeReleaseSpinLock(&ext->Lock, irql);
        IoMarkIrpPending(Irp);
        MpDeliver(Irp, message->Data, message->Length);
        ExFreePoolWithTag(message, MP_POOL);
        return STATUS_PENDING;
    }

    /* FsContext: the handle has been cleaned up meanwhile. */
    if (IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext != NULL) {
        KeReleaseSpinLock(&ext->Lock, irql);
        return MpFinish(Irp, STATUS_CANCELLED, 0);
    }
    IoSetCancelRoutine(Irp, MpCancelRead);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&ext->Lock, irql);
        return MpFinish(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&ext->Readers, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI MpWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMP_EXTENSION ext = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PMP_MESSAGE message;
    NTSTATUS status = STATUS_SUCCESS;
    PIRP reader;
    KIRQL irql;

    if (length == 0 || length > MP_MAX_MESSAGE)
        return MpFinish(Irp, STATUS_INVALID_PARAMETER, 0);
    message = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(MP_MESSAGE, Data) + length, MP_POOL);
    if (message == NULL)
        return MpFinish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    message->Length = length;
    RtlCopyMemory(message->Data, Irp->AssociatedIrp.SystemBuffer, length);

    KeAcquireSpinLock(&ext->Lock, &irql);
    reader = MpNextReader(ext);
    if (reader == NULL) {
        if (ext->BacklogCount < MP_MAX_BACKLOG) {
            InsertTailList(&ext->Backlog, &message->Link);
            ext->BacklogCount++;
            message = NULL;
        } else {
            status = STATUS_DEVICE_BUSY;
        }
    }
    KeReleaseSpinLock(&ext->Lock, irql);

    if (reader != NULL)
        MpDeliver(reader, message->Data, message->Length);
    if (message != NULL)
        ExFreePoolWithTag(message, MP_POOL);
    return MpFinish(Irp, status, status == STATUS_SUCCESS ? length : 0);
}

static NTSTATUS NTAPI MpCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMP_EXTENSION ext = DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PLIST_ENTRY e, next;
    LIST_ENTRY gone;
    KIRQL irql;

    InitializeListHead(&gone);
    KeAcquireSpinLock(&ext->Lock, &irql);
    file->FsContext = ext;
    for (e = ext->Readers.Flink; e != &ext->Readers; e = next) {
        PIRP read = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if (IoGetCurrentIrpStackLocation(read)->FileObject == file && IoSetCancelRoutine(read, NULL) != NULL) {
            RemoveEntryList(e);
            InsertTailList(&gone, e);
        }
    }
    KeReleaseSpinLock(&ext->Lock, irql);

    while (!IsListEmpty(&gone))
        MpFinish(CONTAINING_RECORD(RemoveHeadList(&gone), IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    return MpFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MpCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return MpFinish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI MpUnload(PDRIVER_OBJECT DriverObject)
{
    PDEVICE_OBJECT device = DriverObject->DeviceObject;
    PMP_EXTENSION ext = device->DeviceExtension;

    IoDeleteSymbolicLink(&MpLink);
    while (!IsListEmpty(&ext->Backlog))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&ext->Backlog), MP_MESSAGE, Link), MP_POOL);
    IoDeleteDevice(device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PMP_EXTENSION ext;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = MpCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = MpCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = MpCleanup;
    DriverObject->MajorFunction[IRP_MJ_READ] = MpRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = MpWrite;
    DriverObject->DriverUnload = MpUnload;

    status = IoCreateDevice(DriverObject, sizeof(MP_EXTENSION), &MpName, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    device->Flags |= DO_BUFFERED_IO;
    ext = device->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Readers);
    InitializeListHead(&ext->Backlog);

    status = IoCreateSymbolicLink(&MpLink, &MpName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
