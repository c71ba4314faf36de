/*
 * A virtual key pad: writes press keys, reads take them out.
 *
 * The bug: IRP_MN_REMOVE_DEVICE is completed and not passed to the bus driver. It shows when the device is removed.
 *
 * Device: Root\VirtualKeyPad
 * Rule: pnp-request-not-passed-down
 * Needs: nothing
 */
#include "../include/function.h"

#define KEYS 16

typedef struct _DEVICE {
    FDO Fdo;
    KSPIN_LOCK Lock;
    ULONG Count;
    UCHAR Keys[KEYS];
} DEVICE, *PDEVICE;

static const GUID FdoInterface = FDO_GUID(0x10c3a002);
static const HOOKS Hooks = {0};

static NTSTATUS Remove(PFDO Fdo, PIRP Irp)
{
    PDEVICE_OBJECT Lower = Fdo->Lower;

    if (!NT_SUCCESS(IoAcquireRemoveLock(&Fdo->RemoveLock, Irp))) {
        return Complete(Irp, STATUS_DELETE_PENDING, 0);
    }
    FdoStop(Fdo, TRUE);
    IoSetDeviceInterfaceState(&Fdo->Interface, FALSE);
    IoReleaseRemoveLockAndWait(&Fdo->RemoveLock, Irp);
    RtlFreeUnicodeString(&Fdo->Interface);
#ifdef FIXED
    Irp->IoStatus.Status = STATUS_SUCCESS;
    FdoPassOn(Fdo, Irp);
#else
    Complete(Irp, STATUS_SUCCESS, 0);
#endif
    IoDetachDevice(Lower);
    IoDeleteDevice(Fdo->Self);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_REMOVE_DEVICE) {
        return Remove(Device->DeviceExtension, Irp);
    }
    return FdoPnp(Device, Irp);
}

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp); /* reads and writes have their lengths at the same place */
    PUCHAR Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Length = Stack->Parameters.Read.Length, Done = 0;
    NTSTATUS Status;
    KIRQL OldIrql;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    if (Stack->MajorFunction == IRP_MJ_WRITE) {
        while (Done < Length && Own->Count < KEYS) {
            Own->Keys[Own->Count++] = Buffer[Done++];
        }
    } else {
        while (Done < Length && Own->Count != 0) {
            Buffer[Done++] = Own->Keys[--Own->Count];
        }
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, Done);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    return STATUS_SUCCESS;
}
