/*
 * A device on another one, which asks it by a request of its own and cancels that one when its own request is cancelled by IOCTL_STACKED_STOP.
 *
 * The bug: the pointer to the request of its own is kept when it has come back and was freed. It shows with IOCTL_STACKED_STOP after the answer.
 *
 * Device: none
 * Rule: use-after-free, not-an-irp, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Revoker"
#define LINK_NAME L"\\DosDevices\\Revoker"
#include "../include/stacked.h"

#define IOCTL_STACKED_STOP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)

static KSPIN_LOCK SentLock;
static PIRP Sent;

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Own, PVOID Context)
{
    PIRP Irp = Context;
    NTSTATUS Status = Own->IoStatus.Status;
#ifdef FIXED
    KIRQL OldIrql;

    KeAcquireSpinLock(&SentLock, &OldIrql);
    if (Sent == Own) {
        Sent = NULL;
    }
    KeReleaseSpinLock(&SentLock, OldIrql);
#endif
    UNREFERENCED_PARAMETER(Device);
    IoFreeIrp(Own);
    Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS Ask(PLAYER Layer, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PIRP Own = IoAllocateIrp(Layer->Lower->StackSize, FALSE);
    PIO_STACK_LOCATION Next;
    KIRQL OldIrql;

    if (Own == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Own->AssociatedIrp.SystemBuffer = Irp->AssociatedIrp.SystemBuffer;
    Next = IoGetNextIrpStackLocation(Own);
    Next->MajorFunction = IRP_MJ_DEVICE_CONTROL;
    Next->Parameters = Stack->Parameters;
    IoSetCompletionRoutine(Own, CameBack, Irp, TRUE, TRUE, TRUE);
    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&SentLock, &OldIrql);
    Sent = Own;
    KeReleaseSpinLock(&SentLock, OldIrql);
    IoCallDriver(Layer->Lower, Own);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PIRP Own;
    KIRQL OldIrql;

    switch (CodeOf(Stack)) {
    case IOCTL_STACKED_ASK:
        return Ask(Device->DeviceExtension, Irp, Stack);
    case IOCTL_STACKED_STOP:
        KeAcquireSpinLock(&SentLock, &OldIrql);
        Own = Sent;
        if (Own != NULL) {
            Own->Cancel = TRUE; /* the lower driver looks at it when it answers */
        }
        KeReleaseSpinLock(&SentLock, OldIrql);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
