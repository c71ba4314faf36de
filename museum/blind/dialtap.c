/*
 * dialtap: the switchboard's tap: call events (off hook, digit, on hook) are posted by one program and awaited by
 * others, each waiting request getting the next event; events without a listener are kept in a ring.
 *
 * The bug: a request cancelled before its cancel routine is set is queued without looking at Irp->Cancel, so it is
 * never completed.
 *
 * Device: none
 * Rule: cancellation-missed
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_TAP_POST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TAP_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TAP_LOST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define RING 64

typedef struct CALL_EVENT {
    ULONG Line;
    ULONG Kind;
    ULONG Digit;
    ULONG Sequence;             /* given by the driver */
} CALL_EVENT;

typedef struct TAP {
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting;
    CALL_EVENT Ring[RING];
    ULONG First, Count, Sequence, Lost;
} TAP;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DialTap");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DialTap");

static NTSTATUS Done(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI TapCancel(PDEVICE_OBJECT dev, PIRP irp)
{
    TAP *tap = dev->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&tap->Lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&tap->Lock, irql);
    Done(irp, STATUS_CANCELLED, 0);
}

/* Takes the first waiting request (of a handle, if one is given) for good; under the lock. */
static PIRP TapTake(TAP *tap, PFILE_OBJECT file)
{
    PLIST_ENTRY e, next;

    for (e = tap->Waiting.Flink; e != &tap->Waiting; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if (file && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL))
            return irp;
        InitializeListHead(e);          /* its cancel routine is on its way and takes it out once more */
    }
    return NULL;
}

static NTSTATUS TapPost(TAP *tap, PIRP irp, CALL_EVENT event)
{
    PIRP waiter;
    KIRQL irql;

    KeAcquireSpinLock(&tap->Lock, &irql);
    event.Sequence = ++tap->Sequence;
    waiter = TapTake(tap, NULL);
    if (!waiter) {
        if (tap->Count == RING) {
            tap->First = (tap->First + 1) % RING;
            tap->Count--;
            tap->Lost++;
        }
        tap->Ring[(tap->First + tap->Count++) % RING] = event;
    }
    KeReleaseSpinLock(&tap->Lock, irql);
    if (waiter) {
        *(CALL_EVENT *)waiter->AssociatedIrp.SystemBuffer = event;
        Done(waiter, STATUS_SUCCESS, sizeof(event));
    }
    return Done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS TapAwait(TAP *tap, PIRP irp)
{
    KIRQL irql;

    KeAcquireSpinLock(&tap->Lock, &irql);
    if (tap->Count) {
        CALL_EVENT event = tap->Ring[tap->First];
        tap->First = (tap->First + 1) % RING;
        tap->Count--;
        KeReleaseSpinLock(&tap->Lock, irql);
        *(CALL_EVENT *)irp->AssociatedIrp.SystemBuffer = event;
        return Done(irp, STATUS_SUCCESS, sizeof(event));
    }
    IoMarkIrpPending(irp);
    IoSetCancelRoutine(irp, TapCancel);
#ifdef FIXED
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
        KeReleaseSpinLock(&tap->Lock, irql);
        Done(irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
#endif
    InsertTailList(&tap->Waiting, &irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&tap->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI TapControl(PDEVICE_OBJECT dev, PIRP irp)
{
    TAP *tap = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TAP_POST:
        if (in < sizeof(CALL_EVENT))
            return Done(irp, STATUS_INVALID_PARAMETER, 0);
        return TapPost(tap, irp, *(CALL_EVENT *)irp->AssociatedIrp.SystemBuffer);
    case IOCTL_TAP_AWAIT:
        if (out < sizeof(CALL_EVENT))
            return Done(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return TapAwait(tap, irp);
    case IOCTL_TAP_LOST: {
        KIRQL irql;
        ULONG lost;
        if (out < sizeof(ULONG))
            return Done(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&tap->Lock, &irql);
        lost = tap->Lost;
        tap->Lost = 0;
        KeReleaseSpinLock(&tap->Lock, irql);
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = lost;
        return Done(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    default:
        return Done(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI TapCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return Done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TapCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    TAP *tap = dev->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    PIRP waiter;
    KIRQL irql;

    do {
        KeAcquireSpinLock(&tap->Lock, &irql);
        waiter = TapTake(tap, file);
        KeReleaseSpinLock(&tap->Lock, irql);
        if (waiter)
            Done(waiter, STATUS_CANCELLED, 0);
    } while (waiter);
    return Done(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI TapUnload(PDRIVER_OBJECT drv)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    TAP *tap;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(drv, sizeof(TAP), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    tap = dev->DeviceExtension;
    RtlZeroMemory(tap, sizeof(*tap));
    KeInitializeSpinLock(&tap->Lock);
    InitializeListHead(&tap->Waiting);
    drv->MajorFunction[IRP_MJ_CREATE] = TapCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = TapCreateClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = TapCleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TapControl;
    drv->DriverUnload = TapUnload;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
