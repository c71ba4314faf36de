/*
 * wmi_raw.sys: a driver that handles IRP_MJ_SYSTEM_CONTROL by itself, as the first samples did, and asks its own blocks. \\.\DirqlWmiRaw; CTL_CODE(FILE_DEVICE_UNKNOWN,
 * 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Stories below; each answers with one STORY_RESULT. A second device of the driver's is attached above the
 * first, and offers a block of its own.
 */
#include "wmi/raw.h"
#include "wmi/asks.h"
#include "wmi/listens.h"

#define FIRST_FUNCTION 0x800

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlWmiRaw");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlWmiRaw");

static ULONG (*const Stories[])(VOID) = {
    AllInstances, OneInstance, Methods, Events, /* from 0 on */
    Names, Several, Updates, Registrations, /* from 4 on */
    Levels, DeregistersInRequest, WrongObject, LargeEvent, /* from 8 on */
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;

    if (Device == Upper) {
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(Lower, Irp);
    }
    return TellStory(Irp, Stories, Index, RTL_NUMBER_OF(Stories));
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
