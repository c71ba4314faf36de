/*
 * A doorbell: IOCTL_BELL_WAIT waits until IOCTL_BELL_RING comes. One waits at a time.
 *
 * The bug: the driver keeps the waiting request in one slot and does not look whether there is one: a second one takes its place. When the first is
 * cancelled, the second is completed, which has its cancel routine still; the first is never completed.
 *
 * Device: none
 * Rule: cancel-routine-set, irp-never-completed, stuck, use-after-free, cancel-after-completion
 * Needs: ioctl, cancel
 */
#define DEVICE_NAME L"\\Device\\Bell"
#define LINK_NAME L"\\DosDevices\\Bell"
#include "../include/legacy.h"

#define IOCTL_BELL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA00, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    PIRP Waiter;
} DEVICE, *PDEVICE;

static PIRP TakeWaiter(PDEVICE Bell)
{
    PIRP Irp;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Bell->Lock, &OldIrql);
    Irp = Bell->Waiter;
    if (Irp != NULL && IoSetCancelRoutine(Irp, NULL) == NULL) {
        Irp = NULL; /* it is Cancel's */
    } else {
        Bell->Waiter = NULL;
    }
    KeReleaseSpinLock(&Bell->Lock, OldIrql);
    return Irp;
}

static VOID NTAPI Cancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Bell = Device->DeviceExtension;
    KIRQL OldIrql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Bell->Lock, &OldIrql);
    Irp = Bell->Waiter;
    Bell->Waiter = NULL;
    KeReleaseSpinLock(&Bell->Lock, OldIrql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(PDEVICE Bell, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Bell->Lock, &OldIrql);
#ifdef FIXED
    if (Bell->Waiter != NULL) {
        KeReleaseSpinLock(&Bell->Lock, OldIrql);
        return Complete(Irp, STATUS_DEVICE_BUSY, 0);
    }
#endif
    IoSetCancelRoutine(Irp, Cancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        Status = STATUS_CANCELLED;
    } else {
        IoMarkIrpPending(Irp);
        Bell->Waiter = Irp;
    }
    KeReleaseSpinLock(&Bell->Lock, OldIrql);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Bell = Device->DeviceExtension;
    PIRP Waiter;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_BELL_WAIT:
        return Wait(Bell, Irp);
    case IOCTL_BELL_RING:
        Waiter = TakeWaiter(Bell);
        if (Waiter != NULL) {
            Complete(Waiter, STATUS_SUCCESS, 0);
        }
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIRP Waiter = TakeWaiter(Device->DeviceExtension);

    if (Waiter != NULL) {
        Complete(Waiter, STATUS_CANCELLED, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeSpinLock(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
