/* devkit.h - the part every PCI card driver of ours has in common: add, start, removal, pass-through of power and WMI. */
#pragma once

#define DK_TAG 'tKvD'

typedef struct _DEVKIT {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    BOOLEAN HardwareUp;
    /* Takes the translated resources into use, or gives back all it took and fails. */
    NTSTATUS (*Start)(PDEVICE_OBJECT DeviceObject, PCM_PARTIAL_RESOURCE_LIST Resources);
    /* Ends pending requests, refuses new ones, lets go of the hardware. */
    VOID (*Stop)(PDEVICE_OBJECT DeviceObject);
} DEVKIT, *PDEVKIT;     /* first in each device extension */

static NTSTATUS DkComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID DkStop(PDEVKIT Kit)
{
    if (Kit->HardwareUp) {
        Kit->HardwareUp = FALSE;
        Kit->Stop(Kit->Self);
    }
}

static NTSTATUS NTAPI DkPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVKIT kit = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PCM_RESOURCE_LIST list;
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }

    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        list = sp->Parameters.StartDevice.AllocatedResourcesTranslated;
        status = IoForwardIrpSynchronously(kit->Lower, Irp) ? Irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status)) {
            if (list == NULL || list->Count == 0)
                status = STATUS_DEVICE_CONFIGURATION_ERROR;
            else
                status = kit->Start(DeviceObject, &list->List[0].PartialResourceList);
        }
        if (NT_SUCCESS(status)) {
            kit->HardwareUp = TRUE;
            IoSetDeviceInterfaceState(&kit->Interface, TRUE);
        }
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
        /* The card cannot be moved. */
        Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&kit->RemoveLock, Irp);
        return STATUS_UNSUCCESSFUL;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&kit->Interface, FALSE);
        DkStop(kit);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_STOP_DEVICE:
        DkStop(kit);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&kit->Interface, FALSE);
        DkStop(kit);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(kit->Lower, Irp);
        IoReleaseRemoveLockAndWait(&kit->RemoveLock, Irp);
        IoDetachDevice(kit->Lower);
        RtlFreeUnicodeString(&kit->Interface);
        IoDeleteDevice(DeviceObject);
        return status;

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(kit->Lower, Irp);
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DkForward(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVKIT kit = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&kit->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_POWER)
            PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_POWER) {
        PoStartNextPowerIrp(Irp);
        IoSkipCurrentIrpStackLocation(Irp);
        status = PoCallDriver(kit->Lower, Irp);
    } else {
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(kit->Lower, Irp);
    }
    IoReleaseRemoveLock(&kit->RemoveLock, Irp);
    return status;
}

/* Creates the device object, its interface and attaches it. The caller sets it up and clears DO_DEVICE_INITIALIZING. */
static NTSTATUS DkAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo, ULONG ExtensionSize, const GUID *Interface,
                      PDEVICE_OBJECT *DeviceObject)
{
    PDEVICE_OBJECT device;
    PDEVKIT kit;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, ExtensionSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    kit = device->DeviceExtension;
    kit->Self = device;
    kit->Pdo = Pdo;
    IoInitializeRemoveLock(&kit->RemoveLock, DK_TAG, 0, 0);
    status = IoRegisterDeviceInterface(Pdo, Interface, NULL, &kit->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    kit->Lower = IoAttachDeviceToDeviceStack(device, Pdo);
    if (kit->Lower == NULL) {
        RtlFreeUnicodeString(&kit->Interface);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= DO_POWER_PAGABLE;
    *DeviceObject = device;
    return STATUS_SUCCESS;
}

static VOID NTAPI DkUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

#define DK_DRIVER(DriverObject, Add)                                        \
    do {                                                                    \
        (DriverObject)->MajorFunction[IRP_MJ_PNP] = DkPnp;                  \
        (DriverObject)->MajorFunction[IRP_MJ_POWER] = DkForward;            \
        (DriverObject)->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkForward;   \
        (DriverObject)->DriverExtension->AddDevice = (Add);                 \
        (DriverObject)->DriverUnload = DkUnload;                            \
    } while (0)
