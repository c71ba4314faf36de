/*
 * A message board of 256 bytes: IOCTL_BOARD_POST has a length and an offset in its input, and text behind them.
 *
 * The bug: the length from the input is signed, and only compared with the largest one: a negative one passes, and is a very long copy. It shows
 * with a length whose highest bit is set.
 *
 * Device: none
 * Rule: pool-overrun, wild-read, wild-write, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Board"
#define LINK_NAME L"\\DosDevices\\Board"
#include "../include/legacy.h"

#define BOARD_TAG 'draB'
#define BOARD_BYTES 256
#define IOCTL_BOARD_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB10, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BOARD_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB11, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _POST {
    LONG Length;
    UCHAR Text[BOARD_BYTES];
} POST, *PPOST;

typedef struct _DEVICE {
    PUCHAR Text;
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Board = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PPOST Post = Irp->AssociatedIrp.SystemBuffer;

    switch (CodeOf(Stack)) {
    case IOCTL_BOARD_POST:
        if (InputOf(Stack) < sizeof(POST) || Post->Length > BOARD_BYTES) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
#ifdef FIXED
        if (Post->Length < 0) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
#endif
        RtlCopyMemory(Board->Text, Post->Text, (ULONG)Post->Length);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_BOARD_READ:
        if (OutputOf(Stack) < BOARD_BYTES) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Board->Text, BOARD_BYTES);
        return Complete(Irp, STATUS_SUCCESS, BOARD_BYTES);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExFreePoolWithTag(((PDEVICE)Driver->DeviceObject->DeviceExtension)->Text, BOARD_TAG);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Board;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Board = Device->DeviceExtension;
    Board->Text = ExAllocatePoolWithTag(PagedPool, BOARD_BYTES, BOARD_TAG);
    if (Board->Text == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Board->Text, BOARD_BYTES);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
