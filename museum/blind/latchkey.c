/*
 * latchkey: a filter driver of a point-of-sale vendor, above whatever drives a card. A program that has the device open
 * may lock it (IOCTL_LATCHKEY_LOCK): no other can open it until the program closes its handle. The filter also counts
 * requests and keeps the device's power state for IOCTL_LATCHKEY_STATE.
 *
 * The bug: the completion routine of IRP_MN_SET_POWER does not mark the request pending when the lower driver has, while
 * the dispatch routine returns that driver's STATUS_PENDING.
 *
 * Device: PCI\VEN_1DA7&DEV_0023
 * Rule: pending-not-marked, power-irp-overdue
 * Needs: power
 */
#include <ddk/wdm.h>
#include "../include/frame_with_hooks.h"

#define IOCTL_LATCHKEY_LOCK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LATCHKEY_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct LATCHKEY_STATE {
    ULONG Locked;
    ULONG Power;                        /* a DEVICE_POWER_STATE */
    ULONG Passed, Failed;               /* requests that were counted */
} LATCHKEY_STATE;

typedef struct LATCHKEY {
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    KSPIN_LOCK Lock;                    /* guards what follows */
    PFILE_OBJECT Holder;                /* only compared */
    LATCHKEY_STATE State;
} LATCHKEY;

/* passes a request on as it is; the remove lock is held */
static NTSTATUS PassOn(LATCHKEY *k, PIRP Irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(k->Lower, Irp);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Counted(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    LATCHKEY *k = Context;
    KIRQL irql;

    NOT_USED(Device);
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&k->Lock, &irql);
    if (NT_SUCCESS(Irp->IoStatus.Status))
        k->State.Passed++;
    else
        k->State.Failed++;
    KeReleaseSpinLock(&k->Lock, irql);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS PassCounted(LATCHKEY *k, PIRP Irp)
{
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Counted, k, TRUE, TRUE, TRUE);
    return IoCallDriver(k->Lower, Irp);
}

/* IRP_MJ_SYSTEM_CONTROL, flushes and all else */
static NTSTATUS NTAPI Pass(PDEVICE_OBJECT Device, PIRP Irp)
{
    LATCHKEY *k = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    return PassOn(k, Irp);
}

static NTSTATUS NTAPI ReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    LATCHKEY *k = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    return PassCounted(k, Irp);
}

static NTSTATUS NTAPI OpenCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    LATCHKEY *k = Device->DeviceExtension;
    BOOLEAN locked;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    KeAcquireSpinLock(&k->Lock, &irql);
    if (s->MajorFunction == IRP_MJ_CLEANUP && k->Holder == s->FileObject) {
        k->Holder = NULL;
        k->State.Locked = FALSE;
    }
    locked = s->MajorFunction == IRP_MJ_CREATE && k->State.Locked;
    KeReleaseSpinLock(&k->Lock, irql);
    if (!locked)
        return PassOn(k, Irp);
    Done(Irp, STATUS_SHARING_VIOLATION, 0);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return STATUS_SHARING_VIOLATION;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    LATCHKEY *k = Device->DeviceExtension;
    NTSTATUS status;
    ULONG done = 0;
    KIRQL irql;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LATCHKEY_LOCK:
        KeAcquireSpinLock(&k->Lock, &irql);
        if (k->State.Locked && k->Holder != s->FileObject) {
            status = STATUS_SHARING_VIOLATION;
        } else {
            k->Holder = s->FileObject;
            k->State.Locked = TRUE;
        }
        KeReleaseSpinLock(&k->Lock, irql);
        break;

    case IOCTL_LATCHKEY_STATE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LATCHKEY_STATE)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&k->Lock, &irql);
        *(LATCHKEY_STATE *)Irp->AssociatedIrp.SystemBuffer = k->State;
        KeReleaseSpinLock(&k->Lock, irql);
        done = sizeof(LATCHKEY_STATE);
        break;

    default:
        return PassCounted(k, Irp);
    }
    Done(Irp, status, done);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Powered(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    LATCHKEY *k = Context;
    KIRQL irql;

    NOT_USED(Device);
#ifdef FIXED
    if (Irp->PendingReturned)
        IoMarkIrpPending(Irp);
#endif
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        KeAcquireSpinLock(&k->Lock, &irql);
        k->State.Power = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.DeviceState;
        KeReleaseSpinLock(&k->Lock, irql);
    }
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI Power(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    LATCHKEY *k = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    if (s->MinorFunction == IRP_MN_SET_POWER && s->Parameters.Power.Type == DevicePowerState) {
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, Powered, k, TRUE, TRUE, TRUE);
        return PoCallDriver(k->Lower, Irp);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(k->Lower, Irp);
    IoReleaseRemoveLock(&k->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Forwarded(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    NOT_USED(Device);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS Forward(LATCHKEY *k, PIRP Irp)
{
    NTSTATUS status;
    KEVENT event;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Forwarded, &event, TRUE, TRUE, TRUE);
    status = IoCallDriver(k->Lower, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    LATCHKEY *k = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&k->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = Forward(k, Irp);
        if (NT_SUCCESS(status))
            Device->Characteristics |= k->Lower->Characteristics & FILE_REMOVABLE_MEDIA;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&k->RemoveLock, Irp);
        return status;

    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (!Device->AttachedDevice || (Device->AttachedDevice->Flags & DO_POWER_PAGABLE))
            Device->Flags |= DO_POWER_PAGABLE;
        status = Forward(k, Irp);
        if (!(k->Lower->Flags & DO_POWER_PAGABLE))
            Device->Flags &= ~DO_POWER_PAGABLE;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&k->RemoveLock, Irp);
        return status;

    case IRP_MN_REMOVE_DEVICE:
        IoReleaseRemoveLockAndWait(&k->RemoveLock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(k->Lower, Irp);
        IoDetachDevice(k->Lower);
        IoDeleteDevice(Device);
        return status;
    }
    return PassOn(k, Irp);
}

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;
    LATCHKEY *k;

    status = IoCreateDevice(Driver, sizeof(LATCHKEY), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    k = device->DeviceExtension;
    IoInitializeRemoveLock(&k->RemoveLock, 'ctaL', 0, 0);
    KeInitializeSpinLock(&k->Lock);
    k->State.Power = PowerDeviceD0;
    k->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!k->Lower) {
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->DeviceType = k->Lower->DeviceType;
    device->Characteristics = k->Lower->Characteristics | FILE_DEVICE_SECURE_OPEN;
    device->Flags |= k->Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE | DO_POWER_INRUSH);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    NOT_USED(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    ULONG i;

    NOT_USED(RegistryPath);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
        Driver->MajorFunction[i] = Pass;
    Driver->MajorFunction[IRP_MJ_CREATE] = OpenCleanup;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = OpenCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->MajorFunction[IRP_MJ_POWER] = Power;
    Driver->DriverExtension->AddDevice = Add;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
