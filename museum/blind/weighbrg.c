/*
 * weighbrg: a weighbridge on a root-enumerated device that reports through WMI: one data block with the last weight,
 * the tare (which may be set) and the counts; programs hand in weighings by an IOCTL.
 *
 * The bug: the WMI query writes its data block without looking at how much of the buffer is available.
 *
 * Device: ROOT\WEIGHBRG
 * Rule: bad-pointer, pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include <ddk/wmilib.h>

#ifndef WMIREG_FLAG_INSTANCE_PDO
#define WMIREG_FLAG_INSTANCE_PDO 0x00000020
#endif

#define IOCTL_WEIGH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID WeighWmiGuid = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x05 } };
static const GUID WeighInterface = { 0x5d1c0a11, 0x7a52, 0x4b0e, { 0x91, 0x0c, 0x35, 0x1e, 0x28, 0x66, 0x10, 0x06 } };

typedef struct WEIGH_DATA {     /* in kilograms */
    ULONG Gross, Tare, Weighings, Overloads;
    ULONGLONG Total;
    ULONG Last[16];
} WEIGH_DATA;

typedef struct BRIDGE {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    FAST_MUTEX Mutex;           /* guards Data */
    WEIGH_DATA Data;
    BOOLEAN Registered;
    UNICODE_STRING Link;
} BRIDGE;

static UNICODE_STRING RegistryPath;

static WMIGUIDREGINFO WeighGuids[] = { { &WeighWmiGuid, 1, 0 } };

static NTSTATUS NTAPI WeighRegInfo(PDEVICE_OBJECT dev, PULONG flags, PUNICODE_STRING name, PUNICODE_STRING *path,
    PUNICODE_STRING mof, PDEVICE_OBJECT *pdo)
{
    BRIDGE *b = dev->DeviceExtension;

    UNREFERENCED_PARAMETER(name);
    UNREFERENCED_PARAMETER(mof);
    *flags = WMIREG_FLAG_INSTANCE_PDO;
    *path = &RegistryPath;
    *pdo = b->Pdo;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI WeighQuery(PDEVICE_OBJECT dev, PIRP irp, ULONG guid, ULONG instance, ULONG count,
    PULONG lengths, ULONG available, PUCHAR buffer)
{
    BRIDGE *b = dev->DeviceExtension;

    if (guid != 0)
        return WmiCompleteRequest(dev, irp, STATUS_WMI_GUID_NOT_FOUND, 0, IO_NO_INCREMENT);
    if (instance != 0 || count != 1)
        return WmiCompleteRequest(dev, irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0, IO_NO_INCREMENT);
#ifdef FIXED
    if (available < sizeof(WEIGH_DATA))
        return WmiCompleteRequest(dev, irp, STATUS_BUFFER_TOO_SMALL, sizeof(WEIGH_DATA), IO_NO_INCREMENT);
#else
    UNREFERENCED_PARAMETER(available);
#endif
    ExAcquireFastMutex(&b->Mutex);
    RtlCopyMemory(buffer, &b->Data, sizeof(WEIGH_DATA));
    ExReleaseFastMutex(&b->Mutex);
    if (lengths)
        *lengths = sizeof(WEIGH_DATA);
    return WmiCompleteRequest(dev, irp, STATUS_SUCCESS, sizeof(WEIGH_DATA), IO_NO_INCREMENT);
}

/* Only the tare can be set. */
static NTSTATUS NTAPI WeighSet(PDEVICE_OBJECT dev, PIRP irp, ULONG guid, ULONG instance, ULONG size, PUCHAR buffer)
{
    BRIDGE *b = dev->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;

    if (guid != 0)
        status = STATUS_WMI_GUID_NOT_FOUND;
    else if (instance != 0)
        status = STATUS_WMI_INSTANCE_NOT_FOUND;
    else if (size != sizeof(WEIGH_DATA))
        status = STATUS_WMI_SET_FAILURE;
    if (NT_SUCCESS(status)) {
        WEIGH_DATA wanted;
        RtlCopyMemory(&wanted, buffer, sizeof(wanted));
        ExAcquireFastMutex(&b->Mutex);
        b->Data.Tare = wanted.Tare;
        ExReleaseFastMutex(&b->Mutex);
    }
    return WmiCompleteRequest(dev, irp, status, 0, IO_NO_INCREMENT);
}

static WMILIB_CONTEXT WeighWmi = {
    sizeof(WeighGuids) / sizeof(WeighGuids[0]), WeighGuids,
    WeighRegInfo, WeighQuery, WeighSet, NULL, NULL, NULL
};

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI WeighCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI WeighControl(PDEVICE_OBJECT dev, PIRP irp)
{
    BRIDGE *b = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&b->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Finish(irp, status, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_WEIGH) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        ULONG gross = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
        ExAcquireFastMutex(&b->Mutex);
        if (gross > 60000) {
            b->Data.Overloads++;
            status = STATUS_DATA_OVERRUN;
        } else {
            b->Data.Gross = gross;
            b->Data.Last[b->Data.Weighings++ % 16] = gross;
            b->Data.Total += gross > b->Data.Tare ? gross - b->Data.Tare : 0;
        }
        ExReleaseFastMutex(&b->Mutex);
    }
    Finish(irp, status, 0);
    IoReleaseRemoveLock(&b->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI WeighSystemControl(PDEVICE_OBJECT dev, PIRP irp)
{
    BRIDGE *b = dev->DeviceExtension;
    SYSCTL_IRP_DISPOSITION disposition;
    NTSTATUS status = IoAcquireRemoveLock(&b->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Finish(irp, status, 0);
    status = WmiSystemControl(&WeighWmi, dev, irp, &disposition);
    switch (disposition) {
    case IrpProcessed:
        break;
    case IrpNotCompleted:
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        break;
    default:
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(b->Lower, irp);
        break;
    }
    IoReleaseRemoveLock(&b->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI WeighPower(PDEVICE_OBJECT dev, PIRP irp)
{
    BRIDGE *b = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&b->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Finish(irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(b->Lower, irp);
    IoReleaseRemoveLock(&b->RemoveLock, irp);
    return status;
}

static VOID WeighDeregister(BRIDGE *b)
{
    if (b->Registered) {
        b->Registered = FALSE;
        IoWMIRegistrationControl(b->Self, WMIREG_ACTION_DEREGISTER);
    }
}

static NTSTATUS NTAPI WeighPnp(PDEVICE_OBJECT dev, PIRP irp)
{
    BRIDGE *b = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&b->RemoveLock, irp);

    if (!NT_SUCCESS(status))
        return Finish(irp, status, 0);
    switch (IoGetCurrentIrpStackLocation(irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = IoForwardIrpSynchronously(b->Lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status)) {
            if (!b->Registered)
                b->Registered = NT_SUCCESS(IoWMIRegistrationControl(dev, WMIREG_ACTION_REGISTER));
            IoSetDeviceInterfaceState(&b->Link, TRUE);
        }
        Finish(irp, status, 0);
        IoReleaseRemoveLock(&b->RemoveLock, irp);
        return status;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&b->Link, FALSE);
        WeighDeregister(b);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&b->Link, FALSE);
        WeighDeregister(b);
        IoReleaseRemoveLockAndWait(&b->RemoveLock, irp);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(b->Lower, irp);
        RtlFreeUnicodeString(&b->Link);
        IoDetachDevice(b->Lower);
        IoDeleteDevice(dev);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(b->Lower, irp);
    IoReleaseRemoveLock(&b->RemoveLock, irp);
    return status;
}

static NTSTATUS NTAPI WeighAddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    BRIDGE *b;
    NTSTATUS status = IoCreateDevice(drv, sizeof(BRIDGE), NULL, FILE_DEVICE_UNKNOWN,
        FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(status))
        return status;
    b = dev->DeviceExtension;
    RtlZeroMemory(b, sizeof(*b));
    b->Self = dev;
    b->Pdo = pdo;
    IoInitializeRemoveLock(&b->RemoveLock, 'bgeW', 0, 0);
    ExInitializeFastMutex(&b->Mutex);
    status = IoRegisterDeviceInterface(pdo, &WeighInterface, NULL, &b->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    b->Lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (!b->Lower) {
        RtlFreeUnicodeString(&b->Link);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI WeighUnload(PDRIVER_OBJECT drv)
{
    UNREFERENCED_PARAMETER(drv);
    ExFreePoolWithTag(RegistryPath.Buffer, 'bgeW');
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    RegistryPath.Buffer = ExAllocatePoolWithTag(PagedPool, path->Length + sizeof(WCHAR), 'bgeW');
    if (!RegistryPath.Buffer)
        return STATUS_INSUFFICIENT_RESOURCES;
    RegistryPath.Length = 0;
    RegistryPath.MaximumLength = path->Length + sizeof(WCHAR);
    RtlCopyUnicodeString(&RegistryPath, path);
    drv->DriverExtension->AddDevice = WeighAddDevice;
    drv->DriverUnload = WeighUnload;
    drv->MajorFunction[IRP_MJ_CREATE] = WeighCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = WeighCreateClose;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WeighControl;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = WeighSystemControl;
    drv->MajorFunction[IRP_MJ_POWER] = WeighPower;
    drv->MajorFunction[IRP_MJ_PNP] = WeighPnp;
    return STATUS_SUCCESS;
}
