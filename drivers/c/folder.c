/*
 * folder.sys: what drivers do with files on a disk. \\.\DirqlFolder, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED,
 * FILE_ANY_ACCESS), N being the index into Stories below; each answers with one STORY_RESULT. Drive C: is to have what the test has put
 * there: Windows\System32\drivers\fw.bin of 300 bytes, config.txt, and data with alpha.log, Beta.TXT, gamma.sys and an empty folder sub.
 */
#include "folder/folder.h"
#include "folder/contents.h"
#include "folder/directories.h"
#include "folder/listing.h"
#include "folder/names.h"
#include "folder/setting.h"
#include "folder/whole.h"

#define FIRST_FUNCTION 0x800

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFolder");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFolder");

static ULONG (*const Stories[])(VOID) = {
    LoadsFirmware, KeepsALog, WithoutPosition, ItsOwnRequest, /* from 0 on */
    Dispositions, WrongNames, Relative, Sharing, /* from 4 on */
    Walks, Patterns, NarrowBuffers, Facts, /* from 8 on */
    Ends, Deletes, Renames, FillsTheDisk, /* from 12 on */
    TheVolume, ByNameAlone, OptionsThatDoNotGoTogether, WithoutADisk, /* from 16 on */
    AsksForStream, AsksForVolumesBytes, ByItsId, AsksForClass, /* from 20 on */
    Adds, DeletesDirectory, MakesOnce, WasMadeOnce, /* from 24 on */
    InItsCallersMode, WaitsForTheEnd, GoesOnAtOnce, ControlsFileSystems, /* from 28 on */
    Locks, WaitsForItsOwnLock, Flushes, Labels, /* from 32 on */
    WaitsForLocks, DirectoriesOfItsOwn, /* from 36 on */
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;

    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, Index, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Own = Driver;
    Driver->MajorFunction[IRP_MJ_FILE_SYSTEM_CONTROL] = DispatchFsControl;
    Driver->MajorFunction[IRP_MJ_FLUSH_BUFFERS] = DispatchFlush;
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
