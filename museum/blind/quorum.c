/*
 * quorum: lets an application wait in the kernel for any one of several events it has registered with its handle (at most eight).
 *
 * The bug: a wait for more than three objects is made without an array of wait blocks, which bug checks as soon as a fourth event is registered.
 *
 * Device: none
 * Rule: wait-object-count
 * Needs: ioctl
 */
#include "../include/bay_control.h"

#define IOCTL_ADD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONGLONG, a handle */
#define IOCTL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG ms; out: ULONG index */

#define TAG 'uqFA'
#define MOST 8

typedef struct SET {
    FAST_MUTEX mutex;
    ULONG count;
    PVOID event[MOST];
} SET;

static NTSTATUS NTAPI Create(PDEVICE_OBJECT self, PIRP irp)
{
    SET *set = ExAllocatePoolWithTag(NonPagedPool, sizeof *set, TAG);

    UNREFERENCED_PARAMETER(self);
    if (!set)
        return AfcComplete(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(set, sizeof *set);
    ExInitializeFastMutex(&set->mutex);
    IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext = set;
    return AfcComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT self, PIRP irp)
{
    SET *set = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;
    ULONG i;

    UNREFERENCED_PARAMETER(self);
    for (i = 0; i < set->count; ++i)
        ObDereferenceObject(set->event[i]);
    ExFreePoolWithTag(set, TAG);
    return AfcComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Add(SET *set, ULONGLONG handle, KPROCESSOR_MODE mode)
{
    PVOID event;
    NTSTATUS status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)handle, SYNCHRONIZE, *ExEventObjectType, mode, &event, NULL);

    if (!NT_SUCCESS(status))
        return status;
    ExAcquireFastMutex(&set->mutex);
    if (set->count < MOST) {
        set->event[set->count++] = event;
        event = NULL;
    }
    ExReleaseFastMutex(&set->mutex);
    if (!event)
        return STATUS_SUCCESS;
    ObDereferenceObject(event);
    return STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS Wait(SET *set, ULONG milliseconds, KPROCESSOR_MODE mode, ULONG *index)
{
    KWAIT_BLOCK *blocks = NULL;
    PVOID event[MOST];
    LARGE_INTEGER limit;
    NTSTATUS status;
    ULONG count, i;

    ExAcquireFastMutex(&set->mutex);
    count = set->count;
    for (i = 0; i < count; ++i) {
        event[i] = set->event[i];
        ObReferenceObject(event[i]);
    }
    ExReleaseFastMutex(&set->mutex);
    if (!count)
        return STATUS_INVALID_DEVICE_STATE;
#ifdef FIXED
    if (count > THREAD_WAIT_OBJECTS) {
        blocks = ExAllocatePoolWithTag(NonPagedPool, count * sizeof *blocks, TAG);
        if (!blocks) {
            status = STATUS_INSUFFICIENT_RESOURCES;
            goto out;
        }
    }
#endif
    limit.QuadPart = -10000LL * milliseconds;
    status = KeWaitForMultipleObjects(count, event, WaitAny, UserRequest, mode, FALSE, &limit, blocks);
    if (blocks)
        ExFreePoolWithTag(blocks, TAG);
    if (status >= STATUS_WAIT_0 && status < STATUS_WAIT_0 + (NTSTATUS)count) {
        *index = (ULONG)status;
        status = STATUS_SUCCESS;
    } else if (status == STATUS_TIMEOUT) {
        status = STATUS_IO_TIMEOUT;
    } else if (NT_SUCCESS(status)) {
        status = STATUS_CANCELLED;
    }
#ifdef FIXED
out:
#endif
    for (i = 0; i < count; ++i)
        ObDereferenceObject(event[i]);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    SET *set = stack->FileObject->FsContext;
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength, index = 0;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(self);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ADD:
        if (in != sizeof(ULONGLONG))
            return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
        return AfcComplete(irp, Add(set, *(ULONGLONG *)irp->AssociatedIrp.SystemBuffer, irp->RequestorMode), 0);
    case IOCTL_WAIT:
        if (in != sizeof(ULONG))
            return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return AfcComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = Wait(set, *(ULONG *)irp->AssociatedIrp.SystemBuffer, irp->RequestorMode, &index);
        if (!NT_SUCCESS(status))
            return AfcComplete(irp, status, 0);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = index;
        return AfcComplete(irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return AfcComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    AfcDelete(L"\\DosDevices\\AfQuorum");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    driver->MajorFunction[IRP_MJ_CREATE] = Create;
    driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    driver->MajorFunction[IRP_MJ_CLEANUP] = AfcNothing;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    return AfcMake(driver, L"\\Device\\AfQuorum", L"\\DosDevices\\AfQuorum");
}
