/*
 * A virtual modem with a buffer of its own, allocated when the device is added.
 *
 * The bug: where the interface cannot be registered, AddDevice deletes the device object and forgets the buffer. It shows when that call fails.
 *
 * Device: Root\VirtualModem
 * Rule: pool-leak
 * Needs: failure
 */
#include "../include/function.h"

#define MODEM_TAG 'edoM'
#define MODEM_BYTES 512

typedef struct _DEVICE {
    FDO Fdo;
    PUCHAR Line;
} DEVICE, *PDEVICE;

static VOID Removed(PFDO Fdo)
{
    ExFreePoolWithTag(((PDEVICE)Fdo)->Line, MODEM_TAG);
}

static const GUID FdoInterface = FDO_GUID(0x10c3a010);
static const HOOKS Hooks = {.Removed = Removed};

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp); /* reads and writes have their lengths at the same place */
    ULONG Length = min(Stack->Parameters.Read.Length, MODEM_BYTES);
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (Stack->MajorFunction == IRP_MJ_READ) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Own->Line, Length);
    } else {
        RtlCopyMemory(Own->Line, Irp->AssociatedIrp.SystemBuffer, Length);
    }
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(DEVICE), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    Own->Fdo.Self = Device;
    Own->Fdo.Pdo = Pdo;
    IoInitializeRemoveLock(&Own->Fdo.RemoveLock, FDO_TAG, 0, 0);
    ExInitializeRundownProtection(&Own->Fdo.Gate);
    ExWaitForRundownProtectionRelease(&Own->Fdo.Gate);
    Own->Line = ExAllocatePoolWithTag(NonPagedPool, MODEM_BYTES, MODEM_TAG);
    if (Own->Line == NULL) {
        IoDeleteDevice(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Own->Line, MODEM_BYTES);
    Status = FdoAttach(&Own->Fdo);
    if (!NT_SUCCESS(Status)) {
#ifdef FIXED
        ExFreePoolWithTag(Own->Line, MODEM_TAG);
#endif
        IoDeleteDevice(Device);
        return Status;
    }
    Device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    return STATUS_SUCCESS;
}
