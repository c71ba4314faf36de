/*
 * holder.sys: a driver that holds a file on another driver's device (\\Device\DirqlLegacy) from its first request until it is unloaded, as
 * a client of another driver does. Its device is \\.\DirqlHolder.
 */
#include <ddk/wdm.h>
#include "control.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlHolder");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlHolder");
static UNICODE_STRING OtherName = RTL_CONSTANT_STRING(L"\\Device\\DirqlLegacy");
static PFILE_OBJECT Other;

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_OBJECT OtherDevice;

    UNREFERENCED_PARAMETER(Device);
    if (Other != NULL) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, IoGetDeviceObjectPointer(&OtherName, FILE_READ_DATA, &Other, &OtherDevice), 0);
}

static VOID NTAPI HolderUnload(PDRIVER_OBJECT Driver)
{
    if (Other != NULL) {
        DbgPrint("holder: lets go\n");
        ObDereferenceObject(Other);
    }
    DbgPrint("holder: unloaded\n");
    ControlUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->DriverUnload = HolderUnload;
    }
    return Status;
}
