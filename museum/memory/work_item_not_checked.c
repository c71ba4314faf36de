/*
 * A device whose indicator is switched by a work item.
 *
 * The bug: what IoAllocateWorkItem returns is used without a look. It shows when memory is short.
 *
 * Device: none
 * Rule: bad-pointer, work-item, wild-write, wild-read
 * Needs: ioctl, failure
 */
#define DEVICE_NAME L"\\Device\\Indicator"
#define LINK_NAME L"\\DosDevices\\Indicator"
#include "../include/legacy.h"

#define IOCTL_INDICATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8EB, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    LONG On;
} DEVICE, *PDEVICE;

static VOID NTAPI Switch(PDEVICE_OBJECT Device, PVOID Context)
{
    InterlockedXor(&((PDEVICE)Device->DeviceExtension)->On, 1);
    IoFreeWorkItem(Context);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_WORKITEM Item;

    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_INDICATE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Item = IoAllocateWorkItem(Device);
#ifdef FIXED
    if (Item == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
#endif
    IoQueueWorkItem(Item, Switch, DelayedWorkQueue, Item);
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
