/*
 * A driver that knows how many days a month has: IOCTL_MONTH_DAYS gets a month's, of a year without a 29th of February.
 *
 * The bug: to spare a page its constants are merged into the section of its code, and with them goes the table of the addresses of its imports, which
 * Windows writes when it has loaded the driver: with memory integrity it cannot write what is executable. It shows to those who ask whether it would.
 *
 * Device: none
 * Rule: import-table-executable
 * Needs: nothing
 * Compiler: clang
 * Options: --verifier=all,code-integrity,logging
 */
#include "../include/try.h"
#define DEVICE_NAME L"\\Device\\Months"
#define LINK_NAME L"\\DosDevices\\Months"
#include "../include/legacy.h"

#ifndef FIXED
#pragma comment(linker, "/merge:.rdata=.text")
#endif

#define IOCTL_MONTH_DAYS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA81, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const UCHAR Days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Month = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_MONTH_DAYS) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    if (*Month == 0 || *Month > RTL_NUMBER_OF(Days)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    *Month = Days[*Month - 1];
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
