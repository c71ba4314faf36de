/*
 * millrace: a device without hardware that grinds: programs hand in a number and how many rounds it is to be mixed, and a work item does so for one request after
 * the other. The requests wait in a cancel-safe queue, and the work item is queued when it is not at work already.
 *
 * The bug: the worker finds the queue empty and only then notes that it is no longer at work, and does not look again. A request that comes between the two relies
 * on a worker that has gone, and waits until another one comes.
 *
 * Device: Root\MILLRACE
 * Rule: irp-never-completed, request-forgotten, wake-up-lost, irp-forgotten
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#include "../include/park_frame.h"

static const GUID MillraceInterface = { 0x6a1f0d22, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x02 } };

#define IOCTL_MILL_GRIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* a GRIST; answers a ULONG */
#define IOCTL_MILL_TOTAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers how many were ground */

#define MOST_ROUNDS 2000

typedef struct _GRIST {
    ULONG Number;
    ULONG Rounds;
} GRIST;

typedef struct _MILL {
    STATION Station;
    PARK Grist;
    PIO_WORKITEM Stone;
    LONG Turning;     /* the work item is queued or at work, and holds the remove lock */
    LONG Ground;
} MILL;

static ULONG Grind(ULONG Number, ULONG Rounds)
{
    while (Rounds--) {
        Number ^= Number << 13;
        Number ^= Number >> 17;
        Number ^= Number << 5;
        Number += 0x9E3779B9;
    }
    return Number;
}

static VOID NTAPI Turn(PDEVICE_OBJECT Device, PVOID Context)
{
    MILL *m = Context;
    PIRP irp;
    UNREFERENCED_PARAMETER(Device);
#ifdef FIXED
again:
#endif
    while ((irp = ParkTake(&m->Grist, NULL)) != NULL) {
        GRIST *g = irp->AssociatedIrp.SystemBuffer;
        ULONG flour = Grind(g->Number, g->Rounds);
        *(ULONG *)g = flour;
        InterlockedIncrement(&m->Ground);
        StationEnd(&m->Station, irp, STATUS_SUCCESS, sizeof flour);
    }
    InterlockedExchange(&m->Turning, 0);
#ifdef FIXED
    if (!ParkEmpty(&m->Grist) && !InterlockedExchange(&m->Turning, 1))
        goto again;
#endif
    IoReleaseRemoveLock(&m->Station.RemoveLock, m);
}

/* Inside the sluice, so the lock can be had unless the device is going. */
static VOID Start(MILL *M)
{
    if (InterlockedExchange(&M->Turning, 1))
        return;
    if (NT_SUCCESS(IoAcquireRemoveLock(&M->Station.RemoveLock, M))) {
        IoQueueWorkItem(M->Stone, Turn, DelayedWorkQueue, M);
        return;
    }
    InterlockedExchange(&M->Turning, 0);
    ParkFlush(&M->Grist, NULL, STATUS_NO_SUCH_DEVICE);
}

static NTSTATUS MillAdded(STATION *S)
{
    MILL *m = (MILL *)S;
    ParkInit(&m->Grist, StationEnds, S);
    m->Stone = IoAllocateWorkItem(S->Self);
    return m->Stone ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

/* Behind the remove lock: the worker is past all that it does. */
static VOID MillRemoved(STATION *S)
{
    IoFreeWorkItem(((MILL *)S)->Stone);
}

static VOID MillAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    ParkFlush(&((MILL *)S)->Grist, File, Status);
}

static NTSTATUS MillIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    MILL *m = (MILL *)S;
    GRIST *g = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, out;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MILL_GRIND:
        if (in < sizeof *g || out < sizeof(ULONG) || g->Rounds > MOST_ROUNDS)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        ParkWait(&m->Grist, Irp);
        Start(m);
        return STATUS_PENDING;
    case IOCTL_MILL_TOTAL:
        if (out < sizeof(ULONG))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(LONG *)g = InterlockedCompareExchange(&m->Ground, 0, 0);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(MILL),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &MillraceInterface,
    .Added = MillAdded,
    .Removed = MillRemoved,
    .Abandon = MillAbandon,
    .Io = MillIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
