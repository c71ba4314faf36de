/*
 * wrkpool: works for programs in the background. A program hands over a block of data and goes on; a work item
 * makes a histogram of it, which the program fetches through the same handle when it is ready.
 *
 * The bug: the work item writes its result into the context of the handle, which IRP_MJ_CLOSE frees: a handle that is
 * closed while its job is under way leaves the work item a pointer to freed memory.
 *
 * Device: ROOT\WRKPOOL
 * Rule: use-after-free, write-after-free, double-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define WP_TAG      FR_TAG('W', 'r', 'k', 'P')
#define WP_LONGEST  65536

#define IOCTL_WP_SUBMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WP_FETCH  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_WP_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID GUID_WRKPOOL = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x04 } };

typedef struct _WP_RESULT {
    ULONG Job;
    ULONG Length;
    ULONG Histogram[256];
} WP_RESULT, *PWP_RESULT;

typedef struct _WP_STATE {
    ULONG Busy;
    ULONG Ready;
} WP_STATE, *PWP_STATE;

typedef struct _WP_HANDLE {             /* FsContext */
    LONG References;
    KSPIN_LOCK Lock;                    /* all below */
    BOOLEAN Busy;
    BOOLEAN Ready;
    ULONG Jobs;
    WP_RESULT Result;
} WP_HANDLE, *PWP_HANDLE;

typedef struct _WP_JOB {
    PIO_WORKITEM Item;
    PWP_HANDLE Handle;
    ULONG Number;
    ULONG Length;
    ULONG Histogram[256];
    UCHAR Data[1];
} WP_JOB, *PWP_JOB;

typedef struct _WP_EXT {
    FR_EXT Frame;
} WP_EXT, *PWP_EXT;

static VOID WpRelease(PWP_HANDLE Handle)
{
    if (InterlockedDecrement(&Handle->References) == 0)
        ExFreePoolWithTag(Handle, WP_TAG);
}

static VOID NTAPI WpWork(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PWP_EXT Ext = DeviceObject->DeviceExtension;
    PWP_JOB Job = Context;
    PWP_HANDLE Handle = Job->Handle;
    KIRQL Irql;
    ULONG i;

    for (i = 0; i < Job->Length; i++)
        Job->Histogram[Job->Data[i]]++;

    KeAcquireSpinLock(&Handle->Lock, &Irql);
    Handle->Result.Job = Job->Number;
    Handle->Result.Length = Job->Length;
    RtlCopyMemory(Handle->Result.Histogram, Job->Histogram, sizeof(Job->Histogram));
    Handle->Busy = FALSE;
    Handle->Ready = TRUE;
    KeReleaseSpinLock(&Handle->Lock, Irql);
#ifdef FIXED
    WpRelease(Handle);
#endif
    IoFreeWorkItem(Job->Item);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Job);
    ExFreePoolWithTag(Job, WP_TAG);
}

static NTSTATUS WpSubmit(PWP_EXT Ext, PWP_HANDLE Handle, const VOID *Data, ULONG Length)
{
    PWP_JOB Job;
    NTSTATUS Status;
    KIRQL Irql;

    if (Length == 0 || Length > WP_LONGEST)
        return STATUS_INVALID_PARAMETER;
    Job = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(WP_JOB, Data) + Length, WP_TAG);
    if (!Job)
        return STATUS_INSUFFICIENT_RESOURCES;
    Job->Item = IoAllocateWorkItem(Ext->Frame.Self);
    if (!Job->Item) {
        ExFreePoolWithTag(Job, WP_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Job->Handle = Handle;
    Job->Length = Length;
    RtlZeroMemory(Job->Histogram, sizeof(Job->Histogram));
    RtlCopyMemory(Job->Data, Data, Length);

    Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Job);
    if (!NT_SUCCESS(Status))
        goto Fail;
    KeAcquireSpinLock(&Handle->Lock, &Irql);
    if (Handle->Busy) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        Handle->Busy = TRUE;
        Handle->Ready = FALSE;
        Job->Number = ++Handle->Jobs;
    }
    KeReleaseSpinLock(&Handle->Lock, Irql);
    if (!NT_SUCCESS(Status)) {
        IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Job);
        goto Fail;
    }
#ifdef FIXED
    InterlockedIncrement(&Handle->References);
#endif
    IoQueueWorkItem(Job->Item, WpWork, DelayedWorkQueue, Job);
    return STATUS_SUCCESS;

Fail:
    IoFreeWorkItem(Job->Item);
    ExFreePoolWithTag(Job, WP_TAG);
    return Status;
}

static NTSTATUS WpFetch(PWP_HANDLE Handle, PWP_RESULT Out, ULONG OutLength)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    if (OutLength < sizeof(WP_RESULT))
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&Handle->Lock, &Irql);
    if (Handle->Ready)
        *Out = Handle->Result;
    else
        Status = Handle->Busy ? STATUS_DEVICE_BUSY : STATUS_NOT_FOUND;
    KeReleaseSpinLock(&Handle->Lock, Irql);
    return Status;
}

static NTSTATUS WpControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PWP_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PWP_HANDLE Handle = Stack->FileObject ? Stack->FileObject->FsContext : NULL;
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    KIRQL Irql;
    NTSTATUS Status;

    if (!Handle)                                            /* of another driver, without a handle */
        return FrComplete(Irp, STATUS_INVALID_HANDLE, 0);
    Status = FrEnter(&Ext->Frame);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WP_SUBMIT:
        Status = WpSubmit(Ext, Handle, Buffer, InLength);
        break;
    case IOCTL_WP_FETCH:
        Status = WpFetch(Handle, Buffer, OutLength);
        if (NT_SUCCESS(Status))
            Information = sizeof(WP_RESULT);
        break;
    case IOCTL_WP_STATE:
        if (OutLength < sizeof(WP_STATE)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&Handle->Lock, &Irql);
        ((PWP_STATE)Buffer)->Busy = Handle->Busy;
        ((PWP_STATE)Buffer)->Ready = Handle->Ready;
        KeReleaseSpinLock(&Handle->Lock, Irql);
        Information = sizeof(WP_STATE);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

static NTSTATUS WpCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PWP_EXT Ext = DeviceObject->DeviceExtension;
    PWP_HANDLE Handle;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    Handle = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Handle), WP_TAG);
    if (Handle) {
        RtlZeroMemory(Handle, sizeof(*Handle));
        Handle->References = 1;
        KeInitializeSpinLock(&Handle->Lock);
        IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = Handle;
    } else {
        Status = STATUS_INSUFFICIENT_RESOURCES;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, 0);
}

static NTSTATUS WpClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    WpRelease(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static const FR_OPS WpOps = { 0 };

static NTSTATUS NTAPI WpAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(WP_EXT), DO_BUFFERED_IO, &GUID_WRKPOOL, &WpOps, NULL);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, WpAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = WpCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = WpClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WpControl;
    return STATUS_SUCCESS;
}
