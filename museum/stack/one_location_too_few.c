/*
 * A device on another one, which asks it by a request of its own and keeps a note in its own stack location.
 *
 * The bug: the request has as many stack locations as the lower device needs, and not one more for the driver's own. It shows with the first request.
 *
 * Device: none
 * Rule: no-stack-location
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Notary"
#define LINK_NAME L"\\DosDevices\\Notary"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Own, PVOID Context)
{
    PIRP Irp = Context;
    NTSTATUS Status = Own->IoStatus.Status;

    UNREFERENCED_PARAMETER(Device);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = *(PULONG)Own->AssociatedIrp.SystemBuffer;
    ExFreePoolWithTag(Own->AssociatedIrp.SystemBuffer, 'atoN');
    IoFreeIrp(Own);
    Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static PIRP Build(PLAYER Layer, PDEVICE_OBJECT Device, PIRP Irp, ULONG Number)
{
    CCHAR Locations = Layer->Lower->StackSize;
    PIO_STACK_LOCATION Next;
    PIRP Own;

#ifdef FIXED
    Locations++;
#endif
    Own = IoAllocateIrp(Locations, FALSE);
    if (Own == NULL) {
        return NULL;
    }
    Own->AssociatedIrp.SystemBuffer = ExAllocatePoolWithTag(NonPagedPool, sizeof(ULONG), 'atoN');
    if (Own->AssociatedIrp.SystemBuffer == NULL) {
        IoFreeIrp(Own);
        return NULL;
    }
    *(PULONG)Own->AssociatedIrp.SystemBuffer = Number;
    IoSetNextIrpStackLocation(Own);
    IoGetCurrentIrpStackLocation(Own)->DeviceObject = Device; /* the note */
    Next = IoGetNextIrpStackLocation(Own);
    Next->MajorFunction = IRP_MJ_DEVICE_CONTROL;
    Next->Parameters.DeviceIoControl.IoControlCode = IOCTL_PORT_NUMBER;
    Next->Parameters.DeviceIoControl.InputBufferLength = sizeof(ULONG);
    Next->Parameters.DeviceIoControl.OutputBufferLength = sizeof(ULONG);
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
    Own = Build(Layer, Device, Irp, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
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
