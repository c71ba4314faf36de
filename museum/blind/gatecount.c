/*
 * gatecount: a counter, and applications that wait until it has come so far; the function driver of a device that the
 * root enumerates.
 *
 * interface {7a1c5f60-3d2e-4b8f-9c11-52a0e6d7b102}
 *   0x222004 ADD    in  { u32 n }                           wraps around
 *   0x222008 WAIT   in  { u32 threshold } out { u32 value } pends until the counter is at the threshold or above
 *   0x22200c RATE   in  { u32 milliseconds }                counts by itself from now on, 1 to 10000; 0: not any more
 *   0x222010 QUERY  out { u32 value, u32 waiting, u32 satisfied }
 *   0x222014 RESET  sets the counter to 0
 *
 * The queue has cancel routines of its own, since a request may leave it from the middle: who takes a request's
 * cancel routine away has the request, and if it is gone already the cancel routine is on its way, and takes the request
 * from the list.  Each request holds the remove lock until it is completed.
 *
 * The bug: a request that was cancelled before it had its cancel routine is completed without releasing the
 * remove lock.  It shows when CancelIo comes while the dispatch routine is on its way, between the arrival of WAIT and
 * IoSetCancelRoutine: Irp->Cancel is set already, and no cancel routine was called.  The consequence comes later: the
 * removal of the device waits in IoReleaseRemoveLockAndWait for ever.
 *
 * Device: Root\GateCount
 * Rule: deadlock
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>

#define TAG 'cetG'
#define IOCTL_ADD   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MAX_RATE 10000

static const GUID InterfaceGuid = { 0x7a1c5f60, 0x3d2e, 0x4b8f, { 0x9c, 0x11, 0x52, 0xa0, 0xe6, 0xd7, 0xb1, 0x02 } };

typedef struct {
    PDEVICE_OBJECT Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING LinkName;

    KSPIN_LOCK Lock;               /* all that follows */
    LIST_ENTRY Waiting;
    ULONG WaitingCount, Satisfied;
    ULONG Value;
    BOOLEAN Started, Removed;
    ULONG Rate;
    KTIMER Timer;
    KDPC Dpc;
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

/* ---- the queue ---- */

static VOID Unlink(EXTENSION *ext, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    ext->WaitingCount--;
}

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&ext->Lock, &irql);
    Unlink(ext, Irp);
    KeReleaseSpinLock(&ext->Lock, irql);
    CompleteLocked(ext, Irp, STATUS_CANCELLED, 0);
}

static ULONG Threshold(PIRP Irp)
{
    return (ULONG)(ULONG_PTR)Irp->Tail.Overlay.DriverContext[0];
}

/* With the lock held: those whose threshold is reached come into the list Done. */
static VOID TakeSatisfied(EXTENSION *ext, PLIST_ENTRY Done)
{
    PLIST_ENTRY e, next;

    for (e = ext->Waiting.Flink; e != &ext->Waiting; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (ext->Value < Threshold(irp) || !IoSetCancelRoutine(irp, NULL))
            continue;
        Unlink(ext, irp);
        ext->Satisfied++;
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = ext->Value;
        InsertTailList(Done, e);
    }
}

static VOID CompleteSatisfied(EXTENSION *ext, PLIST_ENTRY Done)
{
    while (!IsListEmpty(Done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(Done), IRP, Tail.Overlay.ListEntry);
        CompleteLocked(ext, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID Add(EXTENSION *ext, ULONG n)
{
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Value += n;
    TakeSatisfied(ext, &done);
    KeReleaseSpinLock(&ext->Lock, irql);
    CompleteSatisfied(ext, &done);
}

/* Ends what waits, all or that of one file. */
static VOID FailWaiting(EXTENSION *ext, PFILE_OBJECT FileObject, NTSTATUS Status)
{
    PLIST_ENTRY e, next;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&ext->Lock, &irql);
    for (e = ext->Waiting.Flink; e != &ext->Waiting; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (FileObject && IoGetCurrentIrpStackLocation(irp)->FileObject != FileObject)
            continue;
        if (!IoSetCancelRoutine(irp, NULL))
            continue;
        Unlink(ext, irp);
        InsertTailList(&done, e);
    }
    KeReleaseSpinLock(&ext->Lock, irql);
    while (!IsListEmpty(&done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        CompleteLocked(ext, irp, Status, 0);
    }
}

static NTSTATUS Wait(EXTENSION *ext, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG threshold = buffer[0];
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    if (ext->Removed || file->FsContext) {
        NTSTATUS status = ext->Removed ? STATUS_DELETE_PENDING : STATUS_CANCELLED;

        KeReleaseSpinLock(&ext->Lock, irql);
        return CompleteLocked(ext, Irp, status, 0);
    }
    if (ext->Value >= threshold) {
        buffer[0] = ext->Value;
        ext->Satisfied++;
        KeReleaseSpinLock(&ext->Lock, irql);
        return CompleteLocked(ext, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }

    IoMarkIrpPending(Irp);
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)threshold;
    InsertTailList(&ext->Waiting, &Irp->Tail.Overlay.ListEntry);
    ext->WaitingCount++;
    IoSetCancelRoutine(Irp, CancelWait);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        /* Cancelled before; the cancel routine will not be called. */
        Unlink(ext, Irp);
        KeReleaseSpinLock(&ext->Lock, irql);
#ifdef FIXED
        CompleteLocked(ext, Irp, STATUS_CANCELLED, 0);
#else
        Complete(Irp, STATUS_CANCELLED, 0);
#endif
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_PENDING;
}

/* ---- counting by itself ---- */

static VOID NTAPI TickDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    Add(Context, 1);
}

/* With the lock held. */
static VOID SetTicking(EXTENSION *ext)
{
    if (ext->Started && ext->Rate) {
        LARGE_INTEGER due;

        due.QuadPart = -(LONGLONG)ext->Rate * 10000;
        KeSetTimerEx(&ext->Timer, due, (LONG)ext->Rate, &ext->Dpc);
    } else
        KeCancelTimer(&ext->Timer);
}

static NTSTATUS SetRate(EXTENSION *ext, ULONG Rate)
{
    KIRQL irql;

    if (Rate > MAX_RATE)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Rate = Rate;
    SetTicking(ext);
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID SetStarted(EXTENSION *ext, BOOLEAN Started, BOOLEAN Removed)
{
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = Started;
    ext->Removed = Removed;
    SetTicking(ext);
    KeReleaseSpinLock(&ext->Lock, irql);
    if (!Started)
        KeFlushQueuedDpcs();
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
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    file->FsContext = file; /* cleaned up */
    KeReleaseSpinLock(&ext->Lock, irql);
    FailWaiting(ext, file, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ADD:
        if (in < sizeof(ULONG))
            return CompleteLocked(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Add(ext, buffer[0]);
        return CompleteLocked(ext, Irp, STATUS_SUCCESS, 0);

    case IOCTL_WAIT:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return CompleteLocked(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Wait(ext, Irp);

    case IOCTL_RATE:
        if (in < sizeof(ULONG))
            return CompleteLocked(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return CompleteLocked(ext, Irp, SetRate(ext, buffer[0]), 0);

    case IOCTL_QUERY:
        if (out < 3 * sizeof(ULONG))
            return CompleteLocked(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&ext->Lock, &irql);
        buffer[0] = ext->Value;
        buffer[1] = ext->WaitingCount;
        buffer[2] = ext->Satisfied;
        KeReleaseSpinLock(&ext->Lock, irql);
        return CompleteLocked(ext, Irp, STATUS_SUCCESS, 3 * sizeof(ULONG));

    case IOCTL_RESET:
        KeAcquireSpinLock(&ext->Lock, &irql);
        ext->Value = 0;
        KeReleaseSpinLock(&ext->Lock, irql);
        return CompleteLocked(ext, Irp, STATUS_SUCCESS, 0);
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
        if (NT_SUCCESS(status)) {
            SetStarted(ext, TRUE, FALSE);
            IoSetDeviceInterfaceState(&ext->LinkName, TRUE);
        }
        return CompleteLocked(ext, Irp, status, Irp->IoStatus.Information);

    case IRP_MN_STOP_DEVICE:
        SetStarted(ext, FALSE, FALSE); /* what waits goes on waiting */
        break;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        SetStarted(ext, FALSE, TRUE);
        IoSetDeviceInterfaceState(&ext->LinkName, FALSE);
        FailWaiting(ext, NULL, STATUS_DELETE_PENDING);
        break;

    case IRP_MN_REMOVE_DEVICE:
        SetStarted(ext, FALSE, TRUE);
        IoSetDeviceInterfaceState(&ext->LinkName, FALSE);
        FailWaiting(ext, NULL, STATUS_DELETE_PENDING);
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
    ext->Pdo = Pdo;
    IoInitializeRemoveLock(&ext->RemoveLock, TAG, 0, 0);
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Waiting);
    KeInitializeTimer(&ext->Timer);
    KeInitializeDpc(&ext->Dpc, TickDpc, ext);
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
    device->Flags |= DO_POWER_PAGABLE;
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
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
