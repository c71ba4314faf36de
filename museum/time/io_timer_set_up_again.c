/*
 * A stopwatch that counts seconds by the device's timer (IoInitializeTimer).
 *
 * The bug: the timer is initialised each time the stopwatch is started, and not once where the device is made. It shows when it is started the second
 * time.
 *
 * Device: none
 * Rule: io-timer-initialized-again, io-timer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Stopwatch"
#define LINK_NAME L"\\DosDevices\\Stopwatch"
#include "../include/legacy.h"

#define IOCTL_STOPWATCH_START CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STOPWATCH_STOP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D2, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    LONG Started;
    LONG Seconds;
} DEVICE, *PDEVICE;

static VOID NTAPI Second(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    InterlockedIncrement(&((PDEVICE)Context)->Seconds);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_STOPWATCH_START:
#ifndef FIXED
        IoInitializeTimer(Device, Second, Own);
#endif
        IoStartTimer(Device);
        Own->Started = TRUE;
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_STOPWATCH_STOP:
        if (Own->Started) {
            IoStopTimer(Device);
        }
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    if (((PDEVICE)Driver->DeviceObject->DeviceExtension)->Started) {
        IoStopTimer(Driver->DeviceObject);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
#ifdef FIXED
    Status = IoInitializeTimer(Device, Second, Device->DeviceExtension);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
#endif
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
