/*
 * A scratch pad whose reads and writes are direct.
 *
 * The bug: MmGetSystemAddressForMdlSafe returns NULL when there is no room to map the pages, and the driver uses what it returns. It shows when
 * memory is short.
 *
 * Device: none
 * Rule: wild-write, wild-read, bad-pointer
 * Needs: ioctl, failure
 */
#define DEVICE_NAME L"\\Device\\Pad"
#define LINK_NAME L"\\DosDevices\\Pad"
#include "../include/legacy.h"

#define PAD_BYTES 512

typedef struct _DEVICE {
    UCHAR Bytes[PAD_BYTES];
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Pad = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp); /* reads and writes have their lengths at the same place */
    ULONG Length = min(Stack->Parameters.Read.Length, PAD_BYTES);
    PUCHAR Buffer;

    if (Length == 0) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    Buffer = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
#ifdef FIXED
    if (Buffer == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
#endif
    if (Stack->MajorFunction == IRP_MJ_READ) {
        RtlCopyMemory(Buffer, Pad->Bytes, Length);
    } else {
        RtlCopyMemory(Pad->Bytes, Buffer, Length);
    }
    return Complete(Irp, STATUS_SUCCESS, Length);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_DIRECT_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    }
    return Status;
}
