/*
 * A virtual joystick with a link for old programs, besides its interface.
 *
 * The bug: the link is not deleted when the device is removed. It shows when it is removed.
 *
 * Device: Root\VirtualJoystick
 * Rule: symbolic-link-leak
 * Needs: nothing
 */
#include "../include/function.h"

#define IOCTL_JOYSTICK_POSITION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8BB, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    BOOLEAN Linked;
    LONG Position[2];
} DEVICE, *PDEVICE;

static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Joystick");

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = (PDEVICE)Fdo;
    NTSTATUS Status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(Resources);
    if (!Own->Linked) {
        Status = IoCreateSymbolicLink(&Link, &Fdo->Interface);
        Own->Linked = NT_SUCCESS(Status);
    }
    return Status;
}

static VOID Removed(PFDO Fdo)
{
#ifdef FIXED
    if (((PDEVICE)Fdo)->Linked) {
        IoDeleteSymbolicLink(&Link);
    }
#else
    UNREFERENCED_PARAMETER(Fdo);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3a007);
static const HOOKS Hooks = {.Start = Start, .Removed = Removed};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_JOYSTICK_POSITION) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(Own->Position)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Own->Position, sizeof(Own->Position));
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(Own->Position));
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
