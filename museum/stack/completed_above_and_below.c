/*
 * A device on another one, which waits for what it has sent down, and changes the answer.
 *
 * The bug: the completion routine lets the completion go on, and does not return STATUS_MORE_PROCESSING_REQUIRED: when the dispatch routine completes the
 * request after the wait, it has been completed already. It shows with the first request.
 *
 * Device: none
 * Rule: double-completion, use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Converter"
#define LINK_NAME L"\\DosDevices\\Converter"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    return STATUS_MORE_PROCESSING_REQUIRED;
#else
    return STATUS_SUCCESS;
#endif
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    NTSTATUS Status;
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, CameBack, &Event, TRUE, TRUE, TRUE);
    Status = IoCallDriver(Layer->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Irp->IoStatus.Status;
    }
    if (NT_SUCCESS(Status)) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer ^= 1;
    }
    return Complete(Irp, Status, Irp->IoStatus.Information);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
