/* Pairs that answer their request themselves: what a dispatch routine owes an IRP, and what it may leave behind. */
#ifndef PAIRS_REQUESTS_H
#define PAIRS_REQUESTS_H

#include "pairs.h"

static VOID NTAPI CancelRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

/* Under the lock no cancellation comes between. */
static NTSTATUS CancelRoutineSet(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    KIRQL Old;

    UNREFERENCED_PARAMETER(Device);
    IoAcquireCancelSpinLock(&Old);
    IoSetCancelRoutine(Irp, CancelRequest);
    if (!Wrong) {
        IoSetCancelRoutine(Irp, NULL);
    }
    IoReleaseCancelSpinLock(Old);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS CompletedWithPending(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, Wrong ? STATUS_PENDING : STATUS_SUCCESS, 0);
}

static NTSTATUS DoubleCompletion(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    Complete(Irp, STATUS_SUCCESS, 0);
    if (Wrong) {
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS DispatchIllegalStatus(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    Complete(Irp, STATUS_SUCCESS, 0);
    return Wrong ? (NTSTATUS)-1 : STATUS_SUCCESS;
}

static NTSTATUS DispatchStatusDiffers(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    Complete(Irp, STATUS_SUCCESS, 0);
    return Wrong ? STATUS_UNSUCCESSFUL : STATUS_SUCCESS;
}

static NTSTATUS PendingNotMarked(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    if (!Wrong) {
        IoMarkIrpPending(Irp);
    }
    Complete(Irp, STATUS_SUCCESS, 0);
    return STATUS_PENDING;
}

static NTSTATUS PendingMarked(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    IoMarkIrpPending(Irp);
    Complete(Irp, STATUS_SUCCESS, 0);
    return Wrong ? STATUS_SUCCESS : STATUS_PENDING;
}

static NTSTATUS IrpForgotten(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    if (!Wrong) {
        Complete(Irp, STATUS_SUCCESS, 0);
    }
    return STATUS_SUCCESS;
}

static VOID NTAPI CompleteLate(PDEVICE_OBJECT Device, PVOID Context)
{
    PIRP Irp = Context;

    UNREFERENCED_PARAMETER(Device);
    IoFreeWorkItem(Irp->Tail.Overlay.DriverContext[0]);
    Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS IrpNeverCompleted(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(Device);

    if (Item == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Irp->Tail.Overlay.DriverContext[0] = Item;
    IoMarkIrpPending(Irp);
    if (Wrong) {
        IoFreeWorkItem(Item);
    } else {
        IoQueueWorkItem(Item, CompleteLate, DelayedWorkQueue, Irp);
    }
    return STATUS_PENDING;
}

static ULONG OutputLength(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength;
}

static NTSTATUS InformationTooLarge(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    ULONG Length = OutputLength(Irp);

    UNREFERENCED_PARAMETER(Device);
    RtlZeroMemory(Irp->AssociatedIrp.SystemBuffer, Length);
    return Complete(Irp, STATUS_SUCCESS, Wrong ? Length + PAGE_SIZE : Length);
}

static NTSTATUS OutputNeverStored(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    ULONG Length = OutputLength(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (!Wrong) {
        RtlZeroMemory(Irp->AssociatedIrp.SystemBuffer, Length);
    }
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS IrqlChangedByRoutine(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    KIRQL Old;

    UNREFERENCED_PARAMETER(Device);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Complete(Irp, STATUS_SUCCESS, 0);
    if (!Wrong) {
        KeLowerIrql(Old);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS InterruptFlagChangedByRoutine(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    Complete(Irp, STATUS_SUCCESS, 0);
    __asm__ volatile("cli" ::: "memory");
    if (!Wrong) {
        __asm__ volatile("sti" ::: "memory");
    }
    return STATUS_SUCCESS;
}

static VOID LockHeldAtCompletion(PIRP Irp, BOOLEAN Wrong)
{
    static KSPIN_LOCK Lock;
    KIRQL Old;

    KeAcquireSpinLock(&Lock, &Old);
    if (!Wrong) {
        KeReleaseSpinLock(&Lock, Old);
    }
    Complete(Irp, STATUS_SUCCESS, 0);
    if (Wrong) {
        KeReleaseSpinLock(&Lock, Old);
    }
}

static NTSTATUS LockHeldOverRequest(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    LockHeldAtCompletion(Irp, Wrong);
    return STATUS_SUCCESS;
}

/* Reads a word of an application's, so many times. */
static VOID FetchProbed(PVOID Address, ULONG Times)
{
    __try {
        ProbeForRead(Address, sizeof(ULONG), 1);
        Sink = *(volatile ULONG *)Address;
        if (Times > 1) {
            Sink = *(volatile ULONG *)Address; /* which may be another value */
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
    }
}

static VOID FetchGuarded(PVOID Address)
{
    __try {
        Sink = *(volatile ULONG *)Address;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
    }
}

static VOID ProbeOnly(PVOID Address)
{
    __try {
        ProbeForRead(Address, sizeof(ULONG), 1);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
    }
}

static VOID FetchBare(PVOID Address)
{
    Sink = *(volatile ULONG *)Address;
}

static NTSTATUS DoubleFetch(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    FetchProbed(Irp->UserBuffer, Wrong ? 2 : 1);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS UserMemoryNotProbed(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    UNREFERENCED_PARAMETER(Device);
    if (!Wrong) {
        ProbeOnly(Irp->UserBuffer);
    }
    FetchGuarded(Irp->UserBuffer);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS UserMemoryUnguarded(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    VOID (*volatile Probe)(PVOID) = ProbeOnly; /* whose handler is not this routine's */
    VOID (*volatile Fetch)(PVOID) = Wrong ? FetchBare : FetchGuarded;

    UNREFERENCED_PARAMETER(Device);
    Probe(Irp->UserBuffer);
    Fetch(Irp->UserBuffer);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI ReadWord(PVOID Address)
{
    Sink = *(volatile ULONG *)Address;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* The output buffer as the application knows it, in its context and in a system thread. */
static NTSTATUS UserMemoryElsewhere(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong)
{
    PKTHREAD Thread;

    UNREFERENCED_PARAMETER(Device);
    if (OutputLength(Irp) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    FetchProbed(Irp->UserBuffer, 1);
    Thread = StartThread(ReadWord, Wrong ? Irp->UserBuffer : Irp->AssociatedIrp.SystemBuffer);
    if (Thread == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    JoinThread(Thread);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

#define REQUEST_PAIRS                                                                                                  \
    REQUEST_PAIR("cancel-routine-set", CancelRoutineSet)                                                               \
    REQUEST_PAIR("completed-with-pending", CompletedWithPending)                                                       \
    REQUEST_PAIR("dispatch-illegal-status", DispatchIllegalStatus)                                                     \
    REQUEST_PAIR("dispatch-status-differs", DispatchStatusDiffers)                                                     \
    REQUEST_PAIR("double-completion", DoubleCompletion)                                                                \
    REQUEST_PAIR("double-fetch", DoubleFetch)                                                                          \
    REQUEST_PAIR("information-too-large", InformationTooLarge)                                                         \
    REQUEST_PAIR("interrupt-flag-changed-by-routine", InterruptFlagChangedByRoutine)                                   \
    REQUEST_PAIR("irp-forgotten", IrpForgotten)                                                                        \
    REQUEST_PAIR("irp-never-completed", IrpNeverCompleted)                                                             \
    REQUEST_PAIR("irql-changed-by-routine", IrqlChangedByRoutine)                                                      \
    REQUEST_PAIR("lock-held-over-request", LockHeldOverRequest)                                                        \
    REQUEST_PAIR("output-never-stored", OutputNeverStored)                                                             \
    REQUEST_PAIR("pending-marked", PendingMarked)                                                                      \
    REQUEST_PAIR("pending-not-marked", PendingNotMarked)                                                               \
    REQUEST_PAIR("user-memory-elsewhere", UserMemoryElsewhere)                                                         \
    REQUEST_PAIR("user-memory-not-probed", UserMemoryNotProbed)                                                        \
    REQUEST_PAIR("user-memory-unguarded", UserMemoryUnguarded)

#endif
