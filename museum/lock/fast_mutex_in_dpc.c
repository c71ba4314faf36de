/*
 * A session timer: each session has minutes left, which a timer takes away and a control code adds.
 *
 * The bug: the sessions are guarded by a fast mutex, and the timer's DPC acquires it, too. It shows when the timer has expired for the first time.
 *
 * Device: none
 * Rule: irql-too-high, wait-at-raised-irql
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\Sessions"
#define LINK_NAME L"\\DosDevices\\Sessions"
#include "../include/legacy.h"

#define SESSIONS 8
#define IOCTL_SESSION_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KTIMER Timer;
    KDPC Dpc;
#ifdef FIXED
    KSPIN_LOCK Lock;
#else
    FAST_MUTEX Lock;
#endif
    ULONG Minutes[SESSIONS];
} DEVICE, *PDEVICE;

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Own = Context;
    ULONG Index;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&Own->Lock);
#else
    ExAcquireFastMutex(&Own->Lock);
#endif
    for (Index = 0; Index < SESSIONS; Index++) {
        if (Own->Minutes[Index] != 0) {
            Own->Minutes[Index]--;
        }
    }
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&Own->Lock);
#else
    ExReleaseFastMutex(&Own->Lock);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Input = Irp->AssociatedIrp.SystemBuffer;
#ifdef FIXED
    KIRQL OldIrql;
#endif

    if (CodeOf(Stack) != IOCTL_SESSION_ADD) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || *Input >= SESSIONS) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
#ifdef FIXED
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Own->Minutes[*Input] += 30;
    KeReleaseSpinLock(&Own->Lock, OldIrql);
#else
    ExAcquireFastMutex(&Own->Lock);
    Own->Minutes[*Input] += 30;
    ExReleaseFastMutex(&Own->Lock);
#endif
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&Own->Timer);
    KeFlushQueuedDpcs();
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
#ifdef FIXED
    KeInitializeSpinLock(&Own->Lock);
#else
    ExInitializeFastMutex(&Own->Lock);
#endif
    KeInitializeTimer(&Own->Timer);
    KeInitializeDpc(&Own->Dpc, Tick, Own);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    Due.QuadPart = -10000;
    KeSetTimerEx(&Own->Timer, Due, 60, &Own->Dpc);
    return STATUS_SUCCESS;
}
