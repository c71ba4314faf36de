/*
 * A label of up to 32 letters, kept as a string with a zero behind it.
 *
 * The bug: the block has room for the letters and none for the zero. It shows with the first label whose length is a multiple of 16.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Label"
#define LINK_NAME L"\\DosDevices\\Label"
#include "../include/legacy.h"

#define LABEL_TAG 'lbaL'
#define IOCTL_LABEL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC32, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    PCHAR Label;
} DEVICE, *PDEVICE;

static NTSTATUS SetLabel(PDEVICE Own, const CHAR *Text, ULONG Length)
{
    PCHAR New, Old;

    if (Length == 0 || Length > 32) {
        return STATUS_INVALID_PARAMETER;
    }
#ifdef FIXED
    New = ExAllocatePoolWithTag(PagedPool, Length + 1, LABEL_TAG);
#else
    New = ExAllocatePoolWithTag(PagedPool, Length, LABEL_TAG);
#endif
    if (New == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(New, Text, Length);
    New[Length] = 0;
    Old = InterlockedExchangePointer((PVOID *)&Own->Label, New);
    if (Old != NULL) {
        ExFreePoolWithTag(Old, LABEL_TAG);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_LABEL_SET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, SetLabel(Device->DeviceExtension, Irp->AssociatedIrp.SystemBuffer, InputOf(Stack)), 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    if (Own->Label != NULL) {
        ExFreePoolWithTag(Own->Label, LABEL_TAG);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
