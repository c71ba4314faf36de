/*
 * A driver without Plug and Play, as for Windows NT 4: DriverEntry makes one device with a link, Unload deletes both. The driver has DEVICE_NAME and
 * LINK_NAME defined before this is included, and a type DEVICE, its device extension, before it calls LegacyCreate.
 */
#ifndef LEGACY_H
#define LEGACY_H

#include "driver.h"

static UNICODE_STRING LegacyName = RTL_CONSTANT_STRING(DEVICE_NAME);
static UNICODE_STRING LegacyLink = RTL_CONSTANT_STRING(LINK_NAME);

static NTSTATUS NTAPI LegacyOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

SHARED VOID LegacyDelete(PDEVICE_OBJECT Device)
{
    IoDeleteSymbolicLink(&LegacyLink);
    IoDeleteDevice(Device);
}

SHARED VOID NTAPI LegacyUnload(PDRIVER_OBJECT Driver)
{
    LegacyDelete(Driver->DeviceObject);
}

/* Makes the device, its extension zeroed, and sets what every driver has. The driver's own routines are set afterwards. */
SHARED NTSTATUS LegacyCreate(PDRIVER_OBJECT Driver, ULONG Extension, ULONG Flags, PDEVICE_OBJECT *Device)
{
    NTSTATUS Status = IoCreateDevice(Driver, Extension, &LegacyName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(&LegacyLink, &LegacyName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(*Device);
        return Status;
    }
    (*Device)->Flags |= Flags;
    Driver->MajorFunction[IRP_MJ_CREATE] = LegacyOpenClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = LegacyOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LegacyOpenClose;
    Driver->DriverUnload = LegacyUnload;
    return STATUS_SUCCESS;
}

#endif
