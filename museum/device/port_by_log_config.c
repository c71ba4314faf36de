/*
 * Sixteen switches at an old I/O port, whose place the INF gives a device on no bus (port_by_log_config.inf.in). A control request reads the port.
 *
 * The bug: the answer is said to be four bytes long also where the application has room for fewer. It shows with a short buffer.
 *
 * Device: Root\Switches
 * Rule: information-too-large, pool-overrun
 * Needs: ioctl
 */
#include "../include/function.h"

#define IOCTL_SWITCHES_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F7, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    PUSHORT Port;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a0f7);

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = CONTAINING_RECORD(Fdo, DEVICE, Fdo);

    if (Resources == NULL || Resources->Count == 0 || Resources->PartialDescriptors[0].Type != CmResourceTypePort) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Own->Port = (PUSHORT)(ULONG_PTR)Resources->PartialDescriptors[0].u.Port.Start.QuadPart;
    return STATUS_SUCCESS;
}

static const HOOKS Hooks = {.Start = Start};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PDEVICE Own = Device->DeviceExtension;
    ULONG State;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_SWITCHES_READ) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    State = (USHORT)~READ_PORT_USHORT(Own->Port);
    if (Length > sizeof(State)) {
        Length = sizeof(State);
    }
    if (Length > 0) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &State, Length);
    }
#ifdef FIXED
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, Length);
#else
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(State));
#endif
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
