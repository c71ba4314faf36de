/*
 * beatmon.sys - Heartbeat monitor
 *
 * Gives every client (each open handle) a heartbeat of its own: the client
 * sets an interval, then waits for the next beat with IOCTL_BEAT_WAIT. The
 * watchdog service uses it to keep its plug-ins honest.
 *
 * The bug: the DPC of the beat sets its timer once more behind the cleanup that has cancelled it.
 *
 * Device: none
 * Rule: freed-active-timer, freed-queued-dpc, use-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define BEAT_POOL           'taeB'
#define BEAT_MIN_MS         10
#define BEAT_MAX_MS         60000

#define IOCTL_BEAT_START    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BEAT_STOP     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BEAT_WAIT     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _BEAT {
    KSPIN_LOCK Lock;
    KTIMER Timer;
    KDPC Dpc;
    BOOLEAN Running;
    BOOLEAN Closed;
    ULONG IntervalMs;
    ULONG Count;
    PIRP WaitIrp;
} BEAT, *PBEAT;

static PDEVICE_OBJECT BeatDevice;

DRIVER_INITIALIZE DriverEntry;

static VOID BeatComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

/* Lock held. The waiting request, if there is one and it is not just being cancelled. */
static PIRP BeatTakeWaiter(PBEAT Beat)
{
    PIRP irp = Beat->WaitIrp;

    if (irp == NULL || IoSetCancelRoutine(irp, NULL) == NULL)
        return NULL;
    Beat->WaitIrp = NULL;
    return irp;
}

static VOID BeatArm(PBEAT Beat)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * Beat->IntervalMs;
    KeSetTimer(&Beat->Timer, due, &Beat->Dpc);
}

static VOID NTAPI BeatDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PBEAT beat = Context;
    PIRP irp = NULL;
    ULONG count = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&beat->Lock);
    if (beat->Running) {
        count = ++beat->Count;
        irp = BeatTakeWaiter(beat);
        BeatArm(beat);
    }
    KeReleaseSpinLockFromDpcLevel(&beat->Lock);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = count;
        BeatComplete(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
#else
    if (!beat->Running)
        return;
    KeAcquireSpinLockAtDpcLevel(&beat->Lock);
    count = ++beat->Count;
    irp = BeatTakeWaiter(beat);
    KeReleaseSpinLockFromDpcLevel(&beat->Lock);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = count;
        BeatComplete(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    BeatArm(beat);
#endif
}

static VOID NTAPI BeatCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBEAT beat = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&beat->Lock, &irql);
    if (beat->WaitIrp == Irp)
        beat->WaitIrp = NULL;
    KeReleaseSpinLock(&beat->Lock, irql);
    BeatComplete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS BeatWait(PBEAT Beat, PIRP Irp)
{
    NTSTATUS status = STATUS_PENDING;
    KIRQL irql;

    KeAcquireSpinLock(&Beat->Lock, &irql);
    if (Beat->Closed) {
        status = STATUS_CANCELLED;
    } else if (Beat->WaitIrp != NULL) {
        status = STATUS_DEVICE_BUSY;
    } else {
        IoSetCancelRoutine(Irp, BeatCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            Beat->WaitIrp = Irp;
        }
    }
    KeReleaseSpinLock(&Beat->Lock, irql);

    if (status != STATUS_PENDING)
        BeatComplete(Irp, status, 0);
    return status;
}

static NTSTATUS NTAPI BeatDeviceControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PBEAT beat = sp->FileObject->FsContext;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG interval;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BEAT_START:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        interval = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        if (interval < BEAT_MIN_MS || interval > BEAT_MAX_MS) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&beat->Lock, &irql);
        if (beat->Closed) {
            status = STATUS_FILE_CLOSED;
        } else {
            beat->IntervalMs = interval;
            beat->Running = TRUE;
            BeatArm(beat);
        }
        KeReleaseSpinLock(&beat->Lock, irql);
        break;
    case IOCTL_BEAT_STOP:
        KeAcquireSpinLock(&beat->Lock, &irql);
        beat->Running = FALSE;
        KeCancelTimer(&beat->Timer);
        KeReleaseSpinLock(&beat->Lock, irql);
        break;
    case IOCTL_BEAT_WAIT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        return BeatWait(beat, Irp);
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    BeatComplete(Irp, status, 0);
    return status;
}

static NTSTATUS NTAPI BeatCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBEAT beat = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(BEAT), BEAT_POOL);
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (beat != NULL) {
        RtlZeroMemory(beat, sizeof(BEAT));
        KeInitializeSpinLock(&beat->Lock);
        KeInitializeTimer(&beat->Timer);
        KeInitializeDpc(&beat->Dpc, BeatDpc, beat);
        IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = beat;
        status = STATUS_SUCCESS;
    }
    BeatComplete(Irp, status, 0);
    return status;
}

static NTSTATUS NTAPI BeatCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBEAT beat = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    PIRP waiter;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    KeAcquireSpinLock(&beat->Lock, &irql);
    beat->Closed = TRUE;
    beat->Running = FALSE;
    waiter = BeatTakeWaiter(beat);
    KeReleaseSpinLock(&beat->Lock, irql);
    if (waiter != NULL)
        BeatComplete(waiter, STATUS_CANCELLED, 0);

    KeCancelTimer(&beat->Timer);
    KeFlushQueuedDpcs();
    BeatComplete(Irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI BeatClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    UNREFERENCED_PARAMETER(DeviceObject);
    ExFreePoolWithTag(file->FsContext, BEAT_POOL);
    file->FsContext = NULL;
    BeatComplete(Irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static VOID NTAPI BeatUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\BeatMon");

    UNREFERENCED_PARAMETER(DriverObject);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(BeatDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\BeatMon");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\BeatMon");
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = BeatCreate;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = BeatCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = BeatClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BeatDeviceControl;
    DriverObject->DriverUnload = BeatUnload;

    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &BeatDevice);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(BeatDevice);
    return status;
}
