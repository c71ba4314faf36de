/*
 * wmi_raw.sys: a driver that handles IRP_MJ_SYSTEM_CONTROL by itself, as the first samples did, and asks its own
 * blocks. \\.\DirqlWmiRaw tells each story of Stories below by its name (IOCTL_TELL_STORY of control.h). A second
 * device of the driver's is attached above the first, and offers a block of its own.
 */
#include "wmi/raw.h"
#include "wmi/asks.h"
#include "wmi/listens.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlWmiRaw");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlWmiRaw");

static const STORY Stories[] = {
    STORY(AllInstances), STORY(OneInstance), STORY(Methods), STORY(Events), STORY(Names), STORY(Several),
    STORY(Updates), STORY(Registrations), STORY(Levels), STORY(DeregistersInRequest), STORY(WrongObject),
    STORY(LargeEvent),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (Device == Upper) {
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(Lower, Irp);
    }
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

/* The device above passes what is opened and closed down. */
static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (Device == Upper) {
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(Lower, Irp);
    }
    return DispatchSucceed(Device, Irp);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    IoWMIRegistrationControl(Upper, WMIREG_ACTION_DEREGISTER);
    IoWMIRegistrationControl(Lower, WMIREG_ACTION_DEREGISTER);
    IoDetachDevice(Lower);
    IoDeleteDevice(Upper);
    ControlUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Lower = Driver->DeviceObject;
    Status = IoCreateDevice(Driver, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Upper);
    if (!NT_SUCCESS(Status)) {
        ControlUnload(Driver);
        return Status;
    }
    Lower->Flags &= ~DO_DEVICE_INITIALIZING; /* nothing can be attached to it before */
    IoAttachDeviceToDeviceStack(Upper, Lower);
    Upper->Flags &= ~DO_DEVICE_INITIALIZING;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverUnload = Unload;
    IoWMIRegistrationControl(Lower, WMIREG_ACTION_REGISTER);
    IoWMIRegistrationControl(Upper, WMIREG_ACTION_REGISTER);
    return STATUS_SUCCESS;
}
