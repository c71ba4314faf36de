/*
 * A courier: IOCTL_WAITER_WAIT waits for IOCTL_WAITER_CALL; it can be cancelled.
 *
 * The bug: the routine sets the cancel routine and does not look whether the request has been cancelled before: such a one stays for ever, since the cancel
 * routine was not there when it would have been called. It shows with a schedule in which the cancellation comes before.
 *
 * Device: none
 * Rule: irp-never-completed, stuck, cancellation-missed
 * Needs: ioctl, cancel, schedule
 */
#define DEVICE_NAME L"\\Device\\Courier"
#define LINK_NAME L"\\DosDevices\\Courier"
#define OWN_WAIT
#define WITHOUT_CLEANUP
#include "../include/one_waiter.h"

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWAITER Own = Device->DeviceExtension;
    KIRQL OldIrql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Own->Irp = NULL;
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(PWAITER Own, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (Own->Irp != NULL) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        IoSetCancelRoutine(Irp, CancelWait);
#ifdef FIXED
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        }
#endif
    }
    if (Status == STATUS_PENDING) {
        IoMarkIrpPending(Irp);
        Own->Irp = Irp;
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return WaiterEntry(Driver);
}
