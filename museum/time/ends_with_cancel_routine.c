/*
 * A device control request of kind 0 waits until the due time that it names, or until it is cancelled; kind 1 is for an event, of which there is none.
 * A due time that is absolute is refused.
 *
 * The bug: the DPC completes the request without taking its cancel routine away. It shows only where a request is given a due time that comes: one that is
 * far off is always cancelled.
 *
 * Device: none
 * Rule: cancel-routine-set
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Eggtimer"
#define LINK_NAME L"\\DosDevices\\Eggtimer"
#include "../include/legacy.h"

#define IOCTL_NOTIFY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* What an application gives. */
typedef struct _NOTIFY {
    ULONG Kind;
    ULONG Reserved;
    PVOID Event;
    LARGE_INTEGER Due;
} NOTIFY, *PNOTIFY;

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    PIRP Waiting;
    KTIMER Timer;
    KDPC Dpc;
} DEVICE, *PDEVICE;

static VOID NTAPI Cancelled(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Own->Lock, &Irql);
    if (Own->Waiting == Irp) {
        Own->Waiting = NULL;
        KeCancelTimer(&Own->Timer);
    }
    KeReleaseSpinLock(&Own->Lock, Irql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI Rings(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Own = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeAcquireSpinLockAtDpcLevel(&Own->Lock);
    Irp = Own->Waiting;
    Own->Waiting = NULL;
#ifdef FIXED
    if (Irp != NULL && IoSetCancelRoutine(Irp, NULL) == NULL) {
        /* The cancel routine runs; it completes the request when it has had the lock. */
        Irp = NULL;
    }
#endif
    KeReleaseSpinLockFromDpcLevel(&Own->Lock);
    if (Irp != NULL) {
        Complete(Irp, STATUS_SUCCESS, 0);
    }
}

static NTSTATUS Wait(PDEVICE Own, PIRP Irp, LARGE_INTEGER Due)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Own->Lock, &Irql);
    if (Own->Waiting != NULL) {
        KeReleaseSpinLock(&Own->Lock, Irql);
        return Complete(Irp, STATUS_DEVICE_BUSY, 0);
    }
    IoSetCancelRoutine(Irp, Cancelled);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Own->Lock, Irql);
        return Complete(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    Own->Waiting = Irp;
    KeSetTimer(&Own->Timer, Due, &Own->Dpc);
    KeReleaseSpinLock(&Own->Lock, Irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Location = IoGetCurrentIrpStackLocation(Irp);
    PNOTIFY Notify = Irp->AssociatedIrp.SystemBuffer;

    if (Location->Parameters.DeviceIoControl.IoControlCode != IOCTL_NOTIFY) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Location->Parameters.DeviceIoControl.InputBufferLength < sizeof(NOTIFY)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    switch (Notify->Kind) {
    case 0:
        if (Notify->Due.QuadPart >= 0) {
            return Complete(Irp, STATUS_INVALID_PARAMETER_3, 0);
        }
        return Wait(Device->DeviceExtension, Irp, Notify->Due);
    case 1:
        /* There are no events in this version. */
        return Complete(Irp, Notify->Event == NULL ? STATUS_INVALID_HANDLE : STATUS_NOT_SUPPORTED, 0);
    default:
        return Complete(Irp, STATUS_INVALID_PARAMETER_1, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&Own->Timer);
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);
    PDEVICE Own;

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    KeInitializeSpinLock(&Own->Lock);
    KeInitializeTimer(&Own->Timer);
    KeInitializeDpc(&Own->Dpc, Rings, Own);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
