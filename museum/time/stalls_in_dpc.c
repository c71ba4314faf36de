/*
 * A relay that needs 2 ms after it has been switched; a timer's DPC switches it as asked.
 *
 * The bug: the DPC stalls the processor for those 2 ms. It shows with every switching.
 *
 * Device: none
 * Rule: dpc-stalls, long-stall, dpc-watchdog
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Relay"
#define LINK_NAME L"\\DosDevices\\Relay"
#include "../include/legacy.h"

#define IOCTL_RELAY_SWITCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x844, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KTIMER Timer;
    KDPC Dpc;
    LONG On;
    LONG Settled;
} DEVICE, *PDEVICE;

static VOID NTAPI Switch(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Relay = Context;
#ifdef FIXED
    LARGE_INTEGER Due;
#endif

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (InterlockedExchange(&Relay->Settled, TRUE)) {
        return;
    }
    InterlockedXor(&Relay->On, 1);
#ifdef FIXED
    Due.QuadPart = -2 * 10000;
    KeSetTimer(&Relay->Timer, Due, &Relay->Dpc);
#else
    KeStallExecutionProcessor(2000);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Relay = Device->DeviceExtension;
    LARGE_INTEGER Due;

    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_RELAY_SWITCH) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    InterlockedExchange(&Relay->Settled, FALSE);
    Due.QuadPart = -10000;
    KeSetTimer(&Relay->Timer, Due, &Relay->Dpc);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Relay = Driver->DeviceObject->DeviceExtension;

    InterlockedExchange(&Relay->Settled, TRUE);
    KeCancelTimer(&Relay->Timer);
    KeFlushQueuedDpcs();
    KeCancelTimer(&Relay->Timer); /* a routine that ran just then may have set it again */
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Relay;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Relay = Device->DeviceExtension;
        KeInitializeTimer(&Relay->Timer);
        KeInitializeDpc(&Relay->Dpc, Switch, Relay);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
