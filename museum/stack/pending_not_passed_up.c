/*
 * A device on another one, which looks at what comes back.
 *
 * The bug: the completion routine does not mark the request pending where the lower driver has (Irp->PendingReturned), and the dispatch routine returns the
 * lower driver's STATUS_PENDING. It shows with a request that takes time below.
 *
 * Device: none
 * Rule: pending-not-marked
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Observer"
#define LINK_NAME L"\\DosDevices\\Observer"
#include "../include/stacked.h"

static NTSTATUS NTAPI CameBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PLAYER Layer = Context;

    UNREFERENCED_PARAMETER(Device);
    InterlockedIncrement(&Layer->Sent);
#ifdef FIXED
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
#else
    UNREFERENCED_PARAMETER(Irp);
#endif
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI UpperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLAYER Layer = Device->DeviceExtension;

    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, CameBack, Layer, TRUE, TRUE, TRUE);
    return IoCallDriver(Layer->Lower, Irp);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return StackedEntry(Driver);
}
