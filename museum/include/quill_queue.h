/*
 * quill_queue.h: a small cancel-safe queue of requests, shared by the drivers of this folder.
 *
 * The owner takes the queue's spin lock for each call whose name ends in Locked, so that it can keep its own
 * data under the same lock. Guard, when there is one, is the remove lock that each queued request holds with
 * the request as its tag. FileObject->FsContext2 marks a handle whose cleanup has run: nothing is queued for it.
 */
#ifndef QUILL_QUEUE_H
#define QUILL_QUEUE_H

typedef struct _QUILL_QUEUE {
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    ULONG Count;
    ULONG Limit;
    BOOLEAN Closed;
    PIO_REMOVE_LOCK Guard;
} QUILL_QUEUE, *PQUILL_QUEUE;

static inline VOID QuillQueueInit(PQUILL_QUEUE Queue, PIO_REMOVE_LOCK Guard, ULONG Limit)
{
    KeInitializeSpinLock(&Queue->Lock);
    InitializeListHead(&Queue->List);
    Queue->Count = 0;
    Queue->Limit = Limit;
    Queue->Closed = FALSE;
    Queue->Guard = Guard;
}

/* Ends a request and gives back its hold on the remove lock. */
static inline VOID QuillQueueEnd(PQUILL_QUEUE Queue, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    PIO_REMOVE_LOCK guard = Queue->Guard;

    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    if (guard != NULL)
        IoReleaseRemoveLock(guard, Irp);
}

static VOID NTAPI QuillQueueCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PQUILL_QUEUE queue = (PQUILL_QUEUE)Irp->Tail.Overlay.DriverContext[0];
    KIRQL irql;

    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);

    KeAcquireSpinLock(&queue->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    queue->Count--;
    KeReleaseSpinLock(&queue->Lock, irql);

    QuillQueueEnd(queue, Irp, STATUS_CANCELLED, 0);
}

/*
 * Queues a request that is already marked pending. With STATUS_SUCCESS the queue owns it; with any other status
 * the caller still does, and ends it with that status after it gave the lock back.
 */
static inline NTSTATUS QuillQueueInsertLocked(PQUILL_QUEUE Queue, PIRP Irp, PVOID Key)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    if (Queue->Closed)
        return STATUS_DELETE_PENDING;
    if (file != NULL && file->FsContext2 != NULL)
        return STATUS_CANCELLED;
    if (Queue->Count >= Queue->Limit)
        return STATUS_INSUFFICIENT_RESOURCES;

    Irp->Tail.Overlay.DriverContext[0] = Queue;
    Irp->Tail.Overlay.DriverContext[1] = Key;
    IoSetCancelRoutine(Irp, QuillQueueCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL)
        return STATUS_CANCELLED;

    /* When the cancel routine is already on its way it waits for our lock and finds the request in the list. */
    InsertTailList(&Queue->List, &Irp->Tail.Overlay.ListEntry);
    Queue->Count++;
    return STATUS_SUCCESS;
}

/* The oldest request of this key and this file (NULL: any), or NULL. It cannot be cancelled any more. */
static inline PIRP QuillQueueTakeLocked(PQUILL_QUEUE Queue, PVOID Key, PFILE_OBJECT File)
{
    PLIST_ENTRY entry;

    for (entry = Queue->List.Flink; entry != &Queue->List; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (Key != NULL && irp->Tail.Overlay.DriverContext[1] != Key)
            continue;
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;               /* its cancel routine waits for our lock and takes it out itself */
        RemoveEntryList(entry);
        Queue->Count--;
        return irp;
    }
    return NULL;
}

/* Moves all matching requests to a list of the caller. */
static inline VOID QuillQueueTakeAllLocked(PQUILL_QUEUE Queue, PVOID Key, PFILE_OBJECT File, PLIST_ENTRY Out)
{
    PIRP irp;

    while ((irp = QuillQueueTakeLocked(Queue, Key, File)) != NULL)
        InsertTailList(Out, &irp->Tail.Overlay.ListEntry);
}

static inline VOID QuillQueueEndList(PQUILL_QUEUE Queue, PLIST_ENTRY List, NTSTATUS Status)
{
    while (!IsListEmpty(List)) {
        PLIST_ENTRY entry = RemoveHeadList(List);

        QuillQueueEnd(Queue, CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry), Status, 0);
    }
}

/* The handle is being closed: ends its requests and lets no more of them in. */
static inline VOID QuillQueueCleanup(PQUILL_QUEUE Queue, PFILE_OBJECT File)
{
    LIST_ENTRY list;
    KIRQL irql;

    InitializeListHead(&list);
    KeAcquireSpinLock(&Queue->Lock, &irql);
    File->FsContext2 = Queue;
    QuillQueueTakeAllLocked(Queue, NULL, File, &list);
    KeReleaseSpinLock(&Queue->Lock, irql);
    QuillQueueEndList(Queue, &list, STATUS_CANCELLED);
}

/* The device goes: ends all requests and lets no more of them in. */
static inline VOID QuillQueueClose(PQUILL_QUEUE Queue)
{
    LIST_ENTRY list;
    KIRQL irql;

    InitializeListHead(&list);
    KeAcquireSpinLock(&Queue->Lock, &irql);
    Queue->Closed = TRUE;
    QuillQueueTakeAllLocked(Queue, NULL, NULL, &list);
    KeReleaseSpinLock(&Queue->Lock, irql);
    QuillQueueEndList(Queue, &list, STATUS_DELETE_PENDING);
}

#endif
