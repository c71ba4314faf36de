/*
 * batchq: a batch controller's queue: a request names a recipe's steps and a time limit, a thread of the driver's own
 * works the steps off one after the other, and the request returns their checksum when the batch is done.
 *
 * The bug: when the time limit passes, the request returns at once although its job, which is on its stack, is still
 * in the queue or the thread's hands.
 *
 * Device: none
 * Rule: wild-read, wild-write, wild-pointer, object-not-initialized
 * Needs: ioctl
 */
#include <ddk/wdm.h>

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE object, BOOLEAN alertable, PLARGE_INTEGER timeout);

#define IOCTL_BATCH_RUN   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_BATCH_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MAX_STEPS 32

typedef struct BATCH {
    ULONG LimitMs;
    ULONG Steps;
    USHORT StepMs[MAX_STEPS];   /* at most 1000 each */
} BATCH;

typedef struct BATCH_RESULT { ULONG StepsDone, Sum; } BATCH_RESULT;
typedef struct BATCH_STATE { ULONG Finished, GivenUp; } BATCH_STATE;

typedef struct JOB {
    LIST_ENTRY Entry;
    BATCH Batch;
    BATCH_RESULT Result;
    volatile LONG GiveUp;
    KEVENT Done;
} JOB;

typedef struct CONTROLLER {
    KSPIN_LOCK Lock;
    LIST_ENTRY Jobs;
    KSEMAPHORE Queued;
    volatile LONG Stop;
    volatile LONG Finished, GivenUp;
    PVOID Thread;
} CONTROLLER;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\BatchQ");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\BatchQ");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID JobWork(JOB *job)
{
    ULONG i;

    for (i = 0; i < job->Batch.Steps && !job->GiveUp; i++) {
        LARGE_INTEGER wait;
        wait.QuadPart = -10000LL * job->Batch.StepMs[i];
        KeDelayExecutionThread(KernelMode, FALSE, &wait);
        job->Result.Sum = job->Result.Sum * 31 + job->Batch.StepMs[i];
        job->Result.StepsDone++;
    }
    KeSetEvent(&job->Done, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI ControllerThread(PVOID context)
{
    CONTROLLER *c = context;

    for (;;) {
        PLIST_ENTRY e = NULL;
        KIRQL irql;

        KeWaitForSingleObject(&c->Queued, Executive, KernelMode, FALSE, NULL);
        if (c->Stop)
            break;
        KeAcquireSpinLock(&c->Lock, &irql);
        if (!IsListEmpty(&c->Jobs))
            e = RemoveHeadList(&c->Jobs);
        KeReleaseSpinLock(&c->Lock, irql);
        if (e)
            JobWork(CONTAINING_RECORD(e, JOB, Entry));
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS BatchRun(CONTROLLER *c, const BATCH *batch, BATCH_RESULT *result)
{
    JOB job;
    LARGE_INTEGER limit;
    KIRQL irql;
    NTSTATUS status;

    job.Batch = *batch;
    job.Result.StepsDone = job.Result.Sum = 0;
    job.GiveUp = 0;
    KeInitializeEvent(&job.Done, NotificationEvent, FALSE);
    KeAcquireSpinLock(&c->Lock, &irql);
    InsertTailList(&c->Jobs, &job.Entry);
    KeReleaseSpinLock(&c->Lock, irql);
    KeReleaseSemaphore(&c->Queued, IO_NO_INCREMENT, 1, FALSE);

    limit.QuadPart = -10000LL * batch->LimitMs;
    status = KeWaitForSingleObject(&job.Done, Executive, KernelMode, FALSE, &limit);
    if (status == STATUS_TIMEOUT) {
        InterlockedExchange(&job.GiveUp, 1);
        InterlockedIncrement(&c->GivenUp);
#ifdef FIXED
        KeWaitForSingleObject(&job.Done, Executive, KernelMode, FALSE, NULL);
#endif
        return STATUS_IO_TIMEOUT;
    }
    InterlockedIncrement(&c->Finished);
    *result = job.Result;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI BatchControl(PDEVICE_OBJECT dev, PIRP irp)
{
    CONTROLLER *c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BATCH_RUN: {
        const BATCH *batch = buffer;
        BATCH_RESULT result;
        ULONG i;
        NTSTATUS status;

        if (in < sizeof(*batch))
            return Finish(irp, STATUS_INVALID_PARAMETER, 0);
        if (out < sizeof(result))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (batch->Steps > MAX_STEPS || batch->LimitMs > 60000)
            return Finish(irp, STATUS_INVALID_PARAMETER, 0);
        for (i = 0; i < batch->Steps; i++)
            if (batch->StepMs[i] > 1000)
                return Finish(irp, STATUS_INVALID_PARAMETER, 0);
        status = BatchRun(c, batch, &result);
        if (!NT_SUCCESS(status))
            return Finish(irp, status, 0);
        *(BATCH_RESULT *)buffer = result;
        return Finish(irp, STATUS_SUCCESS, sizeof(result));
    }
    case IOCTL_BATCH_STATE: {
        BATCH_STATE *state = buffer;
        if (out < sizeof(*state))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        state->Finished = c->Finished;
        state->GivenUp = c->GivenUp;
        return Finish(irp, STATUS_SUCCESS, sizeof(*state));
    }
    default:
        return Finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI BatchCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static VOID ControllerStop(CONTROLLER *c)
{
    InterlockedExchange(&c->Stop, 1);
    KeReleaseSemaphore(&c->Queued, IO_NO_INCREMENT, 1, FALSE);
    KeWaitForSingleObject(c->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(c->Thread);
}

/* No handle is open, so no job waits. */
static VOID NTAPI BatchUnload(PDRIVER_OBJECT drv)
{
    IoDeleteSymbolicLink(&LinkName);
    ControllerStop(drv->DeviceObject->DeviceExtension);
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    CONTROLLER *c;
    HANDLE thread;
    OBJECT_ATTRIBUTES oa;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(drv, sizeof(CONTROLLER), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    c = dev->DeviceExtension;
    RtlZeroMemory(c, sizeof(*c));
    KeInitializeSpinLock(&c->Lock);
    InitializeListHead(&c->Jobs);
    KeInitializeSemaphore(&c->Queued, 0, MAXLONG);
    InitializeObjectAttributes(&oa, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, &oa, NULL, NULL, ControllerThread, c);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    status = ObReferenceObjectByHandle(thread, THREAD_ALL_ACCESS, *PsThreadType, KernelMode, &c->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        InterlockedExchange(&c->Stop, 1);
        KeReleaseSemaphore(&c->Queued, IO_NO_INCREMENT, 1, FALSE);
        ZwWaitForSingleObject(thread, FALSE, NULL);
        ZwClose(thread);
        IoDeleteDevice(dev);
        return status;
    }
    ZwClose(thread);
    drv->MajorFunction[IRP_MJ_CREATE] = BatchCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = BatchCreateClose;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BatchControl;
    drv->DriverUnload = BatchUnload;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        ControllerStop(c);
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
