/*
 * A device on another one, which asks it by a request of its own.
 *
 * The bug: the completion routine frees the request only where it has succeeded. It shows with a request that the lower driver refuses.
 *
 * Device: none
 * Rule: irp-leak
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Asker"
#define LINK_NAME L"\\DosDevices\\Asker"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Own, PVOID Context)
{
    PIRP Irp = Context;
    NTSTATUS Status = Own->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    if (!NT_SUCCESS(Status)) {
#ifdef FIXED
        IoFreeIrp(Own);
#endif
        Complete(Irp, Status, 0);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    IoFreeIrp(Own);
    Complete(Irp, Status, sizeof(ULONG));
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    PIO_STACK_LOCATION Next, Stack = IoGetCurrentIrpStackLocation(Irp);
    PIRP Own;

    if (CodeOf(Stack) != IOCTL_STACKED_ASK) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Own = IoAllocateIrp(Layer->Lower->StackSize, FALSE);
    if (Own == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Own->AssociatedIrp.SystemBuffer = Irp->AssociatedIrp.SystemBuffer;
    Next = IoGetNextIrpStackLocation(Own);
    Next->MajorFunction = IRP_MJ_DEVICE_CONTROL;
    Next->Parameters = Stack->Parameters; /* the lower driver checks the lengths */
    IoSetCompletionRoutine(Own, CameBack, Irp, TRUE, TRUE, TRUE);
    IoMarkIrpPending(Irp);
    IoCallDriver(Layer->Lower, Own);
    return STATUS_PENDING;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
