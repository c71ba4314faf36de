/* jetty_base.h: what every driver of this folder needs. */
#ifndef JETTY_BASE_H
#define JETTY_BASE_H

#include <ddk/wdm.h>
#include <ddk/csq.h>

#define JETTY_TAG 'ytJ '

static inline NTSTATUS JettyComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* The control device of a driver without Plug and Play. */
static inline NTSTATUS JettyControlDevice(PDRIVER_OBJECT Driver, PCWSTR Device, PCWSTR Link,
                                          ULONG ExtensionSize, PDEVICE_OBJECT *Out)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT device;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Device);
    RtlInitUnicodeString(&link, Link);
    status = IoCreateDevice(Driver, ExtensionSize, &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    *Out = device;
    return STATUS_SUCCESS;
}

static inline VOID JettyDropControlDevice(PDEVICE_OBJECT Device, PCWSTR Link)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Device);
}

#endif
