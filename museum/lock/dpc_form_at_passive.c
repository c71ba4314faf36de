/*
 * A log of the last 8 events, which are recorded by a control code.
 *
 * The bug: the dispatch routine, at PASSIVE_LEVEL, acquires the spin lock by the form for DISPATCH_LEVEL, which does not raise the level. It shows
 * with the first event.
 *
 * Device: none
 * Rule: irql-too-low
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\EventLog"
#define LINK_NAME L"\\DosDevices\\EventLog"
#include "../include/legacy.h"

#define EVENTS 8
#define IOCTL_LOG_RECORD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8AA, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    ULONG Next;
    ULONG Events[EVENTS];
} DEVICE, *PDEVICE;

static VOID Record(PDEVICE Log, ULONG Event)
{
#ifdef FIXED
    KIRQL OldIrql;

    KeAcquireSpinLock(&Log->Lock, &OldIrql);
    Log->Events[Log->Next++ % EVENTS] = Event;
    KeReleaseSpinLock(&Log->Lock, OldIrql);
#else
    KeAcquireSpinLockAtDpcLevel(&Log->Lock);
    Log->Events[Log->Next++ % EVENTS] = Event;
    KeReleaseSpinLockFromDpcLevel(&Log->Lock);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_LOG_RECORD) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Record(Device->DeviceExtension, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeSpinLock(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
