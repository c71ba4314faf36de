/*
 * Statistics of channels, of which none is open yet: a request and its answer are a record of 48 bytes each, and of no other length.
 *
 * The bug: a channel that is not open is not refused, and its statistics are looked for where nothing is. It shows with the two lengths that are right.
 *
 * Device: none
 * Rule: wild-read, bad-pointer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\ChannelStatistics"
#define LINK_NAME L"\\DosDevices\\ChannelStatistics"
#include "../include/legacy.h"

#define IOCTL_CHANNEL_STATISTICS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8FA, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define CHANNELS 4

typedef struct _RECORD {
    ULONG Channel;
    ULONG Reserved;
    ULONGLONG Counts[5];
} RECORD, *PRECORD;

typedef struct _DEVICE {
    PRECORD Open[CHANNELS];
} DEVICE, *PDEVICE;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PRECORD Record = Irp->AssociatedIrp.SystemBuffer;
    PDEVICE Own = Device->DeviceExtension;
    PRECORD Channel;

    if (CodeOf(Stack) != IOCTL_CHANNEL_STATISTICS) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength != sizeof(RECORD) || Stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(RECORD)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (Record->Channel >= CHANNELS) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Channel = Own->Open[Record->Channel];
#ifdef FIXED
    if (Channel == NULL) {
        return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    }
#endif
    RtlCopyMemory(Record->Counts, Channel->Counts, sizeof(Record->Counts));
    return Complete(Irp, STATUS_SUCCESS, sizeof(RECORD));
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
