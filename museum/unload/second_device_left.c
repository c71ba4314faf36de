/*
 * A driver with two devices: one for data, one for control.
 *
 * The bug: Unload deletes the device that the driver object names, which is one of the two. It shows when the driver is unloaded.
 *
 * Device: none
 * Rule: device-leak
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\DataPort"
#define LINK_NAME L"\\DosDevices\\DataPort"
#include "../include/legacy.h"

static UNICODE_STRING ControlName = RTL_CONSTANT_STRING(L"\\Device\\DataPortControl");

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
#ifdef FIXED
    IoDeleteSymbolicLink(&LegacyLink);
    while (Driver->DeviceObject != NULL) {
        IoDeleteDevice(Driver->DeviceObject);
    }
#else
    LegacyDelete(Driver->DeviceObject);
#endif
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Data, Control;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Data);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateDevice(Driver, 0, &ControlName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Control);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Data);
        return Status;
    }
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
