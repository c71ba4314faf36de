/*
 * croupier: a card that draws true random numbers. A program asks for a draw, the card interrupts when it has one; draws are done one at a time. For each
 * handle the driver counts how many draws it has had, and how many were for nothing because they were given up.
 *
 * The bug: closing a handle frees its counters while the card may still be at a draw that was begun for it and given up. The draw comes, and is counted in memory that is
 * freed.
 *
 * Device: PCI\VEN_1D6A&DEV_0704
 * Rule: use-after-free, write-after-free, bad-pointer, wild-write
 * Needs: ioctl, cancel, device
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID CroupierInterface = { 0x6a1f0d54, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x34 } };

#define IOCTL_CROUPIER_DRAW  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* how many sides; answers 0 to sides - 1 */
#define IOCTL_CROUPIER_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers a TALLY */

/* of the card */
#define ENABLE 0x04
#define STATUS 0x08
#define ACK    0x0C
#define SIDES  0x10
#define DRAW   0x14
#define RESULT 0x18
#define DRAWN  0x00000001

typedef struct _TALLY {
    ULONG Had;
    ULONG ForNothing;
} TALLY;

typedef struct _PLAYER {   /* of a handle; the counters under the table's lock */
    TALLY Tally;
} PLAYER;

typedef struct _TABLE {
    STATION Station;
    BELL Bell;
    LANE Lane;
    ULONG Sides;           /* of the draw that the lane begins */
    KSPIN_LOCK Lock;
    PLAYER *For;           /* whom the card draws for; under Lock */
} TABLE;

#define REGISTERS(t) (&(t)->Bell.Card.Window[0])

static VOID TableReady(PVOID Owner, PIRP Irp)
{
    TABLE *t = Owner;
    KIRQL irql;
    t->Sides = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
    KeAcquireSpinLock(&t->Lock, &irql);
    t->For = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KeReleaseSpinLock(&t->Lock, irql);
}

static VOID TableGo(PVOID Owner)
{
    TABLE *t = Owner;
    CardWrite(REGISTERS(t), SIDES, t->Sides);
    CardWrite(REGISTERS(t), DRAW, 1);
}

static VOID NTAPI TableDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    TABLE *t = Context;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    if (!BellFetch(&t->Bell) || !LaneDone(&t->Lane, &irp))
        return;
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    if (t->For) {
        if (irp)
            t->For->Tally.Had++;
        else
            t->For->Tally.ForNothing++;
        t->For = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
    if (irp) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = CardRead(REGISTERS(t), RESULT) % t->Sides;
        StationEnd(&t->Station, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    LaneNext(&t->Lane);
}

static NTSTATUS TableAdded(STATION *S)
{
    TABLE *t = (TABLE *)S;
    KeInitializeSpinLock(&t->Lock);
    LaneInit(&t->Lane, S, TableReady, TableGo);
    BellInit(&t->Bell, TableDpc, t, STATUS, ACK, ENABLE, DRAWN);
    return STATUS_SUCCESS;
}

static VOID TableWake(STATION *S)
{
    TABLE *t = (TABLE *)S;
    BellOn(&t->Bell);
    LaneGo(&t->Lane);
}

static NTSTATUS TableStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    NTSTATUS status = BellOpen(&((TABLE *)S)->Bell, Translated, 0x20);
    if (NT_SUCCESS(status))
        TableWake(S);
    return status;
}

/* The card is at nothing any more. */
static VOID TableReset(TABLE *T)
{
    KIRQL irql;
    LaneReset(&T->Lane);
    KeAcquireSpinLock(&T->Lock, &irql);
    T->For = NULL;
    KeReleaseSpinLock(&T->Lock, irql);
}

static VOID TableStop(STATION *S, BOOLEAN Reachable)
{
    TABLE *t = (TABLE *)S;
    LaneHalt(&t->Lane);
    BellClose(&t->Bell, Reachable);
    TableReset(t);
}

static VOID TableSleep(STATION *S)
{
    TABLE *t = (TABLE *)S;
    LaneHalt(&t->Lane);
    BellOff(&t->Bell);
    TableReset(t);
}

static VOID TableAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    LaneFlush(&((TABLE *)S)->Lane, File, Status);
}

static NTSTATUS TableOpen(STATION *S, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(S);
    File->FsContext = YyGet(sizeof(PLAYER));
    return File->FsContext ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID TableClose(STATION *S, PFILE_OBJECT File)
{
    TABLE *t = (TABLE *)S;
    PLAYER *p = File->FsContext;
#ifdef FIXED
    KIRQL irql;
    KeAcquireSpinLock(&t->Lock, &irql);
    if (t->For == p)
        t->For = NULL;
    KeReleaseSpinLock(&t->Lock, irql);
#else
    UNREFERENCED_PARAMETER(t);
#endif
    YyPut(p);
}

static NTSTATUS TableIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    TABLE *t = (TABLE *)S;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, out;
    KIRQL irql;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CROUPIER_DRAW:
        if (in < sizeof(ULONG) || out < sizeof(ULONG) || !*(ULONG *)buffer)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        ParkWait(&t->Lane.Waiting, Irp);
        LanePump(&t->Lane);
        return STATUS_PENDING;
    case IOCTL_CROUPIER_TALLY:
        if (out < sizeof(TALLY))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&t->Lock, &irql);
        *(TALLY *)buffer = ((PLAYER *)Sp->FileObject->FsContext)->Tally;
        KeReleaseSpinLock(&t->Lock, irql);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(TALLY));
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(TABLE),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &CroupierInterface,
    .Added = TableAdded,
    .Start = TableStart,
    .Stop = TableStop,
    .Sleep = TableSleep,
    .Wake = TableWake,
    .Abandon = TableAbandon,
    .Open = TableOpen,
    .Close = TableClose,
    .Io = TableIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
