/*
 * A device that turns its input round, by way of a copy in pool.
 *
 * The bug: what ExAllocatePoolWithTag returns is used without a look. It shows when memory is short.
 *
 * Device: none
 * Rule: bad-pointer, wild-write, wild-read
 * Needs: ioctl, failure
 */
#define DEVICE_NAME L"\\Device\\Reverser"
#define LINK_NAME L"\\DosDevices\\Reverser"
#include "../include/legacy.h"

#define REVERSER_TAG 'rveR'
#define IOCTL_REVERSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E9, METHOD_BUFFERED, FILE_ANY_ACCESS)

static NTSTATUS Reverse(PUCHAR Bytes, ULONG Length)
{
    PUCHAR Copy;
    ULONG Index;

    if (Length == 0) {
        return STATUS_INVALID_PARAMETER;
    }
    Copy = ExAllocatePoolWithTag(NonPagedPool, Length, REVERSER_TAG);
#ifdef FIXED
    if (Copy == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
#endif
    for (Index = 0; Index < Length; Index++) {
        Copy[Index] = Bytes[Length - 1 - Index];
    }
    RtlCopyMemory(Bytes, Copy, Length);
    ExFreePoolWithTag(Copy, REVERSER_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = min(InputOf(Stack), OutputOf(Stack));
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_REVERSE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Status = Reverse(Irp->AssociatedIrp.SystemBuffer, Length);
    return Complete(Irp, Status, Status == STATUS_SUCCESS ? Length : 0);
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
