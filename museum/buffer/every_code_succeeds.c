/*
 * A label for a shelf: one code puts text on it, one wipes it off. What is neither succeeds, too: the driver's switch has no default.
 *
 * The bug: the text is copied whatever its length is, and the label, the end of the device extension, has room for 64 bytes. It shows with a longer one.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\ShelfLabel"
#define LINK_NAME L"\\DosDevices\\ShelfLabel"
#include "../include/legacy.h"

#define IOCTL_LABEL_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F8, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LABEL_WIPE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F9, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    UCHAR Text[64];
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = Stack->Parameters.DeviceIoControl.InputBufferLength;
    PDEVICE Own = Device->DeviceExtension;

#ifdef FIXED
    if (Length > sizeof(Own->Text)) {
        Length = sizeof(Own->Text);
    }
#endif
    ExAcquireFastMutex(&Own->Mutex);
    switch (CodeOf(Stack)) {
    case IOCTL_LABEL_PUT:
        if (Length > 0) {
            RtlCopyMemory(Own->Text, Irp->AssociatedIrp.SystemBuffer, Length);
        }
        break;
    case IOCTL_LABEL_WIPE:
        RtlZeroMemory(Own->Text, sizeof(Own->Text));
        break;
    }
    ExReleaseFastMutex(&Own->Mutex);
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
    ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Mutex);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
