/*
 * A device on another one, which asks it by a request of its own with an MDL for the answer.
 *
 * The bug: IoFreeIrp does not free the MDL of a request that IoAllocateIrp has made, and the driver does not either. It shows with the first request.
 *
 * Device: none
 * Rule: pool-leak
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Describer"
#define LINK_NAME L"\\DosDevices\\Describer"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Own, PVOID Context)
{
    PIRP Irp = Context;
    NTSTATUS Status = Own->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
#ifdef FIXED
    IoFreeMdl(Own->MdlAddress);
#endif
    Own->MdlAddress = NULL;
    IoFreeIrp(Own);
    Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static PIRP Build(PLAYER Layer, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PIO_STACK_LOCATION Next;
    PIRP Own = IoAllocateIrp(Layer->Lower->StackSize, FALSE);

    if (Own == NULL) {
        return NULL;
    }
    Own->MdlAddress = IoAllocateMdl(Irp->AssociatedIrp.SystemBuffer, sizeof(ULONG), FALSE, FALSE, NULL);
    if (Own->MdlAddress == NULL) {
        IoFreeIrp(Own);
        return NULL;
    }
    MmBuildMdlForNonPagedPool(Own->MdlAddress);
    Own->AssociatedIrp.SystemBuffer = Irp->AssociatedIrp.SystemBuffer;
    Next = IoGetNextIrpStackLocation(Own);
    Next->MajorFunction = IRP_MJ_DEVICE_CONTROL;
    Next->Parameters = Stack->Parameters;
    IoSetCompletionRoutine(Own, CameBack, Irp, TRUE, TRUE, TRUE);
    return Own;
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PIRP Own;

    if (CodeOf(Stack) != IOCTL_STACKED_ASK || InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Own = Build(Layer, Irp, Stack);
    if (Own == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    IoMarkIrpPending(Irp);
    IoCallDriver(Layer->Lower, Own);
    return STATUS_PENDING;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
