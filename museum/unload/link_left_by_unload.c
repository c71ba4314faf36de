/*
 * A null device: writes vanish, reads end.
 *
 * The bug: Unload deletes the device and forgets its link. It shows when the driver is unloaded.
 *
 * Device: none
 * Rule: symbolic-link-leak
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Nothing"
#define LINK_NAME L"\\DosDevices\\Nothing"
#include "../include/legacy.h"

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (Stack->MajorFunction == IRP_MJ_READ) {
        return Complete(Irp, STATUS_END_OF_FILE, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, Stack->Parameters.Write.Length);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
#ifdef FIXED
    IoDeleteSymbolicLink(&LegacyLink);
#endif
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
