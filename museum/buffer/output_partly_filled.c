/*
 * A version query: IOCTL_VERSION_QUERY answers a structure of which only the beginning is known.
 *
 * The bug: the routine stores two members and reports as many bytes as the caller has room for: the rest is what happened to lie in pool, and goes to the
 * application. It shows with an output longer than what is stored.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Version"
#define LINK_NAME L"\\DosDevices\\Version"
#include "../include/legacy.h"

#define IOCTL_VERSION_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x80F, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _VERSION {
    ULONG Major;
    ULONG Minor;
} VERSION, *PVERSION;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVERSION Version = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_VERSION_QUERY) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(VERSION)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Version->Major = 4;
    Version->Minor = 2;
#ifdef FIXED
    return Complete(Irp, STATUS_SUCCESS, sizeof(VERSION));
#else
    return Complete(Irp, STATUS_SUCCESS, OutputOf(Stack));
#endif
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
