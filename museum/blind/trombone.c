/*
 * trombone: a card with four motor slides. A program moves a slide to a position and asks where it is; what it was informed last is kept while the device is stopped, and
 * the slides go back there when it is started again.
 *
 * The bug: each slide's registers are looked up at the first start only. When the device is started again its registers are mapped anew, and the slides
 * still use the mapping from before, which is gone.
 *
 * Device: PCI\VEN_1D6A&DEV_0701
 * Rule: device-memory-not-mapped, stale-resource-used, bad-pointer, wild-write, wild-read, port-of-no-device
 * Needs: nothing
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID TromboneInterface = { 0x6a1f0d51, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x31 } };

#define IOCTL_SLIDE_MOVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* a PLACE */
#define IOCTL_SLIDE_WHERE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E2, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* slide; answers a PLACE */
#define IOCTL_SLIDE_MOVES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E3, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers how often each was moved */

/* of the card: four groups of two registers */
#define SLIDES      4
#define GROUP       0x10
#define GROUP_BYTES 8
#define TARGET      0
#define ACTUAL      4

#define FARTHEST 20000

typedef struct _PLACE {
    ULONG Slide;
    ULONG Target;
    ULONG Actual;
} PLACE;

typedef struct _SLIDE {
    CARD_WINDOW View;     /* the slide's own registers */
    ULONG Target;
    ULONG Moves;
} SLIDE;

typedef struct _TROMBONE {
    STATION Station;
    CARD Card;
    KSPIN_LOCK Lock;      /* targets and moves, and the writing of them */
    SLIDE Slide[SLIDES];
} TROMBONE;

static VOID Restore(TROMBONE *T)
{
    ULONG i;
    KIRQL irql;
    KeAcquireSpinLock(&T->Lock, &irql);
    for (i = 0; i < SLIDES; i++)
        CardWrite(&T->Slide[i].View, TARGET, T->Slide[i].Target);
    KeReleaseSpinLock(&T->Lock, irql);
}

static NTSTATUS TromboneAdded(STATION *S)
{
    KeInitializeSpinLock(&((TROMBONE *)S)->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS TromboneStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    TROMBONE *t = (TROMBONE *)S;
    ULONG i;
    NTSTATUS status = CardClaim(&t->Card, Translated);
    if (!NT_SUCCESS(status))
        return status;
    if (!CardHas(&t->Card, 0, GROUP + SLIDES * GROUP_BYTES)) {
        CardRelease(&t->Card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    for (i = 0; i < SLIDES; i++) {
        SLIDE *s = &t->Slide[i];
#ifndef FIXED
        if (s->View.Base)
            continue;   /* was here before, its target is kept */
#endif
        s->View.Base = t->Card.Window[0].Base + GROUP + i * GROUP_BYTES;
        s->View.Length = GROUP_BYTES;
        s->View.Port = t->Card.Window[0].Port;
    }
    Restore(t);
    return STATUS_SUCCESS;
}

static VOID TromboneStop(STATION *S, BOOLEAN Reachable)
{
    UNREFERENCED_PARAMETER(Reachable);
    CardRelease(&((TROMBONE *)S)->Card);
}

static VOID TromboneWake(STATION *S)
{
    Restore((TROMBONE *)S);
}

static VOID Move(TROMBONE *T, const PLACE *To)
{
    SLIDE *s = &T->Slide[To->Slide];
    KIRQL irql;
    KeAcquireSpinLock(&T->Lock, &irql);
    s->Target = To->Target;
    s->Moves++;
    CardWrite(&s->View, TARGET, s->Target);
    KeReleaseSpinLock(&T->Lock, irql);
}

static NTSTATUS TromboneIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    TROMBONE *t = (TROMBONE *)S;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    PLACE *place = buffer;
    ULONG in, out, i, *counts = buffer;
    KIRQL irql;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SLIDE_MOVE:
        if (in < sizeof *place || place->Slide >= SLIDES || place->Target > FARTHEST)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        Move(t, place);
        return StationEnd(S, Irp, STATUS_SUCCESS, 0);
    case IOCTL_SLIDE_WHERE:
        if (in < sizeof(ULONG) || out < sizeof *place || place->Slide >= SLIDES)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&t->Lock, &irql);
        place->Target = t->Slide[place->Slide].Target;
        place->Actual = CardRead(&t->Slide[place->Slide].View, ACTUAL);
        KeReleaseSpinLock(&t->Lock, irql);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof *place);
    case IOCTL_SLIDE_MOVES:
        if (out < SLIDES * sizeof(ULONG))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&t->Lock, &irql);
        for (i = 0; i < SLIDES; i++)
            counts[i] = t->Slide[i].Moves;
        KeReleaseSpinLock(&t->Lock, irql);
        return StationEnd(S, Irp, STATUS_SUCCESS, SLIDES * sizeof(ULONG));
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(TROMBONE),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &TromboneInterface,
    .Added = TromboneAdded,
    .Start = TromboneStart,
    .Stop = TromboneStop,
    .Wake = TromboneWake,
    .Io = TromboneIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
