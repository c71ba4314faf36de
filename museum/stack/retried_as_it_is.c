/*
 * A device on another one, which tries a second time what the lower driver has refused, with a number that it takes.
 *
 * The bug: the completion routine sends the request down again without setting up the next stack location, which the first try has used. It shows with a
 * request that is refused.
 *
 * Device: none
 * Rule: irp-damaged, use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Persistent"
#define LINK_NAME L"\\DosDevices\\Persistent"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS Send(PLAYER Layer, PIRP Irp, BOOLEAN SetUp)
{
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    if (SetUp) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, CameBack, &Event, TRUE, TRUE, TRUE);
    }
    if (IoCallDriver(Layer->Lower, Irp) == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
    }
    return Irp->IoStatus.Status;
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_STACKED_ASK) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Status = Send(Layer, Irp, TRUE);
    if (!NT_SUCCESS(Status)) {
        Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
#ifdef FIXED
        Status = Send(Layer, Irp, TRUE);
#else
        Status = Send(Layer, Irp, FALSE);
#endif
    }
    return Complete(Irp, Status, Irp->IoStatus.Information);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
