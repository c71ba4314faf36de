/*
 * A bank of two accounts, each with a spin lock: IOCTL_BANK_MOVE moves an amount from one to the other.
 *
 * The bug: both locks are acquired with the same variable for the old level, so the second overwrites what the first has saved, and the level stays at
 * DISPATCH_LEVEL. It shows with the first transfer.
 *
 * Device: none
 * Rule: irql-changed-by-routine
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Bank"
#define LINK_NAME L"\\DosDevices\\Bank"
#include "../include/legacy.h"

#define IOCTL_BANK_MOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BANK_BALANCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _ACCOUNT {
    KSPIN_LOCK Lock;
    LONG Balance;
} ACCOUNT;

typedef struct _DEVICE {
    ACCOUNT Giro;
    ACCOUNT Savings;
} DEVICE, *PDEVICE;

static VOID Move(PDEVICE Bank, LONG Amount)
{
    KIRQL OldIrql;
#ifdef FIXED
    KIRQL InnerIrql;
#endif

    KeAcquireSpinLock(&Bank->Giro.Lock, &OldIrql);
#ifdef FIXED
    KeAcquireSpinLock(&Bank->Savings.Lock, &InnerIrql);
#else
    KeAcquireSpinLock(&Bank->Savings.Lock, &OldIrql);
#endif
    Bank->Giro.Balance -= Amount;
    Bank->Savings.Balance += Amount;
#ifdef FIXED
    KeReleaseSpinLock(&Bank->Savings.Lock, InnerIrql);
#else
    KeReleaseSpinLock(&Bank->Savings.Lock, OldIrql);
#endif
    KeReleaseSpinLock(&Bank->Giro.Lock, OldIrql);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Bank = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PLONG Buffer = Irp->AssociatedIrp.SystemBuffer;

    switch (CodeOf(Stack)) {
    case IOCTL_BANK_MOVE:
        if (InputOf(Stack) < sizeof(LONG)) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        Move(Bank, *Buffer);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_BANK_BALANCE:
        if (OutputOf(Stack) < sizeof(LONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *Buffer = Bank->Savings.Balance;
        return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Bank;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Bank = Device->DeviceExtension;
        KeInitializeSpinLock(&Bank->Giro.Lock);
        KeInitializeSpinLock(&Bank->Savings.Lock);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
