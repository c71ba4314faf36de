/*
 * A counter that control codes advance and read.
 *
 * The bug: a control code that the driver does not know gets a status from the dispatch routine, and its request is never completed. It shows with any
 * other code.
 *
 * Device: none
 * Rule: irp-forgotten
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Tally"
#define LINK_NAME L"\\DosDevices\\Tally"
#include "../include/legacy.h"

#define IOCTL_TALLY_ADVANCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TALLY_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    LONG Count;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Tally = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (CodeOf(Stack)) {
    case IOCTL_TALLY_ADVANCE:
        InterlockedIncrement(&Tally->Count);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_TALLY_READ:
        if (OutputOf(Stack) < sizeof(LONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = Tally->Count;
        return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
    default:
#ifdef FIXED
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
#else
        return STATUS_INVALID_DEVICE_REQUEST;
#endif
    }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
