/*
 * colloquy: a table with 16 seats. Each handle has a seat; a program says notes of 60 bytes to another seat, hears those that were said to its own (or
 * waits for the next), and asks which seats are taken.
 *
 * The bug: the seats belong to the started device and are freed when it is stopped or surprisingly removed; handles live longer than that, and closing
 * one then writes into the freed seats.
 *
 * Device: Root\COLLOQUY
 * Rule: use-after-free, write-after-free
 * Needs: removal
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"

#define IOCTL_COLLOQUY_SAY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_COLLOQUY_HEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_COLLOQUY_WHO  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x952, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define SEATS 16
#define NOTES 8

static const GUID ColClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x07}};

typedef struct NOTE {
    ULONG Seat;                 /* to whom, and when it has come: from whom */
    CHAR Text[60];
} NOTE;

typedef struct SEAT {
    PFILE_OBJECT File;          /* NULL: free */
    ULONG First, Kept;
    NOTE Note[NOTES];
} SEAT;

typedef struct WHO {
    ULONG Yours;
    ULONG Taken;                /* a bit for each seat */
} WHO;

typedef struct COL {
    HULL Hull;
    PEN Ears;
    KSPIN_LOCK Lock;
    SEAT *Seats;                /* what is in them is below Lock */
} COL;

static NTSTATUS ColSeats(COL *x)
{
    SEAT *seats = ExAllocatePoolWithTag(NonPagedPool, SEATS * sizeof(SEAT), FRAME_TAG);

    if (!seats)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(seats, SEATS * sizeof(SEAT));
    x->Seats = seats;
    return STATUS_SUCCESS;
}

static ULONG ColSeatOf(PFILE_OBJECT File)
{
    return (ULONG)(ULONG_PTR)File->FsContext;
}

/* Who waits at this seat learns what was said to it. */
static VOID ColServe(COL *x, ULONG Seat)
{
    for (;;) {
        SEAT *seat = &x->Seats[Seat];
        NOTE note;
        KIRQL irql;
        PIRP irp;

        KeAcquireSpinLock(&x->Lock, &irql);
        irp = seat->Kept && seat->File ? PenTake(&x->Ears, seat->File) : NULL;
        if (!irp) {
            KeReleaseSpinLock(&x->Lock, irql);
            return;
        }
        note = seat->Note[seat->First];
        seat->First = (seat->First + 1) % NOTES;
        seat->Kept--;
        KeReleaseSpinLock(&x->Lock, irql);
        *(NOTE *)irp->AssociatedIrp.SystemBuffer = note;
        HullReply(&x->Hull, irp, STATUS_SUCCESS, sizeof note);
    }
}

static NTSTATUS ColSay(COL *x, ULONG From, const NOTE *Said)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG to = Said->Seat;
    SEAT *seat;
    KIRQL irql;

    if (to >= SEATS)
        return STATUS_INVALID_PARAMETER;
    seat = &x->Seats[to];
    KeAcquireSpinLock(&x->Lock, &irql);
    if (!seat->File) {
        status = STATUS_NO_SUCH_MEMBER;
    } else if (seat->Kept == NOTES) {
        status = STATUS_DEVICE_BUSY;
    } else {
        NOTE *note = &seat->Note[(seat->First + seat->Kept++) % NOTES];

        *note = *Said;
        note->Seat = From;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    ColServe(x, to);
    return status;
}

static NTSTATUS ColAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    COL *x = (COL *)h;
    ULONG mine = ColSeatOf(Sl->FileObject), in, room, i;
    WHO who;
    KIRQL irql;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = Sl->Parameters.DeviceIoControl.InputBufferLength;
    room = Sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_COLLOQUY_SAY:
        if (in < sizeof(NOTE))
            return STATUS_BUFFER_TOO_SMALL;
        return ColSay(x, mine, Irp->AssociatedIrp.SystemBuffer);
    case IOCTL_COLLOQUY_HEAR:
        if (room < sizeof(NOTE))
            return STATUS_BUFFER_TOO_SMALL;
        IoMarkIrpPending(Irp);
        PenAdd(&x->Ears, Irp);
        ColServe(x, mine);
        return STATUS_PENDING;
    case IOCTL_COLLOQUY_WHO:
        if (room < sizeof who)
            return STATUS_BUFFER_TOO_SMALL;
        who.Yours = mine;
        who.Taken = 0;
        KeAcquireSpinLock(&x->Lock, &irql);
        for (i = 0; i < SEATS; i++)
            if (x->Seats[i].File)
                who.Taken |= 1u << i;
        KeReleaseSpinLock(&x->Lock, irql);
        *(WHO *)Irp->AssociatedIrp.SystemBuffer = who;
        *Info = sizeof who;
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS ColOpen(HULL *h, PFILE_OBJECT File)
{
    COL *x = (COL *)h;
    KIRQL irql;
    ULONG i;

    if (!x->Seats)
        return STATUS_DEVICE_NOT_READY;
    KeAcquireSpinLock(&x->Lock, &irql);
    for (i = 0; i < SEATS && x->Seats[i].File; i++)
        ;
    if (i < SEATS) {
        x->Seats[i].File = File;
        x->Seats[i].First = x->Seats[i].Kept = 0;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    if (i == SEATS)
        return STATUS_TOO_MANY_OPENED_FILES;
    File->FsContext = (PVOID)(ULONG_PTR)i;
    return STATUS_SUCCESS;
}

static VOID ColClose(HULL *h, PFILE_OBJECT File)
{
    COL *x = (COL *)h;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Seats[ColSeatOf(File)].File = NULL;
    KeReleaseSpinLock(&x->Lock, irql);
}

static VOID ColDrop(HULL *h, PFILE_OBJECT File, NTSTATUS Status)
{
    COL *x = (COL *)h;

    if (!File)
        PenShut(&x->Ears, Status);
    PenDrain(&x->Ears, File, Status);
}

static NTSTATUS ColLay(HULL *h)
{
    COL *x = (COL *)h;

    KeInitializeSpinLock(&x->Lock);
    PenMake(&x->Ears, HullFinish, h);
#ifndef FIXED
    return STATUS_SUCCESS;
#else
    return ColSeats(x);
#endif
}

static NTSTATUS ColRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    (void)h;
    (void)Resources;
#ifndef FIXED
    return ColSeats((COL *)h);
#else
    return STATUS_SUCCESS;
#endif
}

static VOID ColSink(HULL *h, BOOLEAN touch)
{
    (void)h;
    (void)touch;
#ifndef FIXED
    ExFreePoolWithTag(((COL *)h)->Seats, FRAME_TAG);
#endif
}

static VOID ColScrap(HULL *h)
{
    (void)h;
#ifdef FIXED
    ExFreePoolWithTag(((COL *)h)->Seats, FRAME_TAG);
#endif
}

static const HULL_PLAN ColPlan = {
    .Room = sizeof(COL), .Class = &ColClass,
    .Lay = ColLay, .Scrap = ColScrap, .Rise = ColRise, .Sink = ColSink,
    .Drop = ColDrop, .Open = ColOpen, .Close = ColClose, .Ask = ColAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &ColPlan);
}
