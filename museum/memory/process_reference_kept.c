/*
 * A device that remembers the process that has opened it exclusively.
 *
 * The bug: the process object is referenced when the device is claimed, and not dereferenced when the handle is closed: the process never goes. It shows
 * with the first claim.
 *
 * Device: none
 * Rule: object-reference-leak
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Owner"
#define LINK_NAME L"\\DosDevices\\Owner"
#include "../include/legacy.h"

#define IOCTL_OWNER_CLAIM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F4, METHOD_BUFFERED, FILE_ANY_ACCESS)

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Process = IoGetCurrentProcess();

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_OWNER_CLAIM) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    ObReferenceObject(Process);
    if (InterlockedCompareExchangePointer(&Stack->FileObject->FsContext, Process, NULL) != NULL) {
        ObDereferenceObject(Process);
        return Complete(Irp, STATUS_ALREADY_REGISTERED, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifdef FIXED
    PVOID Process = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    if (Process != NULL) {
        ObDereferenceObject(Process);
    }
#endif
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
