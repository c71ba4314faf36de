/*
 * A checksum device whose METHOD_NEITHER input is locked before it is read.
 *
 * The bug: MmProbeAndLockPages raises an exception for pages that are not there, and is called outside of __try. It shows with a bad input pointer.
 *
 * Device: none
 * Rule: unhandled-exception
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\Parity"
#define LINK_NAME L"\\DosDevices\\Parity"
#include "../include/try.h"
#include "../include/legacy.h"

#define IOCTL_PARITY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x81D, METHOD_NEITHER, FILE_ANY_ACCESS)

static NTSTATUS Lock(PMDL Mdl)
{
#ifdef FIXED
    __try {
        MmProbeAndLockPages(Mdl, UserMode, IoReadAccess);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return STATUS_ACCESS_VIOLATION;
    }
#else
    MmProbeAndLockPages(Mdl, UserMode, IoReadAccess);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS Parity(PVOID Input, ULONG Length)
{
    NTSTATUS Status;
    UCHAR Result = 0;
    PUCHAR Bytes;
    PMDL Mdl;

    if (Length == 0 || Length > 0x10000) {
        return STATUS_INVALID_PARAMETER;
    }
    Mdl = IoAllocateMdl(Input, Length, FALSE, FALSE, NULL);
    if (Mdl == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = Lock(Mdl);
    if (Status == STATUS_SUCCESS) {
        Bytes = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
        while (Bytes != NULL && Length-- > 0) {
            Result ^= Bytes[Length];
        }
        DbgPrint("parity: %x\n", Result);
        MmUnlockPages(Mdl);
    }
    IoFreeMdl(Mdl);
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_PARITY) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, Parity(Stack->Parameters.DeviceIoControl.Type3InputBuffer, InputOf(Stack)), 0);
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
