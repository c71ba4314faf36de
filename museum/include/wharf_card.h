/*
 * wharf_card.h: what every card driver of this folder shares: the common
 * head of the device extension, completing requests, a cancel-safe queue,
 * finding and mapping resources, connecting the interrupt.
 */
#ifndef WHARF_CARD_H
#define WHARF_CARD_H

#include <ddk/wdm.h>
#include <initguid.h>
#include <string.h>

typedef struct _WHARF {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK Lock;
    UNICODE_STRING Link;
    BOOLEAN LinkOn;
    KSPIN_LOCK HandleLock;
    LONG Handles;               /* HandleLock */
    BOOLEAN Paused;             /* HandleLock */
    BOOLEAN Started;            /* resources held; HandleLock for readers */
    DEVICE_POWER_STATE Power;

    KSPIN_LOCK Spin;            /* guards the driver's own state */
    BOOLEAN Live;               /* Spin: registers mapped, requests may start */
    BOOLEAN Awake;              /* Spin: card is in D0 */
    BOOLEAN IsrOn;              /* interrupt lock: the ISR may look at the card */
    PKINTERRUPT Interrupt;
    PUCHAR Regs;
    ULONG RegsLen;
} WHARF;

typedef struct _WHARF_QUEUE {
    IO_CSQ Csq;
    KSPIN_LOCK Lock;
    LIST_ENTRY List;
    WHARF *Owner;
} WHARF_QUEUE;

typedef struct _WHARF_RES {
    ULONG MemCount;
    PHYSICAL_ADDRESS Mem[6];
    ULONG Len[6];
    BOOLEAN HaveInt, Share;
    KINTERRUPT_MODE Mode;
    KIRQL Level;
    ULONG Vector;
    KAFFINITY Affinity;
} WHARF_RES;

static inline ULONG WharfRd(WHARF *w, ULONG off)
{
    return READ_REGISTER_ULONG((PULONG)(w->Regs + off));
}

static inline VOID WharfWr(WHARF *w, ULONG off, ULONG v)
{
    WRITE_REGISTER_ULONG((PULONG)(w->Regs + off), v);
}

/* ends a request that CardIo left pending */
static inline VOID WharfDone(WHARF *w, PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&w->Lock, irp);
}

/* ---- cancel-safe queue ---- */

static VOID NTAPI WharfCsqInsert(PIO_CSQ csq, PIRP irp)
{
    WHARF_QUEUE *q = CONTAINING_RECORD(csq, WHARF_QUEUE, Csq);
    InsertTailList(&q->List, &irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI WharfCsqRemove(PIO_CSQ csq, PIRP irp)
{
    (void)csq;
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI WharfCsqPeek(PIO_CSQ csq, PIRP irp, PVOID file)
{
    WHARF_QUEUE *q = CONTAINING_RECORD(csq, WHARF_QUEUE, Csq);
    PLIST_ENTRY l = irp ? irp->Tail.Overlay.ListEntry.Flink : q->List.Flink;

    for (; l != &q->List; l = l->Flink) {
        PIRP next = CONTAINING_RECORD(l, IRP, Tail.Overlay.ListEntry);
        if (!file || IoGetCurrentIrpStackLocation(next)->FileObject == file)
            return next;
    }
    return NULL;
}

static VOID NTAPI WharfCsqAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, WHARF_QUEUE, Csq)->Lock, irql);
}

static VOID NTAPI WharfCsqRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, WHARF_QUEUE, Csq)->Lock, irql);
}

static VOID NTAPI WharfCsqCancelled(PIO_CSQ csq, PIRP irp)
{
    WharfDone(CONTAINING_RECORD(csq, WHARF_QUEUE, Csq)->Owner, irp,
              STATUS_CANCELLED, 0);
}

static inline VOID WharfQueueInit(WHARF_QUEUE *q, WHARF *owner)
{
    q->Owner = owner;
    KeInitializeSpinLock(&q->Lock);
    InitializeListHead(&q->List);
    IoCsqInitialize(&q->Csq, WharfCsqInsert, WharfCsqRemove, WharfCsqPeek,
                    WharfCsqAcquire, WharfCsqRelease, WharfCsqCancelled);
}

/* marks the request pending and queues it; not to be called under Spin */
static inline VOID WharfQueuePut(WHARF_QUEUE *q, PIRP irp)
{
    IoCsqInsertIrp(&q->Csq, irp, NULL);
}

static inline PIRP WharfQueueNext(WHARF_QUEUE *q, PVOID file)
{
    return IoCsqRemoveNextIrp(&q->Csq, file);
}

static inline VOID WharfQueueFail(WHARF_QUEUE *q, PVOID file, NTSTATUS st)
{
    PIRP irp;
    while ((irp = WharfQueueNext(q, file)) != NULL)
        WharfDone(q->Owner, irp, st, 0);
}

static inline BOOLEAN WharfQueueEmpty(WHARF_QUEUE *q)
{
    BOOLEAN empty;
    KIRQL irql;

    KeAcquireSpinLock(&q->Lock, &irql);
    empty = IsListEmpty(&q->List);
    KeReleaseSpinLock(&q->Lock, irql);
    return empty;
}

/* ---- resources ---- */

static inline NTSTATUS WharfResources(PCM_RESOURCE_LIST list, WHARF_RES *r)
{
    PCM_PARTIAL_RESOURCE_LIST p;
    ULONG i;

    RtlZeroMemory(r, sizeof(*r));
    if (!list || list->Count < 1)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    p = &list->List[0].PartialResourceList;
    for (i = 0; i < p->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &p->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && r->MemCount < 6) {
            r->Mem[r->MemCount] = d->u.Memory.Start;
            r->Len[r->MemCount++] = d->u.Memory.Length;
        } else if (d->Type == CmResourceTypeInterrupt && !r->HaveInt) {
            r->HaveInt = TRUE;
            r->Level = (KIRQL)d->u.Interrupt.Level;
            r->Vector = d->u.Interrupt.Vector;
            r->Affinity = d->u.Interrupt.Affinity;
            r->Mode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ?
                      Latched : LevelSensitive;
            r->Share = d->ShareDisposition == CmResourceShareShared;
        }
    }
    return r->HaveInt && r->MemCount ? STATUS_SUCCESS
                                     : STATUS_DEVICE_CONFIGURATION_ERROR;
}

static inline NTSTATUS WharfMap(WHARF *w, WHARF_RES *r, ULONG need)
{
    if (r->Len[0] < need)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    w->RegsLen = r->Len[0];
    w->Regs = MmMapIoSpace(r->Mem[0], w->RegsLen, MmNonCached);
    return w->Regs ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static inline VOID WharfUnmap(WHARF *w)
{
    if (w->Regs)
        MmUnmapIoSpace(w->Regs, w->RegsLen);
    w->Regs = NULL;
}

static inline NTSTATUS WharfConnect(WHARF *w, WHARF_RES *r,
                                    PKSERVICE_ROUTINE isr)
{
    return IoConnectInterrupt(&w->Interrupt, isr, w, NULL, r->Vector,
                              r->Level, r->Level, r->Mode, r->Share,
                              r->Affinity, FALSE);
}

static inline VOID WharfDisconnect(WHARF *w)
{
    if (w->Interrupt)
        IoDisconnectInterrupt(w->Interrupt);
    w->Interrupt = NULL;
}

#endif
