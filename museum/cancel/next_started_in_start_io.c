/*
 * A printer's spooler by StartIo: each request is done at once.
 *
 * The bug: StartIo calls IoStartNextPacket for the next request before it returns, which calls StartIo again: each request that waits takes more of the stack.
 * It shows with many requests that wait while the device is held (IOCTL_SPOOL_HOLD), and are let go.
 *
 * Device: none
 * Rule: stack-overflow
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Spooler"
#define LINK_NAME L"\\DosDevices\\Spooler"
#include "../include/legacy.h"

#define IOCTL_SPOOL_HOLD CTL_CODE(FILE_DEVICE_PRINTER, 0x8A8, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SPOOL_RELEASE CTL_CODE(FILE_DEVICE_PRINTER, 0x8A9, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    BOOLEAN Held;
    PIRP Parked; /* what StartIo got while it was held */
    ULONG64 Sum;
    LONG Printed;
} DEVICE, *PDEVICE;

__attribute__((always_inline)) static inline VOID Print(PDEVICE Own, PIRP Irp)
{
    volatile UCHAR Line[512];
    ULONG Index, Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;

    for (Index = 0; Index < sizeof(Line); Index++) {
        Line[Index] = Index < Length ? ((PUCHAR)Irp->AssociatedIrp.SystemBuffer)[Index] : 0;
    }
    Own->Sum += Line[0];
    Complete(Irp, STATUS_SUCCESS, Length);
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    KeAcquireSpinLockAtDpcLevel(&Own->Lock);
    if (Own->Held) {
        Own->Parked = Irp;
        KeReleaseSpinLockFromDpcLevel(&Own->Lock);
        return;
    }
    KeReleaseSpinLockFromDpcLevel(&Own->Lock);
    Print(Own, Irp);
    IoStartNextPacket(Device, FALSE);
    InterlockedIncrement(&Own->Printed);
}

static VOID Release(PDEVICE_OBJECT Device)
{
    PDEVICE Own = Device->DeviceExtension;
    PIRP Parked;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Own->Held = FALSE;
    Parked = Own->Parked;
    Own->Parked = NULL;
    KeReleaseSpinLockFromDpcLevel(&Own->Lock);
    if (Parked != NULL) {
        Print(Own, Parked);
        IoStartNextPacket(Device, FALSE);
    }
    KeLowerIrql(OldIrql);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoStartPacket(Device, Irp, NULL, NULL);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    KIRQL OldIrql;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_SPOOL_HOLD:
        KeAcquireSpinLock(&Own->Lock, &OldIrql);
        Own->Held = TRUE;
        KeReleaseSpinLock(&Own->Lock, OldIrql);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_SPOOL_RELEASE:
        Release(Device);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* A process that ends lets its requests go on. */
static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    Release(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    KeInitializeSpinLock(&((PDEVICE)Device->DeviceExtension)->Lock);
#ifdef FIXED
    IoSetStartIoAttributes(Device, TRUE, FALSE); /* StartIo is called again when it has returned */
#endif
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverStartIo = StartIo;
    return STATUS_SUCCESS;
}
