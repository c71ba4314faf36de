/*
 * A text transformer whose control code is METHOD_NEITHER, as its buffers are large.
 *
 * The bug: the output pointer is used as the application gave it, without ProbeForWrite: an address of the kernel's is as good as any. It shows with a pointer
 * into the kernel, or to nothing.
 *
 * Device: none
 * Rule: bad-pointer, wild-write, wild-read, user-memory-elsewhere, unhandled-exception
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\Capitals"
#define LINK_NAME L"\\DosDevices\\Capitals"
#include "../include/try.h"
#include "../include/legacy.h"

#define IOCTL_CAPITALS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_NEITHER, FILE_ANY_ACCESS)

static NTSTATUS Transform(const UCHAR *Input, PUCHAR Output, ULONG Length)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Index;

#ifdef FIXED
    __try {
        ProbeForRead((PVOID)Input, Length, 1);
        ProbeForWrite(Output, Length, 1);
#endif
        for (Index = 0; Index < Length; Index++) {
            UCHAR Letter = Input[Index];

            Output[Index] = Letter >= 'a' && Letter <= 'z' ? (UCHAR)(Letter - 'a' + 'A') : Letter;
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
    ULONG Length = min(InputOf(Stack), OutputOf(Stack));
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_CAPITALS) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Status = Transform(Stack->Parameters.DeviceIoControl.Type3InputBuffer, Irp->UserBuffer, Length);
    return Complete(Irp, Status, Status == STATUS_SUCCESS ? Length : 0);
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
