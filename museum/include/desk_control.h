/*
 * A control device: made in DriverEntry, shown by a link when all is ready; it cannot be opened before the I/O manager has cleared
 * DO_DEVICE_INITIALIZING, behind a DriverEntry that succeeds. Unload removes the link, then the device.
 */
ANY NTSTATUS DeskBuild(PDRIVER_OBJECT Driver, ULONG Bytes, PCWSTR Name, ULONG Flags, PDEVICE_OBJECT *Device)
{
    UNICODE_STRING name;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Name);
    status = IoCreateDevice(Driver, Bytes, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (NT_SUCCESS(status))
        (*Device)->Flags |= Flags;
    return status;
}

ANY NTSTATUS DeskShow(PCWSTR Name, PCWSTR Link)
{
    UNICODE_STRING name, link;

    RtlInitUnicodeString(&name, Name);
    RtlInitUnicodeString(&link, Link);
    return IoCreateSymbolicLink(&link, &name);
}

ANY VOID DeskHide(PCWSTR Link)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
}

ANY NTSTATUS NTAPI DeskOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return Finish(Irp, STATUS_SUCCESS, 0);
}
