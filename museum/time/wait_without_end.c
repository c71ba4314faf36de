/*
 * A rendezvous of two applications: IOCTL_MEET waits until the other one has come.
 *
 * The bug: the wait is in kernel mode and has no time-out: a thread that waits for one who never comes can be neither cancelled nor terminated. It shows
 * when its process ends.
 *
 * Device: none
 * Rule: stuck, deadlock, irp-never-completed
 * Needs: ioctl, cancel
 */
#define DEVICE_NAME L"\\Device\\Rendezvous"
#define LINK_NAME L"\\DosDevices\\Rendezvous"
#include "../include/legacy.h"

#define IOCTL_MEET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)
#ifdef FIXED
#define WAIT_MODE UserMode
#else
#define WAIT_MODE KernelMode
#endif

typedef struct _DEVICE {
    LONG Waiting;
    KEVENT Met;
} DEVICE, *PDEVICE;

static NTSTATUS Meet(PDEVICE Own)
{
    NTSTATUS Status;

    if (InterlockedExchange(&Own->Waiting, FALSE)) {
        KeSetEvent(&Own->Met, IO_NO_INCREMENT, FALSE);
        return STATUS_SUCCESS;
    }
    InterlockedExchange(&Own->Waiting, TRUE);
    Status = KeWaitForSingleObject(&Own->Met, Executive, WAIT_MODE, FALSE, NULL);
    if (Status != STATUS_SUCCESS) {
        InterlockedExchange(&Own->Waiting, FALSE);
        Status = STATUS_CANCELLED;
    }
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_MEET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, Meet(Device->DeviceExtension), 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeEvent(&((PDEVICE)Device->DeviceExtension)->Met, SynchronizationEvent, FALSE);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
