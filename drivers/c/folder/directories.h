/* Stories of the directories that a driver and a device have for files of their own. */
#include "folder.h"

/* mingw has none of these. */
NTKERNELAPI NTSTATUS NTAPI IoGetDriverDirectory(PDRIVER_OBJECT DriverObject, ULONG DirectoryType, ULONG Flags, PHANDLE Handle);
NTKERNELAPI NTSTATUS NTAPI IoGetDeviceDirectory(PDEVICE_OBJECT PhysicalDeviceObject, ULONG DirectoryType, ULONG Flags, PVOID Reserved,
                                                PHANDLE Handle);
#define DriverDirectoryImage 0
#define DriverDirectoryData 1
#define DriverDirectorySharedData 2
#define DeviceDirectoryData 0

static PDRIVER_OBJECT Own;

static ULONG DirectoriesOfItsOwn(VOID)
{
    HANDLE Image, Data, Again, Shared, DeviceData;
    PDEVICE_OBJECT Device = NULL;
    char Buffer[8];

    CHECK(IoGetDriverDirectory(NULL, DriverDirectoryData, 0, &Data) == STATUS_INVALID_PARAMETER);
    CHECK(IoGetDriverDirectory(Own, DriverDirectoryData, 1, &Data) == STATUS_INVALID_PARAMETER);
    CHECK(IoGetDriverDirectory(Own, DriverDirectoryData, 0, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(IoGetDriverDirectory(Own, 9, 0, &Data) == STATUS_INVALID_PARAMETER);

    /* What came with the driver's image lies beside it. */
    CHECK(IoGetDriverDirectory(Own, DriverDirectoryImage, 0, &Image) == STATUS_SUCCESS);
    CHECK(OpenIn(Image, L"fw.bin", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    ZwClose(File);
    ZwClose(Image);

    /* What it keeps is there the next time. */
    CHECK(IoGetDriverDirectory(Own, DriverDirectoryData, 0, &Data) == STATUS_SUCCESS);
    CHECK(OpenIn(Data, L"kept.bin", TO_WRITE, 0, FILE_CREATE, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwWriteFile(File, NULL, NULL, NULL, &Status, "kept", 4, NULL, NULL) == STATUS_SUCCESS);
    ZwClose(File);
    CHECK(IoGetDriverDirectory(Own, DriverDirectoryData, 0, &Again) == STATUS_SUCCESS && Again != Data);
    CHECK(OpenIn(Again, L"kept.bin", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_SUCCESS);
    CHECK(ZwReadFile(File, NULL, NULL, NULL, &Status, Buffer, 8, NULL, NULL) == STATUS_SUCCESS && memcmp(Buffer, "kept", 4) == 0);
    ZwClose(File);
    ZwClose(Again);
    ZwClose(Data);
    CHECK(IoGetDriverDirectory(Own, DriverDirectorySharedData, 0, &Shared) == STATUS_SUCCESS);
    CHECK(OpenIn(Shared, L"kept.bin", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_NOT_FOUND);
    ZwClose(Shared);

    /* A device has its own. */
    CHECK(IoReportDetectedDevice(Own, InterfaceTypeUndefined, (ULONG)-1, (ULONG)-1, NULL, NULL, FALSE, &Device) == STATUS_SUCCESS);
    CHECK(IoGetDeviceDirectory(Own->DeviceObject, DeviceDirectoryData, 0, NULL, &DeviceData) == STATUS_INVALID_PARAMETER);
    CHECK(IoGetDeviceDirectory(Device, DeviceDirectoryData, 0, Own, &DeviceData) == STATUS_INVALID_PARAMETER);
    CHECK(IoGetDeviceDirectory(Device, 1, 0, NULL, &DeviceData) == STATUS_INVALID_PARAMETER);
    CHECK(IoGetDeviceDirectory(Device, DeviceDirectoryData, 0, NULL, &DeviceData) == STATUS_SUCCESS);
    CHECK(OpenIn(DeviceData, L"kept.bin", TO_READ, ALL_SHARED, FILE_OPEN, SYNCHRONOUS) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(OpenIn(DeviceData, L"card.bin", TO_WRITE, 0, FILE_CREATE, SYNCHRONOUS) == STATUS_SUCCESS);
    ZwClose(File);
    ZwClose(DeviceData);
    return 0;
}
