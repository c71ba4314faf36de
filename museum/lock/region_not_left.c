/*
 * A voting machine: IOCTL_VOTE counts a vote for one of 4 parties.
 *
 * The bug: a vote for a party that does not exist returns without KeLeaveCriticalRegion. It shows with such a vote.
 *
 * Device: none
 * Rule: critical-region-unpaired
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Votes"
#define LINK_NAME L"\\DosDevices\\Votes"
#include "../include/legacy.h"

#define IOCTL_VOTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA40, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FAST_MUTEX Lock;
    ULONG Votes[4];
} DEVICE, *PDEVICE;

static NTSTATUS Vote(PDEVICE Own, ULONG Party)
{
    KeEnterCriticalRegion();
    if (Party >= 4) {
#ifdef FIXED
        KeLeaveCriticalRegion();
#endif
        return STATUS_INVALID_PARAMETER;
    }
    ExAcquireFastMutexUnsafe(&Own->Lock);
    Own->Votes[Party]++;
    ExReleaseFastMutexUnsafe(&Own->Lock);
    KeLeaveCriticalRegion();
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_VOTE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Complete(Irp, Vote(Device->DeviceExtension, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
