/*
 * A virtual clock chip with a battery: a scratch register of 64 bits.
 *
 * The bug: AddDevice leaves DO_DEVICE_INITIALIZING set, so nothing can be opened or attached. It shows when the device is added.
 *
 * Device: Root\VirtualClockChip
 * Rule: device-initializing
 * Needs: nothing
 */
#include "../include/function.h"

#define IOCTL_CHIP_EXCHANGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8EE, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
    LONG64 Scratch;
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a008);
static const HOOKS Hooks = {0};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PLONG64 Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_CHIP_EXCHANGE) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(LONG64) || OutputOf(Stack) < sizeof(LONG64)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    *Buffer = InterlockedExchange64(&Own->Scratch, *Buffer);
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(LONG64));
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    PFDO Fdo;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(DEVICE), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Fdo = Device->DeviceExtension;
    Fdo->Self = Device;
    Fdo->Pdo = Pdo;
    IoInitializeRemoveLock(&Fdo->RemoveLock, FDO_TAG, 0, 0);
    ExInitializeRundownProtection(&Fdo->Gate);
    ExWaitForRundownProtectionRelease(&Fdo->Gate);
    Status = FdoAttach(Fdo);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
#ifdef FIXED
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
#endif
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
