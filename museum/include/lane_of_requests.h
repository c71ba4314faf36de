/*
 * lane.h: a card that does one thing at a time. Requests wait in one pen; the one that the card works at is in another, so that
 * it can be cancelled as well: the card then goes on for no one, and the next request starts when it is done.
 */
#ifndef PP_LANE_H
#define PP_LANE_H

#include "booth_or_shell.h"

/* All of them are called at DISPATCH_LEVEL with the lane's lock, while the card may be touched. */
typedef struct LANE_CRAFT {
    VOID (*Launch)(PVOID, PIRP);        /* starts it; the request is not kept */
    BOOLEAN (*Idle)(PVOID);             /* the card has nothing to do */
    VOID (*Collect)(PVOID, PIRP);       /* sets what the request is completed with */
} LANE_CRAFT;

typedef struct LANE {
    PEN Waiting;
    PEN Running;                        /* one at most */
    KSPIN_LOCK Lock;
    BOOLEAN Ready;                      /* the card may be touched, and be given something to do */
    BOOLEAN Busy;                       /* it does something, be it asked for any more or not */
    const LANE_CRAFT *Craft;
    PVOID Owner;
} LANE;

FRAME VOID LaneInit(LANE *Lane, const LANE_CRAFT *Craft, PVOID Owner)
{
    PenInit(&Lane->Waiting);
    PenInit(&Lane->Running);
    KeInitializeSpinLock(&Lane->Lock);
    Lane->Ready = FALSE;
    Lane->Busy = FALSE;
    Lane->Craft = Craft;
    Lane->Owner = Owner;
}

FRAME VOID LaneKick(LANE *Lane)
{
    PIRP irp, dropped = NULL;
    NTSTATUS status = STATUS_PENDING;
    KIRQL irql;

    KeAcquireSpinLock(&Lane->Lock, &irql);
    if (Lane->Ready && !Lane->Busy && (irp = PenTake(&Lane->Waiting, NULL)) != NULL) {
        Lane->Busy = TRUE;
        Lane->Craft->Launch(Lane->Owner, irp);
        status = PenMove(&Lane->Running, irp, FALSE);
        if (status != STATUS_PENDING)
            dropped = irp;
    }
    KeReleaseSpinLock(&Lane->Lock, irql);
    if (dropped != NULL)
        Settle(dropped, status, 0);
}

/* As PenAdd. */
FRAME NTSTATUS LaneAdd(LANE *Lane, PIRP Irp)
{
    NTSTATUS status = PenAdd(&Lane->Waiting, Irp);

    if (status == STATUS_PENDING)
        LaneKick(Lane);
    return status;
}

/* The card says that it is done: completes the request, if it is still there, and starts the next. */
FRAME VOID LaneLand(LANE *Lane)
{
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&Lane->Lock, &irql);
    if (Lane->Ready && Lane->Busy && Lane->Craft->Idle(Lane->Owner)) {
        Lane->Busy = FALSE;
        irp = PenTake(&Lane->Running, NULL);
        if (irp != NULL)
            Lane->Craft->Collect(Lane->Owner, irp);
    }
    KeReleaseSpinLock(&Lane->Lock, irql);
    if (irp != NULL)
        IoCompleteRequest(irp, IO_NO_INCREMENT);
    LaneKick(Lane);
}

/* The card can be used, and interrupts. If it is still at something, the next request waits for the end of that. */
FRAME VOID LaneResume(LANE *Lane)
{
    KIRQL irql;

    KeAcquireSpinLock(&Lane->Lock, &irql);
    Lane->Ready = TRUE;
    Lane->Busy = !Lane->Craft->Idle(Lane->Owner);
    KeReleaseSpinLock(&Lane->Lock, irql);
    LaneKick(Lane);
}

/* Nothing is started any more, and what runs waits again, as the first. TRUE: something ran for a request. */
FRAME BOOLEAN LaneHalt(LANE *Lane)
{
    NTSTATUS status = STATUS_PENDING;
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&Lane->Lock, &irql);
    Lane->Ready = FALSE;
    Lane->Busy = FALSE;
    irp = PenTake(&Lane->Running, NULL);
    if (irp != NULL)
        status = PenMove(&Lane->Waiting, irp, TRUE);
    KeReleaseSpinLock(&Lane->Lock, irql);
    if (status != STATUS_PENDING)
        Settle(irp, status, 0);
    return irp != NULL;
}

FRAME VOID LaneSweep(LANE *Lane, PFILE_OBJECT File)
{
    PenSweep(&Lane->Waiting, File, STATUS_CANCELLED);
    PenSweep(&Lane->Running, File, STATUS_CANCELLED);
}

FRAME VOID LaneShut(LANE *Lane, NTSTATUS Status)
{
    PenShut(&Lane->Waiting, Status);
    PenShut(&Lane->Running, Status);
}

#endif
