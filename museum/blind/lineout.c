/*
 * lineout: a slow line that is simulated, the function driver of a device that the root enumerates.
 *
 * interface {7a1c5f60-3d2e-4b8f-9c11-52a0e6d7b105}
 *   write            1 to 512 bytes go over the line, one write after the other
 *   read             what went over the line last, 256 bytes at most; not waited for
 *   0x222004 SPEED   in  { u32 bytes in a millisecond }, 1 to 1024
 *   0x222008 QUERY   out { u32 writes, u32 bytes, u32 waiting }
 *
 * A system thread does the writing.  It is begun when the device is started, and ends when it is stopped or removed: what it
 * is writing is finished, what waits is held until the device is started again, or fails when it is removed.
 *
 * The bug: the event that tells the thread to end stays set after it has ended.  It shows when a device that was stopped
 * (to rebalance resources) is started again: the new thread sees the event, and ends at once.  A write that
 * waited, and each that comes from then on, is never completed, though the device is started.
 *
 * Device: Root\LineOut
 * Rule: request-forgotten
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define TAG 'tuoL'
#define IOCTL_SPEED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MAX_WRITE 512
#define MAX_SPEED 1024
#define MONITOR 256

static const GUID InterfaceGuid = { 0x7a1c5f60, 0x3d2e, 0x4b8f, { 0x9c, 0x11, 0x52, 0xa0, 0xe6, 0xd7, 0xb1, 0x05 } };

typedef struct {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING LinkName;

    IO_CSQ Csq;
    KSPIN_LOCK CsqLock;
    LIST_ENTRY Queue;
    ULONG Waiting;

    PVOID Thread;                  /* NULL: there is none; Plug and Play requests come one at a time */
    KEVENT Stop;                   /* the thread shall end */
    KEVENT Work;                   /* something was queued */

    KSPIN_LOCK Lock;               /* what follows */
    BOOLEAN Removed;
    ULONG Speed;
    ULONG Writes;
    ULONGLONG Bytes;
    UCHAR Line[MONITOR];           /* byte n went to n % MONITOR */
} EXTENSION;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* A request that holds the remove lock. */
static NTSTATUS CompleteLocked(EXTENSION *ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Complete(Irp, Status, Information);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return Status;
}

/* ---- the queue of write requests ---- */

static VOID NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    EXTENSION *ext = CONTAINING_RECORD(Csq, EXTENSION, Csq);
    InsertTailList(&ext->Queue, &Irp->Tail.Overlay.ListEntry);
    ext->Waiting++;
}

static VOID NTAPI CsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    CONTAINING_RECORD(Csq, EXTENSION, Csq)->Waiting--;
}

static PIRP NTAPI CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXTENSION *ext = CONTAINING_RECORD(Csq, EXTENSION, Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : ext->Queue.Flink;

    for (; e != &ext->Queue; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!Context || IoGetCurrentIrpStackLocation(irp)->FileObject == Context)
            return irp;
    }
    return NULL;
}

static VOID NTAPI CsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EXTENSION, Csq)->CsqLock, Irql);
}

static VOID NTAPI CsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EXTENSION, Csq)->CsqLock, Irql);
}

static VOID NTAPI CsqCanceled(PIO_CSQ Csq, PIRP Irp)
{
    CompleteLocked(CONTAINING_RECORD(Csq, EXTENSION, Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID FailQueued(EXTENSION *ext, PFILE_OBJECT FileObject, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&ext->Csq, FileObject)) != NULL)
        CompleteLocked(ext, irp, Status, 0);
}

/* ---- the thread ---- */

static VOID Transmit(EXTENSION *ext, PIRP Irp)
{
    const UCHAR *bytes = Irp->AssociatedIrp.SystemBuffer;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    ULONG offset = 0;
    KIRQL irql;

    while (offset < length) {
        LARGE_INTEGER millisecond;
        ULONG n, i;

        millisecond.QuadPart = -10000;
        KeDelayExecutionThread(KernelMode, FALSE, &millisecond);
        KeAcquireSpinLock(&ext->Lock, &irql);
        n = length - offset < ext->Speed ? length - offset : ext->Speed;
        for (i = 0; i < n; i++)
            ext->Line[ext->Bytes++ % MONITOR] = bytes[offset + i];
        KeReleaseSpinLock(&ext->Lock, irql);
        offset += n;
    }
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Writes++;
    KeReleaseSpinLock(&ext->Lock, irql);
    CompleteLocked(ext, Irp, STATUS_SUCCESS, length);
}

static VOID NTAPI LineThread(PVOID Context)
{
    EXTENSION *ext = Context;
    PVOID events[2] = { &ext->Stop, &ext->Work };
    PIRP irp;

    while (KeWaitForMultipleObjects(2, events, WaitAny, Executive, KernelMode, FALSE, NULL, NULL) != STATUS_WAIT_0) {
        while (!KeReadStateEvent(&ext->Stop) && (irp = IoCsqRemoveNextIrp(&ext->Csq, NULL)) != NULL)
            Transmit(ext, irp);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS StartThread(EXTENSION *ext)
{
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE handle;

#ifdef FIXED
    KeClearEvent(&ext->Stop);
#endif
    KeSetEvent(&ext->Work, IO_NO_INCREMENT, FALSE); /* what was held */
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, LineThread, ext);
    if (!NT_SUCCESS(status))
        return status;
    /* With a kernel handle of all access this does not fail. */
    ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, &ext->Thread, NULL);
    ZwClose(handle);
    return STATUS_SUCCESS;
}

static VOID StopThread(EXTENSION *ext)
{
    if (!ext->Thread)
        return;
    KeSetEvent(&ext->Stop, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(ext->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(ext->Thread);
    ext->Thread = NULL;
}

/* ---- requests of applications ---- */

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    return CompleteLocked(ext, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    InterlockedExchangePointer(&file->FsContext, file); /* cleaned up */
    FailQueued(ext, file, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PFILE_OBJECT file = sp->FileObject;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    BOOLEAN removed;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    if (!sp->Parameters.Write.Length || sp->Parameters.Write.Length > MAX_WRITE)
        return CompleteLocked(ext, Irp, STATUS_INVALID_BUFFER_SIZE, 0);

    /* Once it is queued the request may be over at any time, and with it its hold of the lock and of the file. */
    status = IoAcquireRemoveLock(&ext->RemoveLock, file);
    if (!NT_SUCCESS(status))
        return CompleteLocked(ext, Irp, status, 0);
    ObReferenceObject(file);
    IoCsqInsertIrp(&ext->Csq, Irp, NULL);
    KeSetEvent(&ext->Work, IO_NO_INCREMENT, FALSE);

    KeAcquireSpinLock(&ext->Lock, &irql);
    removed = ext->Removed;
    KeReleaseSpinLock(&ext->Lock, irql);
    if (removed)
        FailQueued(ext, NULL, STATUS_DELETE_PENDING);
    if (InterlockedCompareExchangePointer(&file->FsContext, NULL, NULL))
        FailQueued(ext, file, STATUS_CANCELLED); /* the handle was closed meanwhile */
    IoReleaseRemoveLock(&ext->RemoveLock, file);
    ObDereferenceObject(file);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length, i;
    ULONGLONG first;
    PUCHAR to = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    KeAcquireSpinLock(&ext->Lock, &irql);
    if (length > MONITOR)
        length = MONITOR;
    if (length > ext->Bytes)
        length = (ULONG)ext->Bytes;
    first = ext->Bytes - length;
    for (i = 0; i < length; i++)
        to[i] = ext->Line[(first + i) % MONITOR];
    KeReleaseSpinLock(&ext->Lock, irql);
    return CompleteLocked(ext, Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    ULONG waiting;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SPEED:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return CompleteLocked(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (!buffer[0] || buffer[0] > MAX_SPEED)
            return CompleteLocked(ext, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&ext->Lock, &irql);
        ext->Speed = buffer[0];
        KeReleaseSpinLock(&ext->Lock, irql);
        return CompleteLocked(ext, Irp, STATUS_SUCCESS, 0);

    case IOCTL_QUERY:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 3 * sizeof(ULONG))
            return CompleteLocked(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&ext->CsqLock, &irql);
        waiting = ext->Waiting;
        KeReleaseSpinLock(&ext->CsqLock, irql);
        KeAcquireSpinLock(&ext->Lock, &irql);
        buffer[0] = ext->Writes;
        buffer[1] = (ULONG)ext->Bytes;
        buffer[2] = waiting;
        KeReleaseSpinLock(&ext->Lock, irql);
        return CompleteLocked(ext, Irp, STATUS_SUCCESS, 3 * sizeof(ULONG));
    }
    return CompleteLocked(ext, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* ---- Plug and Play, power ---- */

static NTSTATUS NTAPI SignalEvent(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS ForwardAndWait(EXTENSION *ext, PIRP Irp)
{
    KEVENT event;
    NTSTATUS status;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, SignalEvent, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(ext->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static VOID SetRemoved(EXTENSION *ext)
{
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Removed = TRUE;
    KeReleaseSpinLock(&ext->Lock, irql);
    IoSetDeviceInterfaceState(&ext->LinkName, FALSE);
    StopThread(ext);
    FailQueued(ext, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS PassDown(EXTENSION *ext, PIRP Irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = ForwardAndWait(ext, Irp);
        if (NT_SUCCESS(status))
            status = StartThread(ext);
        if (NT_SUCCESS(status))
            IoSetDeviceInterfaceState(&ext->LinkName, TRUE);
        return CompleteLocked(ext, Irp, status, Irp->IoStatus.Information);

    case IRP_MN_STOP_DEVICE:
        StopThread(ext);
        break;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        SetRemoved(ext);
        break;

    case IRP_MN_REMOVE_DEVICE:
        SetRemoved(ext);
        IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(ext->Lower, Irp);
        IoDetachDevice(ext->Lower);
        RtlFreeUnicodeString(&ext->LinkName);
        IoDeleteDevice(Device);
        return status;

    default: /* not for this driver: the status stays as it is */
        return PassDown(ext, Irp);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    return PassDown(ext, Irp);
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(ext->Lower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    return PassDown(ext, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    status = IoCreateDevice(Driver, sizeof *ext, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Self = device;
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, TAG, 0, 0);
    KeInitializeSpinLock(&ext->Lock);
    KeInitializeSpinLock(&ext->CsqLock);
    InitializeListHead(&ext->Queue);
    KeInitializeEvent(&ext->Stop, NotificationEvent, FALSE);
    KeInitializeEvent(&ext->Work, SynchronizationEvent, FALSE);
    ext->Speed = 64;
    status = IoCsqInitialize(&ext->Csq, CsqInsert, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqCanceled);
    if (NT_SUCCESS(status))
        status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &ext->LinkName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    ext->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!ext->Lower) {
        RtlFreeUnicodeString(&ext->LinkName);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
