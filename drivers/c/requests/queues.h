/* Queues of requests and of work. Pages: Cancel-Safe IRP Queues, IoCsqInsertIrpEx function, IoAcquireRemoveLock macro,
 * KeInsertDeviceQueue function, IoQueueWorkItem function, IoInitializeTimer function. */

static VOID NTAPI CsqInsert(PIO_CSQ Queue, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = CONTAINING_RECORD(Queue, DEVICE_EXTENSION, Queue);

    InsertTailList(&Extension->Held, &Irp->Tail.Overlay.ListEntry);
}

/* Refuses a request when its context says so. */
static NTSTATUS NTAPI CsqInsertEx(PIO_CSQ Queue, PIRP Irp, PVOID Refusal)
{
    if (Refusal != NULL) {
        return *(NTSTATUS *)Refusal;
    }
    CsqInsert(Queue, Irp);
    return STATUS_SUCCESS;
}

static VOID NTAPI CsqRemove(PIO_CSQ Queue, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Queue);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* The request after Irp, if Wanted is NULL; else the first with Wanted as its input length. */
static PIRP NTAPI CsqPeek(PIO_CSQ Queue, PIRP Irp, PVOID Wanted)
{
    PDEVICE_EXTENSION Extension = CONTAINING_RECORD(Queue, DEVICE_EXTENSION, Queue);
    PLIST_ENTRY Entry = Irp == NULL ? Extension->Held.Flink : Irp->Tail.Overlay.ListEntry.Flink;

    for (; Entry != &Extension->Held; Entry = Entry->Flink) {
        PIRP Next = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        ULONG Length = IoGetCurrentIrpStackLocation(Next)->Parameters.DeviceIoControl.InputBufferLength;

        if (Wanted == NULL || Length == (ULONG)(ULONG_PTR)Wanted) {
            return Next;
        }
    }
    return NULL;
}

static VOID NTAPI CsqAcquire(PIO_CSQ Queue, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Queue, DEVICE_EXTENSION, Queue)->Lock, Irql);
}

static VOID NTAPI CsqRelease(PIO_CSQ Queue, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Queue, DEVICE_EXTENSION, Queue)->Lock, Irql);
}

static VOID NTAPI CsqCancelled(PIO_CSQ Queue, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Queue);
    Irp->IoStatus.Status = STATUS_CANCELLED;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

/* An IRP that the lower device holds; its number stands as its input length. */
static PIRP SendHeld(REQUESTS_RESULT *Result, ULONG Number, SEEN *Seen)
{
    PIRP Irp = IoAllocateIrp(Lower->StackSize, FALSE);

    if (CHECK(Irp != NULL)) {
        SetHold(Irp, Seen);
        IoGetNextIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength = Number;
        CHECK_STATUS(IoCallDriver(Lower, Irp), STATUS_PENDING);
    }
    return Irp;
}

static VOID CompleteHeld(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

static VOID CheckCancelSafe(REQUESTS_RESULT *Result)
{
    PIO_CSQ Queue = &((PDEVICE_EXTENSION)Lower->DeviceExtension)->Queue;
    SEEN Seen[3];
    PIRP Irps[3];
    ULONG Index;

    for (Index = 0; Index < 3; Index++) {
        Irps[Index] = SendHeld(Result, Index + 1, &Seen[Index]);
        if (Irps[Index] == NULL) {
            return;
        }
        CHECK(Irps[Index]->CancelRoutine != NULL);
    }
    CHECK(IoCsqRemoveNextIrp(Queue, (PVOID)9) == NULL);
    if (CHECK(IoCsqRemoveNextIrp(Queue, (PVOID)2) == Irps[1])) {
        CHECK(Irps[1]->CancelRoutine == NULL && !IoCancelIrp(Irps[1])); /* it is ours now */
        CHECK(Seen[1].Calls == 0);
        CompleteHeld(Irps[1], STATUS_SUCCESS);
        CHECK(Seen[1].Calls == 1);
    }
    CHECK(IoCancelIrp(Irps[0]) && Seen[0].Status == STATUS_CANCELLED);
    if (CHECK(IoCsqRemoveNextIrp(Queue, NULL) == Irps[2])) {
        CompleteHeld(Irps[2], STATUS_NO_MORE_ENTRIES);
        CHECK_STATUS(Seen[2].Status, STATUS_NO_MORE_ENTRIES);
    }
    CHECK(IoCsqRemoveNextIrp(Queue, NULL) == NULL);
    for (Index = 0; Index < 3; Index++) {
        IoFreeIrp(Irps[Index]);
    }
}

/* A queue of its own: one IRP by its context, one refused. The IRP never leaves this routine. */
static VOID CheckCancelSafeContext(REQUESTS_RESULT *Result)
{
    PDEVICE_EXTENSION Own = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Own), REQUESTS_TAG);
    NTSTATUS Refusal = STATUS_DEVICE_BUSY;
    IO_CSQ_IRP_CONTEXT Context;
    PIRP Irp = IoAllocateIrp(1, FALSE);

    if (!CHECK(Own != NULL && Irp != NULL)) {
        return;
    }
    RtlZeroMemory(Own, sizeof(*Own));
    InitializeListHead(&Own->Held);
    KeInitializeSpinLock(&Own->Lock);
    CHECK_STATUS(IoCsqInitializeEx(&Own->Queue, CsqInsertEx, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqCancelled),
                 STATUS_SUCCESS);
    IoSetNextIrpStackLocation(Irp);
    CHECK_STATUS(IoCsqInsertIrpEx(&Own->Queue, Irp, &Context, &Refusal), STATUS_DEVICE_BUSY);
    CHECK(IsListEmpty(&Own->Held) && Irp->CancelRoutine == NULL);
    CHECK_STATUS(IoCsqInsertIrpEx(&Own->Queue, Irp, &Context, NULL), STATUS_SUCCESS);
    CHECK(!IsListEmpty(&Own->Held) && Irp->CancelRoutine != NULL);
    CHECK((IoGetCurrentIrpStackLocation(Irp)->Control & SL_PENDING_RETURNED) != 0);
    CHECK(IoCsqRemoveIrp(&Own->Queue, &Context) == Irp);
    CHECK(IsListEmpty(&Own->Held) && Irp->CancelRoutine == NULL);
    CHECK(IoCsqRemoveIrp(&Own->Queue, &Context) == NULL); /* a second time there is none */
    IoFreeIrp(Irp);
    ExFreePoolWithTag(Own, REQUESTS_TAG);
}

static VOID CheckRemoveLock(REQUESTS_RESULT *Result)
{
    PIO_REMOVE_LOCK Lock = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Lock), REQUESTS_TAG);

    if (!CHECK(Lock != NULL)) {
        return;
    }
    IoInitializeRemoveLock(Lock, REQUESTS_TAG, 0, 0);
    CHECK_STATUS(IoAcquireRemoveLock(Lock, Lower), STATUS_SUCCESS);
    CHECK_STATUS(IoAcquireRemoveLock(Lock, Result), STATUS_SUCCESS);
    IoReleaseRemoveLock(Lock, Lower);
    IoReleaseRemoveLockAndWait(Lock, Result); /* returns at once: this is the only holder */
    CHECK_STATUS(IoAcquireRemoveLock(Lock, Lower), STATUS_DELETE_PENDING);
    ExFreePoolWithTag(Lock, REQUESTS_TAG);
}

static VOID CheckDeviceQueue(REQUESTS_RESULT *Result)
{
    KDEVICE_QUEUE Queue;
    KDEVICE_QUEUE_ENTRY First, Second, Third;
    KIRQL Irql;

    KeInitializeDeviceQueue(&Queue);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    CHECK(!KeInsertDeviceQueue(&Queue, &First)); /* not busy: not queued, and busy from now on */
    CHECK(KeInsertByKeyDeviceQueue(&Queue, &Third, 30));
    CHECK(KeInsertByKeyDeviceQueue(&Queue, &Second, 20));
    CHECK(KeInsertDeviceQueue(&Queue, &First));
    CHECK(KeRemoveEntryDeviceQueue(&Queue, &First));
    CHECK(!KeRemoveEntryDeviceQueue(&Queue, &First));
    CHECK(KeRemoveByKeyDeviceQueue(&Queue, 25) == &Third);
    CHECK(KeRemoveDeviceQueue(&Queue) == &Second);
    CHECK(KeRemoveDeviceQueue(&Queue) == NULL); /* not busy any more */
    CHECK(!KeInsertDeviceQueue(&Queue, &First));
    KeLowerIrql(Irql);
}

/* What a work routine saw. */
typedef struct _WORK {
    KEVENT Done;
    PVOID Object;
    PIO_WORKITEM Item;
    KIRQL Irql;
    BOOLEAN System;
} WORK;

static VOID SeeWork(WORK *Work, PVOID Object, PIO_WORKITEM Item)
{
    Work->Object = Object;
    Work->Item = Item;
    Work->Irql = KeGetCurrentIrql();
    Work->System = IoIsSystemThread(PsGetCurrentThread());
    KeSetEvent(&Work->Done, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI WorkRoutine(PDEVICE_OBJECT Device, PVOID Context)
{
    SeeWork(Context, Device, NULL);
}

static VOID NTAPI WorkRoutineEx(PVOID Object, PVOID Context, PIO_WORKITEM Item)
{
    SeeWork(Context, Object, Item);
}

static VOID WaitForWork(REQUESTS_RESULT *Result, WORK *Work, PVOID Object, PIO_WORKITEM Item)
{
    LARGE_INTEGER Second = {.QuadPart = -10000000};

    CHECK_STATUS(KeWaitForSingleObject(&Work->Done, Executive, KernelMode, FALSE, &Second), STATUS_SUCCESS);
    CHECK(Work->Object == Object && Work->Item == Item);
    CHECK(Work->Irql == PASSIVE_LEVEL && Work->System);
}

static VOID CheckWork(REQUESTS_RESULT *Result)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(Lower);
    PIO_WORKITEM Own = ExAllocatePoolWithTag(NonPagedPool, IoSizeofWorkItem(), REQUESTS_TAG);
    WORK Work;

    if (!CHECK(Item != NULL && Own != NULL)) {
        return;
    }
    RtlZeroMemory(&Work, sizeof(Work));
    KeInitializeEvent(&Work.Done, SynchronizationEvent, FALSE);
    IoQueueWorkItem(Item, WorkRoutine, DelayedWorkQueue, &Work);
    WaitForWork(Result, &Work, Lower, NULL);
    IoQueueWorkItemEx(Item, WorkRoutineEx, CriticalWorkQueue, &Work);
    WaitForWork(Result, &Work, Lower, Item);
    IoFreeWorkItem(Item);

    IoInitializeWorkItem(TheDriver, Own);
    IoQueueWorkItemEx(Own, WorkRoutineEx, DelayedWorkQueue, &Work);
    WaitForWork(Result, &Work, TheDriver, Own);
    IoUninitializeWorkItem(Own);
    ExFreePoolWithTag(Own, REQUESTS_TAG);
}

static VOID NTAPI Tick(PDEVICE_OBJECT Device, PVOID Context)
{
    if (Device == Lower && KeGetCurrentIrql() == DISPATCH_LEVEL) {
        InterlockedIncrement(&((PDEVICE_EXTENSION)Context)->Ticks);
    }
}

static VOID CheckTimer(REQUESTS_RESULT *Result)
{
    PDEVICE_EXTENSION Extension = Lower->DeviceExtension;
    LARGE_INTEGER While = {.QuadPart = -35000000};

    /* The family may run again: a device has one timer. */
    if (Lower->Timer == NULL) {
        CHECK_STATUS(IoInitializeTimer(Lower, Tick, Extension), STATUS_SUCCESS);
    }
    Extension->Ticks = 0;
    KeDelayExecutionThread(KernelMode, FALSE, &While);
    CHECK(Extension->Ticks == 0);
    IoStartTimer(Lower);
    KeDelayExecutionThread(KernelMode, FALSE, &While);
    CHECK(Extension->Ticks == 3 || Extension->Ticks == 4); /* once a second */
    IoStopTimer(Lower);
    Extension->Ticks = 0;
    KeDelayExecutionThread(KernelMode, FALSE, &While);
    CHECK(Extension->Ticks == 0);
}

static VOID QueueFamily(REQUESTS_RESULT *Result, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    CheckCancelSafe(Result);
    CheckCancelSafeContext(Result);
    CheckRemoveLock(Result);
    CheckDeviceQueue(Result);
    CheckWork(Result);
    CheckTimer(Result);
}
