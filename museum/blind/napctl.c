/*
 * napctl: counts the naps of the machine. A root-enumerated device that follows the system's
 * power states with its own (power policy owner) and keeps a log of the last 32
 * transitions with their times; IOCTL_NC_WAKE waits for the next return to D0.
 *
 * The bug: the system power request is kept for ever when the device power request cannot be made.
 *
 * Device: ROOT\NAPCTL
 * Rule: power-irp-overdue
 * Needs: power, failure
 */
#include <ddk/wdm.h>

#define NC_TAG 'lCpN'
#define LOG 32u
#define IOCTL_NC_LOG  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_NC_WAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID NapInterface = { 0x0b9a5c72, 0x1f0d, 0x4f5b, { 0x8e, 0x44, 0x21, 0x9c, 0x6a, 0x13, 0x5f, 0x10 } };

typedef struct { LONG64 Time; ULONG From, To; } NC_ENTRY;

typedef struct _NAP {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Link;
    BOOLEAN Started;
    SYSTEM_POWER_STATE System;
    DEVICE_POWER_STATE Device;
    DEVICE_POWER_STATE Map[PowerSystemMaximum];
    KSPIN_LOCK LogLock;
    ULONG Logged;
    NC_ENTRY Log[LOG];
    IO_CSQ Csq;
    KSPIN_LOCK CsqLock;
    LIST_ENTRY Waiters;
    BOOLEAN Gone;               /* guarded by CsqLock */
} NAP, *PNAP;

/* ---- waiting requests ---- */

#define NAPOF(csq) CONTAINING_RECORD(csq, NAP, Csq)

static NTSTATUS CsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Ctx)
{
    UNREFERENCED_PARAMETER(Ctx);
    if (NAPOF(Csq)->Gone)
        return STATUS_DELETE_PENDING;
    InsertTailList(&NAPOF(Csq)->Waiters, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}
static VOID CsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}
static PIRP CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PLIST_ENTRY head = &NAPOF(Csq)->Waiters, e;
    for (e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : head->Flink; e != head; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(i)->FileObject == File)
            return i;
    }
    return NULL;
}
static VOID CsqLock(PIO_CSQ Csq, PKIRQL Irql) { KeAcquireSpinLock(&NAPOF(Csq)->CsqLock, Irql); }
static VOID CsqUnlock(PIO_CSQ Csq, KIRQL Irql) { KeReleaseSpinLock(&NAPOF(Csq)->CsqLock, Irql); }

static VOID Finish(PNAP N, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&N->RemoveLock, Irp);
}
static VOID CsqCancelled(PIO_CSQ Csq, PIRP Irp) { Finish(NAPOF(Csq), Irp, STATUS_CANCELLED, 0); }

static VOID EndWaiters(PNAP N, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;
    while ((irp = IoCsqRemoveNextIrp(&N->Csq, File)) != NULL)
        Finish(N, irp, Status, 0);
}

static VOID Depart(PNAP N)
{
    KIRQL irql;
    IoSetDeviceInterfaceState(&N->Link, FALSE);
    KeAcquireSpinLock(&N->CsqLock, &irql);
    N->Gone = TRUE;
    KeReleaseSpinLock(&N->CsqLock, irql);
    EndWaiters(N, NULL, STATUS_DELETE_PENDING);
}

/* ---- power ---- */

static VOID Note(PNAP N, DEVICE_POWER_STATE To)
{
    KIRQL irql;
    LARGE_INTEGER now;
    NC_ENTRY *e;
    KeQuerySystemTime(&now);
    KeAcquireSpinLock(&N->LogLock, &irql);
    e = &N->Log[N->Logged++ % LOG];
    e->Time = now.QuadPart;
    e->From = N->Device;
    e->To = To;
    N->Device = To;
    KeReleaseSpinLock(&N->LogLock, irql);
}

static VOID DeviceRequestDone(PDEVICE_OBJECT Dev, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Status)
{
    PIRP system = Context;
    PNAP n = IoGetCurrentIrpStackLocation(system)->DeviceObject->DeviceExtension;
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    system->IoStatus.Status = Status->Status;
    IoCompleteRequest(system, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&n->RemoveLock, system);
}

static NTSTATUS SystemRequestDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PNAP n = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE state;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Dev);

    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        IoReleaseRemoveLock(&n->RemoveLock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    n->System = sp->Parameters.Power.State.SystemState;
    state.DeviceState = n->Map[n->System];
    status = PoRequestPowerIrp(n->Pdo, IRP_MN_SET_POWER, state, DeviceRequestDone, Irp, NULL);
#ifdef FIXED
    if (status != STATUS_PENDING) {
        Irp->IoStatus.Status = status;
        IoReleaseRemoveLock(&n->RemoveLock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
#else
    UNREFERENCED_PARAMETER(status);
#endif
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS PowerUpDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PNAP n = Context;
    POWER_STATE state;
    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        Note(n, PowerDeviceD0);
        state.DeviceState = PowerDeviceD0;
        PoSetPowerState(n->Self, DevicePowerState, state);
        EndWaiters(n, NULL, STATUS_SUCCESS);
    }
    IoReleaseRemoveLock(&n->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS DispatchPower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PNAP n = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE routine = NULL;
    NTSTATUS status = IoAcquireRemoveLock(&n->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState)
            routine = SystemRequestDone;
        else if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0 && n->Device != PowerDeviceD0)
            routine = PowerUpDone;
        else if (sp->Parameters.Power.State.DeviceState > PowerDeviceD0 && n->Device != sp->Parameters.Power.State.DeviceState) {
            Note(n, sp->Parameters.Power.State.DeviceState);
            PoSetPowerState(Dev, DevicePowerState, sp->Parameters.Power.State);
        }
    }
    if (routine) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, routine, n, TRUE, TRUE, TRUE);
        IoCallDriver(n->Lower, Irp);
        return STATUS_PENDING;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(n->Lower, Irp);
    IoReleaseRemoveLock(&n->RemoveLock, Irp);
    return status;
}

/* ---- plug and play ---- */

static VOID LearnMap(PNAP N)
{
    DEVICE_CAPABILITIES caps;
    KEVENT event;
    IO_STATUS_BLOCK ios;
    PIRP irp;
    PIO_STACK_LOCATION sp;
    NTSTATUS status;
    ULONG i;

    N->Map[PowerSystemUnspecified] = PowerDeviceD3;
    for (i = PowerSystemWorking; i < PowerSystemMaximum; i++)
        N->Map[i] = i == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
    RtlZeroMemory(&caps, sizeof caps);
    caps.Size = sizeof caps;
    caps.Version = 1;
    caps.Address = caps.UINumber = (ULONG)-1;
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, N->Lower, NULL, 0, NULL, &event, &ios);
    if (irp) {
        irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
        sp = IoGetNextIrpStackLocation(irp);
        sp->MinorFunction = IRP_MN_QUERY_CAPABILITIES;
        sp->Parameters.DeviceCapabilities.Capabilities = &caps;
        status = IoCallDriver(N->Lower, irp);
        if (status == STATUS_PENDING) {
            KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
            status = ios.Status;
        }
        if (NT_SUCCESS(status))
            for (i = PowerSystemSleeping1; i < PowerSystemMaximum; i++)
                if (caps.DeviceState[i] >= PowerDeviceD1 && caps.DeviceState[i] <= PowerDeviceD3)
                    N->Map[i] = caps.DeviceState[i];
    }
}

static NTSTATUS DispatchPnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PNAP n = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&n->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(n->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status)) {
            LearnMap(n);
            n->Device = PowerDeviceD0;
            n->Started = TRUE;
            IoSetDeviceInterfaceState(&n->Link, TRUE);
        }
        Finish(n, Irp, status, 0);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;      /* no hardware, nothing to hold back */
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        Depart(n);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Depart(n);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(n->Lower, Irp);
        IoReleaseRemoveLockAndWait(&n->RemoveLock, Irp);
        RtlFreeUnicodeString(&n->Link);
        IoDetachDevice(n->Lower);
        IoDeleteDevice(Dev);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(n->Lower, Irp);
    IoReleaseRemoveLock(&n->RemoveLock, Irp);
    return status;
}

/* ---- the rest ---- */

static NTSTATUS DispatchFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PNAP n = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    if (sp->MajorFunction == IRP_MJ_CLEANUP)
        EndWaiters(n, sp->FileObject, STATUS_CANCELLED);
    else if (sp->MajorFunction == IRP_MJ_CREATE && (!n->Started || n->Gone))
        status = STATUS_NO_SUCH_DEVICE;
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS DispatchControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PNAP n = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NC_ENTRY *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG room = sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof *out, i, first, count = 0;
    NTSTATUS status = IoAcquireRemoveLock(&n->RemoveLock, Irp);
    KIRQL irql;
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        Irp->IoStatus.Information = 0;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NC_WAKE:
        status = IoCsqInsertIrpEx(&n->Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(status))
            return STATUS_PENDING;
        break;
    case IOCTL_NC_LOG:                              /* the newest that fit, oldest first */
        KeAcquireSpinLock(&n->LogLock, &irql);
        first = n->Logged > LOG ? n->Logged - LOG : 0;
        if (n->Logged - first > room)
            first = n->Logged - room;
        for (i = first; i != n->Logged; i++)
            out[count++] = n->Log[i % LOG];
        KeReleaseSpinLock(&n->LogLock, irql);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Finish(n, Irp, status, count * sizeof *out);
    return status;
}

static NTSTATUS DispatchPass(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PNAP n = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&n->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(n->Lower, Irp);
    IoReleaseRemoveLock(&n->RemoveLock, Irp);
    return status;
}

static NTSTATUS AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PNAP n;
    NTSTATUS status = IoCreateDevice(Driver, sizeof *n, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    n = dev->DeviceExtension;
    RtlZeroMemory(n, sizeof *n);
    n->Self = dev;
    n->Pdo = Pdo;
    n->System = PowerSystemWorking;
    n->Device = PowerDeviceD0;
    n->Map[PowerSystemUnspecified] = PowerDeviceD3;
    n->Map[PowerSystemWorking] = PowerDeviceD0;
    n->Map[PowerSystemSleeping1] = n->Map[PowerSystemSleeping2] = n->Map[PowerSystemSleeping3] = PowerDeviceD3;
    n->Map[PowerSystemHibernate] = n->Map[PowerSystemShutdown] = PowerDeviceD3;
    IoInitializeRemoveLock(&n->RemoveLock, NC_TAG, 0, 0);
    KeInitializeSpinLock(&n->LogLock);
    KeInitializeSpinLock(&n->CsqLock);
    InitializeListHead(&n->Waiters);
    status = IoCsqInitializeEx(&n->Csq, CsqInsert, CsqRemove, CsqPeek, CsqLock, CsqUnlock, CsqCancelled);
    if (NT_SUCCESS(status))
        status = IoRegisterDeviceInterface(Pdo, &NapInterface, NULL, &n->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    n->Lower = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (!n->Lower) {
        RtlFreeUnicodeString(&n->Link);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID Unload(PDRIVER_OBJECT Driver) { UNREFERENCED_PARAMETER(Driver); }

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchPass;
    return STATUS_SUCCESS;
}
