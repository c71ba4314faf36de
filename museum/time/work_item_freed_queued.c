/*
 * A light that a work item switches, as asked by IOCTL_LIGHT_SWITCH.
 *
 * The bug: the work item is freed where it has been queued, and not in its routine. It shows with the first request.
 *
 * Device: none
 * Rule: work-item-queued, work-item
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Light"
#define LINK_NAME L"\\DosDevices\\Light"
#include "../include/legacy.h"

#define IOCTL_LIGHT_SWITCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x888, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    LONG On;
} DEVICE, *PDEVICE;

static VOID NTAPI Switch(PDEVICE_OBJECT Device, PVOID Context)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_WORKITEM *Item = Context;

#ifdef FIXED
    IoFreeWorkItem(*Item);
#endif
    ExFreePoolWithTag(Item, 'thgL');
    InterlockedXor(&Own->On, 1);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_WORKITEM *Item;

    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_LIGHT_SWITCH) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Item = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Item), 'thgL');
    if (Item == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    *Item = IoAllocateWorkItem(Device);
    if (*Item == NULL) {
        ExFreePoolWithTag(Item, 'thgL');
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
#ifdef FIXED
    IoQueueWorkItem(*Item, Switch, DelayedWorkQueue, Item);
#else
    {
        PIO_WORKITEM Queued = *Item;

        IoQueueWorkItem(Queued, Switch, DelayedWorkQueue, Item);
        IoFreeWorkItem(Queued);
    }
#endif
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
