/*
 * A messenger: IOCTL_WAITER_WAIT waits for IOCTL_WAITER_CALL; it can be cancelled.
 *
 * The bug: the one who completes the request takes the cancel routine off and does not look whether it was still there: where it has been called
 * already, both complete the request. It shows with a schedule in which the cancellation comes just then.
 *
 * Device: none
 * Rule: double-completion, use-after-free, cancel-after-completion
 * Needs: ioctl, cancel, schedule
 */
#define DEVICE_NAME L"\\Device\\Messenger"
#define LINK_NAME L"\\DosDevices\\Messenger"
#define OWN_TAKE
#include "../include/one_waiter.h"

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWAITER Own = Device->DeviceExtension;
    KIRQL OldIrql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (Own->Irp == Irp) {
        Own->Irp = NULL;
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    Complete(Irp, STATUS_CANCELLED, 0);
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
    if (Irp != NULL) {
        Own->Irp = NULL;
    }
#else
    Own->Irp = NULL;
    if (Irp != NULL) {
        IoSetCancelRoutine(Irp, NULL);
    }
#endif
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Irp;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return WaiterEntry(Driver);
}
