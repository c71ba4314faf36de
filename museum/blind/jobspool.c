/*
 * jobspool - background checksum spooler
 *
 * User mode hands blocks of data to \\.\JobSpool.  A worker thread takes them
 * one after the other, computes a 32-bit Fletcher sum and stores the result,
 * which can be fetched later by the ticket number handed out on submission.
 *
 *   IOCTL_JS_SUBMIT   in: 1..JS_MAX_BLOCK bytes     out: ULONG ticket
 *   IOCTL_JS_FETCH    in: ULONG ticket              out: JS_RESULT
 *   IOCTL_JS_STATS    in: -                         out: JS_STATS
 *
 * The bug: unloading waits for an event that the worker thread sets shortly before it ends, and not for the thread.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define JS_TAG          'lpSJ'
#define JS_MAX_BLOCK    2048
#define JS_MAX_JOBS     128

#define IOCTL_JS_SUBMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_JS_FETCH  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_JS_STATS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _JS_RESULT {
    ULONG Ticket;
    ULONG Length;
    ULONG Sum;
} JS_RESULT, *PJS_RESULT;

typedef struct _JS_STATS {
    ULONG Submitted;
    ULONG Processed;
    ULONG Waiting;
    ULONG Scratch;
} JS_STATS, *PJS_STATS;

typedef struct _JS_JOB {
    LIST_ENTRY Link;
    JS_RESULT  Result;
    UCHAR      Data[1];
} JS_JOB, *PJS_JOB;

typedef struct _JS_SPOOL {
    PDEVICE_OBJECT DeviceObject;
    FAST_MUTEX     Lock;            /* both lists and the counters */
    LIST_ENTRY     Todo;
    LIST_ENTRY     Done;
    ULONG          Jobs;            /* entries on both lists, plus the one in work */
    ULONG          NextTicket;
    JS_STATS       Stats;
    KSEMAPHORE     Work;
    KEVENT         Drained;         /* the worker has finished its last job */
    HANDLE         ThreadHandle;
    BOOLEAN        Stop;
} JS_SPOOL, *PJS_SPOOL;

static UNICODE_STRING JsDeviceName = RTL_CONSTANT_STRING(L"\\Device\\JobSpool");
static UNICODE_STRING JsLinkName   = RTL_CONSTANT_STRING(L"\\DosDevices\\JobSpool");

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE, BOOLEAN, PLARGE_INTEGER);

static ULONG JsFletcher(const UCHAR *Data, ULONG Length, PULONG Scratch)
{
    ULONG i, a = 0xffff, b = 0xffff;

    for (i = 0; i < Length; i++) {
        Scratch[i & 63] += Data[i];
        a = (a + Data[i]) % 65535;
        b = (b + a) % 65535;
    }
    return (b << 16) | a;
}

static VOID NTAPI JsWorker(PVOID Context)
{
    PJS_SPOOL spool = Context;
    PULONG scratch;
    PJS_JOB job;
    ULONG used;

    scratch = ExAllocatePoolWithTag(PagedPool, 64 * sizeof(ULONG), JS_TAG);
    if (scratch)
        RtlZeroMemory(scratch, 64 * sizeof(ULONG));

    for (;;) {
        KeWaitForSingleObject(&spool->Work, Executive, KernelMode, FALSE, NULL);

        ExAcquireFastMutex(&spool->Lock);
        job = NULL;
        if (!IsListEmpty(&spool->Todo))
            job = CONTAINING_RECORD(RemoveHeadList(&spool->Todo), JS_JOB, Link);
        if (!job && spool->Stop) {
            ExReleaseFastMutex(&spool->Lock);
            break;
        }
        ExReleaseFastMutex(&spool->Lock);
        if (!job)
            continue;

        if (scratch)
            job->Result.Sum = JsFletcher(job->Data, job->Result.Length, scratch);

        ExAcquireFastMutex(&spool->Lock);
        InsertTailList(&spool->Done, &job->Link);
        spool->Stats.Processed++;
        ExReleaseFastMutex(&spool->Lock);
    }

    KeSetEvent(&spool->Drained, IO_NO_INCREMENT, FALSE);

    used = 0;
    if (scratch) {
        ULONG i;
        for (i = 0; i < 64; i++)
            used += scratch[i] != 0;
        ExFreePoolWithTag(scratch, JS_TAG);
    }
    DbgPrint("jobspool: worker leaves, %lu classes used\n", used);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS JsSubmit(PJS_SPOOL Spool, PVOID Buffer, ULONG InLen, ULONG OutLen, PULONG_PTR Info)
{
    PJS_JOB job;
    ULONG ticket;

    if (InLen == 0 || InLen > JS_MAX_BLOCK)
        return STATUS_INVALID_BUFFER_SIZE;
    if (OutLen < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;

    job = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(JS_JOB, Data) + InLen, JS_TAG);
    if (!job)
        return STATUS_INSUFFICIENT_RESOURCES;
    job->Result.Length = InLen;
    job->Result.Sum = 0;
    RtlCopyMemory(job->Data, Buffer, InLen);

    ExAcquireFastMutex(&Spool->Lock);
    if (Spool->Jobs >= JS_MAX_JOBS) {
        ExReleaseFastMutex(&Spool->Lock);
        ExFreePoolWithTag(job, JS_TAG);
        return STATUS_DEVICE_BUSY;
    }
    Spool->Jobs++;
    Spool->Stats.Submitted++;
    ticket = job->Result.Ticket = ++Spool->NextTicket;
    InsertTailList(&Spool->Todo, &job->Link);
    ExReleaseFastMutex(&Spool->Lock);

    KeReleaseSemaphore(&Spool->Work, IO_NO_INCREMENT, 1, FALSE);
    *(PULONG)Buffer = ticket;
    *Info = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS JsFetch(PJS_SPOOL Spool, PVOID Buffer, ULONG InLen, ULONG OutLen, PULONG_PTR Info)
{
    PLIST_ENTRY e;
    PJS_JOB job = NULL;
    ULONG ticket;

    if (InLen < sizeof(ULONG) || OutLen < sizeof(JS_RESULT))
        return STATUS_BUFFER_TOO_SMALL;
    ticket = *(PULONG)Buffer;

    ExAcquireFastMutex(&Spool->Lock);
    for (e = Spool->Done.Flink; e != &Spool->Done; e = e->Flink) {
        job = CONTAINING_RECORD(e, JS_JOB, Link);
        if (job->Result.Ticket == ticket) {
            RemoveEntryList(e);
            Spool->Jobs--;
            break;
        }
        job = NULL;
    }
    ExReleaseFastMutex(&Spool->Lock);

    if (!job)
        return STATUS_NOT_FOUND;
    RtlCopyMemory(Buffer, &job->Result, sizeof(JS_RESULT));
    *Info = sizeof(JS_RESULT);
    ExFreePoolWithTag(job, JS_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI JsDeviceControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PJS_SPOOL spool = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_JS_SUBMIT:
        status = JsSubmit(spool, buf, in, out, &info);
        break;
    case IOCTL_JS_FETCH:
        status = JsFetch(spool, buf, in, out, &info);
        break;
    case IOCTL_JS_STATS:
        if (out < sizeof(JS_STATS)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&spool->Lock);
        spool->Stats.Waiting = spool->Jobs;
        RtlCopyMemory(buf, &spool->Stats, sizeof(JS_STATS));
        ExReleaseFastMutex(&spool->Lock);
        info = sizeof(JS_STATS);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }

    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI JsCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID JsFreeList(PLIST_ENTRY Head)
{
    while (!IsListEmpty(Head))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(Head), JS_JOB, Link), JS_TAG);
}

static VOID JsStopWorker(PJS_SPOOL Spool)
{
    ExAcquireFastMutex(&Spool->Lock);
    Spool->Stop = TRUE;
    ExReleaseFastMutex(&Spool->Lock);
    KeReleaseSemaphore(&Spool->Work, IO_NO_INCREMENT, 1, FALSE);
#ifdef FIXED
    ZwWaitForSingleObject(Spool->ThreadHandle, FALSE, NULL);
#else
    KeWaitForSingleObject(&Spool->Drained, Executive, KernelMode, FALSE, NULL);
#endif
    ZwClose(Spool->ThreadHandle);
    Spool->ThreadHandle = NULL;
}

static VOID NTAPI JsUnload(PDRIVER_OBJECT DriverObject)
{
    PDEVICE_OBJECT dev = DriverObject->DeviceObject;
    PJS_SPOOL spool = dev->DeviceExtension;

    IoDeleteSymbolicLink(&JsLinkName);
    JsStopWorker(spool);
    JsFreeList(&spool->Todo);
    JsFreeList(&spool->Done);
    IoDeleteDevice(dev);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    OBJECT_ATTRIBUTES oa;
    PDEVICE_OBJECT dev;
    PJS_SPOOL spool;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);

    status = IoCreateDevice(DriverObject, sizeof(JS_SPOOL), &JsDeviceName,
                            FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;

    spool = dev->DeviceExtension;
    spool->DeviceObject = dev;
    ExInitializeFastMutex(&spool->Lock);
    InitializeListHead(&spool->Todo);
    InitializeListHead(&spool->Done);
    KeInitializeSemaphore(&spool->Work, 0, MAXLONG);
    KeInitializeEvent(&spool->Drained, NotificationEvent, FALSE);

    DriverObject->MajorFunction[IRP_MJ_CREATE] = JsCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = JsCreateClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = JsDeviceControl;
    DriverObject->DriverUnload = JsUnload;

    InitializeObjectAttributes(&oa, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&spool->ThreadHandle, THREAD_ALL_ACCESS, &oa, NULL, NULL,
                                  JsWorker, spool);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }

    status = IoCreateSymbolicLink(&JsLinkName, &JsDeviceName);
    if (!NT_SUCCESS(status)) {
        JsStopWorker(spool);
        IoDeleteDevice(dev);
        return status;
    }
    return STATUS_SUCCESS;
}
