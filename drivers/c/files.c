/*
 * files.sys: a driver without hardware that opens files on a device of its own and uses names, handles and the registry as
 * correct drivers do. \\.\DirqlFiles, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the
 * index into Stories below; each answers with one STORY_RESULT. The stories are in the folder files; most are there
 * because dirql once accused a correct driver, or hid from it what Windows shows.
 *
 * Control code 0x8FF is no story: the driver watches the end of the process that asks, and prints what it sees of it.
 */
#include "files/opens.h"
#include "files/options.h"
#include "files/names.h"
#include "files/process.h"

#define FIRST_FUNCTION 0x800
#define WATCH_FUNCTION 0x8FF
#define INIT_CODE __attribute__((section("INIT")))

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFiles");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFiles");

static ULONG (*const Stories[])(VOID) = {
    NullBuffers, AccessOfHandles, AccessStates, ExtendedAttributes, /* from 0 on */
    Options, Offsets, EmptyTransfers, CleanupComesLater, /* from 4 on */
    ShortMaximum, GlobalNames, FilesOnDisks, RegistryDefaults, /* from 8 on */
    MultipleTexts, ShortStrings, Objects, SystemProcess, /* from 12 on */
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
    return TellStory(Irp, Stories, Function - FIRST_FUNCTION, RTL_NUMBER_OF(Stories));
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
