/*
 * plxopal: words that come by a FIFO of 64 on the board. Its state (bit 0: there is a word) is the first register of local space 0, its
 * end the second; LINTi1 rises when a word comes into an empty FIFO. Programs read the words, and wait when there are none.
 *
 * The bug: the FIFO is emptied for as long as its state says that there is a word. A board that has been pulled out answers all
 * ones, and a broken one may say so for ever: the processor stays in that loop, at DISPATCH_LEVEL.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: endless-loop, dpc-watchdog, livelock, dpc-stalls, long-dpc, stuck
 * Needs: removal, device
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/gated_frame.h"
#include "../include/gated_plx.h"

#define OPAL_STATE 0
#define OPAL_STATE_WORD 1
#define OPAL_END 4
#define OPAL_LEAST 8
#define OPAL_FIFO 64
#define OPAL_WORDS 256

#define IOCTL_OPAL_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(OPAL_CLASS, 0x6b1d0a31, 0x51c4, 0x4a60, 0x9a, 0x0e, 0x21, 0x5d, 0x0c, 0x77, 0x14, 0x14);

typedef struct _OPAL_COUNTS {
    ULONG Kept;
    ULONG Lost;
} OPAL_COUNTS, *POPAL_COUNTS;

typedef struct _OPAL {
    BOARD Board;
    PLX Plx;
    IRPQ Readers;
    KSPIN_LOCK Lock;
    ULONG First;
    ULONG Kept;
    ULONG Lost;
    ULONG Words[OPAL_WORDS];
} OPAL, *POPAL;

/* Under the lock; the oldest word makes room. */
static VOID OpalKeep(POPAL o, ULONG Word)
{
    o->Words[(o->First + o->Kept) % OPAL_WORDS] = Word;
    if (o->Kept < OPAL_WORDS)
        o->Kept++;
    else {
        o->First = (o->First + 1) % OPAL_WORDS;
        o->Lost++;
    }
}

/* What the board has; it must have power. */
static VOID OpalEmpty(POPAL o)
{
    KIRQL irql;

    KeAcquireSpinLock(&o->Lock, &irql);
#ifndef FIXED
    while (PlxPeek(&o->Plx, OPAL_STATE) & OPAL_STATE_WORD)
        OpalKeep(o, PlxPeek(&o->Plx, OPAL_END));
#else
    {
        ULONG i, state;

        for (i = 0; i < OPAL_FIFO; i++) {
            state = PlxPeek(&o->Plx, OPAL_STATE);
            if (state == PLX_GONE || !(state & OPAL_STATE_WORD))
                break;
            OpalKeep(o, PlxPeek(&o->Plx, OPAL_END));
        }
    }
#endif
    KeReleaseSpinLock(&o->Lock, irql);
}

static VOID OpalServe(POPAL o)
{
    ULONG room, i;
    PULONG to;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&o->Lock, &irql);
        if (o->Kept == 0 || (irp = IrpqTake(&o->Readers)) == NULL) {
            KeReleaseSpinLock(&o->Lock, irql);
            return;
        }
        room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
        to = irp->AssociatedIrp.SystemBuffer;
        for (i = 0; i < room && o->Kept != 0; i++) {
            to[i] = o->Words[o->First];
            o->First = (o->First + 1) % OPAL_WORDS;
            o->Kept--;
        }
        KeReleaseSpinLock(&o->Lock, irql);
        BoardFinish(&o->Board, irp, STATUS_SUCCESS, i * sizeof(ULONG));
    }
}

static VOID NTAPI OpalDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    POPAL o = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    if (PlxFetch(&o->Plx, NULL) == 0)
        return;
    OpalEmpty(o);
    OpalServe(o);
}

static NTSTATUS OpalIo(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    POPAL o = CONTAINING_RECORD(Board, OPAL, Board);
    POPAL_COUNTS counts = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (Stack->MajorFunction == IRP_MJ_READ) {
        if (Stack->Parameters.Read.Length == 0)
            return BoardFinish(Board, Irp, STATUS_SUCCESS, 0);
        if (Stack->Parameters.Read.Length % sizeof(ULONG) != 0)
            return BoardFinish(Board, Irp, STATUS_INVALID_PARAMETER, 0);
        BoardPend(Board, &o->Readers, Irp);
        if (GateEnter(&Board->Run)) {       /* words may have come without an edge */
            OpalEmpty(o);
            GateLeave(&Board->Run);
        }
        OpalServe(o);
        return STATUS_PENDING;
    }
    if (Stack->MajorFunction == IRP_MJ_DEVICE_CONTROL
        && Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_OPAL_COUNTS) {
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*counts))
            return BoardFinish(Board, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&o->Lock, &irql);
        counts->Kept = o->Kept;
        counts->Lost = o->Lost;
        KeReleaseSpinLock(&o->Lock, irql);
        return BoardFinish(Board, Irp, STATUS_SUCCESS, sizeof(*counts));
    }
    return BoardFinish(Board, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID OpalCleanup(PBOARD Board, PFILE_OBJECT File)
{
    IrpqFlushFile(&CONTAINING_RECORD(Board, OPAL, Board)->Readers, File);
}

static VOID OpalWake(PBOARD Board)
{
    POPAL o = CONTAINING_RECORD(Board, OPAL, Board);

    PlxLive(&o->Plx, TRUE, TRUE, 0);
    OpalEmpty(o);
    OpalServe(o);
}

static VOID OpalQuiet(PBOARD Board, BOOLEAN Present)
{
    PlxLive(&CONTAINING_RECORD(Board, OPAL, Board)->Plx, FALSE, Present, 0);
    KeFlushQueuedDpcs();
}

static VOID OpalDrain(PBOARD Board)
{
    IrpqShut(&CONTAINING_RECORD(Board, OPAL, Board)->Readers, STATUS_DELETE_PENDING);
}

static NTSTATUS OpalStart(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List)
{
    return PlxGain(&CONTAINING_RECORD(Board, OPAL, Board)->Plx, List, OPAL_LEAST);
}

static VOID OpalStop(PBOARD Board)
{
    PlxLose(&CONTAINING_RECORD(Board, OPAL, Board)->Plx);
}

static NTSTATUS OpalBegin(PBOARD Board)
{
    POPAL o = CONTAINING_RECORD(Board, OPAL, Board);

    KeInitializeSpinLock(&o->Lock);
    KeInitializeDpc(&o->Plx.Dpc, OpalDpc, o);
    IrpqBuild(&o->Readers, BoardRetire, Board);
    return STATUS_SUCCESS;
}

static VOID OpalEnd(PBOARD Board)
{
    UNREFERENCED_PARAMETER(Board);
}

static const BOARD_KIND OpalKind = {
    .Bytes = sizeof(OPAL), .Flags = DO_BUFFERED_IO, .Class = &OPAL_CLASS,
    .Begin = OpalBegin, .End = OpalEnd, .Start = OpalStart, .Stop = OpalStop, .Wake = OpalWake, .Quiet = OpalQuiet,
    .Drain = OpalDrain, .Io = OpalIo, .Cleanup = OpalCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return BoardDriver(DriverObject, &OpalKind);
}
