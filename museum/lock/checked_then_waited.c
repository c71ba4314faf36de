/*
 * A baton: IOCTL_BATON_TAKE waits until the baton lies there and takes it, IOCTL_BATON_LAY lays it down.
 *
 * The bug: the taker looks whether the baton is there, and clears the event and waits if it is not: the baton that is laid down in between is not
 * noticed. It shows with a schedule in which it comes between the look and KeClearEvent.
 *
 * Device: none
 * Rule: stuck, deadlock
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Baton"
#define LINK_NAME L"\\DosDevices\\Baton"
#include "../include/legacy.h"

#define IOCTL_BATON_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xF00, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BATON_LAY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xF01, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KEVENT Laid;
    LONG There;
} DEVICE, *PDEVICE;

static NTSTATUS Take(PDEVICE Own)
{
    NTSTATUS Status;

    while (InterlockedExchange(&Own->There, 0) == 0) {
#ifdef FIXED
        Status = KeWaitForSingleObject(&Own->Laid, Executive, UserMode, FALSE, NULL);
#else
        KeClearEvent(&Own->Laid);
        Status = KeWaitForSingleObject(&Own->Laid, Executive, UserMode, FALSE, NULL);
#endif
        if (Status != STATUS_SUCCESS) {
            return STATUS_CANCELLED; /* the thread is being terminated */
        }
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_BATON_TAKE:
        return Complete(Irp, Take(Own), 0);
    case IOCTL_BATON_LAY:
        InterlockedExchange(&Own->There, 1);
        KeSetEvent(&Own->Laid, IO_NO_INCREMENT, FALSE);
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
        KeInitializeEvent(&((PDEVICE)Device->DeviceExtension)->Laid, SynchronizationEvent, FALSE);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
