/*
 * A name that can be set once: IOCTL_NAME_SET sets it, IOCTL_NAME_GET answers it.
 *
 * The bug: when the name has been set already, the routine returns with the fast mutex acquired, and with it at APC_LEVEL. It shows with the second name.
 *
 * Device: none
 * Rule: irql-changed-by-routine, fast-mutex-recursive
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\NameTag"
#define LINK_NAME L"\\DosDevices\\NameTag"
#include "../include/legacy.h"

#define IOCTL_NAME_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE00, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_NAME_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE01, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FAST_MUTEX Lock;
    ULONG Length;
    CHAR Name[32];
} DEVICE, *PDEVICE;

static NTSTATUS SetName(PDEVICE Own, const CHAR *Name, ULONG Length)
{
    if (Length == 0 || Length > sizeof(Own->Name)) {
        return STATUS_INVALID_PARAMETER;
    }
    ExAcquireFastMutex(&Own->Lock);
    if (Own->Length != 0) {
#ifdef FIXED
        ExReleaseFastMutex(&Own->Lock);
#endif
        return STATUS_OBJECT_NAME_COLLISION;
    }
    RtlCopyMemory(Own->Name, Name, Length);
    Own->Length = Length;
    ExReleaseFastMutex(&Own->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length;

    switch (CodeOf(Stack)) {
    case IOCTL_NAME_SET:
        return Complete(Irp, SetName(Own, Irp->AssociatedIrp.SystemBuffer, InputOf(Stack)), 0);
    case IOCTL_NAME_GET:
        ExAcquireFastMutex(&Own->Lock);
        Length = min(Own->Length, OutputOf(Stack));
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Own->Name, Length);
        ExReleaseFastMutex(&Own->Lock);
        return Complete(Irp, STATUS_SUCCESS, Length);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
