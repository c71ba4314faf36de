/*
 * The frame of a driver without hardware: one control device with a symbolic link.
 */
#pragma once
#include "bay_queue.h"

static DEVICE_OBJECT *AfcDevice;

static inline NTSTATUS AfcComplete(IRP *irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static inline NTSTATUS NTAPI AfcNothing(PDEVICE_OBJECT self, PIRP irp)
{
    UNREFERENCED_PARAMETER(self);
    return AfcComplete(irp, STATUS_SUCCESS, 0);
}

static inline void AfcDelete(PCWSTR link)
{
    UNICODE_STRING name;

    RtlInitUnicodeString(&name, link);
    IoDeleteSymbolicLink(&name);
    IoDeleteDevice(AfcDevice);
    AfcDevice = NULL;
}

/* To be called last in DriverEntry, when all else is ready: the device can be opened from then on. */
static inline NTSTATUS AfcMake(DRIVER_OBJECT *driver, PCWSTR device, PCWSTR link)
{
    UNICODE_STRING name, other;
    NTSTATUS status;

    RtlInitUnicodeString(&name, device);
    RtlInitUnicodeString(&other, link);
    status = IoCreateDevice(driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &AfcDevice);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&other, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(AfcDevice);
        AfcDevice = NULL;
    }
    return status;
}
