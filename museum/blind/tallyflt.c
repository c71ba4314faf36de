/*
 * tallyflt: a filter above a port device.  It counts what passes (IOCTL_TALLY_QUERY) and once a second asks the port
 * for its own counters with an internal request from a work item.  Opens are completed here, everything else is passed.
 *
 * The bug: a request of its own that has taken too long is cancelled and freed before it has ended.
 *
 * Device: ROOT\TALLYFLT
 * Rule: irp-in-use
 * Needs: nothing
 */
#include "../include/dkit.h"

#define IOCTL_TALLY_QUERY      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PORT_COUNTERS    CTL_CODE(FILE_DEVICE_SERIAL_PORT, 0x8F0, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define POLL_PERIOD 1000
#define POLL_LIMIT  3000

typedef struct _PORT_COUNTERS {
    ULONG Received;
    ULONG Sent;
    ULONG Errors;
    ULONG Overruns;
} PORT_COUNTERS;

typedef struct _TALLY {
    ULONG Reads;
    ULONG Writes;
    ULONG Controls;
    ULONG Failed;
    ULONG Polls;
    ULONG PollsFailed;
    PORT_COUNTERS Port;
} TALLY;

typedef struct _FILTER {
    DK Dk;
    KSPIN_LOCK Lock;
    TALLY Tally;
    KTIMER Timer;
    KDPC Dpc;
    PIO_WORKITEM Work;
    PORT_COUNTERS PollBuffer;
    volatile LONG Polling;
    volatile LONG Started;
    volatile LONG Asleep;
} FILTER, *PFILTER;

DRIVER_INITIALIZE DriverEntry;

static NTSTATUS NTAPI PollDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS AskPort(PFILTER F)
{
    PIO_STACK_LOCATION Sp;
    LARGE_INTEGER Limit;
    KEVENT Done;
    NTSTATUS Status;
    PIRP Irp = IoAllocateIrp(F->Dk.Lower->StackSize, FALSE);

    if (!Irp)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(&F->PollBuffer, sizeof(F->PollBuffer));
    Irp->AssociatedIrp.SystemBuffer = &F->PollBuffer;
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    Sp = IoGetNextIrpStackLocation(Irp);
    Sp->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    Sp->Parameters.DeviceIoControl.IoControlCode = IOCTL_PORT_COUNTERS;
    Sp->Parameters.DeviceIoControl.OutputBufferLength = sizeof(PORT_COUNTERS);

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoSetCompletionRoutine(Irp, PollDone, &Done, TRUE, TRUE, TRUE);
    IoCallDriver(F->Dk.Lower, Irp);

    Limit.QuadPart = -10000LL * POLL_LIMIT;
    if (KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, &Limit) == STATUS_TIMEOUT) {
        IoCancelIrp(Irp);
#ifdef FIXED
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
#endif
        Status = STATUS_IO_TIMEOUT;
    } else {
        Status = Irp->IoStatus.Status;
        if (NT_SUCCESS(Status) && Irp->IoStatus.Information != sizeof(PORT_COUNTERS))
            Status = STATUS_INFO_LENGTH_MISMATCH;
    }
    IoFreeIrp(Irp);
    return Status;
}

static VOID NTAPI Poll(PDEVICE_OBJECT Dev, PVOID Context)
{
    PFILTER F = Context;
    NTSTATUS Status = AskPort(F);
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dev);
    KeAcquireSpinLock(&F->Lock, &Irql);
    F->Tally.Polls++;
    if (NT_SUCCESS(Status))
        F->Tally.Port = F->PollBuffer;
    else
        F->Tally.PollsFailed++;
    KeReleaseSpinLock(&F->Lock, Irql);

    InterlockedExchange(&F->Polling, 0);
    IoReleaseRemoveLock(&F->Dk.Lock, F->Work);
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PFILTER F = Context;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    if (!F->Started || F->Asleep)
        return;
    if (InterlockedCompareExchange(&F->Polling, 1, 0) != 0)
        return; /* the last one is still under way */
    if (!NT_SUCCESS(IoAcquireRemoveLock(&F->Dk.Lock, F->Work))) {
        InterlockedExchange(&F->Polling, 0);
        return;
    }
    IoQueueWorkItem(F->Work, Poll, DelayedWorkQueue, F);
}

static VOID StartPolling(PFILTER F)
{
    LARGE_INTEGER Due;
    if (InterlockedExchange(&F->Started, 1))
        return;
    Due.QuadPart = -10000LL * POLL_PERIOD;
    KeSetTimerEx(&F->Timer, Due, POLL_PERIOD, &F->Dpc);
}

static VOID StopPolling(PFILTER F)
{
    if (!InterlockedExchange(&F->Started, 0))
        return;
    KeCancelTimer(&F->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS NTAPI TransferDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PFILTER F = Context;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dev);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&F->Lock, &Irql);
    switch (IoGetCurrentIrpStackLocation(Irp)->MajorFunction) {
    case IRP_MJ_READ:
        F->Tally.Reads++;
        break;
    case IRP_MJ_WRITE:
        F->Tally.Writes++;
        break;
    default:
        F->Tally.Controls++;
        break;
    }
    if (!NT_SUCCESS(Irp->IoStatus.Status))
        F->Tally.Failed++;
    KeReleaseSpinLock(&F->Lock, Irql);
    IoReleaseRemoveLock(&F->Dk.Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS Watched(PFILTER F, PIRP Irp)
{
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, TransferDone, F, TRUE, TRUE, TRUE);
    return IoCallDriver(F->Dk.Lower, Irp);
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFILTER F = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&F->Dk.Lock, Irp);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MajorFunction) {
    case IRP_MJ_READ:
    case IRP_MJ_WRITE:
        return Watched(F, Irp);
    case IRP_MJ_DEVICE_CONTROL:
        if (Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_TALLY_QUERY)
            return Watched(F, Irp);
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TALLY)) {
            Status = DkFinish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        } else {
            KeAcquireSpinLock(&F->Lock, &Irql);
            *(TALLY *)Irp->AssociatedIrp.SystemBuffer = F->Tally;
            KeReleaseSpinLock(&F->Lock, Irql);
            Status = DkFinish(Irp, STATUS_SUCCESS, sizeof(TALLY));
        }
        IoReleaseRemoveLock(&F->Dk.Lock, Irp);
        return Status;
    default:
        return DkPassRelease(&F->Dk, Irp);
    }
}

static NTSTATUS NTAPI Power(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFILTER F = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&F->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return DkFinish(Irp, Status, 0);
    }
    if (Sp->MinorFunction == IRP_MN_SET_POWER) { /* no polling while the system sleeps */
        if (Sp->Parameters.Power.Type == SystemPowerState)
            InterlockedExchange(&F->Asleep, Sp->Parameters.Power.State.SystemState != PowerSystemWorking);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(F->Dk.Lower, Irp);
    IoReleaseRemoveLock(&F->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFILTER F = Dev->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&F->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&F->Dk, Irp);
        if (NT_SUCCESS(Status)) {
            if (F->Dk.Lower->Characteristics & FILE_REMOVABLE_MEDIA)
                Dev->Characteristics |= FILE_REMOVABLE_MEDIA;
            StartPolling(F);
        }
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&F->Dk.Lock, Irp);
        return Status;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (!Dev->AttachedDevice || (Dev->AttachedDevice->Flags & DO_POWER_PAGABLE))
            Dev->Flags |= DO_POWER_PAGABLE;
        Status = DkForwardWait(&F->Dk, Irp);
        if (!(F->Dk.Lower->Flags & DO_POWER_PAGABLE))
            Dev->Flags &= ~DO_POWER_PAGABLE;
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&F->Dk.Lock, Irp);
        return Status;
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        StopPolling(F);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        StopPolling(F);
        IoReleaseRemoveLockAndWait(&F->Dk.Lock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(F->Dk.Lower, Irp);
        IoDetachDevice(F->Dk.Lower);
        IoFreeWorkItem(F->Work);
        IoDeleteDevice(Dev);
        return Status;
    }
    return DkPassRelease(&F->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PFILTER F;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(FILTER), NULL, Pdo->DeviceType, FILE_DEVICE_SECURE_OPEN, FALSE, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    F = Dev->DeviceExtension;
    RtlZeroMemory(F, sizeof(*F));
    F->Dk.Self = Dev;
    F->Dk.Pdo = Pdo;
    IoInitializeRemoveLock(&F->Dk.Lock, 'tToB', 0, 0);
    KeInitializeSpinLock(&F->Lock);
    KeInitializeTimer(&F->Timer);
    KeInitializeDpc(&F->Dpc, Tick, F);
    F->Work = IoAllocateWorkItem(Dev);
    if (!F->Work) {
        IoDeleteDevice(Dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    F->Dk.Lower = IoAttachDeviceToDeviceStack(Dev, Pdo);
    if (!F->Dk.Lower) {
        IoFreeWorkItem(F->Work);
        IoDeleteDevice(Dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    Dev->Flags |= F->Dk.Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE | DO_POWER_INRUSH);
    Dev->Characteristics |= F->Dk.Lower->Characteristics & (FILE_REMOVABLE_MEDIA | FILE_READ_ONLY_DEVICE);
    Dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    ULONG i;
    UNREFERENCED_PARAMETER(Path);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
        Driver->MajorFunction[i] = Dispatch;
    Driver->MajorFunction[IRP_MJ_CREATE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_POWER] = Power;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
