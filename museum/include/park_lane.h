/*
 * lane.h: requests of which a card does one at a time. Those that wait are in Waiting, the one that the card is at is in Active; both can be cancelled. If the active one
 * is cancelled the card goes on with it, and the next begins when it is done.
 */
typedef struct _LANE {
    KSPIN_LOCK Lock;
    enum { LANE_FREE, LANE_HELD, LANE_RUNNING } State;   /* HELD: someone is about to begin or to end one */
    BOOLEAN Halt;
    PARK Waiting, Active;
    PVOID Owner;
    VOID (*Ready)(PVOID Owner, PIRP Irp);   /* copies what Go needs of the request */
    VOID (*Go)(PVOID Owner);                /* tells the card; at DISPATCH_LEVEL */
} LANE;

YYFN VOID LaneInit(LANE *Lane, STATION *S, VOID (*Ready)(PVOID, PIRP), VOID (*Go)(PVOID))
{
    KeInitializeSpinLock(&Lane->Lock);
    Lane->State = LANE_FREE;
    Lane->Halt = TRUE;
    ParkInit(&Lane->Waiting, StationEnds, S);
    ParkInit(&Lane->Active, StationEnds, S);
    Lane->Owner = S;
    Lane->Ready = Ready;
    Lane->Go = Go;
}

/* One goes on to HELD from the state that it wants, if it is in that. */
static BOOLEAN LaneHold(LANE *Lane, ULONG From)
{
    KIRQL irql;
    BOOLEAN held;
    KeAcquireSpinLock(&Lane->Lock, &irql);
    held = (ULONG)Lane->State == From && !(From == LANE_FREE && Lane->Halt);
    if (held)
        Lane->State = LANE_HELD;
    KeReleaseSpinLock(&Lane->Lock, irql);
    return held;
}

static VOID LaneFree(LANE *Lane)
{
    KIRQL irql;
    KeAcquireSpinLock(&Lane->Lock, &irql);
    Lane->State = LANE_FREE;
    KeReleaseSpinLock(&Lane->Lock, irql);
}

YYFN VOID LanePump(LANE *Lane)
{
    PIRP irp;
    KIRQL irql;
    while (LaneHold(Lane, LANE_FREE)) {
        irp = ParkTake(&Lane->Waiting, NULL);
        if (irp) {
            Lane->Ready(Lane->Owner, irp);
            ParkWait(&Lane->Active, irp);
            KeAcquireSpinLock(&Lane->Lock, &irql);
            Lane->State = LANE_RUNNING;
            Lane->Go(Lane->Owner);
            KeReleaseSpinLock(&Lane->Lock, irql);
            return;
        }
        LaneFree(Lane);
        if (ParkEmpty(&Lane->Waiting))
            return;
    }
}

/* The card says that it is done. FALSE: it was at nothing. The request may be NULL (cancelled); behind its end comes LaneNext. */
YYFN BOOLEAN LaneDone(LANE *Lane, PIRP *Irp)
{
    if (!LaneHold(Lane, LANE_RUNNING))
        return FALSE;
    *Irp = ParkTake(&Lane->Active, NULL);
    return TRUE;
}

YYFN VOID LaneNext(LANE *Lane)
{
    LaneFree(Lane);
    LanePump(Lane);
}

/* No more begin. Behind it comes a flush of the DPCs, or BellOff. */
YYFN VOID LaneHalt(LANE *Lane)
{
    KIRQL irql;
    KeAcquireSpinLock(&Lane->Lock, &irql);
    Lane->Halt = TRUE;
    KeReleaseSpinLock(&Lane->Lock, irql);
}

/* With the sluice shut, the lane halted and the card quiet: what the card was at waits again. */
YYFN VOID LaneReset(LANE *Lane)
{
    PIRP irp = ParkTake(&Lane->Active, NULL);
    if (irp)
        ParkWait(&Lane->Waiting, irp);
    LaneFree(Lane);
}

YYFN VOID LaneGo(LANE *Lane)
{
    KIRQL irql;
    KeAcquireSpinLock(&Lane->Lock, &irql);
    Lane->Halt = FALSE;
    KeReleaseSpinLock(&Lane->Lock, irql);
    LanePump(Lane);
}

YYFN VOID LaneFlush(LANE *Lane, PFILE_OBJECT File, NTSTATUS Status)
{
    ParkFlush(&Lane->Waiting, File, Status);
    ParkFlush(&Lane->Active, File, Status);
}
