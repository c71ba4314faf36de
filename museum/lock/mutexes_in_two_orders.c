/*
 * A database of two tables, each with a mutex: IOCTL_TABLES_COPY copies from the first to the second, IOCTL_TABLES_BACK the other way.
 *
 * The bug: each routine acquires the mutex of its source first, so that two of them at a time wait for each other. It shows with a schedule in which each has one.
 *
 * Device: none
 * Rule: lock-order-inversion, deadlock, stuck, irp-never-completed
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Tables"
#define LINK_NAME L"\\DosDevices\\Tables"
#include "../include/legacy.h"

#define IOCTL_TABLES_COPY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA20, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TABLES_BACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA21, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _TABLE {
    FAST_MUTEX Lock;
    ULONG Rows[16];
} TABLE, *PTABLE;

typedef struct _DEVICE {
    TABLE First;
    TABLE Second;
} DEVICE, *PDEVICE;

static VOID Copy(PTABLE Source, PTABLE Target)
{
#ifdef FIXED
    PTABLE Lower = Source < Target ? Source : Target;
#else
    PTABLE Lower = Source;
#endif
    PTABLE Higher = Lower == Source ? Target : Source;

    KeEnterCriticalRegion();
    ExAcquireFastMutexUnsafe(&Lower->Lock);
    ExAcquireFastMutexUnsafe(&Higher->Lock);
    RtlCopyMemory(Target->Rows, Source->Rows, sizeof(Target->Rows));
    ExReleaseFastMutexUnsafe(&Higher->Lock);
    ExReleaseFastMutexUnsafe(&Lower->Lock);
    KeLeaveCriticalRegion();
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_TABLES_COPY:
        Copy(&Own->First, &Own->Second);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_TABLES_BACK:
        Copy(&Own->Second, &Own->First);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->First.Lock);
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Second.Lock);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
