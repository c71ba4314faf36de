/*
 * tryst: a root-enumerated device that measures how promptly the system's worker threads run: a request posts a job
 * to a worker and waits for it, for as long as the program allows.
 *
 * The bug: when the time-out passes the request returns at once, although the job that the worker still has lies on
 * the stack of the thread that waited.
 *
 * Device: ROOT\TRYST
 * Rule: event-on-dead-stack, wild-read, wild-write, object-not-initialized, work-item
 * Needs: ioctl, schedule
 */
#define FRAME_NO_HARDWARE
#include "../include/caller_frame.h"

#define IOCTL_TRYST_MEASURE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define MOST_ROUNDS 200
#define LONGEST_MS 5000

typedef struct _MEASURE {
    ULONG Rounds;           /* pauses of one millisecond that the worker makes */
    ULONG TimeoutMs;
} MEASURE, *PMEASURE;

typedef struct _MEASURED {
    LONGLONG Started;       /* in performance counter units since the request */
    LONGLONG Ended;
} MEASURED, *PMEASURED;

typedef struct _JOB {
    PIO_WORKITEM Item;
    KEVENT Done;
    volatile BOOLEAN GiveUp;
    ULONG Rounds;
    LARGE_INTEGER Posted;
    MEASURED Result;
} JOB, *PJOB;

static const GUID TrystClass = {0x6c1e2a05, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x05}};

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    UNREFERENCED_PARAMETER(dev);        /* what waits ends by itself */
}

static LONGLONG Since(PJOB job)
{
    return KeQueryPerformanceCounter(NULL).QuadPart - job->Posted.QuadPart;
}

static VOID NTAPI TrystWorker(PDEVICE_OBJECT dev, PVOID context)
{
    PJOB job = context;
    PIO_WORKITEM item = job->Item;
    LARGE_INTEGER pause;
    ULONG i;

    UNREFERENCED_PARAMETER(dev);
    job->Result.Started = Since(job);
    pause.QuadPart = -10000LL;
    for (i = 0; i < job->Rounds && !job->GiveUp; i++)
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    job->Result.Ended = Since(job);
    KeSetEvent(&job->Done, IO_NO_INCREMENT, FALSE);     /* the job is not ours from here on */
    IoFreeWorkItem(item);
}

static NTSTATUS Measure(PDEVICE_OBJECT dev, PMEASURE in, PMEASURED out)
{
    JOB job;
    LARGE_INTEGER timeout;
    NTSTATUS status;

    if (in->Rounds > MOST_ROUNDS || in->TimeoutMs == 0 || in->TimeoutMs > LONGEST_MS)
        return STATUS_INVALID_PARAMETER;
    RtlZeroMemory(&job, sizeof job);
    job.Item = IoAllocateWorkItem(dev);
    if (job.Item == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeInitializeEvent(&job.Done, NotificationEvent, FALSE);
    job.Rounds = in->Rounds;
    job.Posted = KeQueryPerformanceCounter(NULL);
    IoQueueWorkItem(job.Item, TrystWorker, DelayedWorkQueue, &job);

    timeout.QuadPart = -10000LL * in->TimeoutMs;
    status = KeWaitForSingleObject(&job.Done, Executive, KernelMode, FALSE, &timeout);
    if (status == STATUS_TIMEOUT) {
        job.GiveUp = TRUE;
#ifdef FIXED
        KeWaitForSingleObject(&job.Done, Executive, KernelMode, FALSE, NULL);
#endif
        return STATUS_IO_TIMEOUT;
    }
    *out = job.Result;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI TrystControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PFRAME f = FR(dev);
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    MEASURE in;
    MEASURED out;
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&f->Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (f->Gone) {
        status = STATUS_DELETE_PENDING;
    } else if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_TRYST_MEASURE) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof in ||
               stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof out) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        in = *(PMEASURE)irp->AssociatedIrp.SystemBuffer;
        status = Measure(dev, &in, &out);
        if (NT_SUCCESS(status)) {
            *(PMEASURED)irp->AssociatedIrp.SystemBuffer = out;
            info = sizeof out;
        }
    }
    FrameComplete(irp, status, info);
    IoReleaseRemoveLock(&f->Remove, irp);
    return status;
}

static NTSTATUS NTAPI TrystAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = FrameAdd(driver, pdo, &TrystClass, sizeof(FRAME), DO_BUFFERED_IO, &dev);

    if (NT_SUCCESS(status))
        dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, TrystAdd);
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TrystControl;
    return STATUS_SUCCESS;
}
