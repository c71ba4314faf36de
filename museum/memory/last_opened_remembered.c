/*
 * A device that favours the handle that was opened last: its requests are counted.
 *
 * The bug: the device remembers that handle's context when it has been closed, too. It shows with a request of another handle afterwards.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Favourite"
#define LINK_NAME L"\\DosDevices\\Favourite"
#include "../include/legacy.h"

#define FAVOURITE_TAG 'ovaF'
#define IOCTL_FAVOURITE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8ED, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _FAVOURITE {
    LONG Counted;
} FAVOURITE, *PFAVOURITE;

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    PFAVOURITE Last;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PFAVOURITE New = ExAllocatePoolWithTag(NonPagedPool, sizeof(FAVOURITE), FAVOURITE_TAG);
    KIRQL OldIrql;

    if (New == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    New->Counted = 0;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = New;
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Own->Last = New;
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PFAVOURITE Old = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
#ifdef FIXED
    if (Own->Last == Old) {
        Own->Last = NULL;
    }
#endif
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    ExFreePoolWithTag(Old, FAVOURITE_TAG);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    KIRQL OldIrql;

    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_FAVOURITE_COUNT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (Own->Last != NULL) {
        Own->Last->Counted++;
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeSpinLock(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
