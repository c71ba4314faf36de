/*
 * A watchdog that is fed by writes and barks by its timer when there was none for 50 ms.
 *
 * The bug: Unload cancels the timer, but does not wait for a DPC that has been queued on another processor already: it runs when the driver is gone. It
 * shows with a schedule in which the timer expires as Unload begins.
 *
 * Device: none
 * Rule: unload-still-called, freed-queued-dpc, use-after-free
 * Needs: schedule
 */
#define DEVICE_NAME L"\\Device\\Watchdog"
#define LINK_NAME L"\\DosDevices\\Watchdog"
#include "../include/legacy.h"

typedef struct _DEVICE {
    KTIMER Timer;
    KDPC Dpc;
    LONG Fed;
    LONG Barks;
} DEVICE, *PDEVICE;

static VOID NTAPI Look(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Own = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (InterlockedExchange(&Own->Fed, FALSE) == FALSE) {
        Own->Barks++;
    }
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    InterlockedExchange(&Own->Fed, TRUE);
    return Complete(Irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&Own->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    LARGE_INTEGER Due;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    KeInitializeTimer(&Own->Timer);
    KeInitializeDpc(&Own->Dpc, Look, Own);
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->DriverUnload = Unload;
    Due.QuadPart = -50 * 10000;
    KeSetTimerEx(&Own->Timer, Due, 50, &Own->Dpc);
    return STATUS_SUCCESS;
}
