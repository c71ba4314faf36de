/*
 * A device on another one, which asks it by IoBuildDeviceIoControlRequest and counts its questions.
 *
 * The bug: the request is built with the spin lock of the count held, which is for PASSIVE_LEVEL only. It shows with the first request.
 *
 * Device: none
 * Rule: irql-too-high
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Statistician"
#define LINK_NAME L"\\DosDevices\\Statistician"
#include "../include/stacked.h"

static NTSTATUS Ask(PLAYER Layer, PULONG Number)
{
    IO_STATUS_BLOCK Block;
    NTSTATUS Status;
    KIRQL OldIrql;
    KEVENT Event;
    PIRP Own;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    KeAcquireSpinLock(&Layer->Lock, &OldIrql);
    Layer->Sent++;
#ifdef FIXED
    KeReleaseSpinLock(&Layer->Lock, OldIrql);
#endif
    Own = IoBuildDeviceIoControlRequest(IOCTL_PORT_NUMBER, Layer->Lower, Number, sizeof(ULONG), Number, sizeof(ULONG), FALSE, &Event,
                                        &Block);
#ifndef FIXED
    KeReleaseSpinLock(&Layer->Lock, OldIrql);
#endif
    if (Own == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = IoCallDriver(Layer->Lower, Own);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
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
