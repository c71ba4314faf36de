/*
 * A fingerprint device: its METHOD_NEITHER input is locked, mapped and hashed.
 *
 * The bug: an input of no letters is refused with its pages still locked and its MDL allocated. It shows with an input that begins with a zero.
 *
 * Device: none
 * Rule: locked-pages-leak, mdl-freed-locked, pool-leak
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\Fingerprint"
#define LINK_NAME L"\\DosDevices\\Fingerprint"
#include "../include/try.h"
#include "../include/legacy.h"

#define IOCTL_FINGERPRINT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F9, METHOD_NEITHER, FILE_ANY_ACCESS)

static PMDL Lock(PVOID Input, ULONG Length)
{
    PMDL Mdl = IoAllocateMdl(Input, Length, FALSE, FALSE, NULL);

    if (Mdl == NULL) {
        return NULL;
    }
    __try {
        MmProbeAndLockPages(Mdl, UserMode, IoReadAccess);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        IoFreeMdl(Mdl);
        Mdl = NULL;
    }
    return Mdl;
}

static VOID Unlock(PMDL Mdl)
{
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
}

static NTSTATUS Fingerprint(PVOID Input, ULONG Length)
{
    ULONG Index, Hash = 5381;
    PUCHAR Bytes;
    PMDL Mdl;

    if (Length == 0 || Length > 0x10000) {
        return STATUS_INVALID_PARAMETER;
    }
    Mdl = Lock(Input, Length);
    if (Mdl == NULL) {
        return STATUS_ACCESS_VIOLATION;
    }
    Bytes = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    if (Bytes == NULL) {
        Unlock(Mdl);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (Bytes[0] == 0) {
#ifdef FIXED
        Unlock(Mdl);
#endif
        return STATUS_INVALID_PARAMETER;
    }
    for (Index = 0; Index < Length; Index++) {
        Hash = Hash * 33 + Bytes[Index];
    }
    DbgPrint("fingerprint: %x\n", Hash);
    Unlock(Mdl);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_FINGERPRINT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, Fingerprint(Stack->Parameters.DeviceIoControl.Type3InputBuffer, InputOf(Stack)), 0);
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
