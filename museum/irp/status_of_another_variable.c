/*
 * A clock that answers the interrupt time, and sets an offset that it adds.
 *
 * The bug: the request is completed with one status, and the dispatch routine returns another one: the variable still holds success. It shows with an
 * output buffer that is too small.
 *
 * Device: none
 * Rule: dispatch-status-differs
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\OffsetClock"
#define LINK_NAME L"\\DosDevices\\OffsetClock"
#include "../include/legacy.h"

#define IOCTL_CLOCK_READ CTL_CODE(0x8001u, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CLOCK_SET_OFFSET CTL_CODE(0x8001u, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    LONG64 Offset;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Clock = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PLONG64 Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = STATUS_SUCCESS;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    switch (CodeOf(Stack)) {
    case IOCTL_CLOCK_READ:
        if (OutputOf(Stack) < sizeof(LONG64)) {
#ifdef FIXED
            Status = STATUS_BUFFER_TOO_SMALL;
            Irp->IoStatus.Status = Status;
#else
            Irp->IoStatus.Status = STATUS_BUFFER_TOO_SMALL;
#endif
            break;
        }
        *Buffer = (LONG64)KeQueryInterruptTime() + Clock->Offset;
        Irp->IoStatus.Information = sizeof(LONG64);
        break;
    case IOCTL_CLOCK_SET_OFFSET:
        if (InputOf(Stack) < sizeof(LONG64)) {
            Status = STATUS_INVALID_PARAMETER;
            Irp->IoStatus.Status = Status;
            break;
        }
        Clock->Offset = *Buffer;
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        Irp->IoStatus.Status = Status;
        break;
    }
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
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
