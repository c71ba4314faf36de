/*
 * Requests that come while a card cannot serve them, because it sleeps or its device is stopped: they wait, and are served afterwards by a system
 * thread, in the order in which they came. Included behind the DDK's declarations and a routine Complete(Irp, Status, Information).
 *
 * A request that is served now costs two interlocked additions: EnterCard, LeaveCard.
 *
 * Pages: Queuing I/O Requests While a Device Is Sleeping, Holding Incoming IRPs When A Device Is Paused, Cancel-Safe IRP Queues.
 */
#ifndef HELD_H
#define HELD_H

#include <ddk/csq.h>

/* Why requests wait. */
#define HELD_ASLEEP 1
#define HELD_STOPPED 2
#define HELD_GONE 4   /* they fail, for good */
#define HELD_BEHIND 8 /* others, which are being served, came before them */

typedef struct _HELD {
    PDEVICE_OBJECT Device;
    PDRIVER_DISPATCH Serve; /* for a request that has entered: it leaves when it is complete */
    PIO_WORKITEM Work;
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    LONG volatile Bars;   /* HELD_ bits, changed under Lock */
    LONG volatile Inside; /* requests that are being served */
    KEVENT Idle;
} HELD, *PHELD;

/* Whose request is taken: that of a file, or one of these. */
#define OF_WORKER NULL
#define OF_ANY ((PVOID)1)

static VOID LeaveCard(PHELD Held)
{
    if (InterlockedDecrement(&Held->Inside) == 0 && Held->Bars != 0) {
        KeSetEvent(&Held->Idle, IO_NO_INCREMENT, FALSE);
    }
}

/* STATUS_SUCCESS: it is to be served now. STATUS_PENDING: it waits. Anything else: it is to be completed with that. */
static NTSTATUS EnterCard(PHELD Held, PIRP Irp)
{
    NTSTATUS Status;

    do {
        InterlockedIncrement(&Held->Inside);
        if (Held->Bars == 0) {
            return STATUS_SUCCESS;
        }
        LeaveCard(Held);
        Status = IoCsqInsertIrpEx(&Held->Csq, Irp, NULL, NULL);
    } while (Status == STATUS_RETRY);
    return NT_SUCCESS(Status) ? STATUS_PENDING : Status;
}

static NTSTATUS NTAPI HeldInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PHELD Held = CONTAINING_RECORD(Csq, HELD, Csq);

    UNREFERENCED_PARAMETER(Context);
    if (Held->Bars == 0) {
        return STATUS_RETRY; /* meanwhile it need not wait */
    }
    if (Held->Bars & HELD_GONE) {
        return STATUS_DELETE_PENDING;
    }
    InsertTailList(&Held->List, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI HeldRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI HeldPeek(PIO_CSQ Csq, PIRP Irp, PVOID Whose)
{
    PHELD Held = CONTAINING_RECORD(Csq, HELD, Csq);
    PLIST_ENTRY Entry = Irp == NULL ? Held->List.Flink : Irp->Tail.Overlay.ListEntry.Flink;

    if (Whose == OF_WORKER && (Held->Bars != HELD_BEHIND || Entry == &Held->List)) {
        Held->Bars &= ~HELD_BEHIND; /* the worker is done, or goes on when the bar is gone */
        return NULL;
    }
    for (; Entry != &Held->List; Entry = Entry->Flink) {
        PIRP Next = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);

        if (Whose == OF_WORKER || Whose == OF_ANY || IoGetCurrentIrpStackLocation(Next)->FileObject == Whose) {
            return Next;
        }
    }
    return NULL;
}

static VOID NTAPI HeldAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, HELD, Csq)->Lock, Irql);
}

static VOID NTAPI HeldRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, HELD, Csq)->Lock, Irql);
}

static VOID NTAPI HeldCancelled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI ServeHeld(PDEVICE_OBJECT Device, PVOID Context)
{
    PHELD Held = Context;
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&Held->Csq, OF_WORKER)) != NULL) {
        InterlockedIncrement(&Held->Inside);
        Held->Serve(Device, Irp);
    }
    LeaveCard(Held);
}

/* From now on requests wait. At DISPATCH_LEVEL or below. */
static VOID RaiseBar(PHELD Held, LONG Why)
{
    KIRQL Irql;

    KeClearEvent(&Held->Idle);
    KeAcquireSpinLock(&Held->Lock, &Irql);
    Held->Bars |= Why;
    KeReleaseSpinLock(&Held->Lock, Irql);
}

/* Waits until none is being served, behind RaiseBar. */
static VOID WaitUntilIdle(PHELD Held)
{
    InterlockedIncrement(&Held->Inside);
    LeaveCard(Held);
    KeWaitForSingleObject(&Held->Idle, Executive, KernelMode, FALSE, NULL);
}

/* Those that wait are served, unless they have another reason to. At DISPATCH_LEVEL or below. */
static VOID LowerBar(PHELD Held, LONG Why)
{
    BOOLEAN Goes;
    KIRQL Irql;

    KeAcquireSpinLock(&Held->Lock, &Irql);
    Held->Bars &= ~Why;
    Goes = Held->Bars == 0 && !IsListEmpty(&Held->List);
    if (Goes) {
        Held->Bars = HELD_BEHIND;
        InterlockedIncrement(&Held->Inside); /* the worker's */
    }
    KeReleaseSpinLock(&Held->Lock, Irql);
    if (Goes) {
        IoQueueWorkItem(Held->Work, ServeHeld, DelayedWorkQueue, Held);
    }
}

/* Those that wait, of a file or OF_ANY, end so. */
static VOID EndHeld(PHELD Held, PVOID Whose, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&Held->Csq, Whose)) != NULL) {
        Complete(Irp, Status, 0);
    }
}

/* The device is about to be deleted, and has no open file any more. */
static VOID ForgetHeld(PHELD Held)
{
    RaiseBar(Held, HELD_GONE);
    WaitUntilIdle(Held);
    EndHeld(Held, OF_ANY, STATUS_DELETE_PENDING);
    IoFreeWorkItem(Held->Work);
}

static NTSTATUS InitializeHeld(PHELD Held, PDEVICE_OBJECT Device, PDRIVER_DISPATCH Serve)
{
    Held->Device = Device;
    Held->Serve = Serve;
    KeInitializeSpinLock(&Held->Lock);
    InitializeListHead(&Held->List);
    KeInitializeEvent(&Held->Idle, NotificationEvent, FALSE);
    IoCsqInitializeEx(&Held->Csq, HeldInsert, HeldRemove, HeldPeek, HeldAcquire, HeldRelease, HeldCancelled);
    Held->Work = IoAllocateWorkItem(Device);
    return Held->Work == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

#endif
