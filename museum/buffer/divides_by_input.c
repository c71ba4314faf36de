/*
 * A scaler: IOCTL_SCALE divides a number by another.
 *
 * The bug: the divisor is not looked at. It shows with a divisor of 0, or with -1 and the smallest number.
 *
 * Device: none
 * Rule: divide-error
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Scaler"
#define LINK_NAME L"\\DosDevices\\Scaler"
#include "../include/legacy.h"

#define IOCTL_SCALE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC35, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SCALE {
    LONG Number;
    LONG Divisor;
} SCALE, *PSCALE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PSCALE Scale = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_SCALE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(SCALE) || OutputOf(Stack) < sizeof(LONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
#ifdef FIXED
    if (Scale->Divisor <= 0) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
#endif
    Scale->Number /= Scale->Divisor;
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
