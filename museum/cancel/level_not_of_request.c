/*
 * A porter: IOCTL_WAITER_WAIT waits for IOCTL_WAITER_CALL; it can be cancelled.
 *
 * The bug: the cancel routine releases the cancel spin lock to the level that it finds itself at, which is DISPATCH_LEVEL, and not to Irp->CancelIrql. It
 * shows with the first request that is cancelled.
 *
 * Device: none
 * Rule: irql-changed-by-routine, cancel-lock-held
 * Needs: ioctl, cancel
 */
#define DEVICE_NAME L"\\Device\\Porter"
#define LINK_NAME L"\\DosDevices\\Porter"
#include "../include/one_waiter.h"

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWAITER Own = Device->DeviceExtension;
    KIRQL OldIrql;

#ifdef FIXED
    IoReleaseCancelSpinLock(Irp->CancelIrql);
#else
    IoReleaseCancelSpinLock(KeGetCurrentIrql());
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
