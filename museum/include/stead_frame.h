/* frame.h: what all drivers of this set use: ending requests, lines of waiting requests. */
#ifndef AC_FRAME_H
#define AC_FRAME_H

#include <ddk/wdm.h>

#define TAG_AC 'oCAz'

/* A program's handle: FsContext is the driver's own, FsContext2 says that IRP_MJ_CLEANUP has come. */
#define FILE_HAS_LEFT ((PVOID)(ULONG_PTR)1)

static inline BOOLEAN FileHasLeft(PFILE_OBJECT file)
{
    return file != NULL && InterlockedCompareExchangePointer(&file->FsContext2, NULL, NULL) == FILE_HAS_LEFT;
}

static inline VOID FileLeaves(PFILE_OBJECT file)
{
    if (file != NULL)
        InterlockedExchangePointer(&file->FsContext2, FILE_HAS_LEFT);
}

/* Ends a request; guard is the remove lock that was acquired with the request as its tag, or NULL. */
static inline NTSTATUS IrpEnd(PIO_REMOVE_LOCK guard, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    if (guard != NULL)
        IoReleaseRemoveLock(guard, irp);
    return status;
}

/* ---- a line of requests that wait, first come first served, each can be cancelled ---- */

typedef struct LINE {
    IO_CSQ csq;
    KSPIN_LOCK lock;
    LIST_ENTRY irps;
    NTSTATUS closed;            /* an error status: none joins any more */
    PIO_REMOVE_LOCK guard;
} LINE;

static NTSTATUS NTAPI LineInsert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    LINE *line = CONTAINING_RECORD(csq, LINE, csq);

    UNREFERENCED_PARAMETER(context);
    if (line->closed != STATUS_SUCCESS)
        return line->closed;
    if (FileHasLeft(IoGetCurrentIrpStackLocation(irp)->FileObject))
        return STATUS_FILE_CLOSED;
    InsertTailList(&line->irps, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI LineRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI LinePeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    LINE *line = CONTAINING_RECORD(csq, LINE, csq);
    PLIST_ENTRY at = irp == NULL ? line->irps.Flink : irp->Tail.Overlay.ListEntry.Flink;

    for (; at != &line->irps; at = at->Flink) {
        PIRP it = CONTAINING_RECORD(at, IRP, Tail.Overlay.ListEntry);
        if (context == NULL || IoGetCurrentIrpStackLocation(it)->FileObject == (PFILE_OBJECT)context)
            return it;
    }
    return NULL;
}

static VOID NTAPI LineLock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, LINE, csq)->lock, irql);
}

static VOID NTAPI LineUnlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, LINE, csq)->lock, irql);
}

static VOID NTAPI LineCancelled(PIO_CSQ csq, PIRP irp)
{
    IrpEnd(CONTAINING_RECORD(csq, LINE, csq)->guard, irp, STATUS_CANCELLED, 0);
}

static inline VOID LineReady(LINE *line, PIO_REMOVE_LOCK guard)
{
    KeInitializeSpinLock(&line->lock);
    InitializeListHead(&line->irps);
    line->closed = STATUS_SUCCESS;
    line->guard = guard;
    IoCsqInitializeEx(&line->csq, LineInsert, LineRemove, LinePeek, LineLock, LineUnlock, LineCancelled);
}

/* The request waits from now on, or is ended here at once: it is not the caller's any more. */
static inline NTSTATUS LineJoin(LINE *line, PIRP irp)
{
    NTSTATUS status;

    IoMarkIrpPending(irp);
    status = IoCsqInsertIrpEx(&line->csq, irp, NULL, NULL);
    if (!NT_SUCCESS(status))
        IrpEnd(line->guard, irp, status, 0);
    return STATUS_PENDING;
}

/* The first that waits, or NULL. */
static inline PIRP LineTake(LINE *line)
{
    return IoCsqRemoveNextIrp(&line->csq, NULL);
}

/* Ends all that wait, or those of one file. */
static inline VOID LineDrop(LINE *line, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&line->csq, file)) != NULL)
        IrpEnd(line->guard, irp, status, 0);
}

/* None joins from now on, and all that wait are ended. */
static inline VOID LineClose(LINE *line, NTSTATUS status)
{
    KIRQL irql;

    KeAcquireSpinLock(&line->lock, &irql);
    line->closed = status;
    KeReleaseSpinLock(&line->lock, irql);
    LineDrop(line, NULL, status);
}

#endif
