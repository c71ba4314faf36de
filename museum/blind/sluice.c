/*
 * sluice.sys: the function driver of a sluice gate (without hardware), and the owner of its power policy: for a power request of the
 * system's it has one made for the device. IOCTL_SLUICE_SET opens the gate by 0 to 100 percent, IOCTL_SLUICE_GET tells. In
 * low power the gate cannot be moved: requests to do so are held until the device is in D0 again.
 *
 * The bug: requests that are held do not end when the device is surprise-removed, as they do when it is powered up or stopped, when
 * they are cancelled, and when their handle is closed. It will never be powered up, and the application waits for ever.
 *
 * How it shows: a request is made while the device is in low power (or the system sleeps), and the device is pulled out then.
 *
 * Device: Root\Sluice
 * Rule: request-pending-after-surprise-removal, irp-never-completed, request-forgotten
 * Needs: ioctl, power, removal
 */
#include <ddk/wdm.h>

#define IOCTL_SLUICE_SET CTL_CODE(0x9000, 0x900, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_SLUICE_GET CTL_CODE(0x9000, 0x901, METHOD_BUFFERED, FILE_READ_DATA)

typedef struct _SLUICE {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Next;
    UNICODE_STRING Link;
    EX_RUNDOWN_REF Rundown; /* of all requests but the removal */
    IO_CSQ Csq;
    KSPIN_LOCK Lock; /* of what follows */
    LIST_ENTRY Held;
    ULONG Percent;
    BOOLEAN Started;
    DEVICE_POWER_STATE Power;
} SLUICE, *PSLUICE;

DRIVER_INITIALIZE DriverEntry;

static const GUID SluiceGuid = {0xB6B0A9F1, 0x2D43, 0x4C6E, {0x91, 0x0E, 0x3A, 0x5E, 0x77, 0xC2, 0x18, 0xD0}};

static NTSTATUS SluiceComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Bytes)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Bytes;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- requests that are held: each has rundown protection ---- */

#define MOVED STATUS_RETRY /* of Insert: the gate has been moved, nothing is to be held */

static VOID Move(PSLUICE Sluice, PIRP Irp) { Sluice->Percent = *(PULONG)Irp->AssociatedIrp.SystemBuffer; }

static NTSTATUS NTAPI Insert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PSLUICE Sluice = CONTAINING_RECORD(Csq, SLUICE, Csq);

    UNREFERENCED_PARAMETER(Context);
    if (!Sluice->Started)
        return STATUS_DEVICE_NOT_READY;
    if (Sluice->Power == PowerDeviceD0) {
        Move(Sluice, Irp);
        return MOVED;
    }
    if (IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext2 != NULL)
        return STATUS_CANCELLED; /* the handle has been closed */
    InsertTailList(&Sluice->Held, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI Remove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI Peek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PLIST_ENTRY Head = &CONTAINING_RECORD(Csq, SLUICE, Csq)->Held;
    PLIST_ENTRY Entry = Irp == NULL ? Head->Flink : Irp->Tail.Overlay.ListEntry.Flink;

    for (; Entry != Head; Entry = Entry->Flink) {
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (File == NULL || IoGetCurrentIrpStackLocation(Irp)->FileObject == File)
            return Irp;
    }
    return NULL;
}

static VOID NTAPI Acquire(PIO_CSQ Csq, PKIRQL Irql) { KeAcquireSpinLock(&CONTAINING_RECORD(Csq, SLUICE, Csq)->Lock, Irql); }

static VOID NTAPI Release(PIO_CSQ Csq, KIRQL Irql) { KeReleaseSpinLock(&CONTAINING_RECORD(Csq, SLUICE, Csq)->Lock, Irql); }

static VOID EndHeld(PSLUICE Sluice, PIRP Irp, NTSTATUS Status)
{
    SluiceComplete(Irp, Status, 0);
    ExReleaseRundownProtection(&Sluice->Rundown);
}

static VOID NTAPI Cancelled(PIO_CSQ Csq, PIRP Irp) { EndHeld(CONTAINING_RECORD(Csq, SLUICE, Csq), Irp, STATUS_CANCELLED); }

/* All that are held (of a file object) end. */
static VOID FailHeld(PSLUICE Sluice, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&Sluice->Csq, File)) != NULL)
        EndHeld(Sluice, Irp, Status);
}

/* The device is in D0: what was held is done. IRQL <= DISPATCH_LEVEL. */
static VOID PoweredUp(PSLUICE Sluice)
{
    PIRP Irp;
    KIRQL Irql;

    KeAcquireSpinLock(&Sluice->Lock, &Irql);
    Sluice->Power = PowerDeviceD0;
    KeReleaseSpinLock(&Sluice->Lock, Irql);
    while ((Irp = IoCsqRemoveNextIrp(&Sluice->Csq, NULL)) != NULL) {
        KeAcquireSpinLock(&Sluice->Lock, &Irql);
        Move(Sluice, Irp);
        KeReleaseSpinLock(&Sluice->Lock, Irql);
        EndHeld(Sluice, Irp, STATUS_SUCCESS);
    }
}

static VOID SetStarted(PSLUICE Sluice, BOOLEAN Started)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Sluice->Lock, &Irql);
    Sluice->Started = Started;
    KeReleaseSpinLock(&Sluice->Lock, Irql);
}

/* ---- files and their requests ---- */

static NTSTATUS NTAPI SluiceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSLUICE Sluice = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Value = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    KIRQL Irql;

    if (!ExAcquireRundownProtection(&Sluice->Rundown))
        return SluiceComplete(Irp, STATUS_DELETE_PENDING, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SLUICE_SET:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG) || *Value > 100) {
            Status = SluiceComplete(Irp, STATUS_INVALID_PARAMETER, 0);
            break;
        }
        Status = IoCsqInsertIrpEx(&Sluice->Csq, Irp, NULL, NULL);
        if (!NT_SUCCESS(Status)) {
            IoMarkIrpPending(Irp);
            EndHeld(Sluice, Irp, Status == MOVED ? STATUS_SUCCESS : Status);
        }
        return STATUS_PENDING;
    case IOCTL_SLUICE_GET:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            Status = SluiceComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
            break;
        }
        KeAcquireSpinLock(&Sluice->Lock, &Irql);
        *Value = Sluice->Percent;
        KeReleaseSpinLock(&Sluice->Lock, Irql);
        Status = SluiceComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
        break;
    default:
        Status = SluiceComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        break;
    }
    ExReleaseRundownProtection(&Sluice->Rundown);
    return Status;
}

static NTSTATUS NTAPI SluiceFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSLUICE Sluice = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    KIRQL Irql;

    if (Stack->MajorFunction == IRP_MJ_CLEANUP) {
        KeAcquireSpinLock(&Sluice->Lock, &Irql);
        Stack->FileObject->FsContext2 = Sluice; /* nothing of this one is held from now on */
        KeReleaseSpinLock(&Sluice->Lock, Irql);
        FailHeld(Sluice, Stack->FileObject, STATUS_CANCELLED);
    }
    return SluiceComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SluiceWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSLUICE Sluice = Device->DeviceExtension;
    NTSTATUS Status;

    if (!ExAcquireRundownProtection(&Sluice->Rundown))
        return SluiceComplete(Irp, STATUS_DELETE_PENDING, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Sluice->Next, Irp);
    ExReleaseRundownProtection(&Sluice->Rundown);
    return Status;
}

/* ---- power ---- */

/* The device's request has ended, and so does the system's, for which it was made. */
static VOID NTAPI DeviceEnded(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Result)
{
    PIRP SystemIrp = Context;
    PSLUICE Sluice = IoGetCurrentIrpStackLocation(SystemIrp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(State);
    if (Minor == IRP_MN_QUERY_POWER)
        SystemIrp->IoStatus.Status = Result->Status;
    PoStartNextPowerIrp(SystemIrp);
    IoCompleteRequest(SystemIrp, IO_NO_INCREMENT);
    ExReleaseRundownProtection(&Sluice->Rundown);
}

/* The drivers below have seen the system's request. */
static NTSTATUS NTAPI SystemPassed(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PSLUICE Sluice = Context;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE State;
    NTSTATUS Status = Irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        State.DeviceState = Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(Sluice->Pdo, Stack->MinorFunction, State, DeviceEnded, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        if (Stack->MinorFunction == IRP_MN_QUERY_POWER)
            Irp->IoStatus.Status = Status; /* a set-power request does not fail; the device stays as it is */
    }
    PoStartNextPowerIrp(Irp);
    ExReleaseRundownProtection(&Sluice->Rundown);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DeviceIsUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PSLUICE Sluice = Context;
    POWER_STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        State.DeviceState = PowerDeviceD0;
        PoSetPowerState(Sluice->Self, DevicePowerState, State);
        PoweredUp(Sluice);
    }
    PoStartNextPowerIrp(Irp);
    ExReleaseRundownProtection(&Sluice->Rundown);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI SluicePower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSLUICE Sluice = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Sets = Stack->MinorFunction == IRP_MN_SET_POWER;
    NTSTATUS Status;
    KIRQL Irql;

    if (!ExAcquireRundownProtection(&Sluice->Rundown)) {
        PoStartNextPowerIrp(Irp);
        return SluiceComplete(Irp, STATUS_DELETE_PENDING, 0);
    }
    if (Sets || Stack->MinorFunction == IRP_MN_QUERY_POWER) {
        if (Stack->Parameters.Power.Type == SystemPowerState) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, SystemPassed, Sluice, TRUE, TRUE, TRUE);
            PoCallDriver(Sluice->Next, Irp);
            return STATUS_PENDING;
        }
        if (Sets && Stack->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, DeviceIsUp, Sluice, TRUE, TRUE, TRUE);
            return PoCallDriver(Sluice->Next, Irp);
        }
        if (Sets) {
            KeAcquireSpinLock(&Sluice->Lock, &Irql);
            Sluice->Power = Stack->Parameters.Power.State.DeviceState;
            KeReleaseSpinLock(&Sluice->Lock, Irql);
            PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Sluice->Next, Irp);
    ExReleaseRundownProtection(&Sluice->Rundown);
    return Status;
}

/* ---- Plug and Play ---- */

static NTSTATUS SluiceStart(PSLUICE Sluice, PIRP Irp)
{
    POWER_STATE State;
    NTSTATUS Status = IoForwardIrpSynchronously(Sluice->Next, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;

    if (NT_SUCCESS(Status)) {
        State.DeviceState = PowerDeviceD0;
        PoSetPowerState(Sluice->Self, DevicePowerState, State);
        PoweredUp(Sluice);
        SetStarted(Sluice, TRUE);
        IoSetDeviceInterfaceState(&Sluice->Link, TRUE);
    }
    return SluiceComplete(Irp, Status, Irp->IoStatus.Information);
}

static NTSTATUS SluiceRemove(PSLUICE Sluice, PIRP Irp)
{
    NTSTATUS Status;

    SetStarted(Sluice, FALSE);
    FailHeld(Sluice, NULL, STATUS_DELETE_PENDING);
    IoSetDeviceInterfaceState(&Sluice->Link, FALSE);
    ExWaitForRundownProtectionRelease(&Sluice->Rundown);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Sluice->Next, Irp);
    IoDetachDevice(Sluice->Next);
    RtlFreeUnicodeString(&Sluice->Link);
    IoDeleteDevice(Sluice->Self);
    return Status;
}

static NTSTATUS NTAPI SluicePnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSLUICE Sluice = Device->DeviceExtension;
    UCHAR Minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS Status;

    if (Minor == IRP_MN_REMOVE_DEVICE)
        return SluiceRemove(Sluice, Irp);
    if (!ExAcquireRundownProtection(&Sluice->Rundown))
        return SluiceComplete(Irp, STATUS_DELETE_PENDING, 0);
    if (Minor == IRP_MN_START_DEVICE) {
        Status = SluiceStart(Sluice, Irp);
        ExReleaseRundownProtection(&Sluice->Rundown);
        return Status;
    }
    switch (Minor) {
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&Sluice->Link, FALSE);
        SetStarted(Sluice, FALSE);
#ifdef FIXED
        FailHeld(Sluice, NULL, STATUS_DEVICE_REMOVED);
#endif
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        SetStarted(Sluice, FALSE);
        FailHeld(Sluice, NULL, STATUS_DEVICE_NOT_READY);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
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
    Status = IoCallDriver(Sluice->Next, Irp);
    ExReleaseRundownProtection(&Sluice->Rundown);
    return Status;
}

static NTSTATUS NTAPI SluiceAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    PSLUICE Sluice;
    NTSTATUS Status;

    Status = IoCreateDevice(Driver, sizeof(SLUICE), NULL, 0x9000, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Sluice = Device->DeviceExtension;
    Sluice->Self = Device;
    Sluice->Pdo = Pdo;
    Sluice->Power = PowerDeviceD3;
    ExInitializeRundownProtection(&Sluice->Rundown);
    KeInitializeSpinLock(&Sluice->Lock);
    InitializeListHead(&Sluice->Held);
    Status = IoCsqInitializeEx(&Sluice->Csq, Insert, Remove, Peek, Acquire, Release, Cancelled);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &SluiceGuid, NULL, &Sluice->Link);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Sluice->Next = IoAttachDeviceToDeviceStack(Device, Pdo);
    if (Sluice->Next == NULL) {
        RtlFreeUnicodeString(&Sluice->Link);
        IoDeleteDevice(Device);
        return STATUS_NO_SUCH_DEVICE;
    }
    Device->Flags |= DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI SluiceUnload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = SluiceFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SluiceFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = SluiceFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SluiceControl;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SluiceWmi;
    Driver->MajorFunction[IRP_MJ_POWER] = SluicePower;
    Driver->MajorFunction[IRP_MJ_PNP] = SluicePnp;
    Driver->DriverExtension->AddDevice = SluiceAdd;
    Driver->DriverUnload = SluiceUnload;
    return STATUS_SUCCESS;
}
