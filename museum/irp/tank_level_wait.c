/*
 * A level sensor that is simulated: IOCTL_TANK_WAIT waits until the level, which rises every 10 ms by a timer, has reached the input.
 *
 * The bug: the dispatch routine queues the request and returns STATUS_PENDING, and never calls IoMarkIrpPending. It shows with the first
 * request that waits.
 *
 * Device: none
 * Rule: pending-not-marked
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Tank"
#define LINK_NAME L"\\DosDevices\\Tank"
#include "../include/legacy.h"

#define IOCTL_TANK_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _DEVICE {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    ULONG Level;
    ULONG Awaited;
    PIRP Waiter;
} DEVICE, *PDEVICE;

static VOID NTAPI Rise(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Tank = Context;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeAcquireSpinLockAtDpcLevel(&Tank->Lock);
    Tank->Level++;
    if (Tank->Waiter != NULL && Tank->Level >= Tank->Awaited) {
        Irp = Tank->Waiter;
        Tank->Waiter = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&Tank->Lock);
    if (Irp != NULL) {
        Complete(Irp, STATUS_SUCCESS, 0);
    }
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Tank = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = STATUS_PENDING;
    KIRQL OldIrql;

    if (CodeOf(Stack) != IOCTL_TANK_WAIT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || *(PULONG)Irp->AssociatedIrp.SystemBuffer > 1000) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    KeAcquireSpinLock(&Tank->Lock, &OldIrql);
    if (Tank->Waiter != NULL) {
        Status = STATUS_DEVICE_BUSY;
    } else {
#ifdef FIXED
        IoMarkIrpPending(Irp);
#endif
        Tank->Awaited = Tank->Level + *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        Tank->Waiter = Irp;
    }
    KeReleaseSpinLock(&Tank->Lock, OldIrql);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Tank = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&Tank->Timer);
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    LARGE_INTEGER Due;
    PDEVICE Tank;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Tank = Device->DeviceExtension;
    KeInitializeSpinLock(&Tank->Lock);
    KeInitializeTimer(&Tank->Timer);
    KeInitializeDpc(&Tank->Dpc, Rise, Tank);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    Due.QuadPart = -10 * 10000;
    KeSetTimerEx(&Tank->Timer, Due, 10, &Tank->Dpc);
    return STATUS_SUCCESS;
}
