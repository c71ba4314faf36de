/*
 * engine.h: hardware that serves one request at a time. Requests wait in a wlist; the one that the hardware has is `now`, and can be cancelled, too.
 * Everything but the wlist is guarded by `lock`.
 *
 * Who completes `now`: the one who takes it out by eng_end. If eng_end finds the cancel routine under way it returns NULL, and the cancel routine, which sees
 * that the request is not `now` any more, completes it. If the cancel routine comes while the hardware cannot let go (halt says FALSE) it marks the
 * request `left` and returns; eng_end hands it out later, and says that it was cancelled.
 */
#ifndef AD_ENGINE_H
#define AD_ENGINE_H

#include "parked_wlist.h"

struct engine {
    KSPIN_LOCK lock;
    struct wlist wait;
    PIRP now;
    BOOLEAN up;         /* the hardware may be started */
    BOOLEAN busy;       /* the hardware works */
    BOOLEAN left;       /* now was cancelled, and waits for the hardware */
    BOOLEAN unwanted;   /* now's handle was closed */
    void (*prep)(struct engine *e, PIRP irp);   /* lock held: take down what is needed, start the hardware */
    void (*go)(struct engine *e, PIRP irp);     /* lock not held, DISPATCH_LEVEL: or start it here (may be NULL) */
    BOOLEAN (*halt)(struct engine *e);          /* lock held: have the hardware let go of now, FALSE if it cannot */
};

static inline void eng_next(struct engine *e);

static inline VOID NTAPI eng_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    struct engine *e = irp->Tail.Overlay.DriverContext[0];
    BOOLEAN mine = TRUE, again = FALSE;
    KIRQL q;

    UNREFERENCED_PARAMETER(dev);
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&e->lock, &q);
    if (e->now == irp) {
        if (e->halt(e)) {
            e->now = NULL;
            again = TRUE;
        } else {
            e->left = TRUE;
            mine = FALSE;
        }
    }
    KeReleaseSpinLock(&e->lock, q);
    if (!mine)
        return;
    if (again)
        eng_next(e);
    wl_end(&e->wait, irp, STATUS_CANCELLED, 0);
}

/* Starts the next request if the hardware is free. At DISPATCH_LEVEL or below. */
static inline void eng_next(struct engine *e)
{
    KIRQL q;
    PIRP irp;

    KeRaiseIrql(DISPATCH_LEVEL, &q);
    for (;;) {
        KeAcquireSpinLockAtDpcLevel(&e->lock);
        irp = e->up && !e->busy ? wl_take(&e->wait, NULL) : NULL;
        if (!irp) {
            KeReleaseSpinLockFromDpcLevel(&e->lock);
            break;
        }
        irp->Tail.Overlay.DriverContext[0] = e;
        IoSetCancelRoutine(irp, eng_cancel);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
            KeReleaseSpinLockFromDpcLevel(&e->lock);
            wl_end(&e->wait, irp, STATUS_CANCELLED, 0);
            continue;
        }
        e->now = irp;
        e->busy = TRUE;
        e->left = e->unwanted = FALSE;
        e->prep(e, irp);
        KeReleaseSpinLockFromDpcLevel(&e->lock);
        if (e->go)
            e->go(e, irp);
        break;
    }
    KeLowerIrql(q);
}

/* Lock held. Takes now out of the engine; NULL if there is none, or its cancel routine completes it. */
static inline PIRP eng_end(struct engine *e, BOOLEAN *cancelled)
{
    PIRP irp = e->now;

    *cancelled = FALSE;
    if (!irp)
        return NULL;
    e->now = NULL;
    if (e->left) {
        e->left = FALSE;
        *cancelled = TRUE;
        return irp;
    }
    if (!IoSetCancelRoutine(irp, NULL))
        return NULL;
    *cancelled = e->unwanted;
    return irp;
}

/* Ends now, whose hardware has let go. */
static inline void eng_abandon(struct engine *e, NTSTATUS st)
{
    BOOLEAN cancelled;
    PIRP irp;
    KIRQL q;

    KeAcquireSpinLock(&e->lock, &q);
    irp = eng_end(e, &cancelled);
    KeReleaseSpinLock(&e->lock, q);
    if (irp)
        wl_end(&e->wait, irp, cancelled ? STATUS_CANCELLED : st, 0);
}

static inline void eng_abandon_all(struct engine *e, NTSTATUS st)
{
    eng_abandon(e, st);
    wl_end_all(&e->wait, NULL, st);
}

/* A handle is closed. */
static inline void eng_drop_file(struct engine *e, PFILE_OBJECT file)
{
    BOOLEAN cancelled;
    PIRP irp = NULL;
    BOOLEAN freed = FALSE;
    KIRQL q;

    wl_end_all(&e->wait, file, STATUS_CANCELLED);
    KeAcquireSpinLock(&e->lock, &q);
    if (e->now && IoGetCurrentIrpStackLocation(e->now)->FileObject == file) {
        if (e->halt(e)) {
            irp = eng_end(e, &cancelled);
            freed = TRUE;
        } else {
            e->unwanted = TRUE;
        }
    }
    KeReleaseSpinLock(&e->lock, q);
    if (freed)
        eng_next(e);
    if (irp)
        wl_end(&e->wait, irp, STATUS_CANCELLED, 0);
}

static inline void eng_up(struct engine *e, BOOLEAN up)
{
    KIRQL q;

    KeAcquireSpinLock(&e->lock, &q);
    e->up = up;
    KeReleaseSpinLock(&e->lock, q);
}

static inline NTSTATUS eng_init(struct engine *e, PEX_RUNDOWN_REF life)
{
    KeInitializeSpinLock(&e->lock);
    return wl_init(&e->wait, life);
}

#endif
