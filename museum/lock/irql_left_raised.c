/*
 * Two counters that are set together: nothing else of this processor runs in between, by raising the level.
 *
 * The bug: the path for a value that has not changed returns without lowering the level. It shows when the same value is set twice.
 *
 * Device: none
 * Rule: irql-changed-by-routine
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Twin"
#define LINK_NAME L"\\DosDevices\\Twin"
#include "../include/legacy.h"

#define IOCTL_TWIN_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x877, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _DEVICE {
    ULONG Value;
    ULONG Inverse;
} DEVICE, *PDEVICE;

static NTSTATUS Set(PDEVICE Twin, ULONG Value)
{
    KIRQL OldIrql;

    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    if (Twin->Value == Value) {
#ifdef FIXED
        KeLowerIrql(OldIrql);
#endif
        return STATUS_ALREADY_COMMITTED;
    }
    Twin->Value = Value;
    Twin->Inverse = ~Value;
    KeLowerIrql(OldIrql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_TWIN_SET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Complete(Irp, Set(Device->DeviceExtension, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
