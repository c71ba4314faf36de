/*
 * metronome.c - beats time for programs.
 *
 * START sets a timer going, SET_INTERVAL changes its pace, STOP ends it.  A
 * BEAT request waits for the next beat and gives its number.  Every eighth beat
 * a work item writes the tempo down.  The timer sleeps while the device does.
 *
 * The bug: SET_INTERVAL sets the timer again after a surprise removal, and the removal does not cancel it once
 * more.
 *
 * Device: Root\Metronome
 * Rule: freed-active-timer
 * Needs: ioctl, removal
 */
#include <initguid.h>
#include <ddk/wdm.h>

typedef struct EXT EXT;

enum { NEW_DEVICE, RUNNING, HALTED, PULLED, DELETED };

typedef struct {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK Remove;
    UNICODE_STRING Link;
    volatile LONG State;
} BASE;

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, NT_SUCCESS(Status) ? IO_NO_INCREMENT + 1 : IO_NO_INCREMENT);
    return Status;
}

DEFINE_GUID(INTERFACE_GUID, 0x7a1e0006, 0x51b2, 0x4f1d, 0x9c, 0x11, 0x20, 0x31, 0x42, 0x53, 0x64, 0x75);

#define POOL_TAG 'rteM'
#define DEVICE_IO DO_BUFFERED_IO
#define SHORTEST 1
#define LONGEST 60000
#define TEMPOS 16

#define IOCTL_START CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STOP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SET_INTERVAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BEAT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TEMPOS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x844, METHOD_BUFFERED, FILE_ANY_ACCESS)

struct EXT {
    BASE B;
    DEVICE_POWER_STATE Power;

    KSPIN_LOCK Lock;   /* all up to Beats */
    BOOLEAN Beating;   /* between START and STOP */
    BOOLEAN Asleep;    /* the device is not in D0 */
    BOOLEAN Gone;      /* it has been pulled out or removed */
    BOOLEAN Noting;    /* the work item is queued */
    ULONG Interval;
    ULONG Beats;

    KTIMER Timer;
    KDPC Dpc;
    PIO_WORKITEM Note;
    FAST_MUTEX TempoMutex;
    PULONG Tempos; /* paged */
    ULONG TempoCount;

    IO_CSQ Queue;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY List;
};

/* ---- requests that wait for a beat ------------------------------------------------ */

static VOID NTAPI QueueInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, EXT, Queue)->List, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI QueueRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI QueuePeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Queue);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : x->List.Flink;

    for (; e != &x->List; e = e->Flink) {
        PIRP Next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (Context == NULL || IoGetCurrentIrpStackLocation(Next)->FileObject == Context)
            return Next;
    }
    return NULL;
}

static VOID NTAPI QueueLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, EXT, Queue)->QueueLock, Irql);
}

static VOID NTAPI QueueUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, EXT, Queue)->QueueLock, Irql);
}

static VOID NTAPI QueueCancelled(PIO_CSQ Csq, PIRP Irp)
{
    EXT *x = CONTAINING_RECORD(Csq, EXT, Queue);

    Finish(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

static VOID Flush(EXT *x, PVOID File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&x->Queue, File)) != NULL) {
        Finish(Irp, Status, 0);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    }
}

/* ---- beats -------------------------------------------------------------------------- */

/* With the lock held. */
static VOID SetTimer(EXT *x)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -10000LL * x->Interval;
    KeSetTimer(&x->Timer, Due, &x->Dpc);
}

static VOID NTAPI WriteTempo(PDEVICE_OBJECT Device, PVOID Context)
{
    EXT *x = Device->DeviceExtension;
    ULONG Interval;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Context);
    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Noting = FALSE;
    Interval = x->Interval;
    KeReleaseSpinLock(&x->Lock, Irql);
    ExAcquireFastMutex(&x->TempoMutex);
    if (x->TempoCount == TEMPOS) {
        RtlMoveMemory(x->Tempos, x->Tempos + 1, (TEMPOS - 1) * sizeof(ULONG));
        x->TempoCount--;
    }
    x->Tempos[x->TempoCount++] = Interval;
    ExReleaseFastMutex(&x->TempoMutex);
    IoReleaseRemoveLock(&x->B.Remove, WriteTempo);
}

static VOID NTAPI OnTimer(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EXT *x = Context;
    BOOLEAN Note = FALSE;
    LIST_ENTRY Ready;
    ULONG Beat;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (!x->Beating || x->Asleep || x->Gone) {
        KeReleaseSpinLockFromDpcLevel(&x->Lock);
        return;
    }
    Beat = ++x->Beats;
    if (Beat % 8 == 0 && !x->Noting && NT_SUCCESS(IoAcquireRemoveLock(&x->B.Remove, WriteTempo)))
        Note = x->Noting = TRUE;
    SetTimer(x);
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (Note)
        IoQueueWorkItem(x->Note, WriteTempo, DelayedWorkQueue, NULL);

    /* Those who wait now; who asks again in the meantime waits for the next one. */
    InitializeListHead(&Ready);
    while ((Irp = IoCsqRemoveNextIrp(&x->Queue, NULL)) != NULL)
        InsertTailList(&Ready, &Irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&Ready)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Ready), IRP, Tail.Overlay.ListEntry);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Beat;
        Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&x->B.Remove, Irp);
    }
}

static NTSTATUS StartBeating(EXT *x)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    if (x->Gone) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (!x->Beating) {
        x->Beating = TRUE;
        if (!x->Asleep)
            SetTimer(x);
    }
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

static VOID StopBeating(EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Beating = FALSE;
    KeCancelTimer(&x->Timer);
    KeReleaseSpinLock(&x->Lock, Irql);
}

static NTSTATUS SetInterval(EXT *x, ULONG Interval)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (Interval < SHORTEST || Interval > LONGEST)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&x->Lock, &Irql);
#ifdef FIXED
    if (x->Gone) {
        KeReleaseSpinLock(&x->Lock, Irql);
        return STATUS_DEVICE_NOT_CONNECTED;
    }
#endif
    x->Interval = Interval;
    if (x->Beating && !x->Asleep)
        SetTimer(x); /* one that is set is set anew */
    KeReleaseSpinLock(&x->Lock, Irql);
    return Status;
}

/* ---- the device ------------------------------------------------------------------------ */

static VOID PowerDown(EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Asleep = TRUE;
    KeCancelTimer(&x->Timer);
    KeReleaseSpinLock(&x->Lock, Irql);
}

static VOID PowerUp(EXT *x)
{
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    x->Asleep = FALSE;
    if (x->Beating && !x->Gone)
        SetTimer(x);
    KeReleaseSpinLock(&x->Lock, Irql);
}

static NTSTATUS DevInit(EXT *x)
{
    NTSTATUS Status;

    x->Power = PowerDeviceD0;
    x->Interval = 500;
    KeInitializeSpinLock(&x->Lock);
    KeInitializeSpinLock(&x->QueueLock);
    InitializeListHead(&x->List);
    ExInitializeFastMutex(&x->TempoMutex);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Dpc, OnTimer, x);
    Status = IoCsqInitialize(&x->Queue, QueueInsert, QueueRemove, QueuePeek, QueueLock, QueueUnlock,
                             QueueCancelled);
    if (!NT_SUCCESS(Status))
        return Status;
    x->Note = IoAllocateWorkItem(x->B.Self);
    if (x->Note == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Tempos = ExAllocatePoolWithTag(PagedPool, TEMPOS * sizeof(ULONG), POOL_TAG);
    if (x->Tempos == NULL) {
        IoFreeWorkItem(x->Note);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS DevStart(EXT *x)
{
    UNREFERENCED_PARAMETER(x);
    return STATUS_SUCCESS;
}

static VOID DevGone(EXT *x)
{
    BOOLEAN Before;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Lock, &Irql);
    Before = x->Gone;
    x->Gone = TRUE;
    if (!Before)
        KeCancelTimer(&x->Timer);
    KeReleaseSpinLock(&x->Lock, Irql);
    if (!Before)
        KeFlushQueuedDpcs();
    Flush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
}

static VOID DevFree(EXT *x)
{
    IoFreeWorkItem(x->Note);
    ExFreePoolWithTag(x->Tempos, POOL_TAG);
}

/* ---- Plug and Play ---------------------------------------------------- */

static NTSTATUS PassDown(EXT *x, PIRP Irp)
{
    NTSTATUS Status;

    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(x->B.Lower, Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

static NTSTATUS DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = STATUS_UNSUCCESSFUL;
        if (IoForwardIrpSynchronously(x->B.Lower, Irp))
            Status = Irp->IoStatus.Status;
        if (NT_SUCCESS(Status))
            Status = DevStart(x);
        if (NT_SUCCESS(Status)) {
            InterlockedExchange(&x->B.State, RUNNING);
            IoSetDeviceInterfaceState(&x->B.Link, TRUE);
        }
        Finish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&x->B.Remove, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
        /* There is no hardware: requests go on across a rebalance. */
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&x->B.State, PULLED);
        IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return PassDown(x, Irp);
    case IRP_MN_REMOVE_DEVICE:
        if (InterlockedExchange(&x->B.State, DELETED) != PULLED)
            IoSetDeviceInterfaceState(&x->B.Link, FALSE);
        DevGone(x);
        IoReleaseRemoveLockAndWait(&x->B.Remove, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(x->B.Lower, Irp);
        DevFree(x);
        RtlFreeUnicodeString(&x->B.Link);
        IoDetachDevice(x->B.Lower);
        IoDeleteDevice(Device);
        return Status;
    default:
        return PassDown(x, Irp);
    }
}

static NTSTATUS DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    return PassDown(x, Irp);
}
/* ---- power: the device's state follows the system's ------------------------ */

static VOID NTAPI DevicePowerDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context,
                                  PIO_STATUS_BLOCK Io)
{
    PIRP Irp = Context;
    EXT *x = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Irp->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
}

static NTSTATUS NTAPI SystemPowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EXT *x = Context;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = Irp->IoStatus.Status;
    POWER_STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        State.DeviceState =
            Stack->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(x->B.Self, IRP_MN_SET_POWER, State, DevicePowerDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI PowerUpDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EXT *x = Context;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        x->Power = PowerDeviceD0;
        PoSetPowerState(x->B.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        PowerUp(x);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Finish(Irp, Status, 0);
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, SystemPowerDone, x, TRUE, TRUE, TRUE);
        PoCallDriver(x->B.Lower, Irp);
        return STATUS_PENDING;
    }
    if (Stack->MinorFunction == IRP_MN_SET_POWER) {
        if (Stack->Parameters.Power.State.DeviceState == PowerDeviceD0 && x->Power != PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, PowerUpDone, x, TRUE, TRUE, TRUE);
            return PoCallDriver(x->B.Lower, Irp);
        }
        if (Stack->Parameters.Power.State.DeviceState != PowerDeviceD0 && x->Power == PowerDeviceD0) {
            PowerDown(x);
            PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        }
        x->Power = Stack->Parameters.Power.State.DeviceState;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(x->B.Lower, Irp);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}
static NTSTATUS AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Self;
    NTSTATUS Status;
    EXT *x;

    Status = IoCreateDevice(Driver, sizeof(EXT), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    x = Self->DeviceExtension;
    RtlZeroMemory(x, sizeof(*x));
    x->B.Self = Self;
    x->B.Pdo = Pdo;
    x->B.State = NEW_DEVICE;
    IoInitializeRemoveLock(&x->B.Remove, POOL_TAG, 0, 0);
    Status = DevInit(x);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Self);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &INTERFACE_GUID, NULL, &x->B.Link);
    if (!NT_SUCCESS(Status)) {
        DevFree(x);
        IoDeleteDevice(Self);
        return Status;
    }
    x->B.Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
    if (x->B.Lower == NULL) {
        RtlFreeUnicodeString(&x->B.Link);
        DevFree(x);
        IoDeleteDevice(Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    Self->Flags |= DO_POWER_PAGABLE | DEVICE_IO;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* ---- requests ---------------------------------------------------------------------------- */

static NTSTATUS DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;

    return Finish(Irp, x->B.State == RUNNING ? STATUS_SUCCESS : STATUS_DEVICE_NOT_CONNECTED, 0);
}

static NTSTATUS DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    Flush(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXT *x = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = IoAcquireRemoveLock(&x->B.Remove, Irp);
    ULONG Information = 0;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_START:
        Status = StartBeating(x);
        break;
    case IOCTL_STOP:
        StopBeating(x);
        break;
    case IOCTL_SET_INTERVAL:
        Status = In < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : SetInterval(x, Buffer[0]);
        break;
    case IOCTL_BEAT:
        if (Out < sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = IoAcquireRemoveLock(&x->B.Remove, DispatchControl);
        if (!NT_SUCCESS(Status))
            break;
        IoCsqInsertIrp(&x->Queue, Irp, NULL);
        if (x->B.State != RUNNING)
            Flush(x, NULL, STATUS_DEVICE_NOT_CONNECTED);
        IoReleaseRemoveLock(&x->B.Remove, DispatchControl);
        return STATUS_PENDING;
    case IOCTL_TEMPOS: {
        ULONG Room = Out / sizeof(ULONG);

        ExAcquireFastMutex(&x->TempoMutex);
        Information = (x->TempoCount < Room ? x->TempoCount : Room) * sizeof(ULONG);
        if (Information != 0)
            RtlCopyMemory(Buffer, x->Tempos, Information);
        ExReleaseFastMutex(&x->TempoMutex);
        break;
    }
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&x->B.Remove, Irp);
    return Status;
}

#define ENTRIES Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;

static VOID Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    ENTRIES
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    return STATUS_SUCCESS;
}
