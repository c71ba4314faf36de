/*
 * A virtual tuner whose table of channels exists while the device is started.
 *
 * The bug: the control code does not look whether the device is started, and takes an entry of the table that is freed and forgotten at the stop. It
 * shows with a request while the device is stopped.
 *
 * Device: Root\VirtualTuner
 * Rule: wild-read
 * Needs: ioctl, removal
 */
#include "../include/function.h"

#define CHANNELS 20
#define TUNER_TAG 'enuT'
#define IOCTL_TUNER_FREQUENCY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x977, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    PULONG Frequencies;
} DEVICE, *PDEVICE;

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = (PDEVICE)Fdo;
    ULONG Index;

    UNREFERENCED_PARAMETER(Resources);
    Own->Frequencies = ExAllocatePoolWithTag(NonPagedPool, CHANNELS * sizeof(ULONG), TUNER_TAG);
    if (Own->Frequencies == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    for (Index = 0; Index < CHANNELS; Index++) {
        Own->Frequencies[Index] = 87500 + 1000 * Index;
    }
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    PDEVICE Own = (PDEVICE)Fdo;

    UNREFERENCED_PARAMETER(Present);
    ExFreePoolWithTag(Own->Frequencies, TUNER_TAG);
    Own->Frequencies = NULL;
}

static const GUID FdoInterface = FDO_GUID(0x10c3a00c);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop};

static NTSTATUS Frequency(PDEVICE Own, PIO_STACK_LOCATION Stack, PULONG Buffer, PULONG Length)
{
    if (CodeOf(Stack) != IOCTL_TUNER_FREQUENCY) {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG) || *Buffer >= CHANNELS) {
        return STATUS_INVALID_PARAMETER;
    }
    *Buffer = Own->Frequencies[*Buffer];
    *Length = sizeof(ULONG);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = 0;
    NTSTATUS Status;

#ifdef FIXED
    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    Status = Frequency(Own, Stack, Irp->AssociatedIrp.SystemBuffer, &Length);
    return FdoEnd(&Own->Fdo, Irp, Status, Length);
#else
    Status = IoAcquireRemoveLock(&Own->Fdo.RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    Status = Frequency(Own, Stack, Irp->AssociatedIrp.SystemBuffer, &Length);
    FdoEndPended(&Own->Fdo, Irp, Status, Length);
    return Status;
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
