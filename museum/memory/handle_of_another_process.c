/*
 * A driver that makes an event for each IOCTL_EVENT_BIND, which a work item signals and closes.
 *
 * The bug: the handle is made in the application's handle table, since OBJ_KERNEL_HANDLE is missing, and used in the system's process, where it is no
 * handle or another's. It shows when the work item runs.
 *
 * Device: none
 * Rule: invalid-handle, irql-too-high
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Binder"
#define LINK_NAME L"\\DosDevices\\Binder"
#include "../include/legacy.h"

#define IOCTL_EVENT_BIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F3, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Of ntifs.h. */
NTSYSAPI NTSTATUS NTAPI ZwCreateEvent(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes, EVENT_TYPE Type,
                                      BOOLEAN State);
NTSYSAPI NTSTATUS NTAPI ZwSetEvent(HANDLE Handle, PLONG State);

typedef struct _DEVICE {
    PIO_WORKITEM Item;
    LONG Busy;
    HANDLE Handle;
    KEVENT Idle; /* the work item is not queued */
} DEVICE, *PDEVICE;

static VOID NTAPI Signal(PDEVICE_OBJECT Device, PVOID Context)
{
    PDEVICE Own = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Context);
    ZwSetEvent(Own->Handle, NULL);
    ZwClose(Own->Handle);
    KeSetEvent(&Own->Idle, IO_NO_INCREMENT, FALSE);
    InterlockedExchange(&Own->Busy, FALSE);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    OBJECT_ATTRIBUTES Attributes;
    NTSTATUS Status;

    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_EVENT_BIND) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InterlockedExchange(&Own->Busy, TRUE)) {
        return Complete(Irp, STATUS_DEVICE_BUSY, 0);
    }
#ifdef FIXED
    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
#else
    InitializeObjectAttributes(&Attributes, NULL, 0, NULL, NULL);
#endif
    Status = ZwCreateEvent(&Own->Handle, EVENT_ALL_ACCESS, &Attributes, NotificationEvent, FALSE);
    if (!NT_SUCCESS(Status)) {
        InterlockedExchange(&Own->Busy, FALSE);
        return Complete(Irp, Status, 0);
    }
    KeClearEvent(&Own->Idle);
    IoQueueWorkItem(Own->Item, Signal, DelayedWorkQueue, NULL);
    return Complete(Irp, STATUS_SUCCESS, 0);
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
