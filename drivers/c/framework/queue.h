/*
 * Queues: requests wait in one (Waiting, with a cancel routine), are presented to the driver, one at a time, all at once or when it asks
 * (manual), and are its own until it completes, forwards or requeues them. A queue that power holds presents nothing; those that the driver owns
 * then end, or the driver says that it keeps them (EvtIoStop, WdfRequestStopAcknowledge).
 *
 * Count are all requests that are of the queue, those too whose cancellation has begun; OwnedCount those that the driver owns. A request that ends
 * is counted until its IRP is completed.
 *
 * Pages: Dispatching Methods for I/O Requests, Using Power-Managed I/O Queues, EvtIoStop, EvtIoCanceledOnQueue, WdfIoQueueStop,
 * WdfIoQueueRetrieveNextRequest, WdfRequestForwardToIoQueue, WdfRequestRequeue. The status of a request that finds its queue purged is STATUS_CANCELLED:
 * the pages do not say.
 */
#ifndef FRAMEWORK_QUEUE_H
#define FRAMEWORK_QUEUE_H

typedef struct _REQUEST {
    OBJECT Object;
    PIRP Irp;
    DEVICE *Device;
    struct _QUEUE *Queue;
    LIST_ENTRY Entry;
    VOID (*EvtCancel)(WDFREQUEST Request);
    OBJECT *File;
    BOOLEAN Owned;
    BOOLEAN Delivered;    /* the driver has had it before */
    BOOLEAN Asked;         /* by EvtIoStop */
    BOOLEAN Acknowledged; /* the driver keeps it while power is off */
    volatile BOOLEAN Ending; /* its driver is completing it: it is owned until that is done */
} REQUEST;

#define HELD_BY_DRIVER 1
#define HELD_BY_POWER 2

typedef struct _QUEUE {
    OBJECT Object;
    LIST_ENTRY Entry; /* of the device's */
    DEVICE *Device;
    WDF_IO_QUEUE_CONFIG Config;
    BOOLEAN PowerManaged;
    BOOLEAN Purged;
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting;
    LIST_ENTRY Owned;
    ULONG Count;
    ULONG OwnedCount;
    ULONG AcknowledgedCount;
    ULONG Held;
    ULONG Calls;        /* of the driver's callbacks that present requests */
    PFN_WDF_IO_QUEUE_STATE Stopped; /* to be called when the driver owns nothing more */
    WDFCONTEXT StoppedContext;
    LIST_ENTRY Waiters;
} QUEUE;

/* A thread that waits until something is so. */
typedef struct _WAITER {
    LIST_ENTRY Entry;
    KEVENT Changed;
} WAITER;

static WDFREQUEST RequestHandle(REQUEST *Request)
{
    return HandleOf(&Request->Object);
}

static WDFQUEUE QueueHandle(QUEUE *Queue)
{
    return HandleOf(&Queue->Object);
}

/* Completes the IRP of a request, whose memory is still there afterwards. */
static inline VOID CompleteRequest(REQUEST *Request, NTSTATUS Status)
{
    PIRP Irp = Request->Irp;

    Request->Object.Deleted = TRUE;
    CleanUp(&Request->Object);
    Irp->IoStatus.Status = Status;
    IoCompleteRequest(Irp, NT_SUCCESS(Status) ? IO_DISK_INCREMENT : IO_NO_INCREMENT);
    Request->Irp = NULL;
}

/* Ends a request that is in no list any more. */
static VOID EndRequest(REQUEST *Request, NTSTATUS Status)
{
    CompleteRequest(Request, Status);
    Release(&Request->Object);
}

static VOID NTAPI CancelWaiting(PDEVICE_OBJECT Device, PIRP Irp);

/* Into the list, unless its IRP is cancelled; the lock is held. */
static BOOLEAN Enlist(QUEUE *Queue, REQUEST *Request, BOOLEAN AtHead)
{
    Request->Queue = Queue;
    Request->Owned = FALSE;
    Request->Irp->Tail.Overlay.DriverContext[0] = Request;
    if (AtHead) {
        InsertHeadList(&Queue->Waiting, &Request->Entry);
    } else {
        InsertTailList(&Queue->Waiting, &Request->Entry);
    }
    IoSetCancelRoutine(Request->Irp, CancelWaiting);
    if (Request->Irp->Cancel && IoSetCancelRoutine(Request->Irp, NULL) != NULL) {
        RemoveEntryList(&Request->Entry);
        return FALSE;
    }
    return TRUE;
}

/* Out of the list, if its cancellation has not begun; the lock is held. In either case it is in the list no more. */
static BOOLEAN Unlist(REQUEST *Request)
{
    RemoveEntryList(&Request->Entry);
    InitializeListHead(&Request->Entry);
    return IoSetCancelRoutine(Request->Irp, NULL) != NULL;
}

/* The next that waits, for the driver; NULL: none. The lock is held. */
static REQUEST *TakeNext(QUEUE *Queue)
{
    while (!IsListEmpty(&Queue->Waiting)) {
        REQUEST *Request = CONTAINING_RECORD(Queue->Waiting.Flink, REQUEST, Entry);

        if (Unlist(Request)) {
            return Request;
        }
    }
    return NULL;
}

/* The driver owns it; the lock is held. */
static VOID Own(QUEUE *Queue, REQUEST *Request)
{
    Request->Queue = Queue;
    Request->Owned = TRUE;
    Request->Delivered = TRUE;
    Request->Asked = FALSE;
    Request->Acknowledged = FALSE;
    Queue->OwnedCount++;
    InsertTailList(&Queue->Owned, &Request->Entry);
}

/* The driver owns it no more, but it is still counted; once more is no harm. The lock is held. */
static inline VOID Disown(QUEUE *Queue, REQUEST *Request)
{
    RemoveEntryList(&Request->Entry);
    InitializeListHead(&Request->Entry);
    Request->Owned = FALSE;
    if (Request->Acknowledged) {
        Request->Acknowledged = FALSE;
        Queue->AcknowledgedCount--;
    }
}

static inline BOOLEAN MayPresent(QUEUE *Queue)
{
    switch (Queue->Config.DispatchType) {
    case WdfIoQueueDispatchSequential:
        return Queue->Held == 0 && Queue->OwnedCount == 0 && Queue->Calls == 0;
    case WdfIoQueueDispatchParallel:
        return Queue->Held == 0 && Queue->OwnedCount < Queue->Config.NumberOfPresentedRequests;
    default:
        return FALSE;
    }
}

/* Calls the driver for a request that it owns from now on. */
static inline VOID Present(QUEUE *Queue, REQUEST *Request)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Request->Irp);
    WDF_IO_QUEUE_CONFIG *Config = &Queue->Config;
    WDFQUEUE Handle = QueueHandle(Queue);

    if (Stack->MajorFunction == IRP_MJ_READ && Config->EvtIoRead != NULL) {
        Config->EvtIoRead(Handle, RequestHandle(Request), Stack->Parameters.Read.Length);
    } else if (Stack->MajorFunction == IRP_MJ_WRITE && Config->EvtIoWrite != NULL) {
        Config->EvtIoWrite(Handle, RequestHandle(Request), Stack->Parameters.Write.Length);
    } else if (Stack->MajorFunction == IRP_MJ_DEVICE_CONTROL && Config->EvtIoDeviceControl != NULL) {
        Config->EvtIoDeviceControl(Handle, RequestHandle(Request), Stack->Parameters.DeviceIoControl.OutputBufferLength,
                                   Stack->Parameters.DeviceIoControl.InputBufferLength,
                                   Stack->Parameters.DeviceIoControl.IoControlCode);
    } else if (Stack->MajorFunction == IRP_MJ_INTERNAL_DEVICE_CONTROL && Config->EvtIoInternalDeviceControl != NULL) {
        Config->EvtIoInternalDeviceControl(Handle, RequestHandle(Request), Stack->Parameters.DeviceIoControl.OutputBufferLength,
                                           Stack->Parameters.DeviceIoControl.InputBufferLength,
                                           Stack->Parameters.DeviceIoControl.IoControlCode);
    } else {
        Config->EvtIoDefault(Handle, RequestHandle(Request));
    }
}

/* Whether the queue has a routine for requests of this kind. A manual queue needs none. */
static BOOLEAN Handles(QUEUE *Queue, UCHAR Major)
{
    WDF_IO_QUEUE_CONFIG *Config = &Queue->Config;

    return Config->DispatchType == WdfIoQueueDispatchManual || Config->EvtIoDefault != NULL ||
           (Major == IRP_MJ_READ && Config->EvtIoRead != NULL) || (Major == IRP_MJ_WRITE && Config->EvtIoWrite != NULL) ||
           (Major == IRP_MJ_DEVICE_CONTROL && Config->EvtIoDeviceControl != NULL) ||
           (Major == IRP_MJ_INTERNAL_DEVICE_CONTROL && Config->EvtIoInternalDeviceControl != NULL);
}

/* Presents what can be presented; the lock is held, and given back between. */
static VOID Dispatch(QUEUE *Queue, KIRQL *Irql)
{
    REQUEST *Request;

    while (MayPresent(Queue) && (Request = TakeNext(Queue)) != NULL) {
        Own(Queue, Request);
        Queue->Calls++;
        KeReleaseSpinLock(&Queue->Lock, *Irql);
        Present(Queue, Request);
        KeAcquireSpinLock(&Queue->Lock, Irql);
        Queue->Calls--;
    }
}

/* After a change: presents, tells who waits, and gives the lock back. Then the queue may be gone. */
static VOID Settle(QUEUE *Queue, KIRQL Irql)
{
    PFN_WDF_IO_QUEUE_STATE Stopped = NULL;
    WDFCONTEXT Context = NULL;
    PLIST_ENTRY Entry;

    Dispatch(Queue, &Irql);
    if (Queue->Stopped != NULL && Queue->OwnedCount == 0 && Queue->Calls == 0) {
        Stopped = Queue->Stopped;
        Context = Queue->StoppedContext;
        Queue->Stopped = NULL;
        Queue->Calls++;
        KeReleaseSpinLock(&Queue->Lock, Irql);
        Stopped(QueueHandle(Queue), Context);
        KeAcquireSpinLock(&Queue->Lock, &Irql);
        Queue->Calls--;
    }
    for (Entry = Queue->Waiters.Flink; Entry != &Queue->Waiters; Entry = Entry->Flink) {
        KeSetEvent(&CONTAINING_RECORD(Entry, WAITER, Entry)->Changed, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLock(&Queue->Lock, Irql);
}

/* A request whose IRP was cancelled while it waited; it is in no list, and counted. */
static VOID EndCancelled(QUEUE *Queue, REQUEST *Request)
{
    KIRQL Irql;

    if (Request->Delivered && Queue->Config.EvtIoCanceledOnQueue != NULL) {
        KeAcquireSpinLock(&Queue->Lock, &Irql);
        Own(Queue, Request);
        KeReleaseSpinLock(&Queue->Lock, Irql);
        Queue->Config.EvtIoCanceledOnQueue(QueueHandle(Queue), RequestHandle(Request));
        return;
    }
    Request->Irp->IoStatus.Information = 0;
    EndRequest(Request, STATUS_CANCELLED);
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Queue->Count--;
    Settle(Queue, Irql);
}

static VOID NTAPI CancelWaiting(PDEVICE_OBJECT Device, PIRP Irp)
{
    REQUEST *Request = Irp->Tail.Overlay.DriverContext[0];
    QUEUE *Queue;
    KIRQL Level;

    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    Queue = Request->Queue;
    KeAcquireSpinLock(&Queue->Lock, &Level);
    RemoveEntryList(&Request->Entry);
    InitializeListHead(&Request->Entry);
    KeReleaseSpinLock(&Queue->Lock, Level);
    EndCancelled(Queue, Request);
}

/* A request that is in no queue comes into one. */
static VOID Insert(QUEUE *Queue, REQUEST *Request, BOOLEAN AtHead)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Queue->Count++;
    Request->Queue = Queue;
    if (!Queue->Purged && IsListEmpty(&Queue->Waiting) && MayPresent(Queue) && !Request->Irp->Cancel) {
        Own(Queue, Request);
        Queue->Calls++;
        KeReleaseSpinLock(&Queue->Lock, Irql);
        Present(Queue, Request);
        KeAcquireSpinLock(&Queue->Lock, &Irql);
        Queue->Calls--;
        Settle(Queue, Irql);
        return;
    }
    if (Queue->Purged || !Enlist(Queue, Request, AtHead)) {
        KeReleaseSpinLock(&Queue->Lock, Irql);
        EndCancelled(Queue, Request);
        return;
    }
    Settle(Queue, Irql);
}

/* A request that the driver owns ends. */
static VOID Finish(REQUEST *Request, NTSTATUS Status)
{
    QUEUE *Queue = Request->Queue;
    KIRQL Irql;

    if (Queue == NULL) { /* of EvtDeviceFileCreate: a file that is refused goes with it */
        if (!NT_SUCCESS(Status)) {
            IoGetCurrentIrpStackLocation(Request->Irp)->FileObject->FsContext = NULL;
            Delete(Request->File);
        }
        EndRequest(Request, Status);
        return;
    }
    if (Request->EvtCancel != NULL) { /* its IRP may be cancelled by who finds it among the owned ones */
        KeAcquireSpinLock(&Queue->Lock, &Irql);
        Disown(Queue, Request);
        KeReleaseSpinLock(&Queue->Lock, Irql);
    }
    Request->Ending = TRUE;
    CompleteRequest(Request, Status);
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Disown(Queue, Request);
    Queue->Count--;
    Queue->OwnedCount--;
    Settle(Queue, Irql);
    Release(&Request->Object);
}

/* A request that the driver owns goes to another queue, or back to its own. */
static VOID Move(REQUEST *Request, QUEUE *To, BOOLEAN AtHead)
{
    QUEUE *From = Request->Queue;
    KIRQL Irql;

    KeAcquireSpinLock(&From->Lock, &Irql);
    Disown(From, Request);
    KeReleaseSpinLock(&From->Lock, Irql);
    Insert(To, Request, AtHead);
    KeAcquireSpinLock(&From->Lock, &Irql);
    From->Count--;
    From->OwnedCount--;
    Settle(From, Irql);
}

typedef BOOLEAN (*QUEUE_IS)(QUEUE *Queue);

static BOOLEAN KeepsNone(QUEUE *Queue) /* the driver owns none but those that it keeps while power is off */
{
    return Queue->OwnedCount == Queue->AcknowledgedCount && Queue->Calls == 0;
}

static BOOLEAN OwnsNone(QUEUE *Queue)
{
    return Queue->OwnedCount == 0 && Queue->Calls == 0;
}

static BOOLEAN HasNone(QUEUE *Queue)
{
    return Queue->Count == 0 && Queue->Calls == 0;
}

static VOID WaitUntil(QUEUE *Queue, QUEUE_IS Is)
{
    WAITER Waiter;
    KIRQL Irql;

    KeInitializeEvent(&Waiter.Changed, SynchronizationEvent, FALSE);
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    InsertTailList(&Queue->Waiters, &Waiter.Entry);
    while (!Is(Queue)) {
        KeReleaseSpinLock(&Queue->Lock, Irql);
        KeWaitForSingleObject(&Waiter.Changed, Executive, KernelMode, FALSE, NULL);
        KeAcquireSpinLock(&Queue->Lock, &Irql);
    }
    RemoveEntryList(&Waiter.Entry);
    KeReleaseSpinLock(&Queue->Lock, Irql);
}

/* One that the driver owns and was not asked about yet, with a reference, or NULL. */
static REQUEST *NextToTell(QUEUE *Queue)
{
    REQUEST *Found = NULL;
    PLIST_ENTRY Entry;
    KIRQL Irql;

    KeAcquireSpinLock(&Queue->Lock, &Irql);
    for (Entry = Queue->Owned.Flink; Entry != &Queue->Owned && Found == NULL; Entry = Entry->Flink) {
        REQUEST *Request = CONTAINING_RECORD(Entry, REQUEST, Entry);

        if (!Request->Asked && !Request->Ending) {
            Found = Request;
            Request->Asked = TRUE;
            InterlockedIncrement(&Request->Object.References);
        }
    }
    KeReleaseSpinLock(&Queue->Lock, Irql);
    return Found;
}

static VOID TellStop(QUEUE *Queue, ULONG Action)
{
    REQUEST *Request;

    if (Queue->Config.EvtIoStop == NULL) {
        return;
    }
    while ((Request = NextToTell(Queue)) != NULL) {
        ULONG Cancelable = Request->EvtCancel != NULL ? WdfRequestStopRequestCancelable : 0;

        Queue->Config.EvtIoStop(QueueHandle(Queue), RequestHandle(Request), Action | Cancelable);
        Release(&Request->Object);
    }
}

/* Power goes: nothing is presented any more, and the driver is done with what it owns, or keeps it. */
static VOID HoldQueue(QUEUE *Queue)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Queue->Held |= HELD_BY_POWER;
    KeReleaseSpinLock(&Queue->Lock, Irql);
    TellStop(Queue, WdfRequestStopActionSuspend);
    WaitUntil(Queue, KeepsNone);
}

/* One that the driver kept, which hears that power is back; with a reference, or NULL. */
static REQUEST *NextToResume(QUEUE *Queue)
{
    REQUEST *Found = NULL;
    PLIST_ENTRY Entry;
    KIRQL Irql;

    KeAcquireSpinLock(&Queue->Lock, &Irql);
    for (Entry = Queue->Owned.Flink; Entry != &Queue->Owned && Found == NULL; Entry = Entry->Flink) {
        REQUEST *Request = CONTAINING_RECORD(Entry, REQUEST, Entry);

        if (Request->Acknowledged && !Request->Ending) {
            Found = Request;
            Request->Acknowledged = FALSE;
            Request->Asked = FALSE;
            Queue->AcknowledgedCount--;
            InterlockedIncrement(&Request->Object.References);
        }
    }
    KeReleaseSpinLock(&Queue->Lock, Irql);
    return Found;
}

static VOID ResumeQueue(QUEUE *Queue)
{
    REQUEST *Request;
    KIRQL Irql;

    while ((Request = NextToResume(Queue)) != NULL) {
        if (Queue->Config.EvtIoResume != NULL) {
            Queue->Config.EvtIoResume(QueueHandle(Queue), RequestHandle(Request));
        }
        Release(&Request->Object);
    }
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Queue->Held &= ~HELD_BY_POWER;
    Settle(Queue, Irql);
}

/* One that the driver owns and lets be cancelled, whose cancellation begins now; or NULL. */
static REQUEST *NextToCancel(QUEUE *Queue)
{
    REQUEST *Found = NULL;
    PLIST_ENTRY Entry;
    KIRQL Irql;

    KeAcquireSpinLock(&Queue->Lock, &Irql);
    for (Entry = Queue->Owned.Flink; Entry != &Queue->Owned && Found == NULL; Entry = Entry->Flink) {
        REQUEST *Request = CONTAINING_RECORD(Entry, REQUEST, Entry);

        if (!Request->Ending && Request->EvtCancel != NULL && IoSetCancelRoutine(Request->Irp, NULL) != NULL) {
            Found = Request;
        }
    }
    KeReleaseSpinLock(&Queue->Lock, Irql);
    return Found;
}

static VOID CancelAllOwned(QUEUE *Queue)
{
    REQUEST *Request;

    while ((Request = NextToCancel(Queue)) != NULL) {
        Request->EvtCancel(RequestHandle(Request));
    }
}

/* Asks once more about those that the driver keeps. */
static VOID ForgetAnswers(QUEUE *Queue)
{
    PLIST_ENTRY Entry;
    KIRQL Irql;

    KeAcquireSpinLock(&Queue->Lock, &Irql);
    for (Entry = Queue->Owned.Flink; Entry != &Queue->Owned; Entry = Entry->Flink) {
        REQUEST *Request = CONTAINING_RECORD(Entry, REQUEST, Entry);

        Request->Asked = Request->Asked && !Request->Acknowledged;
    }
    KeReleaseSpinLock(&Queue->Lock, Irql);
}

/* Takes no requests any more, ends those that wait, has the driver end those that can be cancelled, and waits for all. */
static VOID PurgeQueue(QUEUE *Queue)
{
    REQUEST *Request;
    KIRQL Irql;

    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Queue->Purged = TRUE;
    while ((Request = TakeNext(Queue)) != NULL) {
        KeReleaseSpinLock(&Queue->Lock, Irql);
        EndCancelled(Queue, Request);
        KeAcquireSpinLock(&Queue->Lock, &Irql);
    }
    KeReleaseSpinLock(&Queue->Lock, Irql);
    CancelAllOwned(Queue);
    if (Queue->PowerManaged) {
        ForgetAnswers(Queue);
        TellStop(Queue, WdfRequestStopActionPurge);
    }
    WaitUntil(Queue, HasNone);
}

/* A file is being closed: its requests that wait are cancelled. */
static VOID CancelOf(QUEUE *Queue, PFILE_OBJECT File)
{
    REQUEST *Found;
    PLIST_ENTRY Entry;
    KIRQL Irql;

    do {
        Found = NULL;
        KeAcquireSpinLock(&Queue->Lock, &Irql);
        for (Entry = Queue->Waiting.Flink; Entry != &Queue->Waiting && Found == NULL; Entry = Entry->Flink) {
            REQUEST *Request = CONTAINING_RECORD(Entry, REQUEST, Entry);

            if (IoGetCurrentIrpStackLocation(Request->Irp)->FileObject == File && IoSetCancelRoutine(Request->Irp, NULL) != NULL) {
                RemoveEntryList(&Request->Entry);
                InitializeListHead(&Request->Entry);
                Found = Request;
            }
        }
        KeReleaseSpinLock(&Queue->Lock, Irql);
        if (Found != NULL) {
            EndCancelled(Queue, Found);
        }
    } while (Found != NULL);
}

static VOID DisposeQueue(OBJECT *Object)
{
    QUEUE *Queue = (QUEUE *)Object;
    KIRQL Irql;

    PurgeQueue(Queue);
    if (Queue->Device->Default == Queue) {
        Queue->Device->Default = NULL;
    }
    KeAcquireSpinLock(&Object->Client->Lock, &Irql);
    RemoveEntryList(&Queue->Entry);
    KeReleaseSpinLock(&Object->Client->Lock, Irql);
}

static NTSTATUS CheckQueue(DEVICE *Device, WDF_IO_QUEUE_CONFIG *Config)
{
    BOOLEAN HasRoutine = Config->EvtIoDefault != NULL || Config->EvtIoRead != NULL || Config->EvtIoWrite != NULL ||
                         Config->EvtIoDeviceControl != NULL || Config->EvtIoInternalDeviceControl != NULL;

    if (Config->DispatchType < WdfIoQueueDispatchSequential || Config->DispatchType > WdfIoQueueDispatchManual ||
        (HasRoutine && Config->DispatchType == WdfIoQueueDispatchManual)) {
        return STATUS_INVALID_PARAMETER;
    }
    if (!HasRoutine && Config->DispatchType != WdfIoQueueDispatchManual) {
        return STATUS_WDF_NO_CALLBACK;
    }
    return Config->DefaultQueue && Device->Default != NULL ? STATUS_INVALID_DEVICE_STATE : STATUS_SUCCESS;
}

static NTSTATUS IoQueueCreate(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle, WDF_IO_QUEUE_CONFIG *Given,
                              PWDF_OBJECT_ATTRIBUTES Attributes, WDFQUEUE *Created)
{
    CLIENT *Client = ClientOf(Globals);
    DEVICE *Device = ObjectOf(Handle, DeviceKind);
    WDF_IO_QUEUE_CONFIG Config;
    QUEUE *Queue;
    NTSTATUS Status;
    KIRQL Irql;

    if (!Take(&Config, sizeof(Config), Given, IO_QUEUE_CONFIG_SIZE(Client->Minor))) {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    if (Client->Minor < 9 || Config.NumberOfPresentedRequests == 0) {
        Config.NumberOfPresentedRequests = MAXULONG;
    }
    Status = CheckQueue(Device, &Config);
    if (NT_SUCCESS(Status)) {
        Status = CreateObject(Client, QueueKind, sizeof(*Queue), Attributes, Device, (PVOID *)&Queue);
    }
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Queue->Device = Device;
    Queue->Config = Config;
    Queue->PowerManaged = Config.PowerManaged == WdfTrue || (Config.PowerManaged == WdfUseDefault && Device->Lower != NULL);
    Queue->Held = Queue->PowerManaged && !Device->Powered ? HELD_BY_POWER : 0;
    KeInitializeSpinLock(&Queue->Lock);
    InitializeListHead(&Queue->Waiters);
    InitializeListHead(&Queue->Waiting);
    InitializeListHead(&Queue->Owned);
    Status = Adopt(&Queue->Object, Attributes, DisposeQueue);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    KeAcquireSpinLock(&Client->Lock, &Irql);
    InsertTailList(&Device->Queues, &Queue->Entry);
    KeReleaseSpinLock(&Client->Lock, Irql);
    if (Config.DefaultQueue) {
        Device->Default = Queue;
    }
    Note(Client, QUEUE_IS_CREATED, Config.DispatchType);
    if (Created != NULL) {
        *Created = QueueHandle(Queue);
    }
    return STATUS_SUCCESS;
}

static VOID IoQueueStart(PWDF_DRIVER_GLOBALS Globals, WDFQUEUE Handle)
{
    QUEUE *Queue = ObjectOf(Handle, QueueKind);
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Globals);
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Queue->Held &= ~HELD_BY_DRIVER;
    Settle(Queue, Irql);
}

static VOID IoQueueStop(PWDF_DRIVER_GLOBALS Globals, WDFQUEUE Handle, PFN_WDF_IO_QUEUE_STATE Stopped, WDFCONTEXT Context)
{
    QUEUE *Queue = ObjectOf(Handle, QueueKind);
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Globals);
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    Queue->Held |= HELD_BY_DRIVER;
    Queue->Stopped = Stopped;
    Queue->StoppedContext = Context;
    Settle(Queue, Irql);
}

static VOID IoQueueStopSynchronously(PWDF_DRIVER_GLOBALS Globals, WDFQUEUE Handle)
{
    IoQueueStop(Globals, Handle, NULL, NULL);
    WaitUntil(ObjectOf(Handle, QueueKind), OwnsNone);
}

static WDFDEVICE IoQueueGetDevice(PWDF_DRIVER_GLOBALS Globals, WDFQUEUE Handle)
{
    QUEUE *Queue = ObjectOf(Handle, QueueKind);

    UNREFERENCED_PARAMETER(Globals);
    return HandleOf(&Queue->Device->Object);
}

static NTSTATUS IoQueueRetrieveNextRequest(PWDF_DRIVER_GLOBALS Globals, WDFQUEUE Handle, WDFREQUEST *Retrieved)
{
    QUEUE *Queue = ObjectOf(Handle, QueueKind);
    NTSTATUS Status = STATUS_SUCCESS;
    REQUEST *Request = NULL;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Globals);
    *Retrieved = NULL;
    if (Queue->Config.DispatchType == WdfIoQueueDispatchParallel) {
        return STATUS_INVALID_DEVICE_STATE;
    }
    KeAcquireSpinLock(&Queue->Lock, &Irql);
    if (Queue->Held != 0) {
        Status = STATUS_WDF_PAUSED;
    } else {
        Request = TakeNext(Queue);
        if (Request == NULL) {
            Status = STATUS_NO_MORE_ENTRIES;
        } else {
            Own(Queue, Request);
            *Retrieved = RequestHandle(Request);
        }
    }
    KeReleaseSpinLock(&Queue->Lock, Irql);
    return Status;
}

#endif
