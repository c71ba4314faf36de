/*
 * A driver with a heartbeat, started first thing in DriverEntry, and a buffer.
 *
 * The bug: where the buffer cannot be had, DriverEntry fails with the timer set: it expires in an image that is gone. It shows when that allocation fails.
 *
 * Device: none
 * Rule: unload-still-called, freed-active-timer, device-leak
 * Needs: failure
 */
#define DEVICE_NAME L"\\Device\\Heartbeat"
#define LINK_NAME L"\\DosDevices\\Heartbeat"
#include "../include/legacy.h"

#define BEAT_TAG 'taeB'

static KTIMER Timer;
static KDPC TimerDpc;
static LONG Beats;
static PUCHAR Buffer;

static VOID NTAPI Beat(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    InterlockedIncrement(&Beats);
}

static VOID StopBeating(VOID)
{
    KeCancelTimer(&Timer);
    KeFlushQueuedDpcs();
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    StopBeating();
    ExFreePoolWithTag(Buffer, BEAT_TAG);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    LARGE_INTEGER Due;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    KeInitializeTimer(&Timer);
    KeInitializeDpc(&TimerDpc, Beat, NULL);
    Due.QuadPart = -10 * 10000;
    KeSetTimerEx(&Timer, Due, 10, &TimerDpc);
    Buffer = ExAllocatePoolWithTag(NonPagedPool, 1024, BEAT_TAG);
    if (Buffer == NULL) {
#ifdef FIXED
        StopBeating();
#endif
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
