/*
 * desk.h: a control device, which a driver without hardware makes in its DriverEntry.
 */
#ifndef RR_DESK_H
#define RR_DESK_H
#include "hall_lane.h"

PART NTSTATUS DeskOpened(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(NULL, Irp, STATUS_SUCCESS, 0);
}

PART NTSTATUS NTAPI DeskPlain(PDEVICE_OBJECT Device, PIRP Irp)
{
    return DeskOpened(Device, Irp);
}

/* Makes the device with its link; or nothing, if it fails. Create and close succeed unless the driver sets routines of its own behind it. */
PART NTSTATUS DeskMake(PDRIVER_OBJECT Driver, ULONG ExtensionSize, PCWSTR Name, PCWSTR Link, PDEVICE_OBJECT *Device)
{
    UNICODE_STRING NameText, LinkText;
    NTSTATUS Status;

    RtlInitUnicodeString(&NameText, Name);
    RtlInitUnicodeString(&LinkText, Link);
    Status = IoCreateDevice(Driver, ExtensionSize, &NameText, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (!NT_SUCCESS(Status))
        return Status;
    RtlZeroMemory((*Device)->DeviceExtension, ExtensionSize);
    Status = IoCreateSymbolicLink(&LinkText, &NameText);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(*Device);
        *Device = NULL;
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = DeskPlain;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DeskPlain;
    return Status;
}

PART VOID DeskDrop(PDEVICE_OBJECT Device, PCWSTR Link)
{
    UNICODE_STRING LinkText;

    RtlInitUnicodeString(&LinkText, Link);
    IoDeleteSymbolicLink(&LinkText);
    IoDeleteDevice(Device);
}

#endif
