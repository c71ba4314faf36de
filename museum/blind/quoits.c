/*
 * quoits: a service for programs that want to learn when a time is over: a request gives a number of milliseconds and is completed
 * when they have passed. Every request has a timer of its own, so any number of them can run side by side.
 *
 * The bug: the cancel routine frees the block with the timer and its DPC without regard to whether the timer could be taken back: if
 * it has just expired, its DPC is queued or waits for the lock, and works on the freed block.
 *
 * Device: none
 * Rule: use-after-free, freed-queued-dpc, double-free, write-after-free, freed-while-in-use
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/booth_or_shell.h"

#define QUOITS_WAIT     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG, milliseconds */
#define QUOITS_COUNT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* out: ULONG, how many wait */

#define QUOITS_TAG      'iouQ'
#define QUOITS_LONGEST  3600000

typedef struct QUOITS {
    KSPIN_LOCK Lock;
    LIST_ENTRY Throws;
    ULONG Count;
} QUOITS;

/* Has two holders: the timer, until its DPC is over or it is taken back, and the request, until it is completed. */
typedef struct THROW {
    LIST_ENTRY Link;            /* with the lock, while Irp is not NULL */
    QUOITS *All;
    PIRP Irp;                   /* with the lock */
    volatile LONG Holders;
    KTIMER Timer;
    KDPC Dpc;
} THROW;

static PDEVICE_OBJECT QuoitsDevice;

static VOID ThrowRelease(THROW *Throw)
{
    if (InterlockedDecrement(&Throw->Holders) == 0)
        ExFreePoolWithTag(Throw, QUOITS_TAG);
}

/* With the lock: the request is not in the list any more. */
static VOID ThrowUnlink(THROW *Throw)
{
    RemoveEntryList(&Throw->Link);
    Throw->Irp = NULL;
    Throw->All->Count--;
}

static VOID ThrowStopTimer(THROW *Throw)
{
    if (KeCancelTimer(&Throw->Timer))
        ThrowRelease(Throw);        /* its DPC will not run */
}

static VOID NTAPI QuoitsLanded(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    THROW *throw = Context;
    QUOITS *all = throw->All;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&all->Lock);
    irp = throw->Irp;
    if (irp != NULL && IoSetCancelRoutine(irp, NULL) != NULL)
        ThrowUnlink(throw);
    else
        irp = NULL;                 /* it is being cancelled */
    KeReleaseSpinLockFromDpcLevel(&all->Lock);
    if (irp != NULL) {
        Settle(irp, STATUS_SUCCESS, 0);
        ThrowRelease(throw);
    }
    ThrowRelease(throw);
}

static VOID NTAPI QuoitsCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    QUOITS *all = Device->DeviceExtension;
    THROW *throw = Irp->Tail.Overlay.DriverContext[0];
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&all->Lock, &irql);
    ThrowUnlink(throw);
    KeReleaseSpinLock(&all->Lock, irql);
#ifndef FIXED
    KeCancelTimer(&throw->Timer);
    ExFreePoolWithTag(throw, QUOITS_TAG);
#else
    ThrowStopTimer(throw);
    ThrowRelease(throw);
#endif
    Settle(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS QuoitsThrow(QUOITS *All, PIRP Irp, ULONG Milliseconds)
{
    THROW *throw;
    LARGE_INTEGER due;
    BOOLEAN cancelled = FALSE;
    KIRQL irql;

    if (Milliseconds > QUOITS_LONGEST)
        return Settle(Irp, STATUS_INVALID_PARAMETER, 0);
    throw = ExAllocatePoolWithTag(NonPagedPool, sizeof *throw, QUOITS_TAG);
    if (throw == NULL)
        return Settle(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    throw->All = All;
    throw->Irp = Irp;
    throw->Holders = 2;
    KeInitializeTimer(&throw->Timer);
    KeInitializeDpc(&throw->Dpc, QuoitsLanded, throw);
    due.QuadPart = -10000LL * Milliseconds;

    KeAcquireSpinLock(&All->Lock, &irql);
    if (FileHasLeft(IoGetCurrentIrpStackLocation(Irp)->FileObject)) {
        KeReleaseSpinLock(&All->Lock, irql);
        ExFreePoolWithTag(throw, QUOITS_TAG);
        return Settle(Irp, STATUS_CANCELLED, 0);
    }
    Irp->Tail.Overlay.DriverContext[0] = throw;
    IoMarkIrpPending(Irp);
    InsertTailList(&All->Throws, &throw->Link);
    All->Count++;
    IoSetCancelRoutine(Irp, QuoitsCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        ThrowUnlink(throw);
        cancelled = TRUE;
    } else {
        KeSetTimer(&throw->Timer, due, &throw->Dpc);    /* the cancel routine waits for the lock, if it is under way */
    }
    KeReleaseSpinLock(&All->Lock, irql);
    if (cancelled) {
        ExFreePoolWithTag(throw, QUOITS_TAG);
        Settle(Irp, STATUS_CANCELLED, 0);
    }
    return STATUS_PENDING;
}

/* Ends what waits for a handle that has gone. */
static NTSTATUS NTAPI QuoitsCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    QUOITS *all = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    KIRQL irql;

    FileMarkLeft(file);
    for (;;) {
        PLIST_ENTRY entry;
        THROW *found = NULL;
        PIRP waiting = NULL;

        KeAcquireSpinLock(&all->Lock, &irql);
        for (entry = all->Throws.Flink; entry != &all->Throws; entry = entry->Flink) {
            THROW *throw = CONTAINING_RECORD(entry, THROW, Link);
            if (IoGetCurrentIrpStackLocation(throw->Irp)->FileObject == file && IoSetCancelRoutine(throw->Irp, NULL) != NULL) {
                found = throw;
                waiting = throw->Irp;
                ThrowUnlink(throw);
                break;
            }
        }
        KeReleaseSpinLock(&all->Lock, irql);
        if (found == NULL)
            break;
        ThrowStopTimer(found);
        ThrowRelease(found);
        Settle(waiting, STATUS_CANCELLED, 0);
    }
    return Settle(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI QuoitsControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    QUOITS *all = Device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case QUOITS_WAIT:
        if (at->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return QuoitsThrow(all, Irp, *buffer);

    case QUOITS_COUNT:
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&all->Lock, &irql);
        *buffer = all->Count;
        KeReleaseSpinLock(&all->Lock, irql);
        return Settle(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI QuoitsUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    KeFlushQueuedDpcs();        /* of timers that were too late to be taken back; no request waits any more */
    BoothStrike(QuoitsDevice, L"\\DosDevices\\Quoits");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    Driver->DriverUnload = QuoitsUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = BoothNod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = QuoitsCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BoothNod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = QuoitsControl;
    status = BoothRaise(Driver, L"\\Device\\Quoits", L"\\DosDevices\\Quoits", sizeof(QUOITS), 0, &QuoitsDevice);
    if (NT_SUCCESS(status)) {
        QUOITS *all = QuoitsDevice->DeviceExtension;
        KeInitializeSpinLock(&all->Lock);
        InitializeListHead(&all->Throws);
    }
    return status;
}
