/*
 * A car park of 4 places, as a semaphore: IOCTL_PARK takes a place, IOCTL_LEAVE gives one back.
 *
 * The bug: IOCTL_LEAVE gives back a place that was never taken: beyond its limit the semaphore raises an exception. It shows with a car that leaves an empty
 * car park.
 *
 * Device: none
 * Rule: semaphore-limit-exceeded, unhandled-exception
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\CarPark"
#define LINK_NAME L"\\DosDevices\\CarPark"
#include "../include/legacy.h"

#define PLACES 4
#define IOCTL_PARK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA50, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LEAVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA51, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FAST_MUTEX Lock;
    ULONG Parked;
    KSEMAPHORE Places;
} DEVICE, *PDEVICE;

static NTSTATUS Park(PDEVICE Own)
{
    LARGE_INTEGER Now = {.QuadPart = 0};
    NTSTATUS Status;

    KeEnterCriticalRegion();
    ExAcquireFastMutexUnsafe(&Own->Lock);
    Status = KeWaitForSingleObject(&Own->Places, Executive, KernelMode, FALSE, &Now);
    if (Status == STATUS_SUCCESS) {
        Own->Parked++;
    }
    ExReleaseFastMutexUnsafe(&Own->Lock);
    KeLeaveCriticalRegion();
    return Status == STATUS_SUCCESS ? Status : STATUS_DEVICE_BUSY;
}

static NTSTATUS Leave(PDEVICE Own)
{
    NTSTATUS Status = STATUS_SUCCESS;

    KeEnterCriticalRegion();
    ExAcquireFastMutexUnsafe(&Own->Lock);
#ifdef FIXED
    if (Own->Parked == 0) {
        Status = STATUS_NOT_FOUND;
    } else {
        Own->Parked--;
        KeReleaseSemaphore(&Own->Places, IO_NO_INCREMENT, 1, FALSE);
    }
#else
    Own->Parked--;
    KeReleaseSemaphore(&Own->Places, IO_NO_INCREMENT, 1, FALSE);
#endif
    ExReleaseFastMutexUnsafe(&Own->Lock);
    KeLeaveCriticalRegion();
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_PARK:
        return Complete(Irp, Park(Own), 0);
    case IOCTL_LEAVE:
        return Complete(Irp, Leave(Own), 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Lock);
        KeInitializeSemaphore(&((PDEVICE)Device->DeviceExtension)->Places, PLACES, PLACES);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
