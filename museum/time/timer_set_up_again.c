/*
 * A screen that is dimmed when there was no IOCTL_SCREEN_TOUCH for 3 s.
 *
 * The bug: each touch initialises the timer and sets it, also while it is set. It shows with the second touch within 3 s.
 *
 * Device: none
 * Rule: timer-initialized-while-set
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Screen"
#define LINK_NAME L"\\DosDevices\\Screen"
#include "../include/legacy.h"

#define IOCTL_SCREEN_TOUCH CTL_CODE(FILE_DEVICE_SCREEN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KTIMER Timer;
    KDPC Dpc;
    LONG Dimmed;
} DEVICE, *PDEVICE;

static VOID NTAPI Dim(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    InterlockedExchange(&((PDEVICE)Context)->Dimmed, TRUE);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Screen = Device->DeviceExtension;
    LARGE_INTEGER Due;

    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_SCREEN_TOUCH) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    InterlockedExchange(&Screen->Dimmed, FALSE);
#ifndef FIXED
    KeInitializeTimer(&Screen->Timer);
#endif
    Due.QuadPart = -3 * 10000000LL;
    KeSetTimer(&Screen->Timer, Due, &Screen->Dpc);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Screen = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&Screen->Timer);
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Screen;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Screen = Device->DeviceExtension;
        KeInitializeTimer(&Screen->Timer);
        KeInitializeDpc(&Screen->Dpc, Dim, Screen);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
