/*
 * scorebrd: the score of a sports hall, root-enumerated. The scorer's program sets it; display programs hold a request that comes back with
 * the next change.
 *
 * The bug: surprise removal ends the waiting requests, but the queue does not refuse those that come afterwards: a display that asks again at
 * once waits for ever, and with it the removal.
 *
 * Device: ROOT\SCOREBRD
 * Rule: request-pending-after-surprise-removal, request-pending-after-remove, remove-lock-not-awaited, irp-never-completed, stuck
 * Needs: removal, ioctl
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define IOCTL_SCORE_SET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SCORE_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SCORE_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID ScoreClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x03 } };

typedef struct {
    ULONG Home, Guest;
    ULONG Change;               /* counts the changes; WAIT: the last that the caller knows */
} SCORE;

typedef struct {
    FRAME Frame;
    IO_CSQ Waiters;
    LIST_ENTRY List;            /* DriverContext[0] of a request is the change that its caller knows */
    KSPIN_LOCK ListLock;
    BOOLEAN Closed;

    KSPIN_LOCK ScoreLock;
    SCORE Score;
} BOARD;

/* Which waiters are looked for. */
typedef struct {
    PFILE_OBJECT File;          /* of this handle, or NULL */
    BOOLEAN Outdated;           /* those who do not know this change */
    ULONG Change;
} WHICH;

static NTSTATUS NTAPI WaiterInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    BOARD *b = CONTAINING_RECORD(Csq, BOARD, Waiters);

    UNREFERENCED_PARAMETER(Context);
#ifdef FIXED
    if (b->Closed)
        return STATUS_DELETE_PENDING;
#endif
    InsertTailList(&b->List, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static void NTAPI WaiterRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI WaiterPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    BOARD *b = CONTAINING_RECORD(Csq, BOARD, Waiters);
    const WHICH *which = Context;
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : b->List.Flink;

    for (; e != &b->List; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (which->File && IoGetCurrentIrpStackLocation(irp)->FileObject != which->File)
            continue;
        if (which->Outdated && (ULONG)(ULONG_PTR)irp->Tail.Overlay.DriverContext[0] == which->Change)
            continue;
        return irp;
    }
    return NULL;
}

static void NTAPI WaiterLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, BOARD, Waiters)->ListLock, Irql);
}

static void NTAPI WaiterUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, BOARD, Waiters)->ListLock, Irql);
}

static void NTAPI WaiterCanceled(PIO_CSQ Csq, PIRP Irp)
{
    FrameEndUngated(&CONTAINING_RECORD(Csq, BOARD, Waiters)->Frame, Irp, STATUS_CANCELLED, 0);
}

static void EndWaiters(BOARD *Board, PFILE_OBJECT File, NTSTATUS Status)
{
    WHICH which = { File, FALSE, 0 };
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&Board->Waiters, &which)) != NULL)
        FrameEndUngated(&Board->Frame, irp, Status, 0);
}

/* Answers all who do not know the present score. */
static void Announce(BOARD *Board)
{
    WHICH which = { NULL, TRUE, 0 };
    SCORE score;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&Board->ScoreLock, &irql);
    score = Board->Score;
    KeReleaseSpinLock(&Board->ScoreLock, irql);
    which.Change = score.Change;
    while ((irp = IoCsqRemoveNextIrp(&Board->Waiters, &which)) != NULL) {
        *(SCORE *)irp->AssociatedIrp.SystemBuffer = score;
        FrameEndUngated(&Board->Frame, irp, STATUS_SUCCESS, sizeof(SCORE));
    }
}

static NTSTATUS Wait(BOARD *Board, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&Board->Frame.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Complete(Irp, status, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(SCORE) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SCORE))
        return FrameEndUngated(&Board->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)((SCORE *)Irp->AssociatedIrp.SystemBuffer)->Change;
    IoMarkIrpPending(Irp);
    status = IoCsqInsertIrpEx(&Board->Waiters, Irp, NULL, NULL);
    if (!NT_SUCCESS(status))
        FrameEndUngated(&Board->Frame, Irp, status, 0);
    else
        Announce(Board);        /* it may know an old one only */
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    BOARD *b = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    SCORE *score = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    KIRQL irql;

    if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_SCORE_WAIT) {
        /* The board must outlive the call, which the request may not. */
        status = IoAcquireRemoveLock(&b->Frame.RemoveLock, b);
        if (!NT_SUCCESS(status))
            return Complete(Irp, status, 0);
        status = Wait(b, Irp);
        IoReleaseRemoveLock(&b->Frame.RemoveLock, b);
        return status;
    }

    status = FrameBegin(&b->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SCORE_SET:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(SCORE))
            return FrameEnd(&b->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (score->Home > 999 || score->Guest > 999)
            return FrameEnd(&b->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&b->ScoreLock, &irql);
        b->Score.Home = score->Home;
        b->Score.Guest = score->Guest;
        b->Score.Change++;
        KeReleaseSpinLock(&b->ScoreLock, irql);
        Announce(b);
        return FrameEnd(&b->Frame, Irp, STATUS_SUCCESS, 0);

    case IOCTL_SCORE_GET:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SCORE))
            return FrameEnd(&b->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&b->ScoreLock, &irql);
        *score = b->Score;
        KeReleaseSpinLock(&b->ScoreLock, irql);
        return FrameEnd(&b->Frame, Irp, STATUS_SUCCESS, sizeof(SCORE));
    }
    return FrameEnd(&b->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EndWaiters(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* The board is gone. */
static void Flush(FRAME *F)
{
    BOARD *b = (BOARD *)F;
    KIRQL irql;

    KeAcquireSpinLock(&b->ListLock, &irql);
    b->Closed = TRUE;
    KeReleaseSpinLock(&b->ListLock, irql);
    EndWaiters(b, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    BOARD *b;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(BOARD), &ScoreClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    b = (BOARD *)f;
    f->Flush = Flush;
    InitializeListHead(&b->List);
    KeInitializeSpinLock(&b->ListLock);
    KeInitializeSpinLock(&b->ScoreLock);
    IoCsqInitializeEx(&b->Waiters, WaiterInsert, WaiterRemove, WaiterPeek, WaiterLock, WaiterUnlock, WaiterCanceled);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}
