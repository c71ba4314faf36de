/*
 * files.sys: a driver without hardware that opens files on a device of its own and uses names, handles and the
 * registry as correct drivers do. \\.\DirqlFiles tells each story of Stories below by its name (IOCTL_TELL_STORY of
 * control.h). The stories are in the folder files; most are there because dirql once accused a correct driver, or hid
 * from it what Windows shows.
 *
 * Control code 0x8FF is no story: the driver watches the end of the process that asks, and prints what it sees of it.
 */
#include "files/opens.h"
#include "files/options.h"
#include "files/names.h"
#include "files/process.h"

#define WATCH_FUNCTION 0x8FF
#define INIT_CODE __attribute__((section("INIT")))

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFiles");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFiles");

static const STORY Stories[] = {
    STORY(NullBuffers), STORY(AccessOfHandles), STORY(AccessStates), STORY(ExtendedAttributes), STORY(Options),
    STORY(Offsets), STORY(EmptyTransfers), STORY(CleanupComesLater), STORY(ShortMaximum), STORY(GlobalNames),
    STORY(FilesOnDisks), STORY(RegistryDefaults), STORY(MultipleTexts), STORY(ShortStrings), STORY(Objects),
    STORY(SystemProcess),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Function = (Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF;

    if (Device == Lower) {
        return LowerControl(Irp, Stack);
    }
    if (Function == WATCH_FUNCTION) {
        return Complete(Irp, WatchProcess(), 0);
    }
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    StopWatching();
    IoDeleteDevice(Lower);
    ControlUnload(Driver);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateDevice(Driver, 0, &LowerName, FILE_DEVICE_UNKNOWN, 0, FALSE, &Lower);
    if (!NT_SUCCESS(Status)) {
        ControlUnload(Driver);
        return Status;
    }
    Lower->Flags |= DO_BUFFERED_IO;
    KeInitializeEvent(&Arrived, NotificationEvent, FALSE);
    Driver->MajorFunction[IRP_MJ_CREATE] = LowerCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = LowerCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = LowerTransfer;
    Driver->MajorFunction[IRP_MJ_WRITE] = LowerTransfer;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
