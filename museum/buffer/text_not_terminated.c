/*
 * A lookup of settings by their names, which come as text in the input.
 *
 * The bug: the input is taken for a string that ends with a zero, and its length is looked for beyond its end. It shows with a text without a zero.
 *
 * Device: none
 * Rule: pool-overrun, wild-read
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Lookup"
#define LINK_NAME L"\\DosDevices\\Lookup"
#include "../include/legacy.h"

#define IOCTL_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC31, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const WCHAR Known[] = L"Brightness";

static NTSTATUS Lookup(PWSTR Text, ULONG Bytes)
{
    ULONG Index = 0;

    if (Bytes < sizeof(WCHAR)) {
        return STATUS_INVALID_PARAMETER;
    }
#ifdef FIXED
    while (Index < Bytes / sizeof(WCHAR) && Index < RTL_NUMBER_OF(Known) && Text[Index] == Known[Index] && Text[Index] != 0) {
        Index++;
    }
    return Index < Bytes / sizeof(WCHAR) && Index < RTL_NUMBER_OF(Known) && Text[Index] == Known[Index] ? STATUS_SUCCESS
                                                                                                           : STATUS_NOT_FOUND;
#else
    {
        ULONG Length = 0;

        while (Text[Length] != 0) {
            Length++;
        }
        while (Index < Length && Index < RTL_NUMBER_OF(Known) && Text[Index] == Known[Index]) {
            Index++;
        }
        return Index == Length && Index == RTL_NUMBER_OF(Known) - 1 ? STATUS_SUCCESS : STATUS_NOT_FOUND;
    }
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_LOOKUP) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, Lookup(Irp->AssociatedIrp.SystemBuffer, InputOf(Stack)), 0);
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
