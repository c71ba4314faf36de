/*
 * A device whose buffer exists while it is open: the first open allocates it, the last close frees it. Reads and writes use it.
 *
 * The bug: the number of open handles is changed by ++ and --. Where two opens run at a time one of them is lost, and the buffer is freed while a handle
 * is open. It shows with a schedule in which one open comes between the other's load and store.
 *
 * Device: none
 * Rule: use-after-free, double-free, pool-leak, wild-write, bad-pointer, wild-read
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Shared"
#define LINK_NAME L"\\DosDevices\\Shared"
#include "../include/legacy.h"

#define SHARED_TAG 'rahS'
#define SHARED_BYTES 128

typedef struct _DEVICE {
    FAST_MUTEX Lock;
    volatile LONG Opens;
    PUCHAR Buffer;
} DEVICE, *PDEVICE;

static NTSTATUS Open(PDEVICE Own)
{
    PUCHAR Buffer;
    NTSTATUS Status = STATUS_SUCCESS;

#ifdef FIXED
    ExAcquireFastMutex(&Own->Lock);
#endif
    if (++Own->Opens == 1) {
        Buffer = ExAllocatePoolWithTag(NonPagedPool, SHARED_BYTES, SHARED_TAG);
        if (Buffer != NULL) {
            RtlZeroMemory(Buffer, SHARED_BYTES);
            Own->Buffer = Buffer;
        } else {
            Own->Opens--;
            Status = STATUS_INSUFFICIENT_RESOURCES;
        }
    }
#ifdef FIXED
    ExReleaseFastMutex(&Own->Lock);
#endif
    return Status;
}

static VOID Close(PDEVICE Own)
{
#ifdef FIXED
    ExAcquireFastMutex(&Own->Lock);
#endif
    if (--Own->Opens == 0) {
        ExFreePoolWithTag(Own->Buffer, SHARED_TAG);
        Own->Buffer = NULL;
    }
#ifdef FIXED
    ExReleaseFastMutex(&Own->Lock);
#endif
}

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    return Complete(Irp, Open(Device->DeviceExtension), 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    Close(Device->DeviceExtension);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp); /* reads and writes have their lengths at the same place */
    ULONG Length = min(Stack->Parameters.Read.Length, SHARED_BYTES);

    if (Stack->MajorFunction == IRP_MJ_READ) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Own->Buffer, Length);
    } else {
        RtlCopyMemory(Own->Buffer, Irp->AssociatedIrp.SystemBuffer, Length);
    }
    return Complete(Irp, STATUS_SUCCESS, Length);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    }
    return Status;
}
