/*
 * row.h: a row of requests that wait, safe against cancellation. A row has no lock of its own: it lives under a lock of its owner, so that the owner decides
 * and enters a request in one go. And what both frames (desk.h, rig.h) hand to a driver's routine: a TASK.
 */
#ifndef ROW_H
#define ROW_H

#define LOCAL static __attribute__((unused))

typedef struct _ROW {
    LIST_ENTRY Irps;
    PKSPIN_LOCK Lock;               /* the owner's */
    PIO_REMOVE_LOCK Gate;           /* given back behind the completion; NULL if there is none */
} ROW;

typedef struct _TASK {
    PIRP Irp;
    PIO_STACK_LOCATION At;
    PFILE_OBJECT File;
    ULONG Code;
    ULONG In;                       /* bytes of input (IOCTL, write) */
    ULONG Out;                      /* bytes of output (IOCTL, read) */
    PVOID Buffer;                   /* the system's buffer */
    ULONG_PTR Info;                 /* for IoStatus.Information, 0 at first */
} TASK;

LOCAL VOID TaskFill(TASK *task, PIRP irp)
{
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);

    RtlZeroMemory(task, sizeof(*task));
    task->Irp = irp;
    task->At = at;
    task->File = at->FileObject;
    task->Buffer = irp->AssociatedIrp.SystemBuffer;
    if (at->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        task->Code = at->Parameters.DeviceIoControl.IoControlCode;
        task->In = at->Parameters.DeviceIoControl.InputBufferLength;
        task->Out = at->Parameters.DeviceIoControl.OutputBufferLength;
    } else if (at->MajorFunction == IRP_MJ_READ) {
        task->Out = at->Parameters.Read.Length;
    } else if (at->MajorFunction == IRP_MJ_WRITE) {
        task->In = at->Parameters.Write.Length;
    }
}

LOCAL VOID RowInit(ROW *row, PKSPIN_LOCK lock, PIO_REMOVE_LOCK gate)
{
    InitializeListHead(&row->Irps);
    row->Lock = lock;
    row->Gate = gate;
}

/* Ends a request that is in no row. */
LOCAL VOID RowFinish(ROW *row, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    PIO_REMOVE_LOCK gate = row->Gate;

    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, NT_SUCCESS(status) ? IO_DISK_INCREMENT : IO_NO_INCREMENT);
    if (gate != NULL)
        IoReleaseRemoveLock(gate, irp);
}

static VOID NTAPI RowCancelled(PDEVICE_OBJECT device, PIRP irp)
{
    ROW *row = irp->Tail.Overlay.DriverContext[0];
    KIRQL irql;

    (void)device;
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(row->Lock, &irql);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(row->Lock, irql);
    RowFinish(row, irp, STATUS_CANCELLED, 0);
}

/* Lock held. STATUS_PENDING: the row has it. STATUS_CANCELLED: it has not, and the caller ends the request. */
LOCAL NTSTATUS RowPut(ROW *row, PIRP irp)
{
    irp->Tail.Overlay.DriverContext[0] = row;
    InsertTailList(&row->Irps, &irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(irp, RowCancelled);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        return STATUS_CANCELLED;
    }
    /* If it is being cancelled its cancel routine waits for our lock. */
    if (!(IoGetCurrentIrpStackLocation(irp)->Control & SL_PENDING_RETURNED))
        IoMarkIrpPending(irp);
    return STATUS_PENDING;
}

/* Lock held. Takes this request, unless it is being cancelled. */
LOCAL BOOLEAN RowPull(PIRP irp)
{
    if (IoSetCancelRoutine(irp, NULL) == NULL)
        return FALSE;
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    return TRUE;
}

/* Lock held. Takes the first request (of this file, if one is named). */
LOCAL PIRP RowTake(ROW *row, PFILE_OBJECT file)
{
    PLIST_ENTRY entry;

    for (entry = row->Irps.Flink; entry != &row->Irps; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (file != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != file)
            continue;
        if (RowPull(irp))
            return irp;
    }
    return NULL;
}

/* Without the lock. Ends all requests (of this file, if one is named). */
LOCAL VOID RowEmpty(ROW *row, PFILE_OBJECT file, NTSTATUS status)
{
    for (;;) {
        PIRP irp;
        KIRQL irql;

        KeAcquireSpinLock(row->Lock, &irql);
        irp = RowTake(row, file);
        KeReleaseSpinLock(row->Lock, irql);
        if (irp == NULL)
            return;
        RowFinish(row, irp, status, 0);
    }
}

#endif
