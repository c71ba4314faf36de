/*
 * A tool's driver that shows the version of the firmware, which lies in the ROM below 1 MiB.
 *
 * The bug: the physical address comes from the application, and is mapped and read whatever it is: any program reads the memory of all. It shows with an
 * address of RAM.
 *
 * Device: none
 * Rule: io-space-ram, io-space-outside, device-memory-not-mapped, wild-read
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Firmware"
#define LINK_NAME L"\\DosDevices\\Firmware"
#include "../include/legacy.h"

#define ROM_BYTES 16
#define IOCTL_FIRMWARE_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA80, METHOD_BUFFERED, FILE_ANY_ACCESS)

static NTSTATUS ReadMemory(PULONG64 Buffer)
{
#ifdef FIXED
    Buffer[0] = 0x0000000100000002; /* what the driver's maker knows of it */
    return STATUS_SUCCESS;
#else
    PHYSICAL_ADDRESS Address;
    PUCHAR Mapped;

    Address.QuadPart = (LONGLONG)*Buffer;
    Mapped = MmMapIoSpace(Address, ROM_BYTES, MmNonCached);
    if (Mapped == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Buffer[0] = *(volatile ULONG64 *)Mapped;
    MmUnmapIoSpace(Mapped, ROM_BYTES);
    return STATUS_SUCCESS;
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_FIRMWARE_READ) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG64) || OutputOf(Stack) < sizeof(ULONG64)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Status = ReadMemory(Irp->AssociatedIrp.SystemBuffer);
    return Complete(Irp, Status, Status == STATUS_SUCCESS ? sizeof(ULONG64) : 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
