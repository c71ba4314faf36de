/*
 * A cache with a lock for its table and one for its statistics; a timer ages the entries, IOCTL_CACHE_STATISTICS answers the statistics.
 *
 * The bug: the timer's routine takes the table's lock and then that of the statistics, the control code the other way round. It shows when both run at a
 * time on two processors; the order alone is wrong already.
 *
 * Device: none
 * Rule: spin-lock-deadlock
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Cache"
#define LINK_NAME L"\\DosDevices\\Cache"
#include "../include/legacy.h"

#define ENTRIES 16
#define IOCTL_CACHE_TOUCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CACHE_STATISTICS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK TableLock;
    ULONG Ages[ENTRIES];
    KSPIN_LOCK StatisticsLock;
    ULONG Oldest;
} DEVICE, *PDEVICE;

static VOID NTAPI Age(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Cache = Context;
    ULONG Index;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeAcquireSpinLockAtDpcLevel(&Cache->TableLock);
    KeAcquireSpinLockAtDpcLevel(&Cache->StatisticsLock);
    for (Index = 0; Index < ENTRIES; Index++) {
        Cache->Oldest = max(Cache->Oldest, ++Cache->Ages[Index]);
    }
    KeReleaseSpinLockFromDpcLevel(&Cache->StatisticsLock);
    KeReleaseSpinLockFromDpcLevel(&Cache->TableLock);
}

static VOID Statistics(PDEVICE Cache, PULONG Answer)
{
    KIRQL OldIrql;
#ifdef FIXED
    PKSPIN_LOCK First = &Cache->TableLock, Second = &Cache->StatisticsLock;
#else
    PKSPIN_LOCK First = &Cache->StatisticsLock, Second = &Cache->TableLock;
#endif

    KeAcquireSpinLock(First, &OldIrql);
    KeAcquireSpinLockAtDpcLevel(Second);
    Answer[0] = Cache->Oldest;
    Answer[1] = Cache->Ages[0];
    KeReleaseSpinLockFromDpcLevel(Second);
    KeReleaseSpinLock(First, OldIrql);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Cache = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL OldIrql;

    switch (CodeOf(Stack)) {
    case IOCTL_CACHE_TOUCH:
        if (InputOf(Stack) < sizeof(ULONG) || *Buffer >= ENTRIES) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        KeAcquireSpinLock(&Cache->TableLock, &OldIrql);
        Cache->Ages[*Buffer] = 0;
        KeReleaseSpinLock(&Cache->TableLock, OldIrql);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_CACHE_STATISTICS:
        if (OutputOf(Stack) < 2 * sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        Statistics(Cache, Buffer);
        return Complete(Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Cache = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&Cache->Timer);
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    LARGE_INTEGER Due;
    PDEVICE Cache;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Cache = Device->DeviceExtension;
    KeInitializeSpinLock(&Cache->TableLock);
    KeInitializeSpinLock(&Cache->StatisticsLock);
    KeInitializeTimer(&Cache->Timer);
    KeInitializeDpc(&Cache->Dpc, Age, Cache);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    Due.QuadPart = -5 * 10000;
    KeSetTimerEx(&Cache->Timer, Due, 20, &Cache->Dpc);
    return STATUS_SUCCESS;
}
