/*
 * crew.h: a device that does one job at a time, for a rig. All requests stay in one row, also the one that the device works for: so each can be cancelled at
 * any time, and what the device then still does is for no one. The request it works for carries the job's number.
 */
#ifndef CREW_H
#define CREW_H

typedef struct _CREW {
    RIG *Rig;
    ROW Row;
    BOOLEAN Busy;                           /* the device works, for a request or for no one */
    ULONG_PTR Number;                       /* of the job */
    VOID (*Begin)(RIG *rig, PIRP irp);      /* lock held, device live: starts it */
} CREW;

LOCAL VOID CrewInit(CREW *crew, RIG *rig, VOID (*begin)(RIG *rig, PIRP irp))
{
    crew->Rig = rig;
    crew->Begin = begin;
    RowInit(&crew->Row, &rig->Lock, &rig->Gate);
}

/* Lock held. */
LOCAL VOID CrewNext(CREW *crew)
{
    PIRP irp;

    if (crew->Busy || !RigLive(crew->Rig) || IsListEmpty(&crew->Row.Irps))
        return;
    irp = CONTAINING_RECORD(crew->Row.Irps.Flink, IRP, Tail.Overlay.ListEntry);
    crew->Busy = TRUE;
    crew->Number++;
    irp->Tail.Overlay.DriverContext[1] = (PVOID)crew->Number;
    crew->Begin(crew->Rig, irp);
}

/* Lock held. As RigPut; starts it if nothing else is to be done first. */
LOCAL NTSTATUS CrewPut(CREW *crew, PIRP irp)
{
    NTSTATUS status;

    irp->Tail.Overlay.DriverContext[1] = NULL;
    status = RigPut(crew->Rig, &crew->Row, irp);
    if (status == STATUS_PENDING)
        CrewNext(crew);
    return status;
}

/* Lock held. The request that the device works for, no more in the row; NULL if it is cancelled. The device stays busy. */
LOCAL PIRP CrewTake(CREW *crew)
{
    PLIST_ENTRY entry;

    for (entry = crew->Row.Irps.Flink; entry != &crew->Row.Irps; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (irp->Tail.Overlay.DriverContext[1] == (PVOID)crew->Number)
            return RowPull(irp) ? irp : NULL;
    }
    return NULL;
}

/* Lock held, from Up: the device is found at work for no one. */
LOCAL VOID CrewStale(CREW *crew)
{
    crew->Busy = TRUE;
    crew->Number++;
}

/* Lock held, from Down: the request that was worked for is one of those that wait. */
LOCAL VOID CrewRest(CREW *crew)
{
    crew->Busy = FALSE;
    crew->Number++;
}

LOCAL VOID CrewClear(CREW *crew, PFILE_OBJECT file, NTSTATUS status)
{
    RowEmpty(&crew->Row, file, status);
}

#endif
