/*
 * A virtual recorder that keeps the system awake while it records: IOCTL_RECORD has 1 to begin and 0 to end.
 *
 * The bug: the power request is made with the device and not deleted before it. It shows when the device is removed.
 *
 * Device: Root\AwakeRecorder
 * Rule: power-request-outlives-device
 * Needs: nothing
 */
#include "../include/function.h"

#define IOCTL_RECORD CTL_CODE(FILE_DEVICE_SOUND, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    PVOID Request;
    LONG Recording;
} DEVICE, *PDEVICE;

static NTSTATUS Add(PFDO Fdo)
{
    COUNTED_REASON_CONTEXT Reason;

    RtlZeroMemory(&Reason, sizeof(Reason));
    Reason.Version = POWER_REQUEST_CONTEXT_VERSION;
    Reason.Flags = POWER_REQUEST_CONTEXT_SIMPLE_STRING;
    RtlInitUnicodeString(&Reason.SimpleString, L"A recording is made");
    return PoCreatePowerRequest(&((PDEVICE)Fdo)->Request, Fdo->Self, &Reason);
}

static VOID Record(PDEVICE Own, LONG Begins)
{
    LONG Was = InterlockedExchange(&Own->Recording, Begins);

    if (Begins && !Was) {
        PoSetPowerRequest(Own->Request, PowerRequestSystemRequired);
    } else if (!Begins && Was) {
        PoClearPowerRequest(Own->Request, PowerRequestSystemRequired);
    }
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    Record((PDEVICE)Fdo, FALSE);
}

static VOID Removed(PFDO Fdo)
{
#ifdef FIXED
    PoDeletePowerRequest(((PDEVICE)Fdo)->Request);
#else
    UNREFERENCED_PARAMETER(Fdo);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_RECORD || InputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Record(Own, *(PULONG)Irp->AssociatedIrp.SystemBuffer & 1);
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 0);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d014);
static const HOOKS Hooks = {.Add = Add, .Removed = Removed, .Stop = Stop};

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
