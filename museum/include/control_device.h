/* What the drivers with a control device have in common: the device, its symbolic link, and completing a request. */
#ifndef CTL_H
#define CTL_H

static NTSTATUS CtlComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS CtlCreate(PDRIVER_OBJECT Driver, PCWSTR Name, PCWSTR Link, ULONG ExtensionSize, ULONG IoFlags, PDEVICE_OBJECT *Device)
{
    UNICODE_STRING name, link;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Name);
    RtlInitUnicodeString(&link, Link);
    status = IoCreateDevice(Driver, ExtensionSize, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (!NT_SUCCESS(status))
        return status;
    RtlZeroMemory((*Device)->DeviceExtension, ExtensionSize);
    (*Device)->Flags |= IoFlags;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(*Device);
    return status;
}

static VOID CtlDelete(PDEVICE_OBJECT Device, PCWSTR Link)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Device);
}

#endif
