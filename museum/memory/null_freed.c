/*
 * A clipboard: writes put bytes into it, IOCTL_CLIPBOARD_CLEAR empties it.
 *
 * The bug: the bytes are freed whether there are any or not. It shows with a clipboard that is empty already.
 *
 * Device: none
 * Rule: bad-free, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Clipboard"
#define LINK_NAME L"\\DosDevices\\Clipboard"
#include "../include/legacy.h"

#define CLIPBOARD_TAG 'pilC'
#define IOCTL_CLIPBOARD_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0xAC0, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    PVOID Bytes;
} DEVICE, *PDEVICE;

static VOID Exchange(PDEVICE Own, PVOID New)
{
    PVOID Old = InterlockedExchangePointer(&Own->Bytes, New);

#ifdef FIXED
    if (Old != NULL) {
        ExFreePoolWithTag(Old, CLIPBOARD_TAG);
    }
#else
    if (New == NULL || Old != NULL) {
        ExFreePoolWithTag(Old, CLIPBOARD_TAG);
    }
#endif
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PVOID New;

    if (Length == 0 || Length > PAGE_SIZE) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    New = ExAllocatePoolWithTag(PagedPool, Length, CLIPBOARD_TAG);
    if (New == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlCopyMemory(New, Irp->AssociatedIrp.SystemBuffer, Length);
    Exchange(Device->DeviceExtension, New);
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_CLIPBOARD_CLEAR) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Exchange(Device->DeviceExtension, NULL);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    if (Own->Bytes != NULL) {
        ExFreePoolWithTag(Own->Bytes, CLIPBOARD_TAG);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
