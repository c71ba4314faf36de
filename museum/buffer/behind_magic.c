/*
 * A board's firmware loader: an image begins with a magic word, a version, and the length of a table that is copied.
 *
 * The bug: the table's length is compared with the input's length, and not with that of what it is copied to. It shows only with an image that has the
 * magic word and the version, and a table that is longer than 24 bytes.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Loader"
#define LINK_NAME L"\\DosDevices\\Loader"
#include "../include/legacy.h"

#define IOCTL_LOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC71, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MAGIC 0x57F1A301
#define VERSION 7
#define TABLE 24

typedef struct _IMAGE {
    ULONG Magic;
    USHORT Version;
    USHORT Length; /* of the table that follows, in bytes */
} IMAGE, *PIMAGE;

static NTSTATUS Load(PIMAGE Image, ULONG Bytes)
{
    PUCHAR Table;

    if (Bytes < sizeof(*Image) || Image->Magic != MAGIC) {
        return STATUS_INVALID_PARAMETER;
    }
    if (Image->Version != VERSION) {
        return STATUS_REVISION_MISMATCH;
    }
    if (Image->Length > Bytes - sizeof(*Image)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
#ifdef FIXED
    if (Image->Length > TABLE) {
        return STATUS_INVALID_PARAMETER;
    }
#endif
    Table = ExAllocatePoolWithTag(NonPagedPool, TABLE, 'baTL');
    if (Table == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(Table, Image + 1, Image->Length);
    ExFreePoolWithTag(Table, 'baTL');
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_LOAD) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, Load(Irp->AssociatedIrp.SystemBuffer, InputOf(Stack)), 0);
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
