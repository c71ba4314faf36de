/*
 * A virtual monitor that keeps the system awake while it watches: IOCTL_WATCH has 1 to begin and 0 to end.
 *
 * The bug: the power request is deleted when the device is stopped and once more when it is removed, as the pointer to it stays. It shows when the device is removed.
 *
 * Device: Root\AwakeMonitor
 * Rule: not-a-power-object
 * Needs: nothing
 */
#include "../include/function.h"

#define IOCTL_WATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    PVOID Request;
    LONG Watching;
} DEVICE, *PDEVICE;

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    COUNTED_REASON_CONTEXT Reason;

    UNREFERENCED_PARAMETER(Resources);
    RtlZeroMemory(&Reason, sizeof(Reason));
    Reason.Version = POWER_REQUEST_CONTEXT_VERSION;
    Reason.Flags = POWER_REQUEST_CONTEXT_SIMPLE_STRING;
    RtlInitUnicodeString(&Reason.SimpleString, L"A door is watched");
    return PoCreatePowerRequest(&((PDEVICE)Fdo)->Request, Fdo->Self, &Reason);
}

static VOID Watch(PDEVICE Own, LONG Begins)
{
    LONG Was = InterlockedExchange(&Own->Watching, Begins);

    if (Begins && !Was) {
        PoSetPowerRequest(Own->Request, PowerRequestSystemRequired);
    } else if (!Begins && Was) {
        PoClearPowerRequest(Own->Request, PowerRequestSystemRequired);
    }
}

static VOID Delete(PDEVICE Own)
{
    if (Own->Request != NULL) {
        PoDeletePowerRequest(Own->Request);
#ifdef FIXED
        Own->Request = NULL;
#endif
    }
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    Watch((PDEVICE)Fdo, FALSE);
    Delete((PDEVICE)Fdo);
}

/* Where it was never stopped. */
static VOID Removed(PFDO Fdo)
{
    Delete((PDEVICE)Fdo);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_WATCH || InputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Watch(Own, *(PULONG)Irp->AssociatedIrp.SystemBuffer & 1);
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 0);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d013);
static const HOOKS Hooks = {.Start = Start, .Removed = Removed, .Stop = Stop};

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
