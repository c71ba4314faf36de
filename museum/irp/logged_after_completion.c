/*
 * A pipe's end that takes writes and counts their bytes.
 *
 * The bug: the byte count is taken from the request's IoStatus after IoCompleteRequest, when the request may be freed. It shows with the first write.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Drain"
#define LINK_NAME L"\\DosDevices\\Drain"
#include "../include/legacy.h"

typedef struct _DEVICE {
    LONG64 Bytes;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Drain = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = Length;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
#ifdef FIXED
    InterlockedExchangeAdd64(&Drain->Bytes, Length);
#else
    InterlockedExchangeAdd64(&Drain->Bytes, (LONG64)Irp->IoStatus.Information);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Drain = Device->DeviceExtension;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(LONG64)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG64)Irp->AssociatedIrp.SystemBuffer = Drain->Bytes;
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG64));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    }
    return Status;
}
