/*
 * A device on another one, which asks it by a request of its own.
 *
 * The bug: what IoAllocateIrp returns is used without a look. It shows when memory is short.
 *
 * Device: none
 * Rule: wild-write, wild-read, bad-pointer, not-an-irp
 * Needs: ioctl, failure
 */
#define DEVICE_NAME L"\\Device\\Optimist"
#define LINK_NAME L"\\DosDevices\\Optimist"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Own, PVOID Context)
{
    PIRP Irp = Context;
    NTSTATUS Status = Own->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    IoFreeIrp(Own);
    Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
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
#ifdef FIXED
    if (Own == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
#endif
    Own->AssociatedIrp.SystemBuffer = Irp->AssociatedIrp.SystemBuffer;
    Next = IoGetNextIrpStackLocation(Own);
    Next->MajorFunction = IRP_MJ_DEVICE_CONTROL;
    Next->Parameters = Stack->Parameters;
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
