/*
 * A driver that prints its registry path when IOCTL_WHERE asks for it.
 *
 * The bug: DriverEntry keeps the UNICODE_STRING that it was given, whose buffer is freed when it has returned. It shows with the first request.
 *
 * Device: none
 * Rule: use-after-free, wild-read, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Where"
#define LINK_NAME L"\\DosDevices\\Where"
#include "../include/legacy.h"

#define PATH_TAG 'htaP'
#define IOCTL_WHERE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xAA0, METHOD_BUFFERED, FILE_ANY_ACCESS)

static UNICODE_STRING Path;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PWCHAR Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Index, Length = min((ULONG)Path.Length, OutputOf(Stack)) / sizeof(WCHAR);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_WHERE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    for (Index = 0; Index < Length; Index++) {
        Buffer[Index] = Path.Buffer[Index];
    }
    return Complete(Irp, STATUS_SUCCESS, Length * sizeof(WCHAR));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
#ifdef FIXED
    ExFreePoolWithTag(Path.Buffer, PATH_TAG);
#endif
    LegacyDelete(Driver->DeviceObject);
}

static NTSTATUS Keep(PUNICODE_STRING RegistryPath)
{
#ifdef FIXED
    Path.Buffer = ExAllocatePoolWithTag(PagedPool, RegistryPath->Length, PATH_TAG);
    if (Path.Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Path.Length = Path.MaximumLength = RegistryPath->Length;
    RtlCopyMemory(Path.Buffer, RegistryPath->Buffer, RegistryPath->Length);
#else
    Path = *RegistryPath;
#endif
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = Keep(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
