/*
 * A virtual scanner, which the power manager powers down when it was idle for ten minutes. It is busy while it scans, and only then: IOCTL_SCAN has the number of lines, of which it
 * scans a hundred at most.
 *
 * The bug: where there are more lines the busy time is ended before the request fails, and once more on the way out that all requests have. It shows with such a request.
 *
 * Device: Root\IdleScanner
 * Rule: device-not-busy
 * Needs: ioctl
 */
#include "../include/function.h"

/* Windows 7; the kit knows them for that only. */
NTKERNELAPI VOID NTAPI PoStartDeviceBusy(PULONG IdlePointer);
NTKERNELAPI VOID NTAPI PoEndDeviceBusy(PULONG IdlePointer);

#define IOCTL_SCAN CTL_CODE(FILE_DEVICE_SCANNER, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define MOST_LINES 100
#define IDLE_SECONDS 600

typedef struct _DEVICE {
    FDO Fdo;
    PULONG Idle; /* NULL: it is not watched */
} DEVICE, *PDEVICE;

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    UNREFERENCED_PARAMETER(Resources);
    ((PDEVICE)Fdo)->Idle = PoRegisterDeviceForIdleDetection(Fdo->Self, IDLE_SECONDS, IDLE_SECONDS, PowerDeviceD3);
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    if (((PDEVICE)Fdo)->Idle != NULL) {
        ((PDEVICE)Fdo)->Idle = NULL;
        PoRegisterDeviceForIdleDetection(Fdo->Self, 0, 0, PowerDeviceD3);
    }
}

static VOID Busy(PDEVICE Own)
{
    if (Own->Idle != NULL) {
        PoStartDeviceBusy(Own->Idle);
    }
}

static VOID Idle(PDEVICE Own)
{
    if (Own->Idle != NULL) {
        PoEndDeviceBusy(Own->Idle);
    }
}

/* The sum of the lines' light. */
static NTSTATUS Scan(PDEVICE Own, PULONG Lines)
{
    ULONG Line, Light = 0;

    if (*Lines > MOST_LINES) {
#ifndef FIXED
        Idle(Own);
#endif
        return STATUS_INVALID_PARAMETER;
    }
    for (Line = 0; Line < *Lines; Line++) {
        Light += Line ^ 0x55;
    }
    *Lines = Light;
    UNREFERENCED_PARAMETER(Own);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_SCAN) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Busy(Own);
    Status = Scan(Own, Irp->AssociatedIrp.SystemBuffer);
    Idle(Own);
    return FdoEnd(&Own->Fdo, Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d012);
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
