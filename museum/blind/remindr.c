/*
 * remindr: interval reminders.  Every open handle owns a periodic timer; IOCTL_ARM sets its period,
 * IOCTL_WAIT pends until the next tick (or returns at once if ticks were missed), IOCTL_QUERY tells the counts.
 *
 * The bug: closing a handle cancels its timer and frees it while its DPC may be queued or run.
 *
 * Device: none
 * Rule: use-after-free, freed-queued-dpc
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_ARM   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'mRoB'
#define MIN_PERIOD 10
#define MAX_PERIOD 60000

typedef struct _REMINDER {
    KSPIN_LOCK Lock;
    KTIMER Timer;
    KDPC Dpc;
    IO_CSQ Csq;
    LIST_ENTRY Waiters;
    ULONG Period;
    ULONG Fires;
    ULONG Seen;
    BOOLEAN Closed;
} REMINDER, *PREMINDER;

typedef struct _REMIND_INFO {
    ULONG Period;
    ULONG Fires;
    ULONG Missed;
} REMIND_INFO;

DRIVER_INITIALIZE DriverEntry;
static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Remindr");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Remindr");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI QInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PREMINDER R = CONTAINING_RECORD(Csq, REMINDER, Csq);
    UNREFERENCED_PARAMETER(Context);
    if (R->Closed)
        return STATUS_CANCELLED;
    if (R->Fires != R->Seen)
        return STATUS_RETRY; /* there is something to tell already */
    InsertTailList(&R->Waiters, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI QRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI QPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PREMINDER R = CONTAINING_RECORD(Csq, REMINDER, Csq);
    PLIST_ENTRY E = Irp ? Irp->Tail.Overlay.ListEntry.Flink : R->Waiters.Flink;
    UNREFERENCED_PARAMETER(Context);
    return E == &R->Waiters ? NULL : CONTAINING_RECORD(E, IRP, Tail.Overlay.ListEntry);
}

static VOID NTAPI QLock(PIO_CSQ Csq, PKIRQL Irql)
{
    PREMINDER R = CONTAINING_RECORD(Csq, REMINDER, Csq);
    KeAcquireSpinLock(&R->Lock, Irql);
}

static VOID NTAPI QUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    PREMINDER R = CONTAINING_RECORD(Csq, REMINDER, Csq);
    KeReleaseSpinLock(&R->Lock, Irql);
}

static VOID NTAPI QCancelled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    Finish(Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PREMINDER R = Context;
    LIST_ENTRY Done;
    ULONG Fires;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    InitializeListHead(&Done);
    KeAcquireSpinLockAtDpcLevel(&R->Lock);
    Fires = ++R->Fires;
    KeReleaseSpinLockFromDpcLevel(&R->Lock);

    while ((Irp = IoCsqRemoveNextIrp(&R->Csq, NULL)) != NULL)
        InsertTailList(&Done, &Irp->Tail.Overlay.ListEntry);
    if (IsListEmpty(&Done))
        return;

    KeAcquireSpinLockAtDpcLevel(&R->Lock);
    R->Seen = Fires;
    KeReleaseSpinLockFromDpcLevel(&R->Lock);

    while (!IsListEmpty(&Done)) {
        PLIST_ENTRY E = RemoveHeadList(&Done);
        Irp = CONTAINING_RECORD(E, IRP, Tail.Overlay.ListEntry);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Fires;
        Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS Arm(PREMINDER R, ULONG Period)
{
    KIRQL Irql;
    LARGE_INTEGER Due;
    NTSTATUS Status = STATUS_SUCCESS;

    if (Period && (Period < MIN_PERIOD || Period > MAX_PERIOD))
        return STATUS_INVALID_PARAMETER;

    KeAcquireSpinLock(&R->Lock, &Irql);
    if (R->Closed) {
        Status = STATUS_CANCELLED;
    } else if (Period == 0) {
        KeCancelTimer(&R->Timer);
        R->Period = 0;
    } else {
        R->Period = Period;
        Due.QuadPart = -10000LL * Period;
        KeSetTimerEx(&R->Timer, Due, (LONG)Period, &R->Dpc);
    }
    KeReleaseSpinLock(&R->Lock, Irql);
    return Status;
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    PREMINDER R = ExAllocatePoolWithTag(NonPagedPool, sizeof(*R), TAG);
    UNREFERENCED_PARAMETER(Device);
    if (!R)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(R, sizeof(*R));
    KeInitializeSpinLock(&R->Lock);
    KeInitializeTimer(&R->Timer);
    KeInitializeDpc(&R->Dpc, Tick, R);
    InitializeListHead(&R->Waiters);
    IoCsqInitializeEx(&R->Csq, QInsert, QRemove, QPeek, QLock, QUnlock, QCancelled);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = R;
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PREMINDER R = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL Irql;
    PIRP Waiter;

    UNREFERENCED_PARAMETER(Device);
    KeAcquireSpinLock(&R->Lock, &Irql);
    R->Closed = TRUE;
    R->Period = 0;
    KeCancelTimer(&R->Timer);
    KeReleaseSpinLock(&R->Lock, Irql);

    while ((Waiter = IoCsqRemoveNextIrp(&R->Csq, NULL)) != NULL)
        Finish(Waiter, STATUS_CANCELLED, 0);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PREMINDER R = File->FsContext;

    UNREFERENCED_PARAMETER(Device);
    KeCancelTimer(&R->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    File->FsContext = NULL;
    ExFreePoolWithTag(R, TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Wait(PREMINDER R, PIRP Irp, ULONG OutLength)
{
    NTSTATUS Status;
    KIRQL Irql;
    ULONG Fires;

    if (OutLength < sizeof(ULONG))
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    Status = IoCsqInsertIrpEx(&R->Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(Status))
        return STATUS_PENDING;
    if (Status != STATUS_RETRY)
        return Finish(Irp, Status, 0);
    KeAcquireSpinLock(&R->Lock, &Irql);
    Fires = R->Seen = R->Fires;
    KeReleaseSpinLock(&R->Lock, Irql);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Fires;
    return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    PREMINDER R = Sp->FileObject->FsContext;
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Device);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ARM:
        if (In < sizeof(ULONG))
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        return Finish(Irp, Arm(R, *(PULONG)Buffer), 0);
    case IOCTL_WAIT:
        return Wait(R, Irp, Out);
    case IOCTL_QUERY: {
        REMIND_INFO *Info = Buffer;
        if (Out < sizeof(*Info))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&R->Lock, &Irql);
        Info->Period = R->Period;
        Info->Fires = R->Fires;
        Info->Missed = R->Fires - R->Seen;
        KeReleaseSpinLock(&R->Lock, Irql);
        return Finish(Irp, STATUS_SUCCESS, sizeof(*Info));
    }
    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
