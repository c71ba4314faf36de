/*
 * callpt: a virtual call point (nurse call). Programs at the desk wait for calls with reads, programs in the rooms place calls with an ioctl; calls
 * that none waits for are kept in a small ring.
 *
 * The bug: the list of waiting reads is initialised with every start of the device; a read that waits over a stop and restart is no longer in the
 * list, is never completed and corrupts the list when it is cancelled.
 *
 * Device: ROOT\CALLPT
 * Rule: request-forgotten
 * Needs: power
 */
#include "../include/served_by_ticks.h"

#define RING 32

#define IOCTL_CALL_PLACE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CALL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID CallInterface = { 0x6d1d0a51, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x01 } };

typedef struct _CALL {
    ULONG Room;
    ULONG Kind;
} CALL, *PCALL;

typedef struct _CALL_STATE {
    ULONG Kept;
    ULONG Placed;
    ULONG Refused;
    ULONG Starts;
} CALL_STATE, *PCALL_STATE;

typedef struct _DEV {
    BF B;
    IO_CSQ Csq;
    KSPIN_LOCK WaitLock; /* Waiters, Shut */
    LIST_ENTRY Waiters;
    BOOLEAN Shut;
    KSPIN_LOCK RingLock; /* the rest; taken before WaitLock */
    CALL Ring[RING];
    ULONG First, Kept;
    ULONG Placed, Refused, Starts;
} DEV, *PDEV;

static NTSTATUS NTAPI WaitInsert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PDEV d = CONTAINING_RECORD(csq, DEV, Csq);

    UNREFERENCED_PARAMETER(context);
    if (d->Shut)
        return STATUS_DELETE_PENDING;
    InsertTailList(&d->Waiters, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI WaitRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI WaitPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PDEV d = CONTAINING_RECORD(csq, DEV, Csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : d->Waiters.Flink;

    for (; e != &d->Waiters; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!context || IoGetCurrentIrpStackLocation(next)->FileObject == context)
            return next;
    }
    return NULL;
}

static VOID NTAPI WaitAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, DEV, Csq)->WaitLock, irql);
}

static VOID NTAPI WaitRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, DEV, Csq)->WaitLock, irql);
}

static VOID EndRead(PDEV d, PIRP irp, NTSTATUS st)
{
    irp->IoStatus.Information = NT_SUCCESS(st) ? sizeof(CALL) : 0;
    BfEnd(&d->B, irp, st);
}

static VOID NTAPI WaitCanceled(PIO_CSQ csq, PIRP irp)
{
    EndRead(CONTAINING_RECORD(csq, DEV, Csq), irp, STATUS_CANCELLED);
}

/* Brings calls and reads together. Each that has put in one of either calls it afterwards, so none is left lying beside the other. */
static VOID Match(PDEV d)
{
    KIRQL q;
    CALL call;
    PIRP irp;

    for (;;) {
        irp = NULL;
        KeAcquireSpinLock(&d->RingLock, &q);
        if (d->Kept)
            irp = IoCsqRemoveNextIrp(&d->Csq, NULL);
        if (irp) {
            call = d->Ring[d->First];
            d->First = (d->First + 1) % RING;
            d->Kept--;
        }
        KeReleaseSpinLock(&d->RingLock, q);
        if (!irp)
            return;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &call, sizeof(call));
        EndRead(d, irp, STATUS_SUCCESS);
    }
}

static NTSTATUS Read(PDEV d, PIRP irp, ULONG length)
{
    NTSTATUS st;

    if (length < sizeof(CALL))
        return STATUS_BUFFER_TOO_SMALL;
    st = IoAcquireRemoveLock(&d->B.Rl, irp);
    if (!NT_SUCCESS(st))
        return st;
    IoMarkIrpPending(irp);
    st = IoCsqInsertIrpEx(&d->Csq, irp, NULL, NULL);
    if (!NT_SUCCESS(st))
        EndRead(d, irp, st);
    else
        Match(d);
    return STATUS_PENDING;
}

static NTSTATUS Place(PDEV d, const CALL *call)
{
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL q;

    KeAcquireSpinLock(&d->RingLock, &q);
    if (d->Kept == RING) {
        d->Refused++;
        st = STATUS_DEVICE_BUSY;
    } else {
        d->Ring[(d->First + d->Kept) % RING] = *call;
        d->Kept++;
        d->Placed++;
    }
    KeReleaseSpinLock(&d->RingLock, q);
    Match(d);
    return st;
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    CALL_STATE state;
    KIRQL q;

    if (sp->MajorFunction == IRP_MJ_READ)
        return Read(d, irp, sp->Parameters.Read.Length);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CALL_PLACE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(CALL))
            return STATUS_BUFFER_TOO_SMALL;
        return Place(d, buffer);

    case IOCTL_CALL_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(state))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&d->RingLock, &q);
        state.Kept = d->Kept;
        state.Placed = d->Placed;
        state.Refused = d->Refused;
        state.Starts = d->Starts;
        KeReleaseSpinLock(&d->RingLock, q);
        RtlCopyMemory(buffer, &state, sizeof(state));
        irp->IoStatus.Information = sizeof(state);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID EndReads(PDEV d, PFILE_OBJECT file, NTSTATUS st)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&d->Csq, file)) != NULL)
        EndRead(d, irp, st);
}

static VOID Cleanup(PBF b, PFILE_OBJECT file)
{
    EndReads((PDEV)b, file, STATUS_CANCELLED);
}

static VOID Gone(PBF b)
{
    PDEV d = (PDEV)b;
    KIRQL q;

    KeAcquireSpinLock(&d->WaitLock, &q);
    d->Shut = TRUE;
    KeReleaseSpinLock(&d->WaitLock, q);
    EndReads(d, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS Start(PBF b, PBF_RES res)
{
    PDEV d = (PDEV)b;
    KIRQL q;

    UNREFERENCED_PARAMETER(res);
#ifndef FIXED
    InitializeListHead(&d->Waiters);
#endif
    KeAcquireSpinLock(&d->RingLock, &q);
    d->Starts++;
    KeReleaseSpinLock(&d->RingLock, q);
    return STATUS_SUCCESS;
}

static NTSTATUS Add(PBF b)
{
    PDEV d = (PDEV)b;

    KeInitializeSpinLock(&d->WaitLock);
    KeInitializeSpinLock(&d->RingLock);
    InitializeListHead(&d->Waiters);
    return IoCsqInitializeEx(&d->Csq, WaitInsert, WaitRemove, WaitPeek, WaitAcquire, WaitRelease, WaitCanceled);
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &CallInterface,
    .IoFlags = DO_BUFFERED_IO,
    .Add = Add,
    .Start = Start,
    .Io = Io,
    .Cleanup = Cleanup,
    .Gone = Gone,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
