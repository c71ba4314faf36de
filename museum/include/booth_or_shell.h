/*
 * frame.h: what the drivers of the set PP share.
 *
 *   PEN    requests that wait, and that a program can cancel at any time
 *   BOOTH  a control device with a name and a link
 *   SHELL  a function device: Plug and Play, power, and the gate at which requests wait while the device is not there
 *
 * A driver includes <ddk/wdm.h> (and <initguid.h> before, if it has an interface of its own) first.
 */
#ifndef PP_FRAME_H
#define PP_FRAME_H

#define FRAME static __attribute__((unused))

FRAME NTSTATUS Settle(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/*---------------------------------------------------------------- PEN */

/*
 * A list of requests behind one lock. What is in it can be cancelled; what is taken out belongs to who has taken it.
 * DriverContext[0] of a request tells its pen. FsContext2 of a file object is used as the mark "its last handle is closed".
 */
typedef struct PEN {
    KSPIN_LOCK Lock;
    LIST_ENTRY Irps;
    NTSTATUS Shut;          /* if it is no success: what arrivals are refused with */
} PEN;

FRAME VOID PenInit(PEN *Pen)
{
    KeInitializeSpinLock(&Pen->Lock);
    InitializeListHead(&Pen->Irps);
    Pen->Shut = STATUS_SUCCESS;
}

FRAME VOID FileMarkLeft(PFILE_OBJECT File)
{
    if (File != NULL)
        InterlockedExchangePointer(&File->FsContext2, File);
}

FRAME BOOLEAN FileHasLeft(PFILE_OBJECT File)
{
    return File != NULL && InterlockedCompareExchangePointer(&File->FsContext2, NULL, NULL) != NULL;
}

static VOID NTAPI PenCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEN *pen = Irp->Tail.Overlay.DriverContext[0];
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&pen->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);   /* of the pen, or of itself if PenNext has met it */
    KeReleaseSpinLock(&pen->Lock, irql);
    Settle(Irp, STATUS_CANCELLED, 0);
}

/*
 * With the lock. STATUS_PENDING: the request is in the pen. Else it is not, and the caller completes it with the status; it is
 * marked pending all the same if *Marked says so.
 */
FRAME NTSTATUS PenStow(PEN *Pen, PIRP Irp, BOOLEAN AtHead, BOOLEAN *Marked)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    if (!NT_SUCCESS(Pen->Shut))
        return Pen->Shut;
    if (FileHasLeft(file))
        return STATUS_CANCELLED;
    Irp->Tail.Overlay.DriverContext[0] = Pen;
    if (Marked != NULL) {
        IoMarkIrpPending(Irp);
        *Marked = TRUE;
    }
    if (AtHead)
        InsertHeadList(&Pen->Irps, &Irp->Tail.Overlay.ListEntry);
    else
        InsertTailList(&Pen->Irps, &Irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(Irp, PenCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        return STATUS_CANCELLED;
    }
    return STATUS_PENDING;
}

/*
 * From a dispatch routine, which returns STATUS_PENDING if this does, and completes the request with the status if not.
 */
FRAME NTSTATUS PenAdd(PEN *Pen, PIRP Irp)
{
    BOOLEAN marked = FALSE;
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Pen->Lock, &irql);
    status = PenStow(Pen, Irp, FALSE, &marked);
    KeReleaseSpinLock(&Pen->Lock, irql);
    if (status != STATUS_PENDING && marked) {
        Settle(Irp, status, 0);
        status = STATUS_PENDING;
    }
    return status;
}

/*
 * A request that was in a pen before, so is marked. STATUS_PENDING: it is in this one. Else it is the caller's to complete.
 */
FRAME NTSTATUS PenMove(PEN *Pen, PIRP Irp, BOOLEAN AtHead)
{
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Pen->Lock, &irql);
    status = PenStow(Pen, Irp, AtHead, NULL);
    KeReleaseSpinLock(&Pen->Lock, irql);
    return status;
}

/* With the lock: takes the first request (of a file, if one is named) out. */
FRAME PIRP PenNext(PEN *Pen, PFILE_OBJECT File)
{
    PLIST_ENTRY at = Pen->Irps.Flink;

    while (at != &Pen->Irps) {
        PIRP irp = CONTAINING_RECORD(at, IRP, Tail.Overlay.ListEntry);
        at = at->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        if (IoSetCancelRoutine(irp, NULL) != NULL)
            return irp;
        InitializeListHead(&irp->Tail.Overlay.ListEntry);   /* PenCancel is about to take and to complete it */
    }
    return NULL;
}

FRAME PIRP PenTake(PEN *Pen, PFILE_OBJECT File)
{
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&Pen->Lock, &irql);
    irp = PenNext(Pen, File);
    KeReleaseSpinLock(&Pen->Lock, irql);
    return irp;
}

FRAME BOOLEAN PenEmpty(PEN *Pen)
{
    BOOLEAN empty;
    KIRQL irql;

    KeAcquireSpinLock(&Pen->Lock, &irql);
    empty = IsListEmpty(&Pen->Irps);
    KeReleaseSpinLock(&Pen->Lock, irql);
    return empty;
}

FRAME VOID PenSweep(PEN *Pen, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = PenTake(Pen, File)) != NULL)
        Settle(irp, Status, 0);
}

FRAME VOID PenShut(PEN *Pen, NTSTATUS Status)
{
    KIRQL irql;

    KeAcquireSpinLock(&Pen->Lock, &irql);
    Pen->Shut = Status;
    KeReleaseSpinLock(&Pen->Lock, irql);
    PenSweep(Pen, NULL, Status);
}

/*---------------------------------------------------------------- BOOTH */

FRAME NTSTATUS BoothRaise(PDRIVER_OBJECT Driver, PCWSTR Name, PCWSTR Link, ULONG Extension, ULONG IoFlags, PDEVICE_OBJECT *Booth)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT device;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Name);
    RtlInitUnicodeString(&link, Link);
    status = IoCreateDevice(Driver, Extension, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags |= IoFlags;       /* the I/O manager clears DO_DEVICE_INITIALIZING when DriverEntry has returned */
    *Booth = device;
    return STATUS_SUCCESS;
}

FRAME VOID BoothStrike(PDEVICE_OBJECT Booth, PCWSTR Link)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Booth);
}

static __attribute__((unused)) NTSTATUS NTAPI BoothNod(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Settle(Irp, STATUS_SUCCESS, 0);
}

#endif
