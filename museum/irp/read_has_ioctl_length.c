/*
 * A random number device: reads fill the caller's buffer, IOCTL_NOISE_SEED sets the seed.
 *
 * The bug: the read routine takes its length from Parameters.DeviceIoControl.InputBufferLength, which lies where a read has its Key: the length that is
 * reported has nothing to do with the buffer. It shows with a read whose key is not zero, or never fills the buffer where it is.
 *
 * Device: none
 * Rule: output-never-stored, information-too-large, pool-overrun, wild-write
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Noise"
#define LINK_NAME L"\\DosDevices\\Noise"
#include "../include/legacy.h"

#define IOCTL_NOISE_SEED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    ULONG Seed;
} DEVICE, *PDEVICE;

static VOID Fill(PDEVICE Noise, PUCHAR Buffer, ULONG Length)
{
    while (Length-- > 0) {
        Noise->Seed = Noise->Seed * 1664525 + 1013904223;
        *Buffer++ = (UCHAR)(Noise->Seed >> 24);
    }
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
#ifdef FIXED
    ULONG Length = Stack->Parameters.Read.Length;
#else
    ULONG Length = Stack->Parameters.DeviceIoControl.InputBufferLength;
#endif

    Fill(Device->DeviceExtension, Irp->AssociatedIrp.SystemBuffer, Length);
    return Complete(Irp, STATUS_SUCCESS, Stack->Parameters.Read.Length);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Noise = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_NOISE_SEED) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) != sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Noise->Seed = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
