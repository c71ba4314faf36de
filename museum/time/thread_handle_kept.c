/*
 * A calibration that is done by a thread of its own when IOCTL_CALIBRATE asks for it; the request waits for the thread's end.
 *
 * The bug: the thread's handle is never closed. It shows with the first request, when the driver is unloaded.
 *
 * Device: none
 * Rule: handle-leak
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Calibration"
#define LINK_NAME L"\\DosDevices\\Calibration"
#include "../include/legacy.h"

#define IOCTL_CALIBRATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x815, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Of ntifs.h. */
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

typedef struct _DEVICE {
    LONG Factor;
} DEVICE, *PDEVICE;

static VOID NTAPI Calibrate(PVOID Context)
{
    PDEVICE Own = Context;

    InterlockedIncrement(&Own->Factor);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS Start(PDEVICE Own)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Thread;
    NTSTATUS Status;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, Calibrate, Own);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    ZwWaitForSingleObject(Thread, FALSE, NULL);
#ifdef FIXED
    ZwClose(Thread);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_CALIBRATE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, Start(Device->DeviceExtension), 0);
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
