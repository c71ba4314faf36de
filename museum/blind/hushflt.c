/*
 * hushflt: an upper filter that counts reads and writes of the devices that it sits on and can mute their writes. A control device lists the
 * instances and mutes one by its number.
 *
 * The bug: a removed instance is not taken out of the list: the next listing, or the next instance that is added, goes through a deleted
 * device's extension.
 *
 * Device: ROOT\HUSHFLT
 * Rule: use-after-free, write-after-free, list-corrupt
 * Needs: removal, ioctl
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define LINK L"\\DosDevices\\HushFlt"
#define TAG 'hsuH'

#define IOCTL_HUSH_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9d0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_HUSH_MUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9d1, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct {
    ULONG Number;
    ULONG Reads, Writes;
    ULONG Muted;
} ENTRY;

typedef struct {
    ULONG Number;
    ULONG Muted;
} MUTE;

typedef struct {
    LIST_ENTRY Link;
    PDEVICE_OBJECT Self, Lower;
    IO_REMOVE_LOCK RemoveLock;
    ULONG Number;
    volatile LONG Reads, Writes;
    volatile LONG Muted;
} INSTANCE;

static PDEVICE_OBJECT Control;
static FAST_MUTEX ListMutex;
static LIST_ENTRY Instances;
static ULONG LastNumber;

/* ---------------------------------------------------------------- the control device */

static NTSTATUS List(ENTRY *Out, ULONG Room, ULONG_PTR *Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    PLIST_ENTRY e;
    ULONG n = 0;

    ExAcquireFastMutex(&ListMutex);
    for (e = Instances.Flink; e != &Instances; e = e->Flink) {
        INSTANCE *i = CONTAINING_RECORD(e, INSTANCE, Link);

        if (n == Room) {
            status = STATUS_BUFFER_OVERFLOW;
            break;
        }
        Out[n].Number = i->Number;
        Out[n].Reads = (ULONG)InterlockedCompareExchange(&i->Reads, 0, 0);
        Out[n].Writes = (ULONG)InterlockedCompareExchange(&i->Writes, 0, 0);
        Out[n].Muted = (ULONG)InterlockedCompareExchange(&i->Muted, 0, 0);
        n++;
    }
    ExReleaseFastMutex(&ListMutex);
    *Information = (ULONG_PTR)n * sizeof(ENTRY);
    return status;
}

static NTSTATUS SetMute(const MUTE *Mute)
{
    NTSTATUS status = STATUS_NOT_FOUND;
    PLIST_ENTRY e;

    ExAcquireFastMutex(&ListMutex);
    for (e = Instances.Flink; e != &Instances; e = e->Flink) {
        INSTANCE *i = CONTAINING_RECORD(e, INSTANCE, Link);

        if (i->Number == Mute->Number) {
            InterlockedExchange(&i->Muted, Mute->Muted ? 1 : 0);
            status = STATUS_SUCCESS;
            break;
        }
    }
    ExReleaseFastMutex(&ListMutex);
    return status;
}

static NTSTATUS ControlRequest(PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
    case IRP_MJ_CLEANUP:
    case IRP_MJ_CLOSE:
        return Complete(Irp, STATUS_SUCCESS, 0);

    case IRP_MJ_DEVICE_CONTROL:
        break;

    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HUSH_LIST:
        status = List(Irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(ENTRY), &information);
        break;

    case IOCTL_HUSH_MUTE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(MUTE))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = SetMute(Irp->AssociatedIrp.SystemBuffer);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Complete(Irp, status, information);
}

/* ---------------------------------------------------------------- the filter */

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    INSTANCE *i = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    if (Device == Control)
        return ControlRequest(Irp);
    status = IoAcquireRemoveLock(&i->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    if (sp->MajorFunction == IRP_MJ_READ) {
        InterlockedIncrement(&i->Reads);
    } else if (sp->MajorFunction == IRP_MJ_WRITE) {
        InterlockedIncrement(&i->Writes);
        if (InterlockedCompareExchange(&i->Muted, 0, 0)) {
            Complete(Irp, STATUS_SUCCESS, sp->Parameters.Write.Length);
            IoReleaseRemoveLock(&i->RemoveLock, Irp);
            return STATUS_SUCCESS;
        }
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(i->Lower, Irp);
    IoReleaseRemoveLock(&i->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Power(PDEVICE_OBJECT Device, PIRP Irp)
{
    INSTANCE *i = Device->DeviceExtension;
    NTSTATUS status;

    if (Device == Control) {
        PoStartNextPowerIrp(Irp);
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    status = IoAcquireRemoveLock(&i->RemoveLock, Irp);
    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(i->Lower, Irp);
    IoReleaseRemoveLock(&i->RemoveLock, Irp);
    return status;
}

static NTSTATUS ForwardSync(INSTANCE *I, PIRP Irp)
{
    if (!IoForwardIrpSynchronously(I->Lower, Irp))
        return STATUS_UNSUCCESSFUL;
    return Irp->IoStatus.Status;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    INSTANCE *i = Device->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS status;

    if (Device == Control)
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    status = IoAcquireRemoveLock(&i->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);

    switch (minor) {
    case IRP_MN_START_DEVICE:
        status = ForwardSync(i, Irp);
        if (NT_SUCCESS(status))
            Device->Characteristics |= i->Lower->Characteristics & (FILE_REMOVABLE_MEDIA | FILE_READ_ONLY_DEVICE | FILE_FLOPPY_DISKETTE);
        Complete(Irp, status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&i->RemoveLock, Irp);
        return status;

    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        /* On the way down as the driver above, on the way up as the one below. */
        if (!Device->AttachedDevice || (Device->AttachedDevice->Flags & DO_POWER_PAGABLE))
            Device->Flags |= DO_POWER_PAGABLE;
        status = ForwardSync(i, Irp);
        if (!(i->Lower->Flags & DO_POWER_PAGABLE))
            Device->Flags &= ~DO_POWER_PAGABLE;
        Complete(Irp, status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&i->RemoveLock, Irp);
        return status;

    case IRP_MN_REMOVE_DEVICE:
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(i->Lower, Irp);
        IoReleaseRemoveLockAndWait(&i->RemoveLock, Irp);
#ifdef FIXED
        ExAcquireFastMutex(&ListMutex);
        RemoveEntryList(&i->Link);
        ExReleaseFastMutex(&ListMutex);
#endif
        IoDetachDevice(i->Lower);
        IoDeleteDevice(Device);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(i->Lower, Irp);
    IoReleaseRemoveLock(&i->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    INSTANCE *i;
    NTSTATUS status;

    status = IoCreateDevice(Driver, sizeof(INSTANCE), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    i = device->DeviceExtension;
    i->Self = device;
    IoInitializeRemoveLock(&i->RemoveLock, TAG, 0, 0);
    i->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (!i->Lower) {
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->DeviceType = i->Lower->DeviceType;
    device->Characteristics = i->Lower->Characteristics;
    device->Flags |= i->Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE | DO_POWER_INRUSH);
    ExAcquireFastMutex(&ListMutex);
    i->Number = ++LastNumber;
    InsertTailList(&Instances, &i->Link);
    ExReleaseFastMutex(&ListMutex);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static void NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    ControlDelete(Control, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    ExInitializeFastMutex(&ListMutex);
    InitializeListHead(&Instances);
    status = ControlCreate(Driver, 0, L"\\Device\\HushFlt", LINK, &Control);
    if (!NT_SUCCESS(status))
        return status;
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++)
        Driver->MajorFunction[i] = Dispatch;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->MajorFunction[IRP_MJ_POWER] = Power;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
