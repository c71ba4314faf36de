/*
 * tapelog - compacting event log
 *
 * Programs write short text records to the device.  A write only stores the
 * record in a staging ring; moving it to the tape (a large paged buffer that
 * overwrites its oldest contents) is done later by a work item.  ReadFile
 * returns the newest bytes on the tape.
 *
 * The bug: the device may be removed while its work item is queued.
 *
 * Device: ROOT\TAPELOG
 * Rule: work-item-queued, use-after-free
 * Needs: ioctl, removal
 */
#include <ddk/wdm.h>

#define TL_TAG         'lpaT'
#define TL_RECORD_MAX  240
#define TL_SLOTS       32
#define TL_TAPE        (128 * 1024)

static const GUID TapeLogInterface =
    { 0x7b40c6fa, 0x51d9, 0x4e18, { 0x8e, 0x02, 0xf7, 0x3c, 0xb1, 0x6d, 0x29, 0x90 } };

typedef struct _TL_SLOT {
    ULONG Length;
    UCHAR Text[TL_RECORD_MAX];
} TL_SLOT;

typedef struct _TL_EXT {
    PDEVICE_OBJECT  DeviceObject;
    PDEVICE_OBJECT  NextLower;
    IO_REMOVE_LOCK  RemoveLock;
    UNICODE_STRING  LinkName;

    KSPIN_LOCK      StagingLock;
    ULONG           Head, Count;            /* StagingLock */
    BOOLEAN         Queued;                 /* StagingLock: the work item is on its way */
    BOOLEAN         Running;                /* StagingLock: PnP state */
    TL_SLOT         Slot[TL_SLOTS];         /* StagingLock */

    PIO_WORKITEM    WorkItem;
    FAST_MUTEX      TapeLock;
    PUCHAR          Tape;                   /* TapeLock */
    ULONG           TapeNext;               /* TapeLock */
    ULONG64         TapeTotal;              /* TapeLock */
} TL_EXT, *PTL_EXT;

static NTSTATUS TlComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* TapeLock held. */
static VOID TlToTape(PTL_EXT Ext, const UCHAR *Text, ULONG Length)
{
    ULONG part = TL_TAPE - Ext->TapeNext;

    if (part > Length)
        part = Length;
    RtlCopyMemory(Ext->Tape + Ext->TapeNext, Text, part);
    if (part < Length)
        RtlCopyMemory(Ext->Tape, Text + part, Length - part);
    Ext->TapeNext = (Ext->TapeNext + Length) % TL_TAPE;
    Ext->TapeTotal += Length;
}

static VOID NTAPI TlWork(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PTL_EXT ext = Context;
    TL_SLOT record;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);

    ExAcquireFastMutex(&ext->TapeLock);
    for (;;) {
        KeAcquireSpinLock(&ext->StagingLock, &irql);
        if (ext->Count == 0) {
            ext->Queued = FALSE;
            KeReleaseSpinLock(&ext->StagingLock, irql);
            break;
        }
        record.Length = ext->Slot[ext->Head].Length;
        RtlCopyMemory(record.Text, ext->Slot[ext->Head].Text, record.Length);
        ext->Head = (ext->Head + 1) % TL_SLOTS;
        ext->Count--;
        KeReleaseSpinLock(&ext->StagingLock, irql);

        TlToTape(ext, record.Text, record.Length);
    }
    ExReleaseFastMutex(&ext->TapeLock);
#ifdef FIXED
    IoReleaseRemoveLock(&ext->RemoveLock, ext->WorkItem);
#endif
}

static NTSTATUS TlAppend(PTL_EXT Ext, const VOID *Text, ULONG Length)
{
    BOOLEAN queue = FALSE;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

#ifdef FIXED
    /* for the work item, which may outlast the request */
    status = IoAcquireRemoveLock(&Ext->RemoveLock, Ext->WorkItem);
    if (!NT_SUCCESS(status))
        return status;
#endif
    KeAcquireSpinLock(&Ext->StagingLock, &irql);
    if (!Ext->Running) {
        status = STATUS_DEVICE_NOT_READY;
    } else if (Ext->Count == TL_SLOTS) {
        status = STATUS_DEVICE_BUSY;
    } else {
        TL_SLOT *s = &Ext->Slot[(Ext->Head + Ext->Count) % TL_SLOTS];

        s->Length = Length;
        RtlCopyMemory(s->Text, Text, Length);
        Ext->Count++;
        queue = !Ext->Queued;
        Ext->Queued = TRUE;
    }
    KeReleaseSpinLock(&Ext->StagingLock, irql);

    if (queue)
        IoQueueWorkItem(Ext->WorkItem, TlWork, DelayedWorkQueue, Ext);
#ifdef FIXED
    else
        IoReleaseRemoveLock(&Ext->RemoveLock, Ext->WorkItem);
#endif
    return status;
}

static NTSTATUS NTAPI TlWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTL_EXT ext = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return TlComplete(Irp, status, 0);
    if (length == 0)
        status = STATUS_SUCCESS;
    else if (length > TL_RECORD_MAX)
        status = STATUS_INVALID_BUFFER_SIZE;
    else
        status = TlAppend(ext, Irp->AssociatedIrp.SystemBuffer, length);
    TlComplete(Irp, status, NT_SUCCESS(status) ? length : 0);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TlRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTL_EXT ext = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    PUCHAR out = Irp->AssociatedIrp.SystemBuffer;
    ULONG from, part;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return TlComplete(Irp, status, 0);

    ExAcquireFastMutex(&ext->TapeLock);
    if (length > TL_TAPE)
        length = TL_TAPE;
    if (length > ext->TapeTotal)
        length = (ULONG)ext->TapeTotal;
    if (length) {
        from = (ext->TapeNext + TL_TAPE - length) % TL_TAPE;
        part = TL_TAPE - from;
        if (part > length)
            part = length;
        RtlCopyMemory(out, ext->Tape + from, part);
        RtlCopyMemory(out + part, ext->Tape, length - part);
    }
    ExReleaseFastMutex(&ext->TapeLock);

    TlComplete(Irp, STATUS_SUCCESS, length);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI TlCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return TlComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID TlSetRunning(PTL_EXT Ext, BOOLEAN Running)
{
    KIRQL irql;

    KeAcquireSpinLock(&Ext->StagingLock, &irql);
    Ext->Running = Running;
    KeReleaseSpinLock(&Ext->StagingLock, irql);
}

static VOID TlFree(PTL_EXT Ext)
{
    if (Ext->WorkItem)
        IoFreeWorkItem(Ext->WorkItem);
    if (Ext->Tape)
        ExFreePoolWithTag(Ext->Tape, TL_TAG);
    Ext->WorkItem = NULL;
    Ext->Tape = NULL;
}

static NTSTATUS NTAPI TlPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTL_EXT ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return TlComplete(Irp, status, 0);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->NextLower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TlSystemControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTL_EXT ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return TlComplete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->NextLower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TlPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTL_EXT ext = DeviceObject->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }

    if (minor == IRP_MN_START_DEVICE) {
        status = IoForwardIrpSynchronously(ext->NextLower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status))
            status = IoSetDeviceInterfaceState(&ext->LinkName, TRUE);
        if (NT_SUCCESS(status)) {
            status = STATUS_SUCCESS;
            TlSetRunning(ext, TRUE);
        }
        TlComplete(Irp, status, 0);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    }

    if (minor == IRP_MN_REMOVE_DEVICE) {
        IoSetDeviceInterfaceState(&ext->LinkName, FALSE);
        TlSetRunning(ext, FALSE);
        IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
        TlFree(ext);
        RtlFreeUnicodeString(&ext->LinkName);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(ext->NextLower, Irp);
        IoDetachDevice(ext->NextLower);
        IoDeleteDevice(DeviceObject);
        return status;
    }

    switch (minor) {
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&ext->LinkName, FALSE);
        /* fall through */
    case IRP_MN_STOP_DEVICE:
        TlSetRunning(ext, FALSE);
        /* fall through */
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->NextLower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI TlAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT fdo;
    PTL_EXT ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(TL_EXT), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;

    ext = fdo->DeviceExtension;
    RtlZeroMemory(ext, sizeof(*ext));
    ext->DeviceObject = fdo;
    KeInitializeSpinLock(&ext->StagingLock);
    ExInitializeFastMutex(&ext->TapeLock);
    IoInitializeRemoveLock(&ext->RemoveLock, TL_TAG, 0, 0);

    ext->WorkItem = IoAllocateWorkItem(fdo);
    ext->Tape = ExAllocatePoolWithTag(PagedPool, TL_TAPE, TL_TAG);
    if (!ext->WorkItem || !ext->Tape) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto undo;
    }
    status = IoRegisterDeviceInterface(Pdo, &TapeLogInterface, NULL, &ext->LinkName);
    if (!NT_SUCCESS(status))
        goto undo;
    ext->NextLower = IoAttachDeviceToDeviceStack(fdo, Pdo);
    if (!ext->NextLower) {
        RtlFreeUnicodeString(&ext->LinkName);
        status = STATUS_NO_SUCH_DEVICE;
        goto undo;
    }
    fdo->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

undo:
    TlFree(ext);
    IoDeleteDevice(fdo);
    return status;
}

static VOID NTAPI TlUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = TlCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = TlCreateClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = TlRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = TlWrite;
    DriverObject->MajorFunction[IRP_MJ_PNP] = TlPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = TlPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = TlSystemControl;
    DriverObject->DriverExtension->AddDevice = TlAddDevice;
    DriverObject->DriverUnload = TlUnload;
    return STATUS_SUCCESS;
}
