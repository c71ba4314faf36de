/*
 * A beeper that IOCTL_BEEP_START lets beep every 100 ms.
 *
 * The bug: Unload deletes the device and does not cancel the timer. It shows when the driver is unloaded while it beeps.
 *
 * Device: none
 * Rule: unload-still-called, freed-active-timer
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Beeper"
#define LINK_NAME L"\\DosDevices\\Beeper"
#include "../include/legacy.h"

#define IOCTL_BEEP_START CTL_CODE(FILE_DEVICE_BEEP, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)

static KTIMER Timer;
static KDPC TimerDpc;
static LONG Beeps;

static VOID NTAPI Beep(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    InterlockedIncrement(&Beeps);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    LARGE_INTEGER Due;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_BEEP_START) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Due.QuadPart = -100 * 10000;
    KeSetTimerEx(&Timer, Due, 100, &TimerDpc);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
#ifdef FIXED
    KeCancelTimer(&Timer);
    KeFlushQueuedDpcs();
#endif
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeTimer(&Timer);
        KeInitializeDpc(&TimerDpc, Beep, NULL);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
