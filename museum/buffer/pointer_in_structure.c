/*
 * A logger whose input has a pointer to the text, and its length.
 *
 * The bug: the request is buffered, and the pointer within the buffer is the application's: it is used without a probe or a handler. It shows with a pointer to
 * nothing.
 *
 * Device: none
 * Rule: wild-read, bad-pointer, user-memory-elsewhere, wild-pointer
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\Logger"
#define LINK_NAME L"\\DosDevices\\Logger"
#include "../include/try.h"
#include "../include/legacy.h"

#define IOCTL_LOG_TEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA90, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _TEXT {
    const UCHAR *Bytes;
    ULONG64 Length;
} TEXT, *PTEXT;

typedef struct _DEVICE {
    LONG Letters;
} DEVICE, *PDEVICE;

static NTSTATUS Log(PDEVICE Own, PTEXT Text)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG64 Index;

#ifdef FIXED
    __try {
        ProbeForRead((PVOID)Text->Bytes, Text->Length, 1);
#endif
        for (Index = 0; Index < Text->Length && Index < 80; Index++) {
            Own->Letters += ((volatile const UCHAR *)Text->Bytes)[Index] != ' ';
        }
#ifdef FIXED
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
#endif
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_LOG_TEXT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(TEXT)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Complete(Irp, Log(Device->DeviceExtension, Irp->AssociatedIrp.SystemBuffer), 0);
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
