/*
 * A refresh that a work item does: IOCTL_REFRESH asks for one.
 *
 * The bug: there is one work item, and it is queued with each request, also when it is queued already. It shows with two requests in quick succession.
 *
 * Device: none
 * Rule: work-item-queued, work-item
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Refresh"
#define LINK_NAME L"\\DosDevices\\Refresh"
#include "../include/legacy.h"

#define IOCTL_REFRESH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x807, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_REFRESH_BURST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x808, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    PIO_WORKITEM Item;
    LONG Queued;
    LONG Refreshes;
    KEVENT Idle; /* the work item is not queued */
} DEVICE, *PDEVICE;

static VOID NTAPI Refresh(PDEVICE_OBJECT Device, PVOID Context)
{
    PDEVICE Own = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Context);
    InterlockedIncrement(&Own->Refreshes);
    KeSetEvent(&Own->Idle, IO_NO_INCREMENT, FALSE);
    InterlockedExchange(&Own->Queued, FALSE);
}

static VOID Ask(PDEVICE Own)
{
#ifdef FIXED
    if (InterlockedExchange(&Own->Queued, TRUE)) {
        return;
    }
#endif
    KeClearEvent(&Own->Idle);
    IoQueueWorkItem(Own->Item, Refresh, DelayedWorkQueue, NULL);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_REFRESH_BURST:
        Ask(Own);
        Ask(Own);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_REFRESH:
        Ask(Own);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    KeWaitForSingleObject(&Own->Idle, Executive, KernelMode, FALSE, NULL);
    IoFreeWorkItem(Own->Item);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    KeInitializeEvent(&Own->Idle, NotificationEvent, TRUE);
    Own->Item = IoAllocateWorkItem(Device);
    if (Own->Item == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
