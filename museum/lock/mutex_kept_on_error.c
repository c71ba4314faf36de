/*
 * A printer that one job at a time may use, guarded by a mutex: IOCTL_PRINT_JOB prints as many pages as the input says.
 *
 * The bug: a job of too many pages is refused with the mutex still owned: the next one waits for ever, and the thread may end owning it. It shows with a job of
 * more than 100 pages.
 *
 * Device: none
 * Rule: critical-region-unpaired, stuck, thread-ended-owning-mutex, deadlock
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Printer"
#define LINK_NAME L"\\DosDevices\\Printer"
#include "../include/legacy.h"

#define IOCTL_PRINT_JOB CTL_CODE(FILE_DEVICE_PRINTER, 0x890, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _DEVICE {
    KMUTEX Mutex;
    ULONG Pages;
} DEVICE, *PDEVICE;

static NTSTATUS Print(PDEVICE Printer, ULONG Pages)
{
    KeWaitForSingleObject(&Printer->Mutex, Executive, KernelMode, FALSE, NULL);
    if (Pages > 100) {
#ifdef FIXED
        KeReleaseMutex(&Printer->Mutex, FALSE);
#endif
        return STATUS_INVALID_PARAMETER;
    }
    Printer->Pages += Pages;
    KeReleaseMutex(&Printer->Mutex, FALSE);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_PRINT_JOB) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Complete(Irp, Print(Device->DeviceExtension, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeMutex(&((PDEVICE)Device->DeviceExtension)->Mutex, 0);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
