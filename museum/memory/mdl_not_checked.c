/*
 * A device that describes a buffer of its own by an MDL to find out its physical page.
 *
 * The bug: what IoAllocateMdl returns is used without a look. It shows when memory is short.
 *
 * Device: none
 * Rule: wild-read, wild-write, bad-pointer, mdl-state
 * Needs: ioctl, failure
 */
#define DEVICE_NAME L"\\Device\\Pages"
#define LINK_NAME L"\\DosDevices\\Pages"
#include "../include/legacy.h"

#define IOCTL_PAGE_NUMBER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8EA, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    UCHAR Buffer[64];
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PMDL Mdl;

    if (CodeOf(Stack) != IOCTL_PAGE_NUMBER) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(ULONG64)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Mdl = IoAllocateMdl(Own->Buffer, sizeof(Own->Buffer), FALSE, FALSE, NULL);
#ifdef FIXED
    if (Mdl == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
#endif
    MmBuildMdlForNonPagedPool(Mdl);
    *(PULONG64)Irp->AssociatedIrp.SystemBuffer = *MmGetMdlPfnArray(Mdl);
    IoFreeMdl(Mdl);
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG64));
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
