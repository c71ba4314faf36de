/* AEq.h: a queue of waiting requests, safe against cancellation (IO_CSQ). */
#ifndef AEQ_H
#define AEQ_H

typedef struct AEQ {
	IO_CSQ csq;
	KSPIN_LOCK lock;
	LIST_ENTRY list;
	void (*cancelled)(PVOID owner, PIRP irp);	/* completes a request that was cancelled */
	PVOID owner;
} AEQ;

static inline VOID NTAPI AeqCsqInsert(PIO_CSQ csq, PIRP irp)
{
	AEQ *q = CONTAINING_RECORD(csq, AEQ, csq);

	InsertTailList(&q->list, &irp->Tail.Overlay.ListEntry);
}

static inline VOID NTAPI AeqCsqRemove(PIO_CSQ csq, PIRP irp)
{
	UNREFERENCED_PARAMETER(csq);
	RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

/* the context is a file object, or NULL for any */
static inline PIRP NTAPI AeqCsqPeek(PIO_CSQ csq, PIRP irp, PVOID context)
{
	AEQ *q = CONTAINING_RECORD(csq, AEQ, csq);
	PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : q->list.Flink;

	for (; e != &q->list; e = e->Flink) {
		PIRP one = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

		if (context == NULL || IoGetCurrentIrpStackLocation(one)->FileObject == (PFILE_OBJECT)context)
			return one;
	}
	return NULL;
}

static inline VOID NTAPI AeqCsqAcquire(PIO_CSQ csq, PKIRQL irql)
{
	KeAcquireSpinLock(&CONTAINING_RECORD(csq, AEQ, csq)->lock, irql);
}

static inline VOID NTAPI AeqCsqRelease(PIO_CSQ csq, KIRQL irql)
{
	KeReleaseSpinLock(&CONTAINING_RECORD(csq, AEQ, csq)->lock, irql);
}

static inline VOID NTAPI AeqCsqCancelled(PIO_CSQ csq, PIRP irp)
{
	AEQ *q = CONTAINING_RECORD(csq, AEQ, csq);

	q->cancelled(q->owner, irp);
}

static inline NTSTATUS AeqInit(AEQ *q, void (*cancelled)(PVOID, PIRP), PVOID owner)
{
	KeInitializeSpinLock(&q->lock);
	InitializeListHead(&q->list);
	q->cancelled = cancelled;
	q->owner = owner;
	return IoCsqInitialize(&q->csq, AeqCsqInsert, AeqCsqRemove, AeqCsqPeek, AeqCsqAcquire, AeqCsqRelease, AeqCsqCancelled);
}

/* marks the request pending; from here on it may be completed at any time */
static inline void AeqPut(AEQ *q, PIRP irp)
{
	IoCsqInsertIrp(&q->csq, irp, NULL);
}

/* the oldest request (of one file, if one is named), or NULL */
static inline PIRP AeqNext(AEQ *q, PFILE_OBJECT file)
{
	return IoCsqRemoveNextIrp(&q->csq, file);
}

/* at DISPATCH_LEVEL */
static inline BOOLEAN AeqEmptyAtDpc(AEQ *q)
{
	BOOLEAN empty;

	KeAcquireSpinLockAtDpcLevel(&q->lock);
	empty = IsListEmpty(&q->list);
	KeReleaseSpinLockFromDpcLevel(&q->lock);
	return empty;
}

#endif
