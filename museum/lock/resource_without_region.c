/*
 * A phone book with many readers and few writers, guarded by an ERESOURCE.
 *
 * The bug: the resource is acquired without a critical region around it, so that the thread can be suspended while it has it. It shows with the first request.
 *
 * Device: none
 * Rule: resource-apcs-enabled
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\PhoneBook"
#define LINK_NAME L"\\DosDevices\\PhoneBook"
#include "../include/legacy.h"

#define ENTRIES 32
#define IOCTL_PHONE_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PHONE_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_READ_ACCESS)
#ifdef FIXED
#define ENTER() KeEnterCriticalRegion()
#define LEAVE() KeLeaveCriticalRegion()
#else
#define ENTER()
#define LEAVE()
#endif

typedef struct _DEVICE {
    ERESOURCE Resource;
    ULONG64 Numbers[ENTRIES];
} DEVICE, *PDEVICE;

typedef struct _PHONE {
    ULONG64 Index;
    ULONG64 Number;
} PHONE, *PPHONE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PPHONE Phone = Irp->AssociatedIrp.SystemBuffer;

    if (CodeOf(Stack) != IOCTL_PHONE_SET && CodeOf(Stack) != IOCTL_PHONE_GET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(PHONE) || Phone->Index >= ENTRIES) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    ENTER();
    if (CodeOf(Stack) == IOCTL_PHONE_SET) {
        ExAcquireResourceExclusiveLite(&Own->Resource, TRUE);
        Own->Numbers[Phone->Index] = Phone->Number;
    } else {
        ExAcquireResourceSharedLite(&Own->Resource, TRUE);
        Phone->Number = Own->Numbers[Phone->Index];
    }
    ExReleaseResourceLite(&Own->Resource);
    LEAVE();
    return Complete(Irp, STATUS_SUCCESS, min(OutputOf(Stack), sizeof(PHONE)));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExDeleteResourceLite(&((PDEVICE)Driver->DeviceObject->DeviceExtension)->Resource);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = ExInitializeResourceLite(&((PDEVICE)Device->DeviceExtension)->Resource);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
