/*
 * A stock of parts in bins: IOCTL_STOCK_TAKE takes some out of one, IOCTL_STOCK_TOTAL counts them all.
 *
 * The bug: what Take does on an empty bin, Refill, acquires the lock that Take has already. It shows when a bin has too few.
 *
 * Device: none
 * Rule: spin-lock-recursion
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Stock"
#define LINK_NAME L"\\DosDevices\\Stock"
#include "../include/legacy.h"

#define BINS 4
#define IOCTL_STOCK_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B8, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STOCK_TOTAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B9, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    ULONG Parts[BINS];
} DEVICE, *PDEVICE;

typedef struct _TAKE {
    ULONG Bin;
    ULONG Parts;
} TAKE, *PTAKE;

static VOID Refill(PDEVICE Stock, ULONG Bin)
{
#ifdef FIXED
    Stock->Parts[Bin] += 100;
#else
    KIRQL OldIrql;

    KeAcquireSpinLock(&Stock->Lock, &OldIrql);
    Stock->Parts[Bin] += 100;
    KeReleaseSpinLock(&Stock->Lock, OldIrql);
#endif
}

static VOID Take(PDEVICE Stock, PTAKE Take)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Stock->Lock, &OldIrql);
    if (Stock->Parts[Take->Bin] < Take->Parts) {
        Refill(Stock, Take->Bin);
    }
    Stock->Parts[Take->Bin] -= Take->Parts;
    KeReleaseSpinLock(&Stock->Lock, OldIrql);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Stock = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PTAKE Input = Irp->AssociatedIrp.SystemBuffer;

    switch (CodeOf(Stack)) {
    case IOCTL_STOCK_TAKE:
        if (InputOf(Stack) < sizeof(TAKE) || Input->Bin >= BINS || Input->Parts > 100) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        Take(Stock, Input);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_STOCK_TOTAL:
        if (OutputOf(Stack) < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PULONG)Input = Stock->Parts[0] + Stock->Parts[1] + Stock->Parts[2] + Stock->Parts[3];
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeSpinLock(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
