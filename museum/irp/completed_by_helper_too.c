/*
 * A store of 16 named values; the requests are checked by a routine that answers bad ones itself.
 *
 * The bug: Check completes a request that it refuses, and the caller, which only sees that the check failed, completes it again. It shows with an
 * index beyond the store.
 *
 * Device: none
 * Rule: double-completion, use-after-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Values"
#define LINK_NAME L"\\DosDevices\\Values"
#include "../include/legacy.h"

#define IOCTL_VALUES_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_VALUES_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _VALUE {
    ULONG Index;
    ULONG Value;
} VALUE, *PVALUE;

typedef struct _DEVICE {
    ULONG Values[16];
} DEVICE, *PDEVICE;

/* FALSE: the request has been completed. */
static BOOLEAN Check(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PVALUE Value = Irp->AssociatedIrp.SystemBuffer;

    if (InputOf(Stack) < sizeof(VALUE) || Value->Index >= 16) {
        Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        return FALSE;
    }
    return TRUE;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Store = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVALUE Value = Irp->AssociatedIrp.SystemBuffer;
    ULONG Code = CodeOf(Stack);

    if (Code != IOCTL_VALUES_SET && Code != IOCTL_VALUES_GET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (!Check(Irp, Stack)) {
#ifdef FIXED
        return STATUS_INVALID_PARAMETER;
#else
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
#endif
    }
    if (Code == IOCTL_VALUES_SET) {
        Store->Values[Value->Index] = Value->Value;
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    if (OutputOf(Stack) < sizeof(VALUE)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Value->Value = Store->Values[Value->Index];
    return Complete(Irp, STATUS_SUCCESS, sizeof(VALUE));
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
