/*
 * A driver that compares no length: each of its requests reads a field behind the first eight bytes of the system buffer, an instruction of its own for
 * each. One mistake, which shows at three places, and at each of them as a buffer that is too short, or as none.
 */
#include <ddk/wdm.h>

#define IOCTL_SET(FIELD) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (FIELD), METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SETTINGS {
    ULONG64 Version;
    volatile ULONG Gain;
    volatile ULONG Offset;
    volatile ULONG Rate;
} SETTINGS, *PSETTINGS;

static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\Lengths");
static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Lengths");
static SETTINGS Set;

static NTSTATUS NTAPI Complete(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI DispatchOpen(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSETTINGS Given = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    switch (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SET(0):
        Set.Gain = Given->Gain;
        return Complete(Irp, STATUS_SUCCESS);
    case IOCTL_SET(1):
        Set.Offset = Given->Offset;
        return Complete(Irp, STATUS_SUCCESS);
    case IOCTL_SET(2):
        Set.Rate = Given->Rate;
        return Complete(Irp, STATUS_SUCCESS);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&Link);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, 0, &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOpen;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOpen;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
