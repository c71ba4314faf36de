/*
 * tallyho: sixteen counters that applications add to, read and reset; they are kept consistent by a queued spin lock.
 *
 * The bug: the handle of the queued spin lock is one static variable for all callers, so a second processor that asks for the lock overwrites the
 * queue entry (and the old IRQL) of the one that holds it: the lock is corrupted, and a processor hangs or leaves at a wrong IRQL.
 *
 * Device: none
 * Rule: lock-handle-in-use
 * Needs: ioctl, schedule
 */
#include "../include/bay_control.h"

#define IOCTL_ADD   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* in: ULONG index, ULONG amount */
#define IOCTL_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* out: sixteen ULONGLONG */
#define IOCTL_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define COUNTERS 16

typedef struct ADD {
    ULONG index, amount;
} ADD;

static KSPIN_LOCK Lock;
static ULONGLONG Counter[COUNTERS];

/* Adds (if `add`), copies all (if `copy`), and resets (if asked to), in one go. */
static void Tally(const ADD *add, ULONGLONG *copy, BOOLEAN reset)
{
#ifndef FIXED
    static KLOCK_QUEUE_HANDLE handle;
#else
    KLOCK_QUEUE_HANDLE handle;
#endif

    KeAcquireInStackQueuedSpinLock(&Lock, &handle);
    if (add)
        Counter[add->index] += add->amount;
    if (copy)
        RtlCopyMemory(copy, Counter, sizeof Counter);
    if (reset)
        RtlZeroMemory(Counter, sizeof Counter);
    KeReleaseInStackQueuedSpinLock(&handle);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    ADD *add = irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(self);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ADD:
        if (in != sizeof *add || add->index >= COUNTERS)
            return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
        Tally(add, NULL, FALSE);
        return AfcComplete(irp, STATUS_SUCCESS, 0);
    case IOCTL_GET:
        if (out < sizeof Counter)
            return AfcComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        Tally(NULL, irp->AssociatedIrp.SystemBuffer, FALSE);
        return AfcComplete(irp, STATUS_SUCCESS, sizeof Counter);
    case IOCTL_RESET:
        Tally(NULL, NULL, TRUE);
        return AfcComplete(irp, STATUS_SUCCESS, 0);
    default:
        return AfcComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    AfcDelete(L"\\DosDevices\\AfTallyho");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    KeInitializeSpinLock(&Lock);
    driver->MajorFunction[IRP_MJ_CREATE] = AfcNothing;
    driver->MajorFunction[IRP_MJ_CLOSE] = AfcNothing;
    driver->MajorFunction[IRP_MJ_CLEANUP] = AfcNothing;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    return AfcMake(driver, L"\\Device\\AfTallyho", L"\\DosDevices\\AfTallyho");
}
