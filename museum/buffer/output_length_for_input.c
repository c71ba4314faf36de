/*
 * A stamp: IOCTL_STAMP_SIGN takes 32 bytes and answers 8.
 *
 * The bug: the length that is compared with the 32 bytes of input is that of the output. It shows with a short input and a long output.
 *
 * Device: none
 * Rule: pool-overrun, wild-read, output-never-stored
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Stamp"
#define LINK_NAME L"\\DosDevices\\Stamp"
#include "../include/legacy.h"

#define IOCTL_STAMP_SIGN CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC37, METHOD_IN_DIRECT, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    LONG64 Key;
} DEVICE, *PDEVICE;

static LONG64 Sign(const ULONG64 *Words)
{
    return Words[0] ^ (Words[1] << 1) ^ (Words[2] << 2) ^ (Words[3] << 3);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
#ifdef FIXED
    ULONG Length = InputOf(Stack);
#else
    ULONG Length = OutputOf(Stack);
#endif

    if (CodeOf(Stack) != IOCTL_STAMP_SIGN) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Length < 4 * sizeof(ULONG64)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    InterlockedExchangeAdd64(&Own->Key, Sign(Irp->AssociatedIrp.SystemBuffer));
    return Complete(Irp, STATUS_SUCCESS, 0);
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
