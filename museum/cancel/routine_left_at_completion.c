/*
 * A doorman: IOCTL_WAITER_WAIT waits for IOCTL_WAITER_CALL; it can be cancelled.
 *
 * The bug: the request is completed with its cancel routine still set. It shows with the first request that is answered.
 *
 * Device: none
 * Rule: cancel-routine-set
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Doorman"
#define LINK_NAME L"\\DosDevices\\Doorman"
#define OWN_TAKE
#include "../include/one_waiter.h"

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWAITER Own = Device->DeviceExtension;
    KIRQL OldIrql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (Own->Irp != Irp) {
        KeReleaseSpinLock(&Own->Lock, OldIrql);
        return;
    }
    Own->Irp = NULL;
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
#endif
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Irp;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return WaiterEntry(Driver);
}
