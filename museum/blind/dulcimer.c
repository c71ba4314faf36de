/*
 * dulcimer: appointments for programs. A request says in how many milliseconds it wants to be back, and comes back then with the cookie
 * it brought and the time; a program can have as many as it likes, and cancel each.
 *
 * The bug: an appointment that is cancelled gives up the share of its timer even if KeCancelTimer says that the timer has
 * gone off: its DPC is about to run, or runs on another processor, with a booking that has been freed.
 *
 * Device: none
 * Rule: use-after-free, freed-queued-dpc, double-free, write-after-free
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/gated_frame.h"

#define DULCIMER_NAME L"\\Device\\Dulcimer"
#define DULCIMER_LINK L"\\DosDevices\\Dulcimer"
#define DULCIMER_TAG 'mclD'
#define DULCIMER_LONGEST 60000

#define IOCTL_DULCIMER_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DULCIMER_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DULCIMER_WAIT {
    ULONG Milliseconds;
    ULONG Cookie;
} DULCIMER_WAIT, *PDULCIMER_WAIT;

typedef struct _DULCIMER_BACK {
    ULONG Cookie;
    ULONG Reserved;
    LARGE_INTEGER Time;
} DULCIMER_BACK, *PDULCIMER_BACK;

typedef struct _DULCIMER {
    IRPQ Waiting;
    volatile LONG Kept;
} DULCIMER, *PDULCIMER;

/* It is shared by the request, its timer and, for a while, the dispatch routine; the last one frees it. */
typedef struct _BOOKING {
    PDULCIMER Owner;
    volatile LONG Shares;
    KSPIN_LOCK Lock;
    BOOLEAN Armed;
    BOOLEAN Over;               /* the request has ended */
    ULONG Cookie;
    KTIMER Timer;
    KDPC Dpc;
} BOOKING, *PBOOKING;

static PDEVICE_OBJECT DulcimerDevice;

static VOID BookingDrop(PBOOKING b)
{
    if (InterlockedDecrement(&b->Shares) == 0)
        ExFreePoolWithTag(b, DULCIMER_TAG);
}

static BOOLEAN BookingIs(PIRP Irp, PVOID Context)
{
    return Irp->Tail.Overlay.DriverContext[0] == Context;
}

/* The time has come. The request may have been cancelled by now: then it is not in the queue any more. */
static VOID NTAPI BookingDue(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PBOOKING b = Context;
    PDULCIMER_BACK back;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    irp = IrpqPick(&b->Owner->Waiting, BookingIs, b);
    if (irp != NULL) {
        back = irp->AssociatedIrp.SystemBuffer;
        back->Cookie = b->Cookie;
        back->Reserved = 0;
        KeQuerySystemTime(&back->Time);
        InterlockedDecrement(&b->Owner->Kept);
        Finish(irp, STATUS_SUCCESS, sizeof(*back));
        KeAcquireSpinLockAtDpcLevel(&b->Lock);
        b->Over = TRUE;
        KeReleaseSpinLockFromDpcLevel(&b->Lock);
        BookingDrop(b);
    }
    BookingDrop(b);
}

static VOID DulcimerRetire(PIRPQ Queue, PIRP Irp, NTSTATUS Status)
{
    PDULCIMER d = Queue->Owner;
    PBOOKING b = Irp->Tail.Overlay.DriverContext[0];
    BOOLEAN stopped = FALSE;
    KIRQL irql;

    KeAcquireSpinLock(&b->Lock, &irql);
    b->Over = TRUE;
    if (b->Armed) {
#ifndef FIXED
        KeCancelTimer(&b->Timer);
        stopped = TRUE;
#else
        stopped = KeCancelTimer(&b->Timer);
#endif
    }
    KeReleaseSpinLock(&b->Lock, irql);
    if (stopped)
        BookingDrop(b);
    BookingDrop(b);
    InterlockedDecrement(&d->Kept);
    Finish(Irp, Status, 0);
}

static NTSTATUS DulcimerWait(PDULCIMER d, PIRP Irp)
{
    DULCIMER_WAIT wait = *(PDULCIMER_WAIT)Irp->AssociatedIrp.SystemBuffer;
    LARGE_INTEGER due;
    BOOLEAN armed;
    NTSTATUS status;
    PBOOKING b;
    KIRQL irql;

    if (wait.Milliseconds == 0 || wait.Milliseconds > DULCIMER_LONGEST)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    b = ExAllocatePoolWithTag(POOL_DATA, sizeof(*b), DULCIMER_TAG);
    if (b == NULL)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    b->Owner = d;
    b->Shares = 3;
    b->Armed = FALSE;
    b->Over = FALSE;
    b->Cookie = wait.Cookie;
    KeInitializeSpinLock(&b->Lock);
    KeInitializeTimer(&b->Timer);
    KeInitializeDpc(&b->Dpc, BookingDue, b);
    Irp->Tail.Overlay.DriverContext[0] = b;
    InterlockedIncrement(&d->Kept);
    status = IrpqPut(&d->Waiting, Irp);
    if (status != STATUS_PENDING) {
        InterlockedDecrement(&d->Kept);
        Finish(Irp, status, 0);
        ExFreePoolWithTag(b, DULCIMER_TAG);
        return STATUS_PENDING;
    }
    due.QuadPart = -10000LL * wait.Milliseconds;
    KeAcquireSpinLock(&b->Lock, &irql);
    armed = !b->Over;
    if (armed) {
        b->Armed = TRUE;
        KeSetTimer(&b->Timer, due, &b->Dpc);
    }
    KeReleaseSpinLock(&b->Lock, irql);
    if (!armed)
        BookingDrop(b);             /* the share of a timer that was never set */
    BookingDrop(b);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DulcimerControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDULCIMER d = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DULCIMER_WAIT:
        if (in < sizeof(DULCIMER_WAIT) || out < sizeof(DULCIMER_BACK))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return DulcimerWait(d, Irp);

    case IOCTL_DULCIMER_COUNT:
        if (out < sizeof(LONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = InterlockedCompareExchange(&d->Kept, 0, 0);
        return Finish(Irp, STATUS_SUCCESS, sizeof(LONG));
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DulcimerCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDULCIMER d = DeviceObject->DeviceExtension;

    IrpqFlushFile(&d->Waiting, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* No handle is open, so no request is left; a DPC that was late for its request may be. */
static VOID NTAPI DulcimerUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    DeskHide(DULCIMER_LINK);
    KeFlushQueuedDpcs();
    IoDeleteDevice(DulcimerDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    PDULCIMER d;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = DeskBuild(DriverObject, sizeof(DULCIMER), DULCIMER_NAME, DO_BUFFERED_IO, &DulcimerDevice);
    if (!NT_SUCCESS(status))
        return status;
    d = DulcimerDevice->DeviceExtension;
    d->Kept = 0;
    IrpqBuild(&d->Waiting, DulcimerRetire, d);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = DulcimerCleanup;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DulcimerControl;
    DriverObject->DriverUnload = DulcimerUnload;
    status = DeskShow(DULCIMER_NAME, DULCIMER_LINK);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(DulcimerDevice);
    return status;
}
