/*
 * dozer: a thermometer that is simulated and that can only measure when it has power; the function driver, and owner of
 * the power policy, of a device that the root enumerates.
 *
 * interface {7a1c5f60-3d2e-4b8f-9c11-52a0e6d7b103}
 *   0x222004 SAMPLE    out { u32 number, i32 millidegrees }: a measurement; waits while the device has no power or is
 *                      stopped
 *   0x222008 QUERY     out { u32 power state (1: D0), u32 samples, u32 delayed }
 *   0x22200c CALIBRATE in { i32 offset in millidegrees, -5000 to 5000 }
 *
 * A system power request is passed down, and then has the driver ask for the device power state that goes with it; it is
 * completed when that is reached.  In D0 a measurement is made at once.  Else the request waits in a cancel-safe
 * queue, which is emptied when power comes back, or the device is started again.
 *
 * The bug: a request that finds the device without power is queued without looking again.  It shows when the device
 * comes back to D0 (or is started again) between the look and IoCsqInsertIrp: power-up empties a queue in which the
 * request is not yet.  The request then waits until the next time that power comes back, perhaps for ever, with the device
 * in D0 and all other requests succeeding.
 *
 * Device: Root\Dozer
 * Rule: request-forgotten
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define TAG 'rzoD'
#define IOCTL_SAMPLE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUERY     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CALIBRATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MAX_OFFSET 5000

static const GUID InterfaceGuid = { 0x7a1c5f60, 0x3d2e, 0x4b8f, { 0x9c, 0x11, 0x52, 0xa0, 0xe6, 0xd7, 0xb1, 0x03 } };

typedef struct {
    ULONG Number;
    LONG Millidegrees;
} SAMPLE;

typedef struct {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING LinkName;

    IO_CSQ Csq;
    KSPIN_LOCK CsqLock;
    LIST_ENTRY Queue;

    KSPIN_LOCK Lock;               /* what follows */
    BOOLEAN Started, Held, Removed;
    DEVICE_POWER_STATE Power;
    ULONG Samples, Delayed;
    LONG Offset;
    ULONG Noise;
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

/* ---- the queue of SAMPLE requests ---- */

static VOID NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    EXTENSION *ext = CONTAINING_RECORD(Csq, EXTENSION, Csq);
    InsertTailList(&ext->Queue, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI CsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
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

/* ---- measuring ---- */

/* With the lock held. */
static BOOLEAN IsReady(EXTENSION *ext)
{
    return ext->Started && !ext->Held && ext->Power == PowerDeviceD0;
}

/* With the lock held, and the device ready. */
static VOID Measure(EXTENSION *ext, PIRP Irp)
{
    SAMPLE *sample = Irp->AssociatedIrp.SystemBuffer;

    ext->Noise = ext->Noise * 1103515245 + 12345;
    sample->Number = ++ext->Samples;
    sample->Millidegrees = 21000 + (LONG)(ext->Noise >> 24) + ext->Offset;
}

/* Ends what waits, if the device is ready. */
static VOID Deliver(EXTENSION *ext)
{
    for (;;) {
        PIRP irp = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&ext->Lock, &irql);
        if (IsReady(ext) && (irp = IoCsqRemoveNextIrp(&ext->Csq, NULL)) != NULL) {
            Measure(ext, irp);
            ext->Delayed++;
        }
        KeReleaseSpinLock(&ext->Lock, irql);
        if (!irp)
            return;
        CompleteLocked(ext, irp, STATUS_SUCCESS, sizeof(SAMPLE));
    }
}

static VOID SetHeld(EXTENSION *ext, BOOLEAN Held)
{
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Held = Held;
    KeReleaseSpinLock(&ext->Lock, irql);
    if (!Held)
        Deliver(ext);
}

static VOID SetFlags(EXTENSION *ext, BOOLEAN Started, BOOLEAN Removed)
{
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = Started;
    ext->Removed = Removed;
    KeReleaseSpinLock(&ext->Lock, irql);
}

static VOID SetPower(EXTENSION *ext, DEVICE_POWER_STATE State)
{
    POWER_STATE power;
    KIRQL irql;

    power.DeviceState = State;
    PoSetPowerState(ext->Self, DevicePowerState, power);
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Power = State;
    KeReleaseSpinLock(&ext->Lock, irql);
    if (State == PowerDeviceD0)
        Deliver(ext);
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

/* The request holds the remove lock. */
static NTSTATUS Sample(EXTENSION *ext, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    NTSTATUS status;
    BOOLEAN removed;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    if (IsReady(ext)) {
        Measure(ext, Irp);
        KeReleaseSpinLock(&ext->Lock, irql);
        return CompleteLocked(ext, Irp, STATUS_SUCCESS, sizeof(SAMPLE));
    }
    KeReleaseSpinLock(&ext->Lock, irql);

    /* Once it is queued the request may be over at any time, and with it its hold of the lock and of the file. */
    status = IoAcquireRemoveLock(&ext->RemoveLock, file);
    if (!NT_SUCCESS(status))
        return CompleteLocked(ext, Irp, status, 0);
    ObReferenceObject(file);
    IoCsqInsertIrp(&ext->Csq, Irp, NULL);
#ifdef FIXED
    Deliver(ext); /* it may be ready by now */
#endif
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

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    LONG offset;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SAMPLE:
        if (out < sizeof(SAMPLE))
            return CompleteLocked(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Sample(ext, Irp);

    case IOCTL_QUERY:
        if (out < 3 * sizeof(ULONG))
            return CompleteLocked(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&ext->Lock, &irql);
        buffer[0] = ext->Power;
        buffer[1] = ext->Samples;
        buffer[2] = ext->Delayed;
        KeReleaseSpinLock(&ext->Lock, irql);
        return CompleteLocked(ext, Irp, STATUS_SUCCESS, 3 * sizeof(ULONG));

    case IOCTL_CALIBRATE:
        if (in < sizeof(LONG))
            return CompleteLocked(ext, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        offset = (LONG)buffer[0];
        if (offset < -MAX_OFFSET || offset > MAX_OFFSET)
            return CompleteLocked(ext, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&ext->Lock, &irql);
        ext->Offset = offset;
        KeReleaseSpinLock(&ext->Lock, irql);
        return CompleteLocked(ext, Irp, STATUS_SUCCESS, 0);
    }
    return CompleteLocked(ext, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* ---- Plug and Play ---- */

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
            SetFlags(ext, TRUE, FALSE);
            SetPower(ext, PowerDeviceD0); /* a device that is started is in D0 */
            SetHeld(ext, FALSE);
            IoSetDeviceInterfaceState(&ext->LinkName, TRUE);
        }
        return CompleteLocked(ext, Irp, status, Irp->IoStatus.Information);

    case IRP_MN_QUERY_STOP_DEVICE:
        SetHeld(ext, TRUE);
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
        status = ForwardAndWait(ext, Irp);
        SetHeld(ext, FALSE);
        return CompleteLocked(ext, Irp, status, Irp->IoStatus.Information);

    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        SetFlags(ext, FALSE, TRUE);
        IoSetDeviceInterfaceState(&ext->LinkName, FALSE);
        FailQueued(ext, NULL, STATUS_DELETE_PENDING);
        break;

    case IRP_MN_REMOVE_DEVICE:
        SetFlags(ext, FALSE, TRUE);
        IoSetDeviceInterfaceState(&ext->LinkName, FALSE);
        FailQueued(ext, NULL, STATUS_DELETE_PENDING);
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

/* ---- power ---- */

/* The device has reached the state that the system's asks for. */
static VOID NTAPI DeviceStateReached(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                     PIO_STATUS_BLOCK IoStatus)
{
    PIRP irp = Context;
    EXTENSION *ext = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    PoStartNextPowerIrp(irp);
    CompleteLocked(ext, irp, IoStatus->Status, 0);
}

/* The drivers below know of the system's state. */
static NTSTATUS NTAPI SystemPowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EXTENSION *ext = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(status)) {
        state.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0
                                                                                          : PowerDeviceD3;
        status = PoRequestPowerIrp(ext->Pdo, IRP_MN_SET_POWER, state, DeviceStateReached, Irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI PoweredUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EXTENSION *ext = Context;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status))
        SetPower(ext, PowerDeviceD0);
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, status, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER &&
        (sp->Parameters.Power.Type == SystemPowerState ||
         sp->Parameters.Power.State.DeviceState == PowerDeviceD0)) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, sp->Parameters.Power.Type == SystemPowerState ? SystemPowerDone : PoweredUp, ext,
                               TRUE, TRUE, TRUE);
        PoCallDriver(ext->Lower, Irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER)
        SetPower(ext, sp->Parameters.Power.State.DeviceState); /* down */
    if (sp->MinorFunction == IRP_MN_SET_POWER || sp->MinorFunction == IRP_MN_QUERY_POWER)
        Irp->IoStatus.Status = STATUS_SUCCESS;
    PoStartNextPowerIrp(Irp);
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
    ext->Power = PowerDeviceD3;
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
