/*
 * A device on another one, which wants to know what comes back.
 *
 * The bug: the stack location is skipped and a completion routine is set: it lands in the location that the lower driver runs in, which is the
 * driver's own, and takes the place of the routine of the driver above. It shows with the first request.
 *
 * Device: none
 * Rule: irp-damaged, no-stack-location, completion-routine-skipped
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Curious"
#define LINK_NAME L"\\DosDevices\\Curious"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned && Irp->CurrentLocation <= Irp->StackCount) {
        IoMarkIrpPending(Irp);
    }
    InterlockedIncrement(&((PLAYER)Context)->Sent);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;

#ifdef FIXED
    IoCopyCurrentIrpStackLocationToNext(Irp);
#else
    IoSkipCurrentIrpStackLocation(Irp);
#endif
    IoSetCompletionRoutine(Irp, CameBack, Layer, TRUE, TRUE, TRUE);
    return IoCallDriver(Layer->Lower, Irp);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
