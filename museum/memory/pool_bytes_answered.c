/*
 * A device that answers a report of 64 bytes, which it makes in pool.
 *
 * The bug: only the report's head is filled; the rest is what the last user of the pool has left, and goes to the application. It shows with the first report.
 *
 * Device: none
 * Rule: output-never-stored
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Report"
#define LINK_NAME L"\\DosDevices\\Report"
#include "../include/legacy.h"

#define REPORT_TAG 'opeR'
#define IOCTL_REPORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F6, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _REPORT {
    ULONG Kind;
    ULONG Length;
    UCHAR Bytes[56];
} REPORT, *PREPORT;

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PREPORT Report;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_REPORT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(REPORT)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Report = ExAllocatePoolWithTag(NonPagedPool, sizeof(REPORT), REPORT_TAG);
    if (Report == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
#ifdef FIXED
    RtlZeroMemory(Report, sizeof(REPORT));
#endif
    Report->Kind = 3;
    Report->Length = 0;
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Report, sizeof(REPORT));
    ExFreePoolWithTag(Report, REPORT_TAG);
    return Complete(Irp, STATUS_SUCCESS, sizeof(REPORT));
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
