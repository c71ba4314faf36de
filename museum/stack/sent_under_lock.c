/*
 * A device on another one, which counts what is under way by a spin lock.
 *
 * The bug: the request is sent down with the lock held, and the completion routine acquires it, too: where the lower driver completes at once, it
 * is the same processor. It shows with a request that is completed at once.
 *
 * Device: none
 * Rule: spin-lock-recursion
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Counter"
#define LINK_NAME L"\\DosDevices\\Counter"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PLAYER Layer = Context;
    KIRQL OldIrql;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
    KeAcquireSpinLock(&Layer->Lock, &OldIrql);
    Layer->Sent--;
    KeReleaseSpinLock(&Layer->Lock, OldIrql);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;
    NTSTATUS Status;
    KIRQL OldIrql;

    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, CameBack, Layer, TRUE, TRUE, TRUE);
    KeAcquireSpinLock(&Layer->Lock, &OldIrql);
    Layer->Sent++;
#ifdef FIXED
    KeReleaseSpinLock(&Layer->Lock, OldIrql);
    Status = IoCallDriver(Layer->Lower, Irp);
#else
    Status = IoCallDriver(Layer->Lower, Irp);
    KeReleaseSpinLock(&Layer->Lock, OldIrql);
#endif
    return Status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
