/*
 * A driver that keeps the level of its diagnostics in its service's key: IOCTL_DIAGNOSTICS_LEVEL sets and saves it.
 *
 * The bug: the value is written to the registry while the spin lock that guards it is held, at DISPATCH_LEVEL. It shows with the first change.
 *
 * Device: none
 * Rule: irql-too-high
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Diagnostics"
#define LINK_NAME L"\\DosDevices\\Diagnostics"
#include "../include/legacy.h"

#define IOCTL_DIAGNOSTICS_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    ULONG Level;
    HANDLE Key;
} DEVICE, *PDEVICE;

static NTSTATUS SetLevel(PDEVICE Own, ULONG Level)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Level");
    NTSTATUS Status;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Own->Level = Level;
#ifdef FIXED
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    Status = ZwSetValueKey(Own->Key, &Name, 0, REG_DWORD, &Level, sizeof(Level));
#else
    Status = ZwSetValueKey(Own->Key, &Name, 0, REG_DWORD, &Level, sizeof(Level));
    KeReleaseSpinLock(&Own->Lock, OldIrql);
#endif
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_DIAGNOSTICS_LEVEL) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) != sizeof(ULONG) || *(PULONG)Irp->AssociatedIrp.SystemBuffer > 5) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Complete(Irp, SetLevel(Device->DeviceExtension, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ZwClose(((PDEVICE)Driver->DeviceObject->DeviceExtension)->Key);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    OBJECT_ATTRIBUTES Attributes;
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    KeInitializeSpinLock(&Own->Lock);
    InitializeObjectAttributes(&Attributes, RegistryPath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    Status = ZwOpenKey(&Own->Key, KEY_WRITE, &Attributes);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
