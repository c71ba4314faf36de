/*
 * A card with a serial number in its last register.
 *
 * The bug: the register's offset is that of another revision, whose window is larger: it lies behind the window that was mapped. It shows with the first request.
 *
 * Device: PCI\VEN_1A2B&DEV_0003
 * Rule: device-access-past-mapping, device-memory-not-mapped
 * Needs: ioctl
 */
#include "../include/card.h"

#define IOCTL_CARD_SERIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Offset;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_CARD_SERIAL) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
#ifdef FIXED
    Offset = Own->Fdo.Length - sizeof(ULONG);
#else
    Offset = Own->Fdo.Length;
#endif
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = CardRead(&Own->Fdo, Offset);
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
    }
    return Status;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    CardUnmap(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d003);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop};

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
