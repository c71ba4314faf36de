/*
 * cdrlog: writes the exchange's call detail records to a file: programs hand them in with WriteFile, a thread of the
 * driver's own writes them to \SystemRoot\Temp\cdrlog.log while logging is on.
 *
 * The bug: the log file is opened without OBJ_KERNEL_HANDLE in the caller's process, while the driver's system thread
 * uses the handle.
 *
 * Device: none
 * Rule: invalid-handle
 * Needs: ioctl
 */
#include <ddk/wdm.h>

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE object, BOOLEAN alertable, PLARGE_INTEGER timeout);

#define IOCTL_CDR_START  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CDR_STOP   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CDR_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_READ_ACCESS)

#define MAX_RECORD  512
#define MAX_QUEUED  256
#define TAG         'lrdC'

typedef struct RECORD {
    LIST_ENTRY Entry;
    ULONG Length;
    UCHAR Data[1];
} RECORD;

typedef struct CDR_COUNTS { ULONG Queued, Written, Failed, Dropped; } CDR_COUNTS;

typedef struct CDR {
    KSPIN_LOCK Lock;            /* guards Records, Queued and Dropped */
    LIST_ENTRY Records;
    ULONG Queued, Dropped;
    KEVENT Wake;
    KMUTEX FileMutex;           /* guards File, Written and Failed */
    HANDLE File;
    ULONG Written, Failed;
    volatile LONG Stop;
    PETHREAD Thread;
} CDR;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\CdrLog");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\CdrLog");
static UNICODE_STRING LogName = RTL_CONSTANT_STRING(L"\\SystemRoot\\Temp\\cdrlog.log");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static RECORD *CdrNext(CDR *cdr)
{
    RECORD *r = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&cdr->Lock, &irql);
    if (!IsListEmpty(&cdr->Records)) {
        r = CONTAINING_RECORD(RemoveHeadList(&cdr->Records), RECORD, Entry);
        cdr->Queued--;
    }
    KeReleaseSpinLock(&cdr->Lock, irql);
    return r;
}

static VOID NTAPI CdrThread(PVOID context)
{
    CDR *cdr = context;
    RECORD *r;

    while (!cdr->Stop) {
        KeWaitForSingleObject(&cdr->Wake, Executive, KernelMode, FALSE, NULL);
        while (!cdr->Stop && (r = CdrNext(cdr)) != NULL) {
            KeWaitForSingleObject(&cdr->FileMutex, Executive, KernelMode, FALSE, NULL);
            if (cdr->File) {
                IO_STATUS_BLOCK ios;
                NTSTATUS status = ZwWriteFile(cdr->File, NULL, NULL, NULL, &ios, r->Data, r->Length, NULL, NULL);
                if (NT_SUCCESS(status))
                    cdr->Written++;
                else
                    cdr->Failed++;
            } else {
                cdr->Failed++;
            }
            KeReleaseMutex(&cdr->FileMutex, FALSE);
            ExFreePoolWithTag(r, TAG);
        }
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS CdrOpen(CDR *cdr)
{
    OBJECT_ATTRIBUTES oa;
    IO_STATUS_BLOCK ios;
    NTSTATUS status;

#ifdef FIXED
    InitializeObjectAttributes(&oa, &LogName, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
#else
    InitializeObjectAttributes(&oa, &LogName, OBJ_CASE_INSENSITIVE, NULL, NULL);
#endif
    KeWaitForSingleObject(&cdr->FileMutex, Executive, KernelMode, FALSE, NULL);
    if (cdr->File) {
        status = STATUS_DEVICE_BUSY;
    } else {
        HANDLE file;
        status = ZwCreateFile(&file, FILE_APPEND_DATA | SYNCHRONIZE, &oa, &ios, NULL, FILE_ATTRIBUTE_NORMAL,
            FILE_SHARE_READ, FILE_OPEN_IF, FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE, NULL, 0);
        if (NT_SUCCESS(status))
            cdr->File = file;
    }
    KeReleaseMutex(&cdr->FileMutex, FALSE);
    return status;
}

static VOID CdrClose(CDR *cdr)
{
    KeWaitForSingleObject(&cdr->FileMutex, Executive, KernelMode, FALSE, NULL);
    if (cdr->File) {
        ZwClose(cdr->File);
        cdr->File = NULL;
    }
    KeReleaseMutex(&cdr->FileMutex, FALSE);
}

static NTSTATUS NTAPI CdrWrite(PDEVICE_OBJECT dev, PIRP irp)
{
    CDR *cdr = dev->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
    RECORD *r;
    KIRQL irql;

    if (length == 0 || length > MAX_RECORD)
        return Finish(irp, STATUS_INVALID_PARAMETER, 0);
    r = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(RECORD, Data) + length, TAG);
    if (!r)
        return Finish(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    r->Length = length;
    RtlCopyMemory(r->Data, irp->AssociatedIrp.SystemBuffer, length);
    KeAcquireSpinLock(&cdr->Lock, &irql);
    if (cdr->Queued < MAX_QUEUED) {
        InsertTailList(&cdr->Records, &r->Entry);
        cdr->Queued++;
        r = NULL;
    } else {
        cdr->Dropped++;
    }
    KeReleaseSpinLock(&cdr->Lock, irql);
    if (r) {
        ExFreePoolWithTag(r, TAG);
        return Finish(irp, STATUS_DEVICE_BUSY, 0);
    }
    KeSetEvent(&cdr->Wake, IO_NO_INCREMENT, FALSE);
    return Finish(irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI CdrControl(PDEVICE_OBJECT dev, PIRP irp)
{
    CDR *cdr = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CDR_START:
        return Finish(irp, CdrOpen(cdr), 0);
    case IOCTL_CDR_STOP:
        CdrClose(cdr);
        return Finish(irp, STATUS_SUCCESS, 0);
    case IOCTL_CDR_COUNTS: {
        CDR_COUNTS c;
        KIRQL irql;
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(c))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeWaitForSingleObject(&cdr->FileMutex, Executive, KernelMode, FALSE, NULL);
        c.Written = cdr->Written;
        c.Failed = cdr->Failed;
        KeReleaseMutex(&cdr->FileMutex, FALSE);
        KeAcquireSpinLock(&cdr->Lock, &irql);
        c.Queued = cdr->Queued;
        c.Dropped = cdr->Dropped;
        KeReleaseSpinLock(&cdr->Lock, irql);
        *(CDR_COUNTS *)irp->AssociatedIrp.SystemBuffer = c;
        return Finish(irp, STATUS_SUCCESS, sizeof(c));
    }
    default:
        return Finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI CdrCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static VOID CdrStop(CDR *cdr)
{
    RECORD *r;

    InterlockedExchange(&cdr->Stop, 1);
    KeSetEvent(&cdr->Wake, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(cdr->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(cdr->Thread);
    CdrClose(cdr);
    while ((r = CdrNext(cdr)) != NULL)
        ExFreePoolWithTag(r, TAG);
}

static VOID NTAPI CdrUnload(PDRIVER_OBJECT drv)
{
    IoDeleteSymbolicLink(&LinkName);
    CdrStop(drv->DeviceObject->DeviceExtension);
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    CDR *cdr;
    HANDLE thread;
    OBJECT_ATTRIBUTES oa;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(drv, sizeof(CDR), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    cdr = dev->DeviceExtension;
    RtlZeroMemory(cdr, sizeof(*cdr));
    KeInitializeSpinLock(&cdr->Lock);
    InitializeListHead(&cdr->Records);
    KeInitializeEvent(&cdr->Wake, SynchronizationEvent, FALSE);
    KeInitializeMutex(&cdr->FileMutex, 0);
    InitializeObjectAttributes(&oa, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, &oa, NULL, NULL, CdrThread, cdr);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    status = ObReferenceObjectByHandle(thread, THREAD_ALL_ACCESS, *PsThreadType, KernelMode, (PVOID *)&cdr->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        InterlockedExchange(&cdr->Stop, 1);
        KeSetEvent(&cdr->Wake, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(thread, FALSE, NULL);
        ZwClose(thread);
        IoDeleteDevice(dev);
        return status;
    }
    ZwClose(thread);
    drv->MajorFunction[IRP_MJ_CREATE] = CdrCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = CdrCreateClose;
    drv->MajorFunction[IRP_MJ_WRITE] = CdrWrite;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CdrControl;
    drv->DriverUnload = CdrUnload;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        CdrStop(cdr);
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags |= DO_BUFFERED_IO;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
