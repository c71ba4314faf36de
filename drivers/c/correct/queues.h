/*
 * Requests that wait in the driver and may be cancelled in each of their states: before they are queued, in the queue, while they
 * are worked on, when they are done; in a queue of the I/O manager's making, in the driver's own list, in the device's
 * queue for StartIo. And remove locks.
 * Pages: Cancel-Safe IRP Queues, Canceling IRPs, IoSetCancelRoutine macro, IoStartPacket function, Using Remove Locks.
 */
#ifndef QUEUES_H
#define QUEUES_H

#include "own_requests.h"

#define LOWER_QUEUED LOWER(16)
#define LOWER_LISTED LOWER(17)
#define LOWER_STARTED LOWER(18)
#define LOWER_PASSED_OVER LOWER(19)

/* ---- the queue of the I/O manager's making ---------------------------------------------------------------------- */

static IO_CSQ Csq;
static LIST_ENTRY CsqList;
static KSPIN_LOCK CsqLock;

static VOID NTAPI CsqInsertIrp(PIO_CSQ Queue, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Queue);
    InsertTailList(&CsqList, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI CsqRemoveIrp(PIO_CSQ Queue, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Queue);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI CsqPeekNextIrp(PIO_CSQ Queue, PIRP Irp, PVOID Wanted)
{
    PLIST_ENTRY Entry = Irp == NULL ? CsqList.Flink : Irp->Tail.Overlay.ListEntry.Flink;

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(Wanted);
    return Entry == &CsqList ? NULL : CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
}

static VOID NTAPI CsqAcquireLock(PIO_CSQ Queue, PKIRQL Irql)
{
    UNREFERENCED_PARAMETER(Queue);
    KeAcquireSpinLock(&CsqLock, Irql);
}

static VOID NTAPI CsqReleaseLock(PIO_CSQ Queue, KIRQL Irql)
{
    UNREFERENCED_PARAMETER(Queue);
    KeReleaseSpinLock(&CsqLock, Irql);
}

static VOID NTAPI CsqCompleteCanceledIrp(PIO_CSQ Queue, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Queue);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static VOID PrepareCsq(VOID)
{
    InitializeListHead(&CsqList);
    KeInitializeSpinLock(&CsqLock);
    IoCsqInitialize(&Csq, CsqInsertIrp, CsqRemoveIrp, CsqPeekNextIrp, CsqAcquireLock, CsqReleaseLock,
                    CsqCompleteCanceledIrp);
}

/* ---- the driver's own list, lock and cancel routine ------------------------------------------------------------- */

static LIST_ENTRY Listed;
static KSPIN_LOCK ListedLock;

static VOID NTAPI CancelListed(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&ListedLock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry); /* or it points to itself: TakeListed saw us come */
    KeReleaseSpinLock(&ListedLock, Irql);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS PutListed(PIRP Irp)
{
    KIRQL Irql;

    KeAcquireSpinLock(&ListedLock, &Irql);
    IoMarkIrpPending(Irp);
    InsertTailList(&Listed, &Irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(Irp, CancelListed);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        KeReleaseSpinLock(&ListedLock, Irql);
        Complete(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&ListedLock, Irql);
    return STATUS_PENDING;
}

/* The oldest request that is not being cancelled, or NULL. */
static PIRP TakeListed(VOID)
{
    PIRP Taken = NULL;
    KIRQL Irql;

    KeAcquireSpinLock(&ListedLock, &Irql);
    while (Taken == NULL && !IsListEmpty(&Listed)) {
        PIRP Irp = CONTAINING_RECORD(RemoveHeadList(&Listed), IRP, Tail.Overlay.ListEntry);

        if (IoSetCancelRoutine(Irp, NULL) != NULL) {
            Taken = Irp;
        } else {
            InitializeListHead(&Irp->Tail.Overlay.ListEntry); /* its cancel routine waits for our lock */
        }
    }
    KeReleaseSpinLock(&ListedLock, Irql);
    return Taken;
}

/* ---- the device's queue ----------------------------------------------------------------------------------------- */

static KTIMER TransferTimer;
static KDPC TransferDpc;

/* Cancels a request that StartIo has not begun: in the device's queue, or just taken out of it. */
static VOID NTAPI CancelStarted(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (Irp == Device->CurrentIrp) {
        KIRQL Irql = Irp->CancelIrql;

        IoReleaseCancelSpinLock(DISPATCH_LEVEL); /* IoStartNextPacket wants this level */
        IoStartNextPacket(Device, TRUE);
        KeLowerIrql(Irql);
    } else {
        KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
        IoReleaseCancelSpinLock(Irp->CancelIrql);
    }
    Complete(Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI TransferEnds(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE_OBJECT Device = Context;
    PIRP Irp = Device->CurrentIrp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    IoStartNextPacket(Device, TRUE);
    CompleteLower(Irp, STATUS_SUCCESS);
}

/* Has no cancel routine: StartIo goes on with the next where its own request was cancelled. */
static VOID StartOrPassOver(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (!Irp->Cancel) {
        KeSetTimer(&TransferTimer, After(MILLISECONDS(1)), &TransferDpc);
        return;
    }
    IoStartNextPacket(Device, TRUE); /* one level deeper, and no more: few are cancelled just before their turn */
    CompleteLower(Irp, STATUS_CANCELLED);
}

/* Takes the request out of its canceller's reach, then works on it. */
static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL Irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode == LOWER_PASSED_OVER) {
        StartOrPassOver(Device, Irp);
        return;
    }
    IoAcquireCancelSpinLock(&Irql);
    if (Irp != Device->CurrentIrp || IoSetCancelRoutine(Irp, NULL) == NULL) {
        IoReleaseCancelSpinLock(Irql); /* CancelStarted completes it and starts the next */
        return;
    }
    IoReleaseCancelSpinLock(Irql);
    KeSetTimer(&TransferTimer, After(MILLISECONDS(1)), &TransferDpc);
}

static NTSTATUS DispatchQueues(PDEVICE_OBJECT Device, PIRP Irp)
{
    switch (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode) {
    case LOWER_QUEUED:
        IoCsqInsertIrp(&Csq, Irp, NULL);
        return STATUS_PENDING;
    case LOWER_LISTED:
        return PutListed(Irp);
    case LOWER_STARTED:
        IoMarkIrpPending(Irp);
        IoStartPacket(Device, Irp, NULL, CancelStarted);
        return STATUS_PENDING;
    case LOWER_PASSED_OVER:
        IoMarkIrpPending(Irp);
        IoStartPacket(Device, Irp, NULL, NULL);
        return STATUS_PENDING;
    default:
        return DispatchInternal(Device, Irp);
    }
}

/* ---- idioms ----------------------------------------------------------------------------------------------------- */

#define MANY 4

typedef struct _SENT {
    PIRP Irp;
    OWN Own;
} SENT;

/* Sends a packet of the driver's own. It is kept when it comes back, so it may be cancelled at any time until it is freed. */
static BOOLEAN Send(SENT *Sent, ULONG Code, BOOLEAN CancelledBefore)
{
    RtlZeroMemory(Sent, sizeof(*Sent));
    KeInitializeEvent(&Sent->Own.Done, NotificationEvent, FALSE);
    Sent->Own.Status = STATUS_UNSUCCESSFUL;
    Sent->Irp = IoAllocateIrp(TheDevice->StackSize, FALSE);
    if (Sent->Irp == NULL) {
        return FALSE;
    }
    AimAtLower(Sent->Irp, &Sent->Own, Code, KeepsIt);
    if (CancelledBefore) {
        IoCancelIrp(Sent->Irp);
    }
    IoCallDriver(TheDevice, Sent->Irp);
    return TRUE;
}

/* Waits for a packet to come back, and frees it. */
static NTSTATUS Receive(SENT *Sent)
{
    WaitFor(&Sent->Own.Done);
    IoFreeIrp(Sent->Irp);
    return Sent->Own.Status;
}

static ULONG CancelSafeQueueInOrder(VOID)
{
    SENT Sent[MANY];

    PrepareCsq();
    for (ULONG Index = 0; Index < MANY; Index++) {
        CHECK(Send(&Sent[Index], LOWER_QUEUED, FALSE));
    }
    for (ULONG Index = 0; Index < MANY; Index++) {
        PIRP Irp = IoCsqRemoveNextIrp(&Csq, NULL);

        CHECK(Irp == Sent[Index].Irp);
        CompleteLower(Irp, STATUS_SUCCESS);
        CHECK(Receive(&Sent[Index]) == STATUS_SUCCESS);
    }
    CHECK(IoCsqRemoveNextIrp(&Csq, NULL) == NULL);
    return 0;
}

static ULONG CancelSafeQueueCancelled(VOID)
{
    SENT Sent[2];

    PrepareCsq();
    CHECK(Send(&Sent[0], LOWER_QUEUED, FALSE));
    CHECK(Send(&Sent[1], LOWER_QUEUED, FALSE));
    CHECK(IoCancelIrp(Sent[0].Irp));
    CHECK(IoCsqRemoveNextIrp(&Csq, NULL) == Sent[1].Irp);
    CHECK(!IoCancelIrp(Sent[1].Irp)); /* it is worked on: it can be asked for, no more */
    CompleteLower(Sent[1].Irp, STATUS_SUCCESS);
    CHECK(Receive(&Sent[0]) == STATUS_CANCELLED);
    CHECK(Receive(&Sent[1]) == STATUS_SUCCESS);
    return 0;
}

static ULONG CancelledBeforeItIsQueued(VOID)
{
    static const ULONG Codes[] = {LOWER_QUEUED, LOWER_LISTED, LOWER_UNTIL_CANCELLED};
    SENT Sent;

    PrepareCsq();
    InitializeListHead(&Listed);
    KeInitializeSpinLock(&ListedLock);
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Codes); Index++) {
        CHECK(Send(&Sent, Codes[Index], TRUE));
        CHECK(Receive(&Sent) == STATUS_CANCELLED);
    }
    return 0;
}

static ULONG CancelledWhenItIsDone(VOID)
{
    SENT Sent;

    CHECK(Send(&Sent, LOWER_BY_WORK_ITEM, FALSE));
    WaitFor(&Sent.Own.Done);
    CHECK(!IoCancelIrp(Sent.Irp));
    CHECK(Receive(&Sent) == STATUS_SUCCESS);
    return 0;
}

static VOID NTAPI CancelsEachOther(PVOID Context)
{
    SENT *Sent = Context;

    for (ULONG Index = 0; Index < MANY; Index += 2) {
        IoCancelIrp(Sent[Index].Irp);
    }
}

/* One thread cancels every other request while another works on all that it can get. Each is completed once, by either. */
static ULONG WorkedOnAndCancelled(PIRP (*Take)(VOID), ULONG Code)
{
    SENT Sent[MANY];
    PKTHREAD Canceller;
    PIRP Irp;

    for (ULONG Index = 0; Index < MANY; Index++) {
        CHECK(Send(&Sent[Index], Code, FALSE));
    }
    Canceller = StartThread(CancelsEachOther, Sent);
    CHECK(Canceller != NULL);
    while ((Irp = Take()) != NULL) {
        CompleteLower(Irp, STATUS_SUCCESS);
    }
    JoinThread(Canceller); /* it may not touch a packet that has been freed */
    for (ULONG Index = 0; Index < MANY; Index++) {
        NTSTATUS Status = Receive(&Sent[Index]);

        CHECK(Status == STATUS_SUCCESS || (Index % 2 == 0 && Status == STATUS_CANCELLED));
    }
    return 0;
}

static PIRP TakeFromCsq(VOID)
{
    return IoCsqRemoveNextIrp(&Csq, NULL);
}

static ULONG CancelSafeQueueOfTwoThreads(VOID)
{
    PrepareCsq();
    return WorkedOnAndCancelled(TakeFromCsq, LOWER_QUEUED);
}

static ULONG CancelRoutineOfTwoThreads(VOID)
{
    InitializeListHead(&Listed);
    KeInitializeSpinLock(&ListedLock);
    return WorkedOnAndCancelled(TakeListed, LOWER_LISTED);
}

/* The device's queue: the timer's DPC takes them one after the other. */
static ULONG DeviceQueueOfTwoThreads(VOID)
{
    SENT Sent[MANY];
    PKTHREAD Canceller;

    KeInitializeTimer(&TransferTimer);
    KeInitializeDpc(&TransferDpc, TransferEnds, TheDevice);
    for (ULONG Index = 0; Index < MANY; Index++) {
        CHECK(Send(&Sent[Index], LOWER_STARTED, FALSE));
    }
    Canceller = StartThread(CancelsEachOther, Sent);
    CHECK(Canceller != NULL);
    JoinThread(Canceller);
    for (ULONG Index = 0; Index < MANY; Index++) {
        NTSTATUS Status = Receive(&Sent[Index]);

        CHECK(Status == STATUS_SUCCESS || (Index % 2 == 0 && Status == STATUS_CANCELLED));
    }
    KeFlushQueuedDpcs();
    return 0;
}

/* The request is cancelled while it waits for its turn, and passed over. */
static ULONG CancelledInTheDeviceQueue(VOID)
{
    SENT Sent[3];

    KeInitializeTimer(&TransferTimer);
    KeInitializeDpc(&TransferDpc, TransferEnds, TheDevice);
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Sent); Index++) {
        CHECK(Send(&Sent[Index], LOWER_PASSED_OVER, FALSE));
    }
    IoCancelIrp(Sent[1].Irp);
    CHECK(Receive(&Sent[0]) == STATUS_SUCCESS);
    Receive(&Sent[1]); /* it may have been over by then */
    CHECK(Receive(&Sent[2]) == STATUS_SUCCESS);
    KeFlushQueuedDpcs();
    return 0;
}

/* ---- remove locks ----------------------------------------------------------------------------------------------- */

typedef struct _LOCKED_WORK {
    IO_REMOVE_LOCK Lock;
    PIO_WORKITEM Item;
    LONG Done;
} LOCKED_WORK;

static VOID NTAPI WorksUnderTheLock(PDEVICE_OBJECT Device, PVOID Context)
{
    LOCKED_WORK *Work = Context;

    UNREFERENCED_PARAMETER(Device);
    InterlockedIncrement(&Work->Done);
    IoReleaseRemoveLock(&Work->Lock, Work); /* from here on the memory may be gone */
}

/* The removal waits for what was begun, and nothing begins after it. */
static ULONG RemoveLockHeldByWorkItem(VOID)
{
    LOCKED_WORK *Work = Nonpaged(sizeof(*Work));

    CHECK(Work != NULL);
    IoInitializeRemoveLock(&Work->Lock, TAG, 1, 10);
    Work->Done = 0;
    Work->Item = IoAllocateWorkItem(TheDevice);
    CHECK(Work->Item != NULL);
    CHECK(IoAcquireRemoveLock(&Work->Lock, NULL) == STATUS_SUCCESS);
    CHECK(IoAcquireRemoveLock(&Work->Lock, Work) == STATUS_SUCCESS);
    IoQueueWorkItem(Work->Item, WorksUnderTheLock, DelayedWorkQueue, Work);
    IoReleaseRemoveLockAndWait(&Work->Lock, NULL);
    CHECK(Work->Done == 1);
    CHECK(IoAcquireRemoveLock(&Work->Lock, Work) == STATUS_DELETE_PENDING);
    IoFreeWorkItem(Work->Item);
    ExFreePoolWithTag(Work, TAG);
    return 0;
}

/* One tag may stand for many acquisitions. */
static ULONG RemoveLockOfOneTag(VOID)
{
    IO_REMOVE_LOCK *Lock = Nonpaged(sizeof(*Lock));

    CHECK(Lock != NULL);
    IoInitializeRemoveLock(Lock, TAG, 0, 0);
    for (ULONG Index = 0; Index < 3; Index++) {
        CHECK(IoAcquireRemoveLock(Lock, Lock) == STATUS_SUCCESS);
    }
    IoReleaseRemoveLock(Lock, Lock);
    IoReleaseRemoveLock(Lock, Lock);
    IoReleaseRemoveLockAndWait(Lock, Lock);
    ExFreePoolWithTag(Lock, TAG);
    return 0;
}

#define QUEUE_IDIOMS                                                                                                   \
    IDIOM(CancelSafeQueueInOrder)                                                                                      \
    IDIOM(CancelSafeQueueCancelled)                                                                                    \
    IDIOM(CancelledBeforeItIsQueued)                                                                                   \
    IDIOM(CancelledWhenItIsDone)                                                                                       \
    IDIOM(CancelSafeQueueOfTwoThreads)                                                                                 \
    IDIOM(CancelRoutineOfTwoThreads)                                                                                   \
    IDIOM(CancelledInTheDeviceQueue)                                                                                   \
    IDIOM(DeviceQueueOfTwoThreads)                                                                                     \
    IDIOM(RemoveLockHeldByWorkItem)                                                                                    \
    IDIOM(RemoveLockOfOneTag)

#endif
