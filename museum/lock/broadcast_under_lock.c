/*
 * Counts of events, one for each processor: IOCTL_COUNT counts one on its own at any level, also while interrupts are off; IOCTL_SUM has all processors add theirs at one moment, and says
 * the sum.
 *
 * The bug: the lock is held while all processors are called together, so that no count changes meanwhile. One that waits for it at HIGH_LEVEL does not let that call in. It shows when two
 * requests are made at once on two processors.
 *
 * Device: none
 * Rule: ipi-deadlock
 * Needs: schedule
 */
#define DEVICE_NAME L"\\Device\\EventCounts"
#define LINK_NAME L"\\DosDevices\\EventCounts"
#include "../include/legacy.h"

/* Windows 7; the kit knows it for that only. */
NTKERNELAPI ULONG NTAPI KeGetCurrentProcessorNumberEx(PPROCESSOR_NUMBER Number);

#define IOCTL_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SUM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define PROCESSORS 64

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    LONG Counts[PROCESSORS];
    LONG Sum;
    FAST_MUTEX OneSum; /* at a time */
} DEVICE, *PDEVICE;

static ULONG Here(VOID)
{
    return KeGetCurrentProcessorNumberEx(NULL) % PROCESSORS;
}

static ULONG_PTR NTAPI AddMine(ULONG_PTR Context)
{
    PDEVICE Own = (PDEVICE)Context;

    InterlockedExchangeAdd(&Own->Sum, InterlockedCompareExchange(&Own->Counts[Here()], 0, 0));
    return 0;
}

static LONG Sum(PDEVICE Own)
{
    LONG Sum;
#ifndef FIXED
    KIRQL OldIrql;
#endif

    ExAcquireFastMutex(&Own->OneSum);
    InterlockedExchange(&Own->Sum, 0);
#ifndef FIXED
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
#endif
    KeIpiGenericCall(AddMine, (ULONG_PTR)Own);
#ifndef FIXED
    KeReleaseSpinLock(&Own->Lock, OldIrql);
#endif
    Sum = InterlockedCompareExchange(&Own->Sum, 0, 0);
    ExReleaseFastMutex(&Own->OneSum);
    return Sum;
}

static LONG Count(PDEVICE Own)
{
    LONG Now;
    KIRQL OldIrql;

    KeRaiseIrql(HIGH_LEVEL, &OldIrql);
    KeAcquireSpinLockAtDpcLevel(&Own->Lock);
    Now = InterlockedIncrement(&Own->Counts[Here()]);
    KeReleaseSpinLockFromDpcLevel(&Own->Lock);
    KeLowerIrql(OldIrql);
    return Now;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PDEVICE Own = Device->DeviceExtension;
    ULONG Code = CodeOf(Stack);

    if (Code != IOCTL_COUNT && Code != IOCTL_SUM) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(LONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Code == IOCTL_COUNT ? Count(Own) : Sum(Own);
    return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        PDEVICE Own = Device->DeviceExtension;

        KeInitializeSpinLock(&Own->Lock);
        ExInitializeFastMutex(&Own->OneSum);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
