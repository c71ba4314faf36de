/*
 * A driver whose first control code waits until the second one comes; one waits at a time. The driver has CancelWait, its cancel routine; with OWN_WAIT, a
 * Wait of its own, with OWN_TAKE a TakeWaiter. It calls WaiterEntry.
 */
#ifndef ONE_WAITER_H
#define ONE_WAITER_H

#include "legacy.h"

#define IOCTL_WAITER_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAITER_CALL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _WAITER {
    KSPIN_LOCK Lock;
    PIRP Irp;
} WAITER, *PWAITER;

#ifdef OWN_WAIT
static NTSTATUS Wait(PWAITER Own, PIRP Irp);
#else
static DRIVER_CANCEL CancelWait;

static NTSTATUS Wait(PWAITER Own, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (Own->Irp != NULL) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        IoSetCancelRoutine(Irp, CancelWait);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            Own->Irp = Irp;
        }
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}
#endif

/* The one that waits, unless it is being cancelled. */
#ifdef OWN_TAKE
static PIRP TakeWaiter(PWAITER Own);
#else
static PIRP TakeWaiter(PWAITER Own)
{
    PIRP Irp;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Irp = Own->Irp;
    if (Irp != NULL && IoSetCancelRoutine(Irp, NULL) == NULL) {
        Irp = NULL;
    }
    if (Irp != NULL) {
        Own->Irp = NULL;
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Irp;
}
#endif

static NTSTATUS NTAPI WaiterControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWAITER Own = Device->DeviceExtension;
    PIRP Waiter;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_WAITER_WAIT:
        return Wait(Own, Irp);
    case IOCTL_WAITER_CALL:
        Waiter = TakeWaiter(Own);
        if (Waiter != NULL) {
            Complete(Waiter, STATUS_SUCCESS, 0);
        }
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

#ifndef WITHOUT_CLEANUP
static NTSTATUS NTAPI WaiterCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIRP Waiter = TakeWaiter(Device->DeviceExtension);

    if (Waiter != NULL) {
        Complete(Waiter, STATUS_CANCELLED, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}
#endif

static NTSTATUS WaiterEntry(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(WAITER), DO_BUFFERED_IO, &Device);

    if (NT_SUCCESS(Status)) {
        KeInitializeSpinLock(&((PWAITER)Device->DeviceExtension)->Lock);
#ifndef WITHOUT_CLEANUP
        Driver->MajorFunction[IRP_MJ_CLEANUP] = WaiterCleanup;
#endif
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WaiterControl;
    }
    return Status;
}

#endif
