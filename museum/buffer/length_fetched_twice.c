/*
 * A message sender: its METHOD_NEITHER input begins with a length, which is checked before the message is copied.
 *
 * The bug: the length is read from the application's memory once for the check and once for the copy: another thread of the application changes it in between.
 * It shows with a schedule in which it does.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl, schedule
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\Sender"
#define LINK_NAME L"\\DosDevices\\Sender"
#include "../include/try.h"
#include "../include/legacy.h"

#define SENDER_TAG 'dneS'
#define LONGEST 64
#define IOCTL_SEND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_NEITHER, FILE_ANY_ACCESS)

typedef struct _MESSAGE {
    ULONG Length;
    UCHAR Text[LONGEST];
} MESSAGE, *PMESSAGE;

static NTSTATUS Send(volatile MESSAGE *Message, PUCHAR Copy)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Index;
#ifdef FIXED
    ULONG Length;
#endif

    __try {
        ProbeForRead((PVOID)Message, sizeof(MESSAGE), sizeof(ULONG));
#ifdef FIXED
        Length = Message->Length;
        if (Length > LONGEST) {
            return STATUS_INVALID_PARAMETER;
        }
        for (Index = 0; Index < Length; Index++) {
#else
        if (Message->Length > LONGEST) {
            return STATUS_INVALID_PARAMETER;
        }
        for (Index = 0; Index < Message->Length; Index++) {
#endif
            Copy[Index] = Message->Text[Index];
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;
    PUCHAR Copy;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_SEND) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(MESSAGE)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Copy = ExAllocatePoolWithTag(NonPagedPool, LONGEST, SENDER_TAG);
    if (Copy == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Status = Send(Stack->Parameters.DeviceIoControl.Type3InputBuffer, Copy);
    ExFreePoolWithTag(Copy, SENDER_TAG);
    return Complete(Irp, Status, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
