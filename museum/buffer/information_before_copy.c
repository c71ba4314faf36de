/*
 * A fortune cookie: reads answer a text.
 *
 * The bug: as many bytes are reported as the text has, though only as many are copied as there is room for. It shows with a read that is shorter than the text.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Fortune"
#define LINK_NAME L"\\DosDevices\\Fortune"
#include "../include/legacy.h"

static const CHAR Text[] = "A driver that was never removed has not been tested.";

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    ULONG Copied = min(Length, (ULONG)sizeof(Text));

    UNREFERENCED_PARAMETER(Device);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Text, Copied);
#ifdef FIXED
    return Complete(Irp, STATUS_SUCCESS, Copied);
#else
    return Complete(Irp, STATUS_SUCCESS, sizeof(Text));
#endif
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    }
    return Status;
}
