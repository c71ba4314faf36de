/*
 * A librarian: IOCTL_WAITER_WAIT waits for IOCTL_WAITER_CALL.
 *
 * The bug: the request has no cancel routine, and IRP_MJ_CLEANUP does not end it either: the process that waits cannot end. It shows when the application
 * goes while it waits.
 *
 * Device: none
 * Rule: irp-never-completed, stuck
 * Needs: ioctl, cancel
 */
#define DEVICE_NAME L"\\Device\\Librarian"
#define LINK_NAME L"\\DosDevices\\Librarian"
#define OWN_WAIT
#define OWN_TAKE
#define WITHOUT_CLEANUP
#include "../include/one_waiter.h"

#ifdef FIXED
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
#endif

static NTSTATUS Wait(PWAITER Own, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (Own->Irp != NULL) {
        Status = STATUS_DEVICE_BUSY;
    }
#ifdef FIXED
    if (Status == STATUS_PENDING) {
        IoSetCancelRoutine(Irp, CancelWait);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        }
    }
#endif
    if (Status == STATUS_PENDING) {
        IoMarkIrpPending(Irp);
        Own->Irp = Irp;
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

static PIRP TakeWaiter(PWAITER Own)
{
    PIRP Irp;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Irp = Own->Irp;
#ifdef FIXED
    if (Irp != NULL && IoSetCancelRoutine(Irp, NULL) == NULL) {
        Irp = NULL;
    }
#endif
    if (Irp != NULL) {
        Own->Irp = NULL;
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Irp;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return WaiterEntry(Driver);
}
