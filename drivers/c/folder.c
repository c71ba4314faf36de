/*
 * folder.sys: what drivers do with files on a disk. \\.\DirqlFolder tells each story of Stories below by its name
 * (IOCTL_TELL_STORY of control.h). Drive C: is to have what the test has put there: Windows\System32\drivers\fw.bin
 * of 300 bytes, config.txt, and data with alpha.log, Beta.TXT, gamma.sys and an empty folder sub.
 */
#include "folder/folder.h"
#include "folder/contents.h"
#include "folder/directories.h"
#include "folder/listing.h"
#include "folder/names.h"
#include "folder/setting.h"
#include "folder/whole.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFolder");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFolder");

static const STORY Stories[] = {
    STORY(LoadsFirmware), STORY(KeepsALog), STORY(WithoutPosition), STORY(ItsOwnRequest), STORY(Dispositions),
    STORY(WrongNames), STORY(Relative), STORY(Sharing), STORY(Walks), STORY(Patterns), STORY(NarrowBuffers),
    STORY(Facts), STORY(Ends), STORY(Deletes), STORY(Renames), STORY(FillsTheDisk), STORY(TheVolume),
    STORY(ByNameAlone), STORY(OptionsThatDoNotGoTogether), STORY(WithoutADisk), STORY(AsksForStream),
    STORY(AsksForVolumesBytes), STORY(ByItsId), STORY(AsksForClass), STORY(Adds), STORY(DeletesDirectory),
    STORY(MakesOnce), STORY(WasMadeOnce), STORY(InItsCallersMode), STORY(WaitsForTheEnd), STORY(GoesOnAtOnce),
    STORY(ControlsFileSystems), STORY(Locks), STORY(WaitsForItsOwnLock), STORY(Flushes), STORY(Labels),
    STORY(WaitsForLocks), STORY(DirectoriesOfItsOwn),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Own = Driver;
    Driver->MajorFunction[IRP_MJ_FILE_SYSTEM_CONTROL] = DispatchFsControl;
    Driver->MajorFunction[IRP_MJ_FLUSH_BUFFERS] = DispatchFlush;
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
