/*
 * Background jobs: an IOCTL starts a checksum over its input in a work item, ReadFile polls for the results.
 *
 * The bug: a job keeps a bare pointer to the open file's context; when the handle is closed before the work item has
 * run, the work item puts its result into freed memory.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl
 * Symptom: use after free in JqWorker (special pool: 0xD1 / 0x50 / DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL 0xD5).
 */
#include <ddk/wdm.h>

#define TAG_CONTEXT 'cqbJ'
#define TAG_JOB     'jqbJ'
#define MAX_RESULTS 32
#define MAX_DATA    65536

#define IOCTL_JOB_START CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _FILE_CONTEXT {
    LONG References;
    KSPIN_LOCK Lock;
    ULONG Count;
    ULONG Results[MAX_RESULTS];
} FILE_CONTEXT, *PFILE_CONTEXT;

typedef struct _JOB {
    PIO_WORKITEM Item;
    PFILE_CONTEXT Owner;
    ULONG Length;
    UCHAR Data[1];
} JOB, *PJOB;

typedef struct _DEVICE_EXTENSION {
    LONG Jobs;                  /* running jobs, and one for the device */
    KEVENT Idle;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static NTSTATUS JqComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID JqRelease(PFILE_CONTEXT Context)
{
    if (InterlockedDecrement(&Context->References) == 0) {
        ExFreePoolWithTag(Context, TAG_CONTEXT);
    }
}

static VOID JqJobDone(PDEVICE_EXTENSION Ext)
{
    if (InterlockedDecrement(&Ext->Jobs) == 0) {
        KeSetEvent(&Ext->Idle, IO_NO_INCREMENT, FALSE);
    }
}

static NTSTATUS NTAPI JqCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_CONTEXT context;

    UNREFERENCED_PARAMETER(DeviceObject);
    context = ExAllocatePoolWithTag(NonPagedPool, sizeof(FILE_CONTEXT), TAG_CONTEXT);
    if (context == NULL) {
        return JqComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    context->References = 1;
    KeInitializeSpinLock(&context->Lock);
    context->Count = 0;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = context;
    return JqComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI JqClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    JqRelease(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext);
    return JqComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI JqWorker(PDEVICE_OBJECT DeviceObject, PVOID Parameter)
{
    PJOB job = Parameter;
    PFILE_CONTEXT owner = job->Owner;
    ULONG sum = 1, high = 0, i;
    KIRQL irql;

    for (i = 0; i < job->Length; i++) {         /* Adler-32 */
        sum = (sum + job->Data[i]) % 65521;
        high = (high + sum) % 65521;
    }
    KeAcquireSpinLock(&owner->Lock, &irql);
    if (owner->Count < MAX_RESULTS) {
        owner->Results[owner->Count++] = (high << 16) | sum;
    }
    KeReleaseSpinLock(&owner->Lock, irql);
#ifdef FIXED
    JqRelease(owner);
#endif
    IoFreeWorkItem(job->Item);
    ExFreePoolWithTag(job, TAG_JOB);
    JqJobDone(DeviceObject->DeviceExtension);
}

static NTSTATUS JqStart(PDEVICE_OBJECT DeviceObject, PFILE_CONTEXT Context, PVOID Data, ULONG Length)
{
    PDEVICE_EXTENSION ext = DeviceObject->DeviceExtension;
    PJOB job;

    if (Length == 0 || Length > MAX_DATA) {
        return STATUS_INVALID_PARAMETER;
    }
    job = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(JOB, Data) + Length, TAG_JOB);
    if (job == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    job->Item = IoAllocateWorkItem(DeviceObject);
    if (job->Item == NULL) {
        ExFreePoolWithTag(job, TAG_JOB);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    job->Owner = Context;
    job->Length = Length;
    RtlCopyMemory(job->Data, Data, Length);
#ifdef FIXED
    InterlockedIncrement(&Context->References);
#endif
    InterlockedIncrement(&ext->Jobs);
    IoQueueWorkItem(job->Item, JqWorker, DelayedWorkQueue, job);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI JqControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;

    if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_JOB_START) {
        status = JqStart(DeviceObject, sp->FileObject->FsContext, Irp->AssociatedIrp.SystemBuffer,
                         sp->Parameters.DeviceIoControl.InputBufferLength);
    }
    return JqComplete(Irp, status, 0);
}

static NTSTATUS NTAPI JqRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PFILE_CONTEXT context = sp->FileObject->FsContext;
    ULONG n;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    n = sp->Parameters.Read.Length / sizeof(ULONG);
    KeAcquireSpinLock(&context->Lock, &irql);
    if (n > context->Count) {
        n = context->Count;
    }
    if (n != 0) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, context->Results, n * sizeof(ULONG));
        context->Count -= n;
        RtlMoveMemory(context->Results, context->Results + n, context->Count * sizeof(ULONG));
    }
    KeReleaseSpinLock(&context->Lock, irql);
    return JqComplete(Irp, STATUS_SUCCESS, n * sizeof(ULONG));
}

static VOID NTAPI JqUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\JobQ");

    PDEVICE_EXTENSION ext = DriverObject->DeviceObject->DeviceExtension;
    JqJobDone(ext);
    KeWaitForSingleObject(&ext->Idle, Executive, KernelMode, FALSE, NULL);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\JobQ");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\JobQ");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(DEVICE_EXTENSION), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ((PDEVICE_EXTENSION)device->DeviceExtension)->Jobs = 1;
    KeInitializeEvent(&((PDEVICE_EXTENSION)device->DeviceExtension)->Idle, NotificationEvent, FALSE);
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = JqUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = JqCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = JqClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = JqRead;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = JqControl;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}
