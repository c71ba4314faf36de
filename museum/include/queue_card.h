/*
 * What drivers of cards share beyond shared_frame.h: registers, an interrupt that is switched on and
 * off with the power of the card, and a cancel-safe queue of requests that hold the remove lock.
 */
#ifndef QUEUE_CARD_H
#define QUEUE_CARD_H
#include "../include/shared_frame.h"

typedef struct _CARD CARD;

typedef struct _CARD_QUEUE {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    BOOLEAN Open;   /* FALSE: nothing goes in any more */
    KIT *Kit;
} CARD_QUEUE;

struct _CARD {
    KIT Kit;
    KSPIN_LOCK Lock;            /* Mapped, Awake, and every use of the registers outside the interrupt routine */
    BOOLEAN Mapped;             /* between Start and Stop */
    BOOLEAN Awake;              /* Mapped and in D0 */
    BOOLEAN UsePorts;           /* the registers are I/O ports */
    PUCHAR Regs;
    ULONG RegsLength;
    PKINTERRUPT Interrupt;      /* NULL: the driver uses none */
    PKSERVICE_ROUTINE Isr;
    volatile BOOLEAN IntOn;     /* changed at the interrupt's IRQL only */
    KDPC Dpc;
    VOID (*TurnOn)(CARD *Card);  /* these two at the interrupt's IRQL, or at DISPATCH_LEVEL without one */
    VOID (*TurnOff)(CARD *Card);
    VOID (*Resume)(CARD *Card); /* if set: when the card has come to D0, with Lock held */
    CARD_QUEUE Queue;
};

KITFN ULONG CardRead(CARD *Card, ULONG Offset)
{
    return Card->UsePorts ? READ_PORT_ULONG((PULONG)(Card->Regs + Offset)) : READ_REGISTER_ULONG((PULONG)(Card->Regs + Offset));
}

KITFN VOID CardWrite(CARD *Card, ULONG Offset, ULONG Value)
{
    if (Card->UsePorts) {
        WRITE_PORT_ULONG((PULONG)(Card->Regs + Offset), Value);
    } else {
        WRITE_REGISTER_ULONG((PULONG)(Card->Regs + Offset), Value);
    }
}

/* ---- the queue ---- */

#define CARD_QUEUE_OF(C) CONTAINING_RECORD(C, CARD_QUEUE, Csq)

KITFN NTSTATUS NTAPI CardQueueInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    CARD_QUEUE *q = CARD_QUEUE_OF(Csq);

    UNREFERENCED_PARAMETER(Context);
    if (!q->Open) {
        return STATUS_DEVICE_NOT_READY;
    }
    InsertTailList(&q->List, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

KITFN VOID NTAPI CardQueueRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* Context: a file object, or NULL for any request. */
KITFN PIRP NTAPI CardQueuePeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    CARD_QUEUE *q = CARD_QUEUE_OF(Csq);
    PLIST_ENTRY e;

    for (e = Irp == NULL ? q->List.Flink : Irp->Tail.Overlay.ListEntry.Flink; e != &q->List; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (Context == NULL || IoGetCurrentIrpStackLocation(irp)->FileObject == Context) {
            return irp;
        }
    }
    return NULL;
}

KITFN VOID NTAPI CardQueueAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CARD_QUEUE_OF(Csq)->Lock, Irql);
}

KITFN VOID NTAPI CardQueueRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CARD_QUEUE_OF(Csq)->Lock, Irql);
}

KITFN VOID NTAPI CardQueueCancelled(PIO_CSQ Csq, PIRP Irp)
{
    KitFinish(CARD_QUEUE_OF(Csq)->Kit, Irp, STATUS_CANCELLED, 0);
}

KITFN NTSTATUS CardQueueInit(CARD_QUEUE *Queue, KIT *Kit)
{
    KeInitializeSpinLock(&Queue->Lock);
    InitializeListHead(&Queue->List);
    Queue->Open = FALSE;
    Queue->Kit = Kit;
    return IoCsqInitializeEx(&Queue->Csq, CardQueueInsert, CardQueueRemove, CardQueuePeek, CardQueueAcquire, CardQueueRelease, CardQueueCancelled);
}

KITFN VOID CardQueueOpen(CARD_QUEUE *Queue, BOOLEAN Open)
{
    KIRQL irql;

    KeAcquireSpinLock(&Queue->Lock, &irql);
    Queue->Open = Open;
    KeReleaseSpinLock(&Queue->Lock, irql);
}

/* Completes what waits: of a file object, or all. */
KITFN VOID CardQueueFlush(CARD_QUEUE *Queue, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&Queue->Csq, File)) != NULL) {
        KitFinish(Queue->Kit, irp, Status, 0);
    }
}

/*
 * Queues a request that holds the remove lock and has StartNext look at the queue. The request can be over before that:
 * a second hold on the remove lock keeps the extension.
 */
KITFN NTSTATUS CardQueueSubmit(CARD *Card, PIRP Irp, VOID (*StartNext)(CARD *Card))
{
    NTSTATUS status;

    status = IoAcquireRemoveLock(&Card->Kit.RemoveLock, &Card->Queue);
    if (!NT_SUCCESS(status)) {
        return KitFinish(&Card->Kit, Irp, status, 0);
    }
    status = IoCsqInsertIrpEx(&Card->Queue.Csq, Irp, NULL, NULL);
    if (NT_SUCCESS(status)) {
        StartNext(Card);
        status = STATUS_PENDING;
    } else {
        KitFinish(&Card->Kit, Irp, status, 0);
    }
    IoReleaseRemoveLock(&Card->Kit.RemoveLock, &Card->Queue);
    return status;
}

/* ---- the card ---- */

KITFN BOOLEAN NTAPI CardOnSync(PVOID Context)
{
    CARD *card = Context;

    card->TurnOn(card);
    card->IntOn = TRUE;
    return TRUE;
}

KITFN BOOLEAN NTAPI CardOffSync(PVOID Context)
{
    CARD *card = Context;

    card->IntOn = FALSE;
    card->TurnOff(card);
    return TRUE;
}

KITFN BOOLEAN NTAPI CardDeafSync(PVOID Context)
{
    ((CARD *)Context)->IntOn = FALSE;
    return TRUE;
}

KITFN VOID CardSync(CARD *Card, PKSYNCHRONIZE_ROUTINE Routine)
{
    if (Card->Interrupt != NULL) {
        (void)KeSynchronizeExecution(Card->Interrupt, Routine, Card);
    } else {
        (void)Routine(Card);
    }
}

/* The card's extension is zero from IoCreateDevice; the caller sets Isr, TurnOn, TurnOff, UsePorts. */
KITFN NTSTATUS CardInit(CARD *Card, PKDEFERRED_ROUTINE Dpc)
{
    KeInitializeSpinLock(&Card->Lock);
    KeInitializeDpc(&Card->Dpc, Dpc, Card);
    return CardQueueInit(&Card->Queue, &Card->Kit);
}

KITFN VOID CardUnmap(CARD *Card)
{
    if (!Card->UsePorts) {
        MmUnmapIoSpace(Card->Regs, Card->RegsLength);
    }
    Card->Regs = NULL;
    Card->RegsLength = 0;
}

/* Opens the card to use: the last thing that Start does. */
KITFN VOID CardUp(CARD *Card)
{
    KIRQL irql;

    KeAcquireSpinLock(&Card->Lock, &irql);
    if (Card->Mapped && !Card->Awake) {
        CardSync(Card, CardOnSync);
        Card->Awake = TRUE;
        if (Card->Resume != NULL) {
            Card->Resume(Card);
        }
    }
    KeReleaseSpinLock(&Card->Lock, irql);
}

KITFN VOID CardDown(CARD *Card)
{
    KIRQL irql;

    KeAcquireSpinLock(&Card->Lock, &irql);
    if (Card->Awake) {
        CardSync(Card, CardOffSync);
        Card->Awake = FALSE;
    }
    KeReleaseSpinLock(&Card->Lock, irql);
}

/* Maps the first range of registers (at least Need bytes) and connects the interrupt. */
KITFN NTSTATUS CardStart(CARD *Card, PCM_RESOURCE_LIST Translated, ULONG Need)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR regs, interrupt = NULL;
    NTSTATUS status;
    KIRQL irql;

    regs = KitResource(Translated, Card->UsePorts ? CmResourceTypePort : CmResourceTypeMemory, 0);
    if (Card->Isr != NULL) {
        interrupt = KitResource(Translated, CmResourceTypeInterrupt, 0);
    }
    if (regs == NULL || (Card->UsePorts ? regs->u.Port.Length : regs->u.Memory.Length) < Need || (Card->Isr != NULL && interrupt == NULL)) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (Card->UsePorts) {
        Card->Regs = (PUCHAR)(ULONG_PTR)regs->u.Port.Start.QuadPart;
        Card->RegsLength = regs->u.Port.Length;
    } else {
        Card->Regs = MmMapIoSpace(regs->u.Memory.Start, regs->u.Memory.Length, MmNonCached);
        if (Card->Regs == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        Card->RegsLength = regs->u.Memory.Length;
    }
    if (interrupt != NULL) {
        status = KitConnect(&Card->Interrupt, Card->Isr, Card, interrupt);
        if (!NT_SUCCESS(status)) {
            Card->Interrupt = NULL;
            CardUnmap(Card);
            return status;
        }
    }
    KeAcquireSpinLock(&Card->Lock, &irql);
    Card->Mapped = TRUE;
    KeReleaseSpinLock(&Card->Lock, irql);
    CardUp(Card);
    return STATUS_SUCCESS;
}

/* After this neither interrupt nor DPC nor dispatch routine uses the registers. PASSIVE_LEVEL. */
KITFN VOID CardStop(CARD *Card, BOOLEAN Present)
{
    KIRQL irql;

    KeAcquireSpinLock(&Card->Lock, &irql);
    CardSync(Card, Present && Card->Awake ? CardOffSync : CardDeafSync);
    Card->Awake = FALSE;
    Card->Mapped = FALSE;
    KeReleaseSpinLock(&Card->Lock, irql);
    if (Card->Interrupt != NULL) {
        IoDisconnectInterrupt(Card->Interrupt);
        Card->Interrupt = NULL;
    }
    KeFlushQueuedDpcs();
    CardUnmap(Card);
}
#endif
