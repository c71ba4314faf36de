/* A cancel-safe queue that gives the card one request at a time, each with a time limit. */
#pragma once
#include "held_core.h"

#define SERQ_LIMIT_MS 3000

typedef struct _SERQ {
    IO_CSQ Csq;
    LIST_ENTRY List;
    KSPIN_LOCK Lock;
    KEVENT Idle;
    BOOLEAN Busy, Again;        /* someone has asked for more meanwhile */
    PIRP Current;               /* the request that the card works on */
    ULONGLONG Deadline;
    KTIMER Timer;
    KDPC TimerDpc;
    CORE *Core;
} SERQ;

/* Under the lock: gives the request to the card. Other than STATUS_PENDING: it is to be completed at once. */
static NTSTATUS HwBegin(CORE *Core, PIRP Irp);
static SERQ *HwQueue(CORE *Core);

static SERQ *SerqOf(PIO_CSQ Csq) { return CONTAINING_RECORD(Csq, SERQ, Csq); }

static VOID NTAPI SerqInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&SerqOf(Csq)->List, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI SerqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI SerqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    SERQ *q = SerqOf(Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; e != &q->List; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!File || IoGetCurrentIrpStackLocation(irp)->FileObject == File)
            return irp;
    }
    return NULL;
}

static VOID NTAPI SerqLock(PIO_CSQ Csq, PKIRQL Irql) { KeAcquireSpinLock(&SerqOf(Csq)->Lock, Irql); }
static VOID NTAPI SerqUnlock(PIO_CSQ Csq, KIRQL Irql) { KeReleaseSpinLock(&SerqOf(Csq)->Lock, Irql); }

static VOID NTAPI SerqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    CoreComplete(SerqOf(Csq)->Core, Irp, STATUS_CANCELLED, 0);
}

static VOID SerqFree(SERQ *q)       /* the card is free for the next request */
{
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    q->Busy = FALSE;
    KeSetEvent(&q->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&q->Lock, irql);
}

static VOID SerqPump(SERQ *q)
{
    KIRQL irql;
    PIRP irp;
    NTSTATUS status;

    for (;;) {
        KeAcquireSpinLock(&q->Lock, &irql);
        if (q->Busy || q->Core->Hold || IsListEmpty(&q->List)) {
            q->Again = TRUE;
            KeReleaseSpinLock(&q->Lock, irql);
            return;
        }
        q->Busy = TRUE;
        q->Again = FALSE;
        KeClearEvent(&q->Idle);
        KeReleaseSpinLock(&q->Lock, irql);
        irp = IoCsqRemoveNextIrp(&q->Csq, NULL);
        if (irp) {
            LARGE_INTEGER due;

            KeAcquireSpinLock(&q->Lock, &irql);
            q->Current = irp;
            irp->IoStatus.Information = 0;
            status = (q->Core->Hold & HOLD_GONE) ? STATUS_DELETE_PENDING : HwBegin(q->Core, irp);
            if (status == STATUS_PENDING) {
                q->Deadline = KeQueryInterruptTime() + (SERQ_LIMIT_MS - 50) * 10000ULL;
                due.QuadPart = SERQ_LIMIT_MS * -10000LL;
                KeSetTimer(&q->Timer, due, &q->TimerDpc);
                KeReleaseSpinLock(&q->Lock, irql);
                return;
            }
            q->Current = NULL;
            KeReleaseSpinLock(&q->Lock, irql);
            CoreComplete(q->Core, irp, status, irp->IoStatus.Information);
        }
        SerqFree(q);
        if (!irp && !q->Again)      /* one that is being cancelled stays in the list for a while */
            return;
    }
}

/* Ends the request taken (under the lock) from Current. */
static VOID SerqEnd(SERQ *q, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    CORE *core = q->Core;

    KeCancelTimer(&q->Timer);
    CoreComplete(core, Irp, Status, Info);
    SerqFree(q);
    SerqPump(q);
}

static VOID NTAPI SerqLate(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    SERQ *q = Context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&q->Lock);
    if (q->Current && KeQueryInterruptTime() >= q->Deadline) {
        irp = q->Current;
        q->Current = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&q->Lock);
    if (irp)
        SerqEnd(q, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID SerqDrain(SERQ *q, PVOID File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&q->Csq, File)) != NULL)
        CoreComplete(q->Core, irp, Status, 0);
}

static NTSTATUS SerqSubmit(SERQ *q, PIRP Irp)       /* with the remove lock held for Irp */
{
    CORE *core = q->Core;

    if (!NT_SUCCESS(IoAcquireRemoveLock(&core->Lock, q))) {
        CoreComplete(core, Irp, STATUS_DELETE_PENDING, 0);
        return STATUS_DELETE_PENDING;
    }
    IoCsqInsertIrp(&q->Csq, Irp, NULL);             /* marks it pending */
    if (core->Hold & HOLD_GONE)
        SerqDrain(q, NULL, STATUS_DELETE_PENDING);
    else
        SerqPump(q);
    IoReleaseRemoveLock(&core->Lock, q);
    return STATUS_PENDING;
}

static VOID SerqInit(SERQ *q, CORE *Core)
{
    q->Core = Core;
    InitializeListHead(&q->List);
    KeInitializeSpinLock(&q->Lock);
    KeInitializeEvent(&q->Idle, NotificationEvent, TRUE);
    KeInitializeTimer(&q->Timer);
    KeInitializeDpc(&q->TimerDpc, SerqLate, q);
    IoCsqInitialize(&q->Csq, SerqInsert, SerqRemove, SerqPeek, SerqLock, SerqUnlock, SerqCancelled);
}

static NTSTATUS NTAPI SerqCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    SerqDrain(HwQueue(Device->DeviceExtension), IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID HwKick(CORE *Core) { SerqPump(HwQueue(Core)); }

static VOID HwAbort(CORE *Core)
{
    SERQ *q = HwQueue(Core);
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    irp = q->Current;
    q->Current = NULL;
    KeReleaseSpinLock(&q->Lock, irql);
    if (irp)
        SerqEnd(q, irp, STATUS_DELETE_PENDING, 0);
    SerqDrain(q, NULL, STATUS_DELETE_PENDING);
}

static VOID SerqQuiet(SERQ *q)
{
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);     /* what saw no Hold bit has marked the queue busy by now */
    KeReleaseSpinLock(&q->Lock, irql);
    KeWaitForSingleObject(&q->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID HwFini(CORE *Core)
{
    KeCancelTimer(&HwQueue(Core)->Timer);
    KeFlushQueuedDpcs();
}
