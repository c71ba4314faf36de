/*
 * A device that is given an image in pieces, once it knows how large it is, and writes it when it has all of it. An application may call the transfer off.
 *
 * The bug: calling it off frees the image while a work item still writes it. It shows when that comes behind a request that needs all others before it.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Imager"
#define LINK_NAME L"\\DosDevices\\Imager"
#include "../include/legacy.h"

#define IMAGER_TAG 'gamI'
#define IOCTL_IMAGER_BEGIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8FA, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_IMAGER_COMMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8FB, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_IMAGER_ABORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8FC, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define MOST_BYTES 0x10000
#define PIECE 0x1000
#define PIECE_TIME (-10000) /* a millisecond */

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    PUCHAR Image;
    ULONG Size;
    ULONG Received;
    PIO_WORKITEM Work;
    PIRP Commit;     /* what is completed when the image is written */
    BOOLEAN Writing; /* the work item has the image */
    KEVENT Idle;     /* it has not */
    ULONG Written;   /* what the device would hold: a sum of the bytes */
} DEVICE, *PDEVICE;

static NTSTATUS Begin(PDEVICE Own, ULONG Size)
{
    NTSTATUS Status = STATUS_DEVICE_BUSY;

    if (Size == 0 || Size > MOST_BYTES) {
        return STATUS_INVALID_PARAMETER;
    }
    ExAcquireFastMutex(&Own->Mutex);
    if (Own->Image == NULL) {
        Own->Image = ExAllocatePoolWithTag(NonPagedPool, Size, IMAGER_TAG);
        Own->Size = Size;
        Own->Received = 0;
        Status = Own->Image == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Status;
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS Status = STATUS_SUCCESS;

    ExAcquireFastMutex(&Own->Mutex);
    if (Own->Image == NULL || Own->Writing) {
        Status = STATUS_INVALID_DEVICE_STATE;
    } else if (Length > Own->Size - Own->Received) {
        Status = STATUS_INVALID_PARAMETER;
    } else if (Length > 0) {
        RtlCopyMemory(Own->Image + Own->Received, Irp->AssociatedIrp.SystemBuffer, Length);
        Own->Received += Length;
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
}

/* Without the mutex, in pieces: the device takes its time. */
static VOID NTAPI WriteImage(PDEVICE_OBJECT Device, PVOID Context)
{
    PDEVICE Own = Device->DeviceExtension;
    LARGE_INTEGER Time = {.QuadPart = PIECE_TIME};
    PUCHAR Image = Context;
    PIRP Irp;

    for (ULONG At = 0; At < Own->Size; At += PIECE) {
        KeDelayExecutionThread(KernelMode, FALSE, &Time);
        for (ULONG Byte = At; Byte < Own->Size && Byte < At + PIECE; Byte++) {
            Own->Written += Image[Byte];
        }
    }
    ExAcquireFastMutex(&Own->Mutex);
    if (Own->Image != NULL) {
        ExFreePoolWithTag(Own->Image, IMAGER_TAG);
        Own->Image = NULL;
    }
    Irp = Own->Commit;
    Own->Commit = NULL;
    Own->Writing = FALSE;
    KeSetEvent(&Own->Idle, IO_NO_INCREMENT, FALSE);
    ExReleaseFastMutex(&Own->Mutex);
    Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Commit(PDEVICE Own, PIRP Irp)
{
    NTSTATUS Status = STATUS_INVALID_DEVICE_STATE;

    ExAcquireFastMutex(&Own->Mutex);
    if (Own->Image != NULL && !Own->Writing && Own->Received == Own->Size) {
        IoMarkIrpPending(Irp);
        Own->Commit = Irp;
        Own->Writing = TRUE;
        KeClearEvent(&Own->Idle);
        IoQueueWorkItem(Own->Work, WriteImage, DelayedWorkQueue, Own->Image);
        Status = STATUS_PENDING;
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

/* The image is gone then, if Wait: as soon as it is not being written any more. */
static NTSTATUS Abort(PDEVICE Own, BOOLEAN Wait)
{
    NTSTATUS Status = STATUS_INVALID_DEVICE_STATE;

    ExAcquireFastMutex(&Own->Mutex);
    while (Wait && Own->Writing) {
        ExReleaseFastMutex(&Own->Mutex);
        KeWaitForSingleObject(&Own->Idle, Executive, KernelMode, FALSE, NULL);
        ExAcquireFastMutex(&Own->Mutex);
    }
    if (Own->Image != NULL) {
        ExFreePoolWithTag(Own->Image, IMAGER_TAG);
        Own->Image = NULL;
        Status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Status;
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    Abort(Device->DeviceExtension, TRUE);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (CodeOf(Stack)) {
    case IOCTL_IMAGER_BEGIN:
        if (InputOf(Stack) < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return Complete(Irp, Begin(Own, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
    case IOCTL_IMAGER_COMMIT:
        return Commit(Own, Irp);
    case IOCTL_IMAGER_ABORT:
#ifdef FIXED
        return Complete(Irp, Abort(Own, TRUE), 0);
#else
        return Complete(Irp, Abort(Own, FALSE), 0);
#endif
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    /* One that was begun while its handle was closed. */
    if (Own->Image != NULL) {
        ExFreePoolWithTag(Own->Image, IMAGER_TAG);
    }
    IoFreeWorkItem(Own->Work);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    ExInitializeFastMutex(&Own->Mutex);
    KeInitializeEvent(&Own->Idle, NotificationEvent, TRUE);
    Own->Work = IoAllocateWorkItem(Device);
    if (Own->Work == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return Status;
}
