/*
 * A pager: IOCTL_WAITER_WAIT waits for IOCTL_WAITER_CALL; it can be cancelled.
 *
 * The bug: the cancel routine does not release the cancel spin lock, with which it is called. It shows with the first request that is cancelled.
 *
 * Device: none
 * Rule: cancel-lock-held, spin-lock-held-on-return, irql-changed-by-routine
 * Needs: ioctl, cancel
 */
#define DEVICE_NAME L"\\Device\\Pager"
#define LINK_NAME L"\\DosDevices\\Pager"
#include "../include/one_waiter.h"

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWAITER Own = Device->DeviceExtension;
    KIRQL OldIrql;

#ifdef FIXED
    IoReleaseCancelSpinLock(Irp->CancelIrql);
#endif
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Own->Irp = NULL;
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return WaiterEntry(Driver);
}
