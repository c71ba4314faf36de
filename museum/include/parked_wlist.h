/*
 * wlist.h: requests that wait. A wlist keeps IRPs in a cancel-safe queue (IoCsq). If it belongs to a PnP device it holds one reference of the device's
 * run-down protection ("life") for each IRP in its custody, from wl_put until the IRP has been completed, so that a removal waits for the last of them.
 */
#ifndef AD_WLIST_H
#define AD_WLIST_H

static inline NTSTATUS irp_end(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

struct wlist {
    IO_CSQ csq;
    KSPIN_LOCK lock;
    LIST_ENTRY head;
    PEX_RUNDOWN_REF life;
};

static inline struct wlist *wl_of(PIO_CSQ csq)
{
    return CONTAINING_RECORD(csq, struct wlist, csq);
}

/* Ends a request that wl_take has handed out. */
static inline void wl_end(struct wlist *w, PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    PEX_RUNDOWN_REF life = w->life;

    irp_end(irp, st, info);
    if (life)
        ExReleaseRundownProtection(life);
}

static inline VOID NTAPI wl_cb_insert(PIO_CSQ csq, PIRP irp)
{
    InsertTailList(&wl_of(csq)->head, &irp->Tail.Overlay.ListEntry);
}

static inline VOID NTAPI wl_cb_remove(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static inline PIRP NTAPI wl_cb_peek(PIO_CSQ csq, PIRP irp, PVOID file)
{
    struct wlist *w = wl_of(csq);
    PLIST_ENTRY e = irp ? irp->Tail.Overlay.ListEntry.Flink : w->head.Flink;

    for (; e != &w->head; e = e->Flink) {
        PIRP i = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!file || IoGetCurrentIrpStackLocation(i)->FileObject == (PFILE_OBJECT)file)
            return i;
    }
    return NULL;
}

static inline VOID NTAPI wl_cb_lock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&wl_of(csq)->lock, irql);
}

static inline VOID NTAPI wl_cb_unlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&wl_of(csq)->lock, irql);
}

static inline VOID NTAPI wl_cb_cancelled(PIO_CSQ csq, PIRP irp)
{
    wl_end(wl_of(csq), irp, STATUS_CANCELLED, 0);
}

static inline NTSTATUS wl_init(struct wlist *w, PEX_RUNDOWN_REF life)
{
    KeInitializeSpinLock(&w->lock);
    InitializeListHead(&w->head);
    w->life = life;
    return IoCsqInitialize(&w->csq, wl_cb_insert, wl_cb_remove, wl_cb_peek, wl_cb_lock, wl_cb_unlock, wl_cb_cancelled);
}

/* The caller returns STATUS_PENDING, and leaves the IRP alone from here on. */
static inline NTSTATUS wl_put(struct wlist *w, PIRP irp)
{
    if (w->life && !ExAcquireRundownProtection(w->life))
        return irp_end(irp, STATUS_NO_SUCH_DEVICE, 0);
    IoCsqInsertIrp(&w->csq, irp, NULL);
    return STATUS_PENDING;
}

static inline PIRP wl_take(struct wlist *w, PFILE_OBJECT file)
{
    return IoCsqRemoveNextIrp(&w->csq, file);
}

static inline void wl_end_all(struct wlist *w, PFILE_OBJECT file, NTSTATUS st)
{
    PIRP irp;

    while ((irp = wl_take(w, file)) != NULL)
        wl_end(w, irp, st, 0);
}

#endif
