/*
 * A virtual device that does one job at a time, each of which takes a millisecond. The job that runs can be cancelled.
 *
 * The bug: a job that is cancelled while it runs leaves the device marked as busy: what waits behind it, and all that comes later, is never begun. It shows
 * with two jobs, of which the first is cancelled.
 *
 * Device: Root\OneJob
 * Rule: request-forgotten
 * Needs: ioctl, cancel
 */
#include "../include/function.h"
#include "../include/irp_queue.h"

#define IOCTL_ONE_JOB CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA19, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define DURATION 10000LL

typedef struct _JOBS {
    FDO Fdo;
    IRP_QUEUE Waiting;
    IRP_QUEUE Running; /* one at most */
    KSPIN_LOCK Lock;
    BOOLEAN Busy;
    KTIMER Timer;
    KDPC Dpc;
    KDPC Beginner;
} JOBS, *PJOBS;

/* Nothing else takes from the one queue for the other, so who flushes both waits for this between them. */
static VOID NTAPI Begin(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PJOBS Jobs = Context;
    LARGE_INTEGER Duration;
    PIRP Irp = NULL;
    KIRQL OldIrql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeAcquireSpinLock(&Jobs->Lock, &OldIrql);
    if (!Jobs->Busy) {
        Irp = QueueTake(&Jobs->Waiting);
        Jobs->Busy = Irp != NULL;
    }
    KeReleaseSpinLock(&Jobs->Lock, OldIrql);
    if (Irp != NULL) {
        Duration.QuadPart = -DURATION;
        IoCsqInsertIrp(&Jobs->Running.Csq, Irp, NULL);
        KeSetTimer(&Jobs->Timer, Duration, &Jobs->Dpc);
    }
}

static VOID Next(PJOBS Jobs)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Jobs->Lock, &OldIrql);
    Jobs->Busy = FALSE;
    KeReleaseSpinLock(&Jobs->Lock, OldIrql);
    KeInsertQueueDpc(&Jobs->Beginner, NULL, NULL);
}

static VOID NTAPI Done(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PJOBS Jobs = Context;
    PIRP Irp = QueueTake(&Jobs->Running);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (Irp != NULL) {
        FdoEndPended(&Jobs->Fdo, Irp, STATUS_SUCCESS, 0);
        Next(Jobs);
    }
}

static VOID WaitingEnded(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    FdoEndPended(&CONTAINING_RECORD(Queue, JOBS, Waiting)->Fdo, Irp, Status, 0);
}

static VOID RunningEnded(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    PJOBS Jobs = CONTAINING_RECORD(Queue, JOBS, Running);

#ifdef FIXED
    Next(Jobs);
#endif
    FdoEndPended(&Jobs->Fdo, Irp, Status, 0);
}

static NTSTATUS Add(PFDO Fdo)
{
    PJOBS Jobs = (PJOBS)Fdo;

    QueueInitialize(&Jobs->Waiting, WaitingEnded);
    QueueInitialize(&Jobs->Running, RunningEnded);
    KeInitializeSpinLock(&Jobs->Lock);
    KeInitializeTimer(&Jobs->Timer);
    KeInitializeDpc(&Jobs->Dpc, Done, Jobs);
    KeInitializeDpc(&Jobs->Beginner, Begin, Jobs);
    return STATUS_SUCCESS;
}

static VOID Flush(PFDO Fdo)
{
    QueueFlush(&((PJOBS)Fdo)->Waiting, NULL, STATUS_DEVICE_NOT_READY);
    KeFlushQueuedDpcs();
    QueueFlush(&((PJOBS)Fdo)->Running, NULL, STATUS_DEVICE_NOT_READY);
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    KeCancelTimer(&((PJOBS)Fdo)->Timer);
    KeFlushQueuedDpcs();
}

static VOID Removed(PFDO Fdo)
{
    UNREFERENCED_PARAMETER(Fdo);
    KeFlushQueuedDpcs();
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0e4);
static const HOOKS Hooks = {.Add = Add, .Removed = Removed, .Flush = Flush, .Stop = Stop};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PJOBS Jobs = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Jobs->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_ONE_JOB) {
        return FdoEnd(&Jobs->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    IoCsqInsertIrp(&Jobs->Waiting.Csq, Irp, NULL);
    KeInsertQueueDpc(&Jobs->Beginner, NULL, NULL);
    return FdoPend(&Jobs->Fdo);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PJOBS Jobs = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    QueueFlush(&Jobs->Waiting, File, STATUS_CANCELLED);
    QueueFlush(&Jobs->Running, File, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(JOBS), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    return STATUS_SUCCESS;
}
