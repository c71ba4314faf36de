/*
 * A monitor that prints the device's name each second.
 *
 * The bug: a Unicode string is printed by a DPC, which is for PASSIVE_LEVEL only, since the tables that it needs are pageable. It shows when the timer expires.
 *
 * Device: none
 * Rule: print-unicode-irql, irql-too-high
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Monitor"
#define LINK_NAME L"\\DosDevices\\Monitor"
#include "../include/legacy.h"

static KTIMER Timer;
static KDPC TimerDpc;

static VOID NTAPI Print(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
#ifdef FIXED
    DbgPrint("monitor: %s lives\n", "\\Device\\Monitor");
#else
    DbgPrint("monitor: %wZ lives\n", &LegacyName);
#endif
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeCancelTimer(&Timer);
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    LARGE_INTEGER Due;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeTimer(&Timer);
        KeInitializeDpc(&TimerDpc, Print, NULL);
        Due.QuadPart = -20 * 10000;
        KeSetTimerEx(&Timer, Due, 1000, &TimerDpc);
        Driver->DriverUnload = Unload;
    }
    return Status;
}
