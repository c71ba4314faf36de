/*
 * A cancel-safe queue of pending requests. What takes a request out completes it; a cancelled one is handed to `end`.
 */
#pragma once
#include <ddk/wdm.h>

typedef struct AF_QUEUE AF_QUEUE;
typedef void AF_ENDED(void *context, IRP *irp);
typedef BOOLEAN AF_MATCH(IRP *irp, PVOID wanted);

struct AF_QUEUE {
    IO_CSQ csq;
    LIST_ENTRY list;
    KSPIN_LOCK lock;
    AF_ENDED *cancelled;
    AF_MATCH *match;
    void *context;
};

static inline VOID NTAPI AfqInsert(PIO_CSQ csq, PIRP irp)
{
    AF_QUEUE *queue = CONTAINING_RECORD(csq, AF_QUEUE, csq);

    InsertTailList(&queue->list, &irp->Tail.Overlay.ListEntry);
}

static inline VOID NTAPI AfqRemove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static inline BOOLEAN AfqOfFile(IRP *irp, PVOID wanted)
{
    return IoGetCurrentIrpStackLocation(irp)->FileObject == (FILE_OBJECT *)wanted;
}

/* The next behind `irp` (NULL: the first) that matches what is wanted (NULL: any). */
static inline PIRP AfqPeekIn(LIST_ENTRY *list, PIRP irp, AF_MATCH *match, PVOID wanted)
{
    LIST_ENTRY *entry = irp ? irp->Tail.Overlay.ListEntry.Flink : list->Flink;

    for (; entry != list; entry = entry->Flink) {
        IRP *next = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (!wanted || match(next, wanted))
            return next;
    }
    return NULL;
}

static inline PIRP NTAPI AfqPeek(PIO_CSQ csq, PIRP irp, PVOID wanted)
{
    AF_QUEUE *queue = CONTAINING_RECORD(csq, AF_QUEUE, csq);

    return AfqPeekIn(&queue->list, irp, queue->match, wanted);
}

static inline VOID NTAPI AfqAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, AF_QUEUE, csq)->lock, irql);
}

static inline VOID NTAPI AfqRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, AF_QUEUE, csq)->lock, irql);
}

static inline VOID NTAPI AfqCancelled(PIO_CSQ csq, PIRP irp)
{
    AF_QUEUE *queue = CONTAINING_RECORD(csq, AF_QUEUE, csq);

    queue->cancelled(queue->context, irp);
}

static inline NTSTATUS AfQueueInit(AF_QUEUE *queue, AF_ENDED *cancelled, void *context)
{
    InitializeListHead(&queue->list);
    KeInitializeSpinLock(&queue->lock);
    queue->cancelled = cancelled;
    queue->match = AfqOfFile;                   /* what is wanted is a file object's, unless the driver sets another */
    queue->context = context;
    return IoCsqInitialize(&queue->csq, AfqInsert, AfqRemove, AfqPeek, AfqAcquire, AfqRelease, AfqCancelled);
}

/* Marks the request pending; it must not be touched afterwards. */
static inline void AfQueuePut(AF_QUEUE *queue, IRP *irp)
{
    IoCsqInsertIrp(&queue->csq, irp, NULL);
}

static inline IRP *AfQueueGet(AF_QUEUE *queue, PVOID wanted)
{
    return IoCsqRemoveNextIrp(&queue->csq, wanted);
}

static inline BOOLEAN AfQueueEmpty(AF_QUEUE *queue)
{
    KIRQL irql;
    BOOLEAN empty;

    KeAcquireSpinLock(&queue->lock, &irql);
    empty = IsListEmpty(&queue->list) != 0;
    KeReleaseSpinLock(&queue->lock, irql);
    return empty;
}

/* Hands all requests that match (NULL: all there are) to the queue's routine of the cancelled. */
static inline void AfQueueFlush(AF_QUEUE *queue, PVOID wanted)
{
    IRP *irp;

    while ((irp = IoCsqRemoveNextIrp(&queue->csq, wanted)) != NULL)
        queue->cancelled(queue->context, irp);
}
