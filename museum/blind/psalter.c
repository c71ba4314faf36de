/*
 * psalter: the stops of a church organ on a board behind a PLX PCI 9052, whose four user pins drive the relays. A program keeps a list of combinations in the
 * driver (adds, takes out, lists them), and pulls one by its place in the list.
 *
 * The bug: a combination that is taken out is looked up with a limit that is one too high. With the place just behind the last one, the count of those
 * that move up is -1 as an unsigned number, and memory is moved until there is no more.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: wild-write, wild-read, pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_plx.h"

#define MOST 32
#define RELAYS 4

#define IOCTL_PSALTER_ADD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_PSALTER_OUT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_PSALTER_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F2, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_PSALTER_PULL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F3, METHOD_BUFFERED, FILE_WRITE_DATA)

static const GUID PsalterGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x0a } };

typedef struct _COMBINATION {
    ULONG Relays;               /* a bit for each */
    ULONG Hymn;                 /* the program's own number */
} COMBINATION;

typedef struct _PSALTER {
    UNIT Unit;
    FAST_MUTEX Lock;            /* of the list */
    ULONG Count;
    COMBINATION List[MOST];
    ULONG Pulled;               /* Unit.Hw: relays that are on, or will be when there is power */
} PSALTER;

static VOID PsalterBorn(UNIT *U)
{
    ExInitializeFastMutex(&((PSALTER *)U)->Lock);
}

/* Hw is held, and the card has power. */
static VOID Drive(UNIT *U, ULONG Relays)
{
    ULONG Value = Peek(U, PLX_CNTRL), i;

    for (i = 0; i < RELAYS; i++) {
        Value &= ~(USER_SELECT(i) | USER_DATA(i));
        Value |= USER_OUT(i);
        if (Relays & (1u << i))
            Value |= USER_DATA(i);
    }
    Poke(U, PLX_CNTRL, Value);
}

static VOID PsalterOn(UNIT *U)
{
    Drive(U, ((PSALTER *)U)->Pulled);
}

static VOID PsalterOff(UNIT *U)
{
    Drive(U, 0);
}

static NTSTATUS Add(PSALTER *Psalter, const COMBINATION *Combination)
{
    NTSTATUS Status = STATUS_SUCCESS;

    if (Combination->Relays >> RELAYS)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&Psalter->Lock);
    if (Psalter->Count == MOST)
        Status = STATUS_INSUFFICIENT_RESOURCES;
    else
        Psalter->List[Psalter->Count++] = *Combination;
    ExReleaseFastMutex(&Psalter->Lock);
    return Status;
}

static NTSTATUS TakeOut(PSALTER *Psalter, ULONG Place)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Behind;

    ExAcquireFastMutex(&Psalter->Lock);
#ifndef FIXED
    if (Place > Psalter->Count) {
#else
    if (Place >= Psalter->Count) {
#endif
        Status = STATUS_NO_SUCH_MEMBER;
    } else {
        Behind = Psalter->Count - Place - 1;
        RtlMoveMemory(&Psalter->List[Place], &Psalter->List[Place + 1], Behind * sizeof(COMBINATION));
        Psalter->Count--;
    }
    ExReleaseFastMutex(&Psalter->Lock);
    return Status;
}

static NTSTATUS Pull(PSALTER *Psalter, ULONG Place)
{
    UNIT *U = &Psalter->Unit;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Relays = 0;
    KIRQL Irql;

    ExAcquireFastMutex(&Psalter->Lock);
    if (Place >= Psalter->Count)
        Status = STATUS_NO_SUCH_MEMBER;
    else
        Relays = Psalter->List[Place].Relays;
    ExReleaseFastMutex(&Psalter->Lock);
    if (!NT_SUCCESS(Status))
        return Status;
    KeAcquireSpinLock(&U->Hw, &Irql);
    if (U->Live) {
        Psalter->Pulled = Relays;
        Drive(U, Relays);
    } else {
        Status = STATUS_DEVICE_NOT_READY;
    }
    KeReleaseSpinLock(&U->Hw, Irql);
    return Status;
}

static NTSTATUS PsalterControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PSALTER *Psalter = (PSALTER *)U;
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Data = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    ULONG Bytes = 0;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PSALTER_ADD:
        Status = In == sizeof(COMBINATION) ? Add(Psalter, Data) : STATUS_INFO_LENGTH_MISMATCH;
        break;
    case IOCTL_PSALTER_OUT:
        Status = In == sizeof(ULONG) ? TakeOut(Psalter, *(PULONG)Data) : STATUS_INFO_LENGTH_MISMATCH;
        break;
    case IOCTL_PSALTER_PULL:
        Status = In == sizeof(ULONG) ? Pull(Psalter, *(PULONG)Data) : STATUS_INFO_LENGTH_MISMATCH;
        break;
    case IOCTL_PSALTER_LIST:
        Status = STATUS_SUCCESS;
        ExAcquireFastMutex(&Psalter->Lock);
        if (Out < Psalter->Count * sizeof(COMBINATION)) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            Bytes = Psalter->Count * sizeof(COMBINATION);
            RtlCopyMemory(Data, Psalter->List, Bytes);
        }
        ExReleaseFastMutex(&Psalter->Lock);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(&U->Guard, Irp, Status, Bytes);
}

static const TRADE PsalterTrade = {
    .Size = sizeof(PSALTER),
    .Interface = &PsalterGuid,
    .Windows = 1,
    .Span = PLX_SPAN,
    .Born = PsalterBorn,
    .On = PsalterOn,
    .Off = PsalterOff,
    .Control = PsalterControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &PsalterTrade);
}
