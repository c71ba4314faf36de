/*
 * A driver whose requests take a header in front of their data if the value "UseHeader" of its Parameters key says so. No INF writes it, and it is 0 where it is
 * not there.
 *
 * The bug: with a header the length behind it is taken from the length of the input without a look at whether there is a header, so that it wraps. It shows
 * where the value is there and a request is short.
 *
 * Device: none
 * Rule: pool-overrun, wild-read, wild-write
 * Needs: ioctl, registry
 */
#define DEVICE_NAME L"\\Device\\Headed"
#define LINK_NAME L"\\DosDevices\\Headed"
#include "../include/legacy.h"
#include "../include/registry_value.h"

#define IOCTL_SUM CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB40, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define HEADER 8

static ULONG UseHeader;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PUCHAR Data = Irp->AssociatedIrp.SystemBuffer;
    ULONG Length = InputOf(Stack), Index, Sum = 0;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_SUM) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Length == 0 || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    if (UseHeader != 0) {
#ifdef FIXED
        if (Length < HEADER) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
#endif
        Length -= HEADER;
        Data += HEADER;
    }
    for (Index = 0; Index < Length; Index++) {
        Sum += Data[Index];
    }
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Sum;
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    UseHeader = ValueOf(RegistryPath, L"UseHeader", 0);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
