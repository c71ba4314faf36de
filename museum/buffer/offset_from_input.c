/*
 * A table of strings: IOCTL_STRINGS_PUT has a header with an offset and a length of the string in the same input.
 *
 * The bug: offset plus length is computed in 32 bits: a large offset and a suitable length give a small sum. It shows with an offset near 2^32.
 *
 * Device: none
 * Rule: wild-read, pool-overrun, pool-underrun, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Strings"
#define LINK_NAME L"\\DosDevices\\Strings"
#include "../include/legacy.h"

#define LONGEST 64
#define IOCTL_STRINGS_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC36, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PUT {
    ULONG Offset;
    ULONG Length;
} PUT, *PPUT;

typedef struct _DEVICE {
    UCHAR Last[LONGEST];
} DEVICE, *PDEVICE;

static NTSTATUS Put(PDEVICE Own, PPUT Put, ULONG Bytes)
{
    if (Bytes < sizeof(PUT) || Put->Length > LONGEST) {
        return STATUS_INVALID_PARAMETER;
    }
#ifdef FIXED
    if (Put->Offset > Bytes || Put->Length > Bytes - Put->Offset) {
#else
    if (Put->Offset + Put->Length > Bytes) {
#endif
        return STATUS_INVALID_PARAMETER;
    }
    RtlCopyMemory(Own->Last, (PUCHAR)Put + Put->Offset, Put->Length);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_STRINGS_PUT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, Put(Device->DeviceExtension, Irp->AssociatedIrp.SystemBuffer, InputOf(Stack)), 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
