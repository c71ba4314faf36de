/*
 * A device on another one, which asks it by IoBuildDeviceIoControlRequest and waits 100 microseconds at most.
 *
 * The bug: when the time is over, the routine returns, and the request that is under way writes its status and its event where they were, on a stack that is
 * used for something else. It shows with a request that takes time below.
 *
 * Device: none
 * Rule: irp-on-dead-stack, object-not-initialized, bad-pointer, wild-write, wait-list-damaged, object-of-another-kind
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Impatient"
#define LINK_NAME L"\\DosDevices\\Impatient"
#include "../include/stacked.h"

static NTSTATUS Ask(PLAYER Layer, PULONG Number)
{
    IO_STATUS_BLOCK Block;
    LARGE_INTEGER Limit;
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
        Limit.QuadPart = -1000;
#ifdef FIXED
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
        UNREFERENCED_PARAMETER(Limit);
#else
        Status = KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, &Limit);
        Status = Status == STATUS_TIMEOUT ? STATUS_IO_TIMEOUT : Block.Status;
#endif
    }
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
