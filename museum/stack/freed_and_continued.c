/*
 * A device on another one, which asks it by a request of its own.
 *
 * The bug: the completion routine frees the request and returns STATUS_SUCCESS: the I/O manager goes on with what is freed. It shows with the first request.
 *
 * Device: none
 * Rule: irp-freed-in-completion, use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Inquirer"
#define LINK_NAME L"\\DosDevices\\Inquirer"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Own, PVOID Context)
{
    PIRP Irp = Context;
    NTSTATUS Status = Own->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    IoFreeIrp(Own);
    Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
#ifdef FIXED
    return STATUS_MORE_PROCESSING_REQUIRED;
#else
    return STATUS_SUCCESS;
#endif
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    PIO_STACK_LOCATION Next, Stack = IoGetCurrentIrpStackLocation(Irp);
    PIRP Own;

    if (CodeOf(Stack) != IOCTL_STACKED_ASK || InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Own = IoAllocateIrp(Layer->Lower->StackSize, FALSE);
    if (Own == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
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
