/*
 * A level meter: one code chooses what is made of the levels that another one gives: the last is kept, or the highest, or, in the mode of the service, each is entered
 * in a curve of 16 points.
 *
 * The bug: a level's point is not compared with the number of points. It shows only after the mode of the service was chosen: the other two modes leave the point alone.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\LevelMeter"
#define LINK_NAME L"\\DosDevices\\LevelMeter"
#include "../include/legacy.h"

#define METER_TAG 'reLM'
#define IOCTL_METER_MODE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE63, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_METER_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE64, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define POINTS 16

typedef enum _METER_MODE { ModeLast = 1, ModeHighest = 2, ModeService = 0x5A } METER_MODE;

/* What an application gives. */
typedef struct _LEVEL {
    ULONG Point;
    ULONG Value;
} LEVEL, *PLEVEL;

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    ULONG Mode;
    ULONG Level;
    PULONG Curve; /* from DriverEntry to Unload */
} DEVICE, *PDEVICE;

static NTSTATUS ChooseMode(PDEVICE Own, ULONG Mode)
{
    switch (Mode) {
    case ModeLast:
    case ModeHighest:
    case ModeService:
        ExAcquireFastMutex(&Own->Mutex);
        Own->Mode = Mode;
        Own->Level = 0;
        ExReleaseFastMutex(&Own->Mutex);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_PARAMETER;
    }
}

/* Called with the mutex. */
static NTSTATUS Enter(PDEVICE Own, PLEVEL Level)
{
    switch (Own->Mode) {
    case ModeLast:
        Own->Level = Level->Value;
        return STATUS_SUCCESS;
    case ModeHighest:
        Own->Level = max(Own->Level, Level->Value);
        return STATUS_SUCCESS;
    default:
#ifdef FIXED
        if (Level->Point >= POINTS) {
            return STATUS_INVALID_PARAMETER;
        }
#endif
        Own->Curve[Level->Point] = Level->Value;
        return STATUS_SUCCESS;
    }
}

static NTSTATUS EnterLevel(PDEVICE Own, PLEVEL Level)
{
    NTSTATUS Status;

    ExAcquireFastMutex(&Own->Mutex);
    Status = Enter(Own, Level);
    ExReleaseFastMutex(&Own->Mutex);
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;

    switch (CodeOf(Stack)) {
    case IOCTL_METER_MODE:
        if (InputOf(Stack) < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return Complete(Irp, ChooseMode(Device->DeviceExtension, *(PULONG)Buffer), 0);
    case IOCTL_METER_LEVEL:
        if (InputOf(Stack) < sizeof(LEVEL)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return Complete(Irp, EnterLevel(Device->DeviceExtension, Buffer), 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* The level, or the curve where there is room for it. */
static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    PDEVICE Own = Device->DeviceExtension;

    if (Length < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Length = Length < POINTS * sizeof(ULONG) ? sizeof(ULONG) : POINTS * sizeof(ULONG);
    ExAcquireFastMutex(&Own->Mutex);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Length == sizeof(ULONG) ? &Own->Level : Own->Curve, Length);
    ExReleaseFastMutex(&Own->Mutex);
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExFreePoolWithTag(((PDEVICE)Driver->DeviceObject->DeviceExtension)->Curve, METER_TAG);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    ExInitializeFastMutex(&Own->Mutex);
    Own->Mode = ModeLast;
    Own->Curve = ExAllocatePoolWithTag(NonPagedPool, POINTS * sizeof(ULONG), METER_TAG);
    if (Own->Curve == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Own->Curve, POINTS * sizeof(ULONG));
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
