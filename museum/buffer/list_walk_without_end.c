/*
 * A packet inspector: the input is a chain of records, each with the distance to the next one; 0 ends it.
 *
 * The bug: distances are added up without a look at the end of the input. It shows with a chain whose last record points beyond it.
 *
 * Device: none
 * Rule: pool-overrun, wild-read
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Inspector"
#define LINK_NAME L"\\DosDevices\\Inspector"
#include "../include/legacy.h"

#define IOCTL_INSPECT CTL_CODE(FILE_DEVICE_NETWORK, 0xC39, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _RECORD {
    ULONG NextOffset;
    ULONG Kind;
} RECORD, *PRECORD;

static ULONG Inspect(PUCHAR Bytes, ULONG Length)
{
    ULONG Offset = 0, Kinds = 0;
    PRECORD Record;

    for (;;) {
#ifdef FIXED
        if (Length < sizeof(RECORD) || Offset > Length - sizeof(RECORD)) {
            return Kinds;
        }
#else
        UNREFERENCED_PARAMETER(Length);
#endif
        Record = (PRECORD)(Bytes + Offset);
        Kinds |= 1u << (Record->Kind & 31);
        if (Record->NextOffset == 0 || Record->NextOffset > MAXULONG - Offset) {
            return Kinds;
        }
        Offset += Record->NextOffset;
    }
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_INSPECT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(RECORD) || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    *(PULONG)Buffer = Inspect(Buffer, InputOf(Stack));
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
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
