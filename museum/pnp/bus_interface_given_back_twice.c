/*
 * A card whose revision programs ask for (IOCTL_REVISION_GET): the driver reads it in the configuration space, by the bus driver's interface.
 *
 * The bug: the interface is given back when the device stops and once more when it is removed, because nothing says that it has been given back
 * already: the second time it is a reference of another driver's that goes. It shows when a device that was started is removed.
 *
 * Device: PCI\VEN_1DA7&DEV_0061
 * Rule: interface-reference
 * Needs: nothing
 */
#include "../include/function.h"

#define IOCTL_REVISION_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA70, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REVISION_OFFSET 8

typedef struct _DEVICE {
    FDO Fdo;
    BUS_INTERFACE_STANDARD Bus;
    BOOLEAN HasBus;
} DEVICE, *PDEVICE;

static const GUID BusInterface = {0x496b8280, 0x6f25, 0x11d0, {0xbe, 0xaf, 0x08, 0x00, 0x2b, 0xe2, 0x09, 0x2f}};

static NTSTATUS AskForBus(PDEVICE Own)
{
    IO_STATUS_BLOCK Block;
    PIO_STACK_LOCATION Stack;
    KEVENT Done;
    NTSTATUS Status;
    PIRP Irp;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Own->Fdo.Lower, NULL, 0, NULL, &Done, &Block);
    if (Irp == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    Stack = IoGetNextIrpStackLocation(Irp);
    Stack->MinorFunction = IRP_MN_QUERY_INTERFACE;
    Stack->Parameters.QueryInterface.InterfaceType = &BusInterface;
    Stack->Parameters.QueryInterface.Size = sizeof(Own->Bus);
    Stack->Parameters.QueryInterface.Version = 1;
    Stack->Parameters.QueryInterface.Interface = (PINTERFACE)&Own->Bus;
    Stack->Parameters.QueryInterface.InterfaceSpecificData = NULL;
    Status = IoCallDriver(Own->Fdo.Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
    }
    Own->HasBus = NT_SUCCESS(Status);
    return Status;
}

static VOID GiveBusBack(PDEVICE Own)
{
    if (Own->HasBus) {
#ifdef FIXED
        Own->HasBus = FALSE;
#endif
        Own->Bus.InterfaceDereference(Own->Bus.Context);
    }
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    UNREFERENCED_PARAMETER(Resources);
    return AskForBus((PDEVICE)Fdo);
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    GiveBusBack((PDEVICE)Fdo);
}

static VOID Removed(PFDO Fdo)
{
    GiveBusBack((PDEVICE)Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3e061);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop, .Removed = Removed};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    UCHAR Revision;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_REVISION_GET) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(Revision)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    if (Own->Bus.GetBusData(Own->Bus.Context, PCI_WHICHSPACE_CONFIG, &Revision, REVISION_OFFSET, sizeof(Revision)) != sizeof(Revision)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
    *(PUCHAR)Irp->AssociatedIrp.SystemBuffer = Revision;
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(Revision));
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
