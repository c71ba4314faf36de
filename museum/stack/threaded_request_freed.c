/*
 * A device on another one, which asks it by IoBuildDeviceIoControlRequest.
 *
 * The bug: the driver frees the request when it has come back, which belongs to the thread and is freed by the I/O manager. It shows with the first request.
 *
 * Device: none
 * Rule: irp-free-threaded, irp-free, not-an-irp, use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Tidy"
#define LINK_NAME L"\\DosDevices\\Tidy"
#include "../include/stacked.h"

static NTSTATUS Ask(PLAYER Layer, PULONG Number)
{
    IO_STATUS_BLOCK Block;
    NTSTATUS Status;
    KEVENT Event;
    PIRP Own;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Own = IoBuildDeviceIoControlRequest(IOCTL_PORT_NUMBER, Layer->Lower, Number, sizeof(ULONG), Number, sizeof(ULONG), FALSE, &Event,
                                        &Block);
    if (Own == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = IoCallDriver(Layer->Lower, Own);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
    }
#ifndef FIXED
    IoFreeIrp(Own);
#endif
    return Status;
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_STACKED_ASK || InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Status = Ask(Device->DeviceExtension, Irp->AssociatedIrp.SystemBuffer);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
